//! The head of an HTTP answer, as far as it tells who answers.

use std::fmt;

use byway_wire::text::printable;

/// Most headers that are looked at.
const MAX_HEADERS: usize = 64;
/// Most of an address that is shown.
const MAX_SHOWN: usize = 200;

/// RFC 6585 section 6: a captive portal that says so.
const NETWORK_AUTHENTICATION_REQUIRED: u16 = 511;
const SWITCHING_PROTOCOLS: u16 = 101;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Answer {
    status: u16,
    location: Option<String>,
}

impl Answer {
    /// None while the head is not whole, or if it is no HTTP.
    pub(super) fn parse(head: &[u8]) -> Option<Self> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        if !response.parse(head).ok()?.is_complete() {
            return None;
        }
        let location = response
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case("location"))
            .map(|header| {
                let text = String::from_utf8_lossy(header.value);
                let shown: String = text.chars().take(MAX_SHOWN).collect();
                printable(&shown)
            });
        Some(Self {
            status: response.code?,
            location,
        })
    }

    pub(super) fn is_upgrade(&self) -> bool {
        self.status == SWITCHING_PROTOCOLS
    }

    /// A redirect, or the status that is there for it.
    pub(super) fn asks_for_login(&self) -> bool {
        self.status == NETWORK_AUTHENTICATION_REQUIRED
            || (300..400).contains(&self.status) && self.location.is_some()
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            Some(location) => write!(f, "HTTP {}, go to {location}", self.status),
            None => write!(f, "HTTP {}", self.status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &str) -> Option<Answer> {
        Answer::parse(head.as_bytes())
    }

    #[test]
    fn redirects_and_511_ask_for_a_login_and_nothing_else_does() {
        for (head, asks) in [
            (
                "HTTP/1.1 302 Found\r\nLocation: http://login.test/\r\n\r\n",
                true,
            ),
            (
                "HTTP/1.0 307 x\r\nlocation: http://login.test/\r\n\r\n",
                true,
            ),
            ("HTTP/1.1 511 Network Authentication Required\r\n\r\n", true),
            ("HTTP/1.1 304 Not Modified\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\n\r\n<html>", false),
            ("HTTP/1.1 404 Not Found\r\n\r\n", false),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", false),
        ] {
            assert_eq!(parse(head).unwrap().asks_for_login(), asks, "{head}");
        }
    }

    #[test]
    fn what_is_not_whole_or_no_http_is_no_answer() {
        assert_eq!(parse("HTTP/1.1 302 Found\r\nLocation: http://lo"), None);
        assert_eq!(parse("SSH-2.0-OpenSSH\r\n\r\n"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn what_a_stranger_says_is_shown_short_and_without_control_characters() {
        let long = "x".repeat(5_000);
        let head = format!("HTTP/1.1 302 Found\r\nLocation: http://\u{e9}/{long}\r\n\r\n");
        let shown = parse(&head).unwrap().to_string();
        assert!(shown.len() < 300, "{shown}");
        assert!(!shown.contains(char::is_control), "{shown}");
    }
}
