//! Every scenario of the laboratory, as tests. Called with `tool ...`, it is the tools they start instead.

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|a| a == "tool") {
        if let Err(error) = byway_lab::tool::main(&args[1..]) {
            eprintln!("{error:#}");
            std::process::exit(1);
        }
        return;
    }
    std::process::exit(byway_lab::harness::main(&byway_lab::scenario::all()));
}
