//! Variables that look like ours and mean nothing.
//!
//! A mistyped flag is an error, and so is a mistyped key in the file: a relay that runs with something else than its operator wrote is worse
//! than one that does not run. The environment is no exception. Kubernetes puts variables of its own there, named after services; those of
//! a service called `byway-relay` begin as ours do, and are left alone.

use std::ffi::OsString;

use clap::Command;
use strsim::levenshtein;

/// What all of ours begin with.
const PREFIX: &str = "BYWAY_RELAY_";
/// Read by other means than by clap.
const BESIDES: [&str; 1] = [super::filter::VARIABLE];

/// A node's, that begins as ours do: `byway` reads where its relay map is.
const OF_NODES: [&str; 1] = ["BYWAY_RELAY_MAP"];

/// An error that names every variable that begins like ours and is none, and what it was probably meant to be.
pub(super) fn check(
    command: &Command,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> anyhow::Result<()> {
    let mut known: Vec<String> = BESIDES.map(str::to_owned).to_vec();
    collect(command, &mut known);
    let unknown: Vec<String> = environment
        .filter_map(|(name, value)| {
            let name = name.to_string_lossy().into_owned();
            let rest = name.strip_prefix(PREFIX)?;
            let left_alone = known.contains(&name)
                || OF_NODES.contains(&name.as_str())
                || is_service_link(rest, &value.to_string_lossy());
            (!left_alone).then_some(name)
        })
        .collect();
    let problems: Vec<String> = unknown.iter().map(|name| problem(name, &known)).collect();
    anyhow::ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}

fn problem(name: &str, known: &[String]) -> String {
    let nearest = known.iter().min_by_key(|other| levenshtein(name, other));
    match nearest {
        Some(nearest) => format!(
            "the environment sets {name}, which means nothing here; did you mean {nearest}? Rename or unset it"
        ),
        None => format!("the environment sets {name}, which means nothing here; unset it"),
    }
}

fn collect(command: &Command, known: &mut Vec<String>) {
    let named = command.get_arguments().filter_map(|arg| arg.get_env());
    known.extend(named.map(|name| name.to_string_lossy().into_owned()));
    for inner in command.get_subcommands() {
        collect(inner, known);
    }
}

/// Whether Kubernetes sets it for a service (`enableServiceLinks`): `..._SERVICE_HOST`, `..._SERVICE_PORT_HTTPS`, `..._PORT=tcp://...`,
/// `..._PORT_443_TCP_ADDR`.
fn is_service_link(rest: &str, value: &str) -> bool {
    let words: Vec<&str> = rest.split('_').collect();
    let service = words
        .windows(2)
        .any(|two| matches!(two, ["SERVICE", "HOST" | "PORT"]));
    let port = words.windows(3).any(|three| {
        matches!(three, ["PORT", number, "TCP" | "UDP" | "SCTP"] if number.parse::<u16>().is_ok())
    });
    let url = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.starts_with(scheme));
    service || port || (words.last() == Some(&"PORT") && url)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn checked(variables: &[(&str, &str)]) -> anyhow::Result<()> {
        let variables = variables.iter().map(|(k, v)| (k.into(), v.into()));
        check(&crate::cli::Cli::command(), variables)
    }

    #[test]
    fn ours_and_others_are_left_alone() {
        checked(&[
            ("BYWAY_RELAY_LOG", "debug"),
            ("BYWAY_RELAY_CONFIG", "relay.toml"),
            ("BYWAY_RELAY_MAX_CHANNELS", "7"),
            ("BYWAY_RELAY_ACME_DOMAIN", "a.example"),
            ("BYWAY_RELAY", "https://relay.example"),
            ("BYWAY_RELAY_MAP", "relays.toml"),
            ("BYWAY_KEY", "x"),
            ("PATH", "/bin"),
            // Of a service `byway-relay`, and of one `byway-relay-metrics`.
            ("BYWAY_RELAY_SERVICE_HOST", "10.0.0.1"),
            ("BYWAY_RELAY_SERVICE_PORT", "443"),
            ("BYWAY_RELAY_SERVICE_PORT_HTTPS", "443"),
            ("BYWAY_RELAY_PORT", "tcp://10.0.0.1:443"),
            ("BYWAY_RELAY_PORT_443_TCP", "tcp://10.0.0.1:443"),
            ("BYWAY_RELAY_PORT_3478_UDP_PROTO", "udp"),
            ("BYWAY_RELAY_METRICS_PORT_9464_TCP_ADDR", "10.0.0.2"),
        ])
        .unwrap();
    }

    #[test]
    fn a_mistyped_one_is_named_with_what_it_was_meant_to_be() {
        for (typed, meant) in [
            ("BYWAY_RELAY_PUBLIC_HSOT", "BYWAY_RELAY_PUBLIC_HOST"),
            ("BYWAY_RELAY_TOKEN_KEYS", "BYWAY_RELAY_TOKEN_KEY"),
            ("BYWAY_RELAY_CONFG", "BYWAY_RELAY_CONFIG"),
            ("BYWAY_RELAY_public_host", "BYWAY_RELAY_PUBLIC_HOST"),
            ("BYWAY_RELAY_LOGS", "BYWAY_RELAY_LOG"),
            // No URL: nobody but a person wrote it.
            ("BYWAY_RELAY_PORT", "BYWAY_RELAY_"),
        ] {
            let error = checked(&[(typed, "x"), ("BYWAY_RELAY_NAME", "y")]).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(&format!("sets {typed},")), "{text}");
            assert!(text.contains(&format!("did you mean {meant}")), "{text}");
            assert_eq!(text.lines().count(), 1, "{text}");
        }
        let two = checked(&[("BYWAY_RELAY_A", ""), ("BYWAY_RELAY_B", "")]);
        assert_eq!(two.unwrap_err().to_string().lines().count(), 2);
    }
}
