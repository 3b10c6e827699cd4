//! `byway-relay status`: what a running relay says of itself, for a person.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde_json::Value;

/// It answers from memory.
const PATIENCE: Duration = Duration::from_secs(5);
/// More than it ever says.
const MAX_ANSWER: u64 = 1024 * 1024;

#[derive(Debug, Args)]
pub(super) struct Status {
    /// Where the relay is observed: its setting 'observe'.
    #[arg(
        value_name = "ADDR",
        env = "BYWAY_RELAY_OBSERVE",
        default_value = "127.0.0.1:9464"
    )]
    observe: SocketAddr,
    /// As the relay says it: one JSON object.
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let text = fetch(self.observe).with_context(|| {
            format!(
                "no relay answers at {} (is it running with --observe {0}?)",
                self.observe
            )
        })?;
        let said: Value = serde_json::from_str(&text).context("what answers there is no relay")?;
        let out = if self.json { text } else { describe(&said) };
        std::io::stdout().write_all(out.as_bytes())?;
        Ok(())
    }
}

fn fetch(from: SocketAddr) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&from, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET /status HTTP/1.1\r\nHost: {from}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("an answer without an end")?;
    anyhow::ensure!(
        head.starts_with("HTTP/1.1 200 "),
        "{}",
        head.lines().next().unwrap_or_default()
    );
    Ok(body.to_owned())
}

fn certificate(said: &Value) -> String {
    let failed = said["failed"].as_u64().unwrap_or(0);
    let state = match (said["stand_in"].as_bool(), said["expires"].as_str()) {
        (Some(true), _) => {
            "NONE YET from the authority: nodes that know the relay by name cannot come".to_owned()
        }
        (_, Some(at)) => format!("expires {at}"),
        _ => "unknown".to_owned(),
    };
    let renewed = said["renewed"].as_u64().unwrap_or(0);
    format!("{state}; renewed {renewed} times, refused or not to be had {failed} times")
}

/// What came from a URL.
fn keys(said: &Value) -> String {
    let url = said["url"].as_str().unwrap_or("unknown");
    let error = said["error"].as_str();
    let error = error.map_or_else(String::new, |error| format!("; the last try: {error}"));
    match said["fetched_s"].as_u64() {
        Some(ago) => {
            let ago = humantime::format_duration(Duration::from_secs(ago));
            let keys = said["keys"].as_u64().unwrap_or(0);
            let s = if keys == 1 { "" } else { "s" };
            format!("{keys} key{s} fetched {ago} ago from {url}{error}")
        }
        None => format!("NONE YET from {url}{error}"),
    }
}

fn describe(said: &Value) -> String {
    let text = |name: &str| said[name].as_str().unwrap_or("unknown").to_owned();
    let number = |value: &Value| {
        value
            .as_u64()
            .map_or("unknown".to_owned(), |n| n.to_string())
    };
    let ready = match (said["ready"].as_bool(), said["health"].as_str()) {
        (Some(true), _) => "takes new nodes",
        (Some(false), Some("no_keys")) => {
            "takes no new nodes: NO KEYS YET to check their tokens with"
        }
        (Some(false), Some("failed")) => "takes no new nodes: a part of it has failed",
        (Some(false), _) => "takes no new nodes: it is about to stop",
        (None, _) => "unknown",
    };
    let uptime = Duration::from_secs(said["uptime_s"].as_u64().unwrap_or(0));
    let memory = said["resident_bytes"]
        .as_u64()
        .map(|b| format!("{:.1} MiB", b as f64 / 1_048_576.0));
    let mut lines = vec![
        (
            "relay",
            format!(
                "{} in {}, version {}",
                text("name"),
                text("region"),
                text("version")
            ),
        ),
        (
            "state",
            format!("{ready}; up for {}", humantime::format_duration(uptime)),
        ),
        (
            "links",
            format!(
                "{} by UDP, {} by TLS",
                number(&said["links"]["udp"]),
                number(&said["links"]["tls"])
            ),
        ),
        (
            "channels",
            format!(
                "{} of {} node processes",
                number(&said["channels"]),
                number(&said["sessions"])
            ),
        ),
        ("certificate", certificate(&said["certificate"])),
        ("memory", memory.unwrap_or("unknown".to_owned())),
        (
            "open files",
            format!(
                "{} of {}",
                number(&said["open_fds"]),
                number(&said["max_fds"])
            ),
        ),
    ];
    if let Some(age) = said["admission_age_s"].as_u64() {
        let age = humantime::format_duration(Duration::from_secs(age));
        lines.push(("admission", format!("as its files said {age} ago")));
    }
    let urls = said["jwks"].as_array().into_iter().flatten();
    lines.extend(urls.map(|url| ("keys", keys(url))));
    let counts = said["counts"].as_object().into_iter().flatten();
    let counts: Vec<(String, String)> = counts
        .map(|(name, n)| (name.replace('_', " "), number(n)))
        .collect();
    lines.push((
        "since then",
        if counts.is_empty() {
            "nothing happened".to_owned()
        } else {
            String::new()
        },
    ));
    let mut out: String = lines
        .iter()
        .map(|(what, is)| format!("{what:<12} {is}").trim_end().to_owned() + "\n")
        .collect();
    for (name, n) in counts {
        out.push_str(&format!("  {name:<28} {n:>14}\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_certificate_that_did_not_come_is_told() {
        let line = certificate(&json!({ "stand_in": true, "expires": null, "failed": 3 }));
        assert!(
            line.starts_with("NONE YET") && line.contains("not to be had 3 times"),
            "{line}"
        );
        let line = certificate(
            &json!({ "stand_in": false, "expires": "2031-02-03T00:00:00Z", "renewed": 2 }),
        );
        assert!(
            line.starts_with("expires 2031-02-03") && line.contains("renewed 2 times"),
            "{line}"
        );
        // Of an older relay.
        assert!(certificate(&Value::Null).starts_with("unknown"));
    }
}
