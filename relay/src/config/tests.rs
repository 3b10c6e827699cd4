use std::time::Duration;

use byway_relay_core::Admission;

use super::*;
use crate::{AdmissionSource, Limits, NodeRate};

const GOOD: &str = r#"listen = ["127.0.0.1:4433", "[::1]:4433"]
name = "fra-1"
region = "fra"
admission = "open"
"#;

fn resolve(text: &str) -> anyhow::Result<ServerConfig> {
    File::parse(text)?.resolve(Settings::default())
}

fn error(text: &str) -> String {
    format!("{:#}", resolve(text).unwrap_err())
}

#[test]
fn a_whole_file_is_read() {
    let config = resolve(GOOD).unwrap();
    assert_eq!(config.listen.len(), 2);
    assert_eq!(
        (config.name.as_str(), config.region.as_str()),
        ("fra-1", "fra")
    );
    assert_eq!(config.admission, AdmissionSource::Fixed(Admission::Open));
}

#[test]
fn nodes_of_an_open_relay_have_a_rate_and_others_only_one_that_was_said() {
    let rate = |text: &str| resolve(text).unwrap().limits.node_rate;
    assert_eq!(rate("admission = \"open\""), Limits::public_rate());
    let none = "admission = \"open\"\n[limits]\nnode_mbit = 0\nnode_kpps = 0";
    assert_eq!(rate(none), NodeRate::default());
    let id = byway_wire::SecretKey::from_bytes(&[1; 32]).node_id();
    let listed = format!("admission = \"nodes\"\nnodes = [\"{id}\"]\n");
    assert_eq!(rate(&listed), NodeRate::default());
    let said = NodeRate {
        bytes: Some(1_000_000),
        datagrams: None,
    };
    assert_eq!(rate(&(listed + "[limits]\nnode_mbit = 8")), said);
    let error = error("admission = \"open\"\n[limits]\nnode_kpps = 200000");
    assert!(
        error.contains("line 3") && error.contains("0 for no limit"),
        "{error}"
    );
}

#[test]
fn handshakes_and_egress_are_as_they_were_said() {
    let text = "admission = \"open\"\n[limits]\nhandshake_seconds = 3\nwelcome_seconds = 4\nhandshakes = 64\n\
                unproved = 0\nhandshake_kib = 16\negress_kib = 512\negress_ms = 20\nstall_seconds = 9\nstun_in_all = 5";
    let limits = resolve(text).unwrap().limits;
    let seconds = Duration::from_secs;
    let handshakes = limits.handshakes;
    assert_eq!(
        (handshakes.within, handshakes.welcome_within),
        (seconds(3), seconds(4))
    );
    assert_eq!((handshakes.under_way, handshakes.prove_above), (64, 0));
    assert_eq!(handshakes.buffered, 16 * 1024);
    assert_eq!(
        (limits.egress.bytes, limits.egress.age),
        (512 * 1024, Duration::from_millis(20))
    );
    assert_eq!((limits.egress.stall, limits.stun_in_all), (seconds(9), 5));
    for (wrong, said) in [
        ("handshake_seconds = 0", "1 to 60"),
        ("handshakes = 7", "8 to 65536"),
        ("egress_kib = 127", "128 to 16384"),
        ("handshakes = 64\nunproved = 33", "half of the handshakes"),
        ("egress_ms = 10001", "1 to 10000"),
        ("stall_seconds = 61", "1 to 60"),
        ("handshake_seconds = 20", "'handshake_seconds'"),
    ] {
        let error = error(&format!("admission = \"open\"\n[limits]\n{wrong}"));
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn one_line_is_enough_and_a_relay_without_a_word_about_admission_is_none() {
    let config = resolve("admission = \"open\"").unwrap();
    assert_eq!(config.listen.len(), 4);
    assert!(error("").contains("admission") && error("").contains("'tokens', 'nodes' or 'open'"));
}

#[test]
fn what_is_wrong_is_told_with_its_line_and_the_mend() {
    let id = byway_wire::SecretKey::from_bytes(&[1; 32]).node_id();
    let cases = [
        (GOOD.to_owned() + "max_links = 3\n", "line 5", "max_links"),
        (GOOD.replace("\"open\"", "\"everyone\""), "line 4", "open"),
        (GOOD.replace("[\"127", "[\"327"), "line 1", "address"),
        (GOOD.to_owned() + "cert = \"c.pem\"\n", "line 5", "'key'"),
        (GOOD.to_owned() + "key = \"k.pem\"\n", "line 5", "'cert'"),
        (GOOD.replace("fra-1", ""), "line 2", "1 to 64"),
        (GOOD.replace("fra-1", &"x".repeat(65)), "line 2", "1 to 64"),
        (GOOD.to_owned() + "shards = 1000\n", "line 5", "256"),
        (
            GOOD.to_owned() + "max_datagram = 100\n",
            "line 5",
            "1200 to 9000",
        ),
        (
            GOOD.to_owned() + "drain_seconds = 3601\n",
            "line 5",
            "0 to 3600",
        ),
        (
            GOOD.to_owned() + "alternates = [\"relay-b\"]\n",
            "line 5",
            "https://host:port",
        ),
        (
            GOOD.to_owned() + &format!("alternates = {:?}\n", ["https://b.example"; 5]),
            "line 5",
            "at most 4",
        ),
        (
            "admission = \"open\"\nlisten = []".into(),
            "line 2",
            "leave it out",
        ),
        (
            GOOD.to_owned() + "[tokens]\nissuer = \"x\"\n",
            "line 5",
            "admission = \"tokens\"",
        ),
        (
            GOOD.to_owned() + &format!("nodes = [\"{id}\"]\n"),
            "line 5",
            "admission = \"nodes\"",
        ),
        (
            GOOD.to_owned() + "identity = \"i\"\ncert = \"c\"\nkey = \"k\"\n",
            "line 5",
            "by its pin",
        ),
        (
            GOOD.to_owned() + "plain_http = [\"127.0.0.1:80\"]\n",
            "line 5",
            "public_host",
        ),
        (
            GOOD.to_owned() + "trusted_proxies = [\"10.0.0.0\"]\n",
            "line 5",
            "10.0.0.0/8",
        ),
        (
            GOOD.to_owned() + "trusted_proxies = [\"192.0.2.1/32\", \"::/0\"]\n",
            "line 5",
            "addresses of your proxies",
        ),
        (
            GOOD.to_owned() + "public_host = \"https://r.example\"\n",
            "line 5",
            "without https://",
        ),
        (
            GOOD.to_owned() + "public_host = \"r.example:443\"\n",
            "line 5",
            "without a port",
        ),
        (
            GOOD.to_owned()
                + "require_channel_binding = true\npublic_host = \"r.example\"\nplain_http = [\"127.0.0.1:80\"]\n",
            "line 5",
            "remove one",
        ),
        (
            GOOD.to_owned() + "[acme]\ncache = \"x\"\ndomains = [\"a.example\", \"*.b.example\"]\n",
            "line 7",
            "'*.b.example'",
        ),
        (
            GOOD.to_owned()
                + "[acme]\ncache = \"x\"\ndomains = [\"a.example\"]\ndirectory = \"http://ca.example/\"\n",
            "line 8",
            "https://",
        ),
        (
            GOOD.to_owned()
                + "public_host = \"b.example\"\n[acme]\ncache = \"x\"\ndomains = [\"a.example\"]\n",
            "line 5",
            "[acme] domains",
        ),
        (
            GOOD.to_owned() + "[acme]\ndomains = [\"a.example\"]\n",
            "--acme-cache",
            "/var/lib",
        ),
        (
            GOOD.to_owned() + "[acme]\ncache = \"x\"\n",
            "--acme-domain",
            "names no host",
        ),
        (
            GOOD.to_owned() + "[limits]\nchannels = 0\n",
            "line 6",
            "1 to 65536",
        ),
        (
            GOOD.to_owned() + "[limits]\nlinks_per_process = 1\n",
            "line 6",
            "2 to 64",
        ),
        (
            GOOD.to_owned() + "[limits]\nlinks_per_node = 3\n",
            "line 6",
            "links_per_process",
        ),
        (
            GOOD.to_owned() + "[limits]\nstun = 10001\n",
            "line 6",
            "1 to 10000",
        ),
        ("admission = \"nodes\"".into(), "--allow-node", "NodeId"),
        (
            "admission = \"nodes\"\nnodes = [\"abc\"]".into(),
            "line 2",
            "'abc'",
        ),
        (
            "admission = \"nodes\"\nnodes = []".into(),
            "line 2",
            "at least one",
        ),
        ("admission = \"tokens\"".into(), "--token-key", "keygen"),
        (
            "admission = \"tokens\"\n\n[tokens]\nkeys = [\"k\"]\naudiences = []".into(),
            "line 5",
            "byway-relay",
        ),
    ];
    for (text, place, mend) in cases {
        let error = error(&text);
        assert!(
            error.contains(place) && error.contains(mend),
            "{text}\n{error}"
        );
    }
}

#[test]
fn keys_are_fetched_by_https_without_secrets_in_the_url_alone() {
    let with =
        |jwks: &str, more: &str| format!("admission = \"tokens\"\n[tokens]\njwks = {jwks}\n{more}");
    let url = "https://idp.example/keys?tenant=1";
    let config = resolve(&with(&format!("[\"{url}\"]"), "jwks_roots = [\"r.pem\"]")).unwrap();
    let AdmissionSource::Tokens(tokens) = config.admission else {
        panic!();
    };
    assert!(tokens.keys.is_empty());
    assert_eq!(tokens.jwks.urls, [url.parse().unwrap()]);
    assert_eq!(tokens.jwks.extra_roots, [std::path::PathBuf::from("r.pem")]);
    let many: Vec<String> = (0..9).map(|n| format!("https://{n}.example/")).collect();
    for (jwks, mend) in [
        ("[\"http://idp.example/k\"]".to_owned(), "https://"),
        ("[\"http://127.0.0.1/k\"]".to_owned(), "into a file"),
        (
            "[\"https://u:hunter2@idp.example/k\"]".to_owned(),
            "remove them",
        ),
        ("[\"https://a.example\", \"hunter2\"]".to_owned(), "entry 2"),
        (
            "[\"https://a.example\", \"https://a.example/\"]".to_owned(),
            "twice",
        ),
        (format!("{many:?}"), "at most 8"),
    ] {
        let error = error(&with(&jwks, ""));
        assert!(error.contains("line 3") && error.contains(mend), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    let alone = "admission = \"tokens\"\n[tokens]\nkeys = [\"k\"]\njwks_roots = [\"r.pem\"]";
    assert!(error(alone).contains("line 4: 'tokens.jwks_roots' does nothing"));
    // None of either is no key at all.
    assert!(error(&with("[]", "")).contains("keygen"));
}

/// The border of what is refused above.
#[test]
fn what_is_just_right_is_taken() {
    for more in [
        "trusted_proxies = [\"128.0.0.0/1\"]\n",
        "public_host = \"R.example.\"\n[acme]\ncache = \"x\"\ndomains = [\"a.example\", \"r.example\"]\n",
        "public_host = \"192.0.2.1\"\n[acme]\ncache = \"x\"\ndomains = [\"a.example\"]\n",
        "public_host = \"2001:db8::1\"\n",
        "require_channel_binding = false\npublic_host = \"r.example\"\nplain_http = [\"127.0.0.1:80\"]\n",
    ] {
        let config = resolve(&(GOOD.to_owned() + more));
        assert!(config.is_ok(), "{more}: {:#}", config.unwrap_err());
    }
}

#[test]
fn a_flag_counts_before_the_file_and_is_blamed_for_itself() {
    let file = File::parse(GOOD).unwrap();
    let flags = Settings {
        name: Some("fra-2".into()),
        ..Settings::default()
    };
    let config = file.resolve(flags).unwrap();
    assert_eq!(
        (config.name.as_str(), config.region.as_str()),
        ("fra-2", "fra")
    );
    let flags = Settings {
        name: Some(String::new()),
        ..Settings::default()
    };
    let error = format!("{:#}", file.resolve(flags).unwrap_err());
    assert!(
        error.contains("--name") && !error.contains("line"),
        "{error}"
    );
}

/// The annotated example says everything there is, and is good as it stands and with every comment sign taken away.
#[test]
fn the_example_is_whole_and_good() {
    let example = include_str!("../../../docs/operations/relay.toml");
    let config = resolve(example).unwrap();
    assert!(matches!(config.admission, AdmissionSource::Tokens(_)));
    let settings = |line: &str| {
        line.strip_prefix("#")
            .is_some_and(|l| l.starts_with(|c: char| c.is_ascii_lowercase() || c == '['))
    };
    let all: String = example
        .lines()
        .map(|line| if settings(line) { &line[1..] } else { line })
        .map(|line| format!("{line}\n"))
        .collect();
    let said = File::parse(&all).unwrap().settings;
    for key in [
        "listen",
        "name",
        "region",
        "public_host",
        "cert",
        "key",
        "shards",
        "max_datagram",
        "require_channel_binding",
        "admission",
        "nodes",
        "identity",
        "observe",
        "audit",
        "drain_seconds",
        "alternates",
        "control",
        "plain_http",
        "trusted_proxies",
        "limits.channels",
        "limits.links_per_node",
        "limits.links_per_process",
        "limits.unanswered_opens",
        "limits.node_mbit",
        "limits.node_kpps",
        "limits.shed_above",
        "limits.connections",
        "limits.stun",
        "limits.stun_in_all",
        "limits.handshake_seconds",
        "limits.welcome_seconds",
        "limits.handshakes",
        "limits.unproved",
        "limits.handshake_kib",
        "limits.egress_kib",
        "limits.egress_ms",
        "limits.stall_seconds",
        "acme.domains",
        "acme.contact",
        "acme.cache",
        "acme.directory",
        "acme.roots",
        "tokens.keys",
        "tokens.jwks",
        "tokens.jwks_roots",
        "tokens.audiences",
        "tokens.issuer",
        "tokens.revoked",
    ] {
        assert!(said.says(Some(key)), "{key}");
        assert!(
            example.contains(&format!("--{}", settings::flag(key))),
            "--{}",
            settings::flag(key)
        );
    }
}
