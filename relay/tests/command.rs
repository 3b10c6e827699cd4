//! The command itself: what scripts rely on.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};

use byway_wire::RelayUrl;

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_byway-relay"));
    command.args(args);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BYWAY_RELAY_")) {
        command.env_remove(name);
    }
    command
}
fn output(args: &[&str]) -> Output {
    command(args).output().unwrap()
}
fn running(args: &[&str]) -> (Child, String) {
    let mut child = command(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    child.stdout = Some(out.into_inner());
    (child, line.trim_end().to_owned())
}
fn terminate(child: &mut Child) -> (Option<i32>, String) {
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    let mut rest = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut rest)
        .unwrap();
    (child.wait().unwrap().code(), rest)
}

#[test]
fn without_a_word_about_admission_it_does_not_run() {
    for args in [&[][..], &["serve"], &["serve", "--listen", "127.0.0.1:0"]] {
        let output = output(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("--config") && text.contains("--open") && text.contains("--dev"));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_configuration_that_is_not_there_is_an_error_that_names_it() {
    let output = output(&["serve", "--config", "/nonexistent/relay.toml"]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("/nonexistent/relay.toml"), "{text}");
}

#[test]
fn open_and_dev_exclude_each_other() {
    assert_eq!(output(&["--open", "--dev"]).status.code(), Some(2));
}

#[test]
fn dev_does_not_listen_where_others_can_reach_it() {
    let output = output(&["--dev", "--listen", "0.0.0.0:0"]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("0.0.0.0:0") && text.contains("--open"),
        "{text}"
    );
}

#[test]
fn dev_prints_one_line_when_it_is_ready_and_ends_on_sigterm() {
    for args in [&["--dev"][..], &["serve", "--dev"]] {
        let (mut child, line) = running(args);
        let url: RelayUrl = line.parse().unwrap();
        assert_eq!(url.host(), "127.0.0.1");
        assert!(url.pin().is_some());
        std::net::TcpStream::connect((url.host(), url.port())).unwrap();
        let (code, rest) = terminate(&mut child);
        assert_eq!((code, rest.as_str()), (Some(0), ""));
    }
}

#[test]
fn logs_in_a_file_have_no_colours() {
    let mut child = command(&["--dev"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    let mut lines = Vec::new();
    for line in log.lines().map(Result::unwrap) {
        lines.push(line);
        if lines.last().is_some_and(|line| line.contains("ready")) {
            break;
        }
    }
    terminate(&mut child);
    let text = lines.join("\n");
    assert!(text.contains("ready") && !text.contains('\u{1b}'), "{text}");
    // What the kernel granted decides how much a busy shard loses.
    assert!(text.contains("UDP buffers"), "{text}");
}

#[test]
fn open_listens_where_it_is_told() {
    let (mut child, line) = running(&[
        "--open",
        "--listen",
        "127.0.0.1:0",
        "--public-host",
        "relay.example",
    ]);
    let url: RelayUrl = line.parse().unwrap();
    assert_eq!(url.host(), "relay.example");
    assert!(
        url.pin().is_some(),
        "its own certificate is known by its pin only"
    );
    assert_eq!(terminate(&mut child).0, Some(0));
}

#[test]
fn a_port_in_use_is_an_error() {
    let (mut child, line) = running(&["--dev"]);
    let url: RelayUrl = line.parse().unwrap();
    let listen = format!("127.0.0.1:{}", url.port());
    let second = output(&["--open", "--listen", &listen]);
    assert_eq!(second.status.code(), Some(1));
    let text = String::from_utf8(second.stderr).unwrap();
    assert!(
        text.contains(&listen) && text.contains("--listen"),
        "{text}"
    );
    terminate(&mut child);
}

/// Gone with the test.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("byway-relay-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}
impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_key_is_made_once_and_signs_tokens_that_a_relay_by_configuration_asks_for() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("keygen");
    let key = folder.file("issuer.key");
    let made = output(&["keygen", "--out", &key, "--jwk"]);
    assert!(made.status.success());
    let said = String::from_utf8(made.stdout).unwrap();
    assert!(
        said.starts_with(&format!("{key}.pub\n{{\"alg\":\"EdDSA\"")),
        "{said}"
    );
    let mode = std::fs::metadata(&key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = std::fs::read(&key).unwrap();
    let again = output(&["keygen", "--out", &key]);
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(
        std::fs::read(&key).unwrap(),
        before,
        "tokens would be worth nothing"
    );

    let node = byway_wire::SecretKey::from_bytes(&[1; 32])
        .node_id()
        .to_string();
    let token = output(&[
        "token", "--key", &key, "--node", &node, "--role", "agent", "--for", "12h",
    ]);
    assert!(token.status.success(), "{token:?}");
    let token = String::from_utf8(token.stdout).unwrap();
    assert_eq!((token.lines().count(), token.matches('.').count()), (1, 2));

    let config = folder.file("relay.toml");
    let text = format!(
        "admission = \"tokens\"\nlisten = [\"127.0.0.1:0\"]\n[tokens]\nkeys = [\"{key}.pub\"]\n"
    );
    std::fs::write(&config, text).unwrap();
    let checked = output(&["check-config", &config]);
    let said = String::from_utf8(checked.stdout).unwrap();
    assert!(
        checked.status.success() && said.contains("good") && said.contains("1 key for byway-relay"),
        "{said}"
    );
    let (mut child, line) = running(&["--config", &config]);
    assert!(line.parse::<RelayUrl>().is_ok(), "{line}");
    assert_eq!(terminate(&mut child).0, Some(0));
}

#[test]
fn a_configuration_is_checked_with_what_its_files_hold() {
    let folder = Folder::new("check");
    let config = folder.file("relay.toml");
    let cases = [
        (
            "admission = \"tokens\"\n[tokens]\nkeys = [\"/nonexistent.pub\"]\n",
            "/nonexistent.pub",
        ),
        (
            "admission = \"open\"\ncert = \"/nonexistent.pem\"\nkey = \"/nonexistent.key\"\n",
            "/nonexistent.pem",
        ),
        ("admission = \"open\"\nnmae = \"x\"\n", "line 2"),
        ("admission = \"open\"\nshards = 1000\n", "line 2"),
        ("", "admission"),
    ];
    for (text, expected) in cases {
        std::fs::write(&config, text).unwrap();
        let checked = output(&["check-config", &config]);
        assert_eq!(checked.status.code(), Some(2), "{text}");
        let said = String::from_utf8(checked.stderr).unwrap();
        assert!(said.contains(expected) && said.contains(&config), "{said}");
    }
}

#[test]
fn a_value_is_taken_from_a_flag_before_the_environment_and_from_that_before_the_file() {
    let folder = Folder::new("order");
    let config = folder.file("relay.toml");
    std::fs::write(
        &config,
        "admission = \"open\"\nname = \"file\"\nregion = \"file\"\n",
    )
    .unwrap();
    let checked = |args: &[&str]| {
        let mut command = command(&["check-config", &config]);
        let output = command
            .args(args)
            .env("BYWAY_RELAY_NAME", "environment")
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(checked(&[]).contains("environment, in region file"));
    assert!(checked(&["--name", "flag"]).contains("flag, in region file"));
}
