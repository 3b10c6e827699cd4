//! How a relay ends, what does not end it, and what outlives it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]

mod common;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use byway_wire::RelayUrl;
use byway_wire::relay::control::{Control, Role};
use common::SOON;
use common::process::{Running, command, output};
use common::tls::TlsNode;
use tempfile::tempdir;

/// It has no certificate files, so nobody else listens for the signal.
#[test]
fn sighup_does_not_end_a_relay() {
    let mut relay = Running::logging(&["--dev"]);
    relay.log_until("ready");
    relay.signal("-HUP");
    relay.log_until("SIGHUP");
    assert_eq!(relay.terminated().0, Some(0));
}

/// A relay with a control socket in this folder, and the socket.
fn controlled(folder: &Path, drain: &str) -> (Running, String) {
    let socket = folder.join("control.sock").display().to_string();
    let args = ["--dev", "--control", &socket, "--drain-seconds", drain];
    (Running::start(&args), socket)
}

/// A node that has nowhere to go, so that the relay has somebody to wait for.
fn stay(url: &RelayUrl) -> (tokio::runtime::Runtime, TlsNode) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let node = runtime.block_on(TlsNode::welcome_at(url, 1, Role::Client));
    (runtime, node.unwrap())
}

#[test]
fn drain_says_who_is_left_and_ends_with_the_relay() {
    let folder = tempdir().unwrap();
    let (mut relay, socket) = controlled(folder.path(), "3600");
    let (_runtime, _node) = stay(&relay.url());
    let drained = output(&["drain", "--within", "1", &socket]);
    let text = String::from_utf8_lossy(&drained.stderr);
    assert_eq!(drained.status.code(), Some(0), "{text}");
    assert!(
        text.contains("1 links left") && text.contains("it has stopped"),
        "{text}"
    );
    assert_eq!(relay.ended().0, Some(0));
    assert!(!Path::new(&socket).exists());
    // And where there is none.
    let nobody = output(&["drain", &socket]);
    let text = String::from_utf8_lossy(&nobody.stderr);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(
        text.contains(&socket) && text.contains("--control"),
        "{text}"
    );
}

#[test]
fn a_second_sigterm_ends_a_relay_that_drains_and_so_does_an_interrupt() {
    let folder = tempdir().unwrap();
    for signal in ["-TERM", "-INT"] {
        let (mut relay, _) = controlled(folder.path(), "3600");
        let (runtime, mut node) = stay(&relay.url());
        relay.signal("-TERM");
        let told = runtime.block_on(node.hear());
        let hour = 3_600_000;
        assert!(matches!(told, Control::GoingAway { deadline_ms, .. } if deadline_ms == hour));
        relay.signal(signal);
        assert_eq!(relay.ended().0, Some(0), "{signal}");
    }
}

/// Whoever hands sockets over numbers them from 3.
fn with_sockets(fds: &[i32], args: &[&str]) -> Command {
    let moves: String = (3..)
        .zip(fds)
        .map(|(to, from)| format!("{to}<&{from} "))
        .collect();
    let exe = env!("CARGO_BIN_EXE_byway-relay");
    let script = format!("exec {moves}; LISTEN_PID=$$ exec {exe} \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, "relay"]).args(args);
    command.env("LISTEN_FDS", fds.len().to_string());
    command
}

#[test]
fn sockets_that_are_handed_over_outlive_the_relay() {
    use std::os::fd::AsRawFd;
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = tcp.local_addr().unwrap();
    let udp = std::net::UdpSocket::bind(addr).unwrap();
    for fd in [rustix::fd::AsFd::as_fd(&tcp), rustix::fd::AsFd::as_fd(&udp)] {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).unwrap();
    }
    let fds = [tcp.as_raw_fd(), udp.as_raw_fd()];
    let here = addr.to_string();
    // A connection made while there is no relay waits for it.
    let waiting = std::net::TcpStream::connect(addr).unwrap();
    for _ in 0..2 {
        let mut command = with_sockets(&fds, &["--dev", "--listen", &here]);
        let mut relay = Running::spawn(command.stderr(Stdio::null()));
        let url = relay.url();
        assert_eq!(url.port(), addr.port());
        drop(stay(&url));
        assert_eq!(relay.terminated().0, Some(0));
    }
    drop(waiting);
    // Sockets that the configuration does not name are a mistake, not a guess.
    let other = with_sockets(&fds, &["--dev", "--listen", "127.0.0.1:0"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&other.stderr);
    assert_eq!(other.status.code(), Some(1));
    assert!(text.contains(&here) && text.contains("'listen'"), "{text}");
}

fn named(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

fn fifo(path: &str) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Waits until somebody opens the pipe to read it, who then waits for what nobody writes while the result is held.
fn held_by_a_reader(path: &str) -> File {
    let (send, opened) = mpsc::channel();
    let path = path.to_owned();
    // Comes back when there is a reader.
    std::thread::spawn(move || send.send(File::options().write(true).open(path)));
    opened.recv_timeout(SOON).expect("a reader").unwrap()
}

#[test]
fn a_relay_that_cannot_read_its_files_at_the_start_can_be_told_to_end() {
    let folder = tempdir().unwrap();
    let [config, keys] = ["relay.toml", "keys"].map(|name| named(folder.path(), name));
    fifo(&keys);
    let text = format!(
        "admission = \"tokens\"\nlisten = [\"127.0.0.1:0\"]\n[tokens]\nkeys = [\"{keys}\"]\n"
    );
    std::fs::write(&config, text).unwrap();
    let mut relay = Running::start(&["--config", &config]);
    let _held = held_by_a_reader(&keys);
    assert_eq!(relay.terminated().0, Some(0));
}

#[test]
fn a_file_that_hangs_while_it_is_read_stops_neither_the_relay_nor_its_end() {
    let folder = tempdir().unwrap();
    let names = ["relay.toml", "issuer.key", "revoked", "new"];
    let [config, key, revoked, new] = names.map(|name| named(folder.path(), name));
    assert!(output(&["keygen", "--out", &key]).status.success());
    std::fs::write(&revoked, "# nobody\n").unwrap();
    let text = format!(
        "admission = \"tokens\"\nlisten = [\"127.0.0.1:0\"]\n[tokens]\nkeys = [\"{key}.pub\"]\nrevoked = \"{revoked}\"\n"
    );
    std::fs::write(&config, text).unwrap();
    let mut relay = Running::start(&["--config", &config]);
    let url = relay.url();
    fifo(&new);
    std::fs::rename(&new, &revoked).unwrap();
    let _held = held_by_a_reader(&revoked);
    std::net::TcpStream::connect((url.host(), url.port())).unwrap();
    assert_eq!(relay.terminated().0, Some(0));
}

/// The relay's last words go to its nodes, and to a disk that takes none.
#[test]
fn a_relay_that_stops_ends_at_once_when_it_is_told_again() {
    let folder = tempdir().unwrap();
    let audit = named(folder.path(), "audit");
    fifo(&audit);
    let mut both = File::options().read(true).write(true).open(&audit).unwrap();
    both.write_all(&[b'\n'; 65_536]).unwrap();
    for (again, expected) in [(false, 0), (true, 1)] {
        let mut relay = Running::logging(&["--dev", "--audit", &audit]);
        let _node = stay(&relay.url());
        relay.signal("-TERM");
        relay.log_until("stopping");
        if again {
            // The second signal is one only if the first was taken, which the log has said; the disk holds it up for two seconds.
            relay.signal("-TERM");
        }
        assert_eq!(relay.ended().0, Some(expected));
    }
}

/// A terminal that is held, or a journal whose disk hangs.
#[test]
fn a_log_that_nobody_reads_stops_neither_the_relay_nor_its_end() {
    let (_unread, mut full) = std::io::pipe().unwrap();
    full.write_all(&[b'\n'; 65_536]).unwrap();
    let mut relay = Running::spawn(command(&["--dev"]).stderr(full));
    let _node = stay(&relay.url());
    assert_eq!(relay.terminated().0, Some(0));
}
