//! `byway ssh`: the system's ssh, with `byway stdio` as its ProxyCommand.
//!
//! The host key is kept under the agent's node id, so that it stays the same for every alias and every ticket of the
//! agent, and differs for every other. This process becomes ssh: its exit code and its signals are ssh's own.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::args;
use crate::client;
use crate::failure::{Code, Failure};
use crate::peer::{self, Peer};

pub(crate) fn run(args: &args::Ssh, verbose: u8) -> Result<(), Failure> {
    client::check(&args.tunnel)?;
    let (peer_text, ssh_args) = args.split()?;
    let peer = Peer::find(peer_text)?;
    let exe = std::env::current_exe().map_err(|error| {
        Failure::new(Code::Failed, "cannot find this program's file").why(error)
    })?;
    let mut ssh = Command::new("ssh");
    // A ticket on a command line is there for everybody on this machine to read, as long as ssh runs.
    let peer_word = if peer::is_ticket(peer_text) {
        ssh.env(peer::TICKET_VARIABLE, peer_text);
        peer::FROM_ENVIRONMENT
    } else {
        peer_text
    };
    // So is a proxy's password; the `stdio` under ssh reads it where this process may have had it from.
    if let Some(proxy) = &args.tunnel.proxy {
        ssh.env("BYWAY_PROXY", proxy.as_written());
    }
    if let Some(token) = &args.tunnel.token.token {
        ssh.env("BYWAY_TOKEN", token.as_written());
    }
    let proxy = proxy_command(&exe.to_string_lossy(), verbose, &args.tunnel, peer_word);
    // With the key's beginning: two agents that call themselves alike must not share what ssh keeps by host name.
    let host = format!(
        "byway-{}-{}",
        host_label(&peer.label),
        peer.ticket.node.short()
    );

    ssh.arg("-o").arg(format!("ProxyCommand={proxy}"));
    ssh.arg("-o")
        .arg(format!("HostKeyAlias=byway-{}", peer.ticket.node));
    ssh.args(arguments(ssh_args, &host));
    let error = ssh.exec();
    Err(Failure::new(Code::Failed, "cannot run ssh")
        .why(error)
        .hint("install OpenSSH's client, or use byway forward PEER 2222:localhost:22"))
}

/// ssh hands it to a shell, and replaces % sequences before.
fn proxy_command(exe: &str, verbose: u8, tunnel: &args::Tunnel, peer: &str) -> String {
    let mut words = vec![exe.to_owned(), "stdio".to_owned()];
    words.extend((0..verbose).map(|_| "-v".to_owned()));
    if tunnel.no_direct {
        words.push("--no-direct".to_owned());
    }
    // Always: the environment may say otherwise than the command line did.
    words.push(match tunnel.link {
        args::Link::Auto => "--link=auto".to_owned(),
        args::Link::Udp => "--link=udp".to_owned(),
        args::Link::Tls => "--link=tls".to_owned(),
    });
    if tunnel.no_port_mapping {
        words.push("--no-port-mapping".to_owned());
    }
    if let Some(seconds) = tunnel.port_mapping_lifetime {
        words.push(format!("--port-mapping-lifetime={seconds}"));
    }
    if tunnel.no_spray {
        words.push("--no-spray".to_owned());
    }
    if let Some(file) = &tunnel.token.token_file {
        words.push(format!("--token-file={}", file.display()));
    }
    if let Some(command) = &tunnel.token.token_command {
        words.push(format!("--token-command={command}"));
    }
    words.push(format!("--congestion={}", tunnel.congestion.name()));
    words.push(peer.to_owned());
    let quoted: Vec<_> = words
        .iter()
        .map(|word| quote(word).replace('%', "%%"))
        .collect();
    format!("{} localhost:%p", quoted.join(" "))
}

fn quote(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./=@:".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// What of the label can stand in a host name.
fn host_label(label: &str) -> String {
    label
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                c
            } else {
                '-'
            }
        })
        .collect()
}

/// Options of ssh that take a value (ssh(1), the getopt string of OpenSSH 9 and 10).
const WITH_VALUE: &str = "BbcDEeFIiJLlmOoPpQRSWw";

/// ssh's arguments: the user's, with the destination in its place. Their first operand is the destination if it is
/// written as one, `USER@` or `USER@HOST`; otherwise ours goes in front (ssh reads options behind it as well), and all
/// operands are the command.
fn arguments(user: &[String], host: &str) -> Vec<String> {
    let mut words = user.to_vec();
    match first_operand(user).map(|at| (at, user[at].as_str())) {
        Some((at, word)) if is_destination(word) => {
            if word.ends_with('@') {
                words[at].push_str(host);
            }
        }
        _ => words.insert(0, host.to_owned()),
    }
    words
}

fn is_destination(word: &str) -> bool {
    let plain = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    match word.split_once('@') {
        Some((user, host)) => !user.is_empty() && plain(user) && plain(host),
        None => false,
    }
}

fn first_operand(words: &[String]) -> Option<usize> {
    let mut at = 0;
    while let Some(word) = words.get(at) {
        if word == "--" {
            return (at + 1 < words.len()).then_some(at + 1);
        }
        let Some(letters) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
            return Some(at);
        };
        // In a cluster such as -vp, a letter with a value ends it; the value is the rest, or the next word.
        let valued = letters.find(|letter| WITH_VALUE.contains(letter));
        at += match valued {
            Some(position) if position + 1 == letters.len() => 2,
            _ => 1,
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(words: &[&str]) -> Vec<String> {
        let words: Vec<_> = words.iter().map(ToString::to_string).collect();
        arguments(&words, "byway-work")
    }

    #[test]
    fn the_destination_goes_in_front_of_options_and_command() {
        assert_eq!(with(&[]), ["byway-work"]);
        assert_eq!(with(&["uptime"]), ["byway-work", "uptime"]);
        assert_eq!(
            with(&["-p", "2222", "-v", "uptime"]),
            ["byway-work", "-p", "2222", "-v", "uptime"]
        );
        assert_eq!(with(&["-N", "-L1:a:2"]), ["byway-work", "-N", "-L1:a:2"]);
    }

    #[test]
    fn a_user_makes_the_first_operand_the_destination() {
        assert_eq!(
            with(&["-F", "x@y", "root@", "id"]),
            ["-F", "x@y", "root@byway-work", "id"]
        );
        assert_eq!(
            with(&["-vp", "22", "root@desk", "id"]),
            ["-vp", "22", "root@desk", "id"]
        );
        assert_eq!(with(&["echo", "a@b"]), ["byway-work", "echo", "a@b"]);
        assert_eq!(with(&["echo a@b"]), ["byway-work", "echo a@b"]);
    }

    #[test]
    fn what_the_shell_or_ssh_would_change_is_quoted() {
        assert_eq!(quote("/usr/bin/byway"), "/usr/bin/byway");
        assert_eq!(quote("@my file"), "'@my file'");
        assert_eq!(quote("it's"), r"'it'\''s'");
        let tunnel = args::Tunnel {
            no_direct: true,
            link: args::Link::Tls,
            ..args::Tunnel::default()
        };
        assert_eq!(
            proxy_command("/x/byway", 2, &tunnel, "@100%.ticket"),
            "/x/byway stdio -v -v --no-direct --link=tls --congestion=cubic '@100%%.ticket' localhost:%p"
        );
    }
}
