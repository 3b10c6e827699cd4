//! `byway-lab [NAME...]`: plays scenarios of the laboratory for a person to watch.

use std::io::Write as _;
use std::process::exit;

use byway_lab::peers::{Form, beside_iroh};
use byway_lab::{Kind, harness, scenario, tool};

const HELP: &str = "\
Plays scenarios of the laboratory: real kernels, real NATs, real programs. Needs root.

    byway-lab list              what there is, and what cannot run here
    byway-lab NAME...           plays those whose names contain NAME
    byway-lab all               plays all of them
    byway-lab table             ten kinds of network against each other, as a table (minutes)
    byway-lab table all         the same with every kind there is (thrice as many minutes)
    byway-lab table KIND...     these kinds against every kind, and every kind against these
    byway-lab first-byte        how long the first answer takes, beside the round trips it needs
    byway-lab beside [RUNS]     a tunnel and plain TCP at one narrow place: the share of each (5 runs of each, minutes)
    byway-lab holes [RUNS]      silence after the direct path died, under transfers and typing (50 runs of six cases, minutes)
    byway-lab roaming [RUNS]    changes of network: how long nothing arrives (10 runs of each, minutes)
    byway-lab crossings [RUNS]  hard NATs crossed by chance: how many in time (50 runs, minutes)
    byway-lab ladder [RUNS] [WORD...]   transfers over ever worse links beside plain TCP, as a table (long; 20 runs of each):
                                those with WORD in their titles, as \"cubic\" or \"20 %\"
    byway-lab iroh [RUNS] [json]
                                transfers through a relay beside iroh's through its own, as a table or as JSON (minutes; 5 runs);
                                `cargo xtask bench iroh` builds what it needs and calls it

The programs are taken from target/release (or BYWAY_BIN_DIR), those of peers from target/peers/release (or BYWAY_PEERS_DIR):
    cargo build --release -p byway-cli -p byway-relay

    BYWAY_LAB_SIZE=1GiB         size of bulk transfers (32MiB; beside iroh 1GiB)
    BYWAY_LAB_KEEP=1            keeps the files of each world in the temporary directory
    BYWAY_LAB_VERBOSE=1         runs the programs with -v; what else is given is their RUST_LOG
";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] | ["help" | "-h" | "--help", ..] => print!("{HELP}"),
        ["tool", ..] => {
            if let Err(error) = tool::main(&args[1..]) {
                eprintln!("{error:#}");
                exit(1);
            }
        }
        ["table", kinds @ ..] => exit(i32::from(!table(kinds))),
        ["first-byte"] => exit(i32::from(!scenario::first_byte::table())),
        ["ladder"] => exit(i32::from(!scenario::ladder::table(None, &[]))),
        ["ladder", runs, words @ ..] => exit(i32::from(!scenario::ladder::table(
            Some(number(runs)),
            words,
        ))),
        [table @ ("beside" | "crossings" | "holes" | "roaming")] => exit(often(table, None)),
        [table @ ("beside" | "crossings" | "holes" | "roaming"), runs] => {
            exit(often(table, Some(number(runs))))
        }
        ["iroh", rest @ ..] => exit(i32::from(!iroh(rest))),
        ["list"] => {
            let mut out = std::io::stdout().lock();
            for scenario in scenario::all() {
                let line = match scenario.obstacle() {
                    None => writeln!(out, "{}", scenario.name),
                    Some(why) => writeln!(out, "{}   (cannot run here: {why})", scenario.name),
                };
                // Whoever reads us has seen enough.
                if line.is_err() {
                    break;
                }
            }
        }
        patterns => {
            let chosen: Vec<_> = scenario::all()
                .into_iter()
                .filter(|s| patterns.iter().any(|p| *p == "all" || s.name.contains(p)))
                .collect();
            if chosen.is_empty() {
                eprintln!(
                    "no scenario has {} in its name; `byway-lab list` shows all",
                    words.join(" or ")
                );
                exit(2);
            }
            let failed = chosen.iter().filter(|s| !harness::play(s)).count();
            println!(
                "{} played, {failed} of them failed or could not run",
                chosen.len()
            );
            exit(i32::from(failed > 0));
        }
    }
}

/// Prints one of the tables of many runs. Gives the exit code.
fn often(table: &str, runs: Option<usize>) -> i32 {
    let fine = match table {
        "beside" => scenario::beside::table(runs),
        "crossings" => scenario::crossings::table(runs),
        "holes" => scenario::holes::table(runs),
        _ => scenario::roaming::table(runs),
    };
    i32::from(!fine)
}

fn iroh(words: &[&str]) -> bool {
    let (runs, form) = match words {
        [runs @ .., "json"] => (runs, Form::Json),
        runs => (runs, Form::Table),
    };
    match runs {
        [] => beside_iroh(None, form),
        [runs] => beside_iroh(Some(number(runs)), form),
        _ => {
            eprintln!("byway-lab iroh [RUNS] [json]");
            exit(2)
        }
    }
}

fn table(kinds: &[&str]) -> bool {
    use scenario::matrix::table;
    let all = Kind::ALL.map(|(_, kind)| kind);
    let all = all.as_slice();
    let common = &all[..Kind::COMMON];
    match kinds {
        [] => table(&[(common, common)]),
        ["all"] => table(&[(all, all)]),
        _ => {
            let chosen: Vec<Kind> = kinds.iter().map(|name| kind(name)).collect();
            let others: Vec<Kind> = all
                .iter()
                .filter(|k| !chosen.contains(k))
                .copied()
                .collect();
            table(&[(&chosen, all), (&others, &chosen)])
        }
    }
}

/// A kind by its name in the table.
fn kind(name: &str) -> Kind {
    Kind::named(name).unwrap_or_else(|| {
        let known = Kind::ALL.map(|(name, _)| name);
        eprintln!("{name}: {}", known.join(", "));
        exit(2)
    })
}

/// How many runs a person wants.
fn number(runs: &str) -> usize {
    let number = runs.parse().ok().filter(|number| *number > 0);
    number.unwrap_or_else(|| {
        eprintln!("{runs}: how many runs is that?");
        exit(2)
    })
}
