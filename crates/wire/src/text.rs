//! How bytes and names look as text: base32 for keys and tickets, host names, bounded human text.

use std::net::IpAddr;

use data_encoding::{BASE32_NOPAD, BASE32_NOPAD_NOCASE};

/// Lower-case base32 (RFC 4648) without padding: it fits a DNS label and survives a double click.
pub(crate) fn base32(bytes: &[u8]) -> String {
    let mut text = BASE32_NOPAD.encode(bytes);
    text.make_ascii_lowercase();
    text
}

/// The inverse of [`base32`], in either case. Refuses stray bits at the end, so that bytes have one spelling.
pub(crate) fn from_base32(text: &str) -> Option<Vec<u8>> {
    BASE32_NOPAD_NOCASE.decode(text.as_bytes()).ok()
}

/// 32 bytes of base32: keys and pins.
pub(crate) fn key_from_base32(text: &str) -> Option<[u8; 32]> {
    // 52 characters carry 260 bits. Checked first, so that a huge text costs nothing.
    if text.len() != 52 {
        return None;
    }
    from_base32(text)?.try_into().ok()
}

/// Longest host name, in bytes (RFC 1035 section 2.3.4, without the root's dot).
pub(crate) const MAX_HOST: usize = 253;

/// Reads a host: an address (canonical, IPv6 without brackets) or a DNS name (lower case, without the root's dot).
/// Underscores are allowed because resolvers accept them; anything else that is no letter, digit or hyphen is not.
pub(crate) fn parse_host(text: &str) -> Option<String> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(ip.to_canonical().to_string());
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.is_empty() || name.len() > MAX_HOST || !name.split('.').all(is_label) {
        return None;
    }
    // A last label of digits alone is a mistyped IPv4 address, which some resolvers would read in a way of their own.
    let last = name.rsplit('.').next()?;
    if last.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(name.to_ascii_lowercase())
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// `host:port`, with brackets round an IPv6 address.
pub(crate) fn write_authority(
    f: &mut impl std::fmt::Write,
    host: &str,
    port: u16,
) -> std::fmt::Result {
    if host.contains(':') {
        write!(f, "[{host}]:{port}")
    } else {
        write!(f, "{host}:{port}")
    }
}

/// Splits `host`, `host:port`, `[v6]` or `[v6]:port`, without judging either part. None for a bare IPv6 address, whose
/// last group cannot be told from a port.
pub(crate) fn split_authority(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        // Brackets hold an IPv6 address and nothing else.
        host.parse::<std::net::Ipv6Addr>().ok()?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None if rest.is_empty() => Some((host, None)),
            None => None,
        };
    }
    match text.split_once(':') {
        Some((_, port)) if port.contains(':') => None,
        Some((host, port)) => Some((host, Some(port))),
        None => Some((text, None)),
    }
}

/// A port from 1 to 65535, digits only (`str::parse` would accept a plus sign).
pub(crate) fn parse_port(text: &str) -> Option<u16> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|port| *port != 0)
}

/// The longest prefix of at most `max` bytes that ends between two characters.
pub(crate) fn truncated(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// Text from the other side, as a terminal may see it: control characters are escaped.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_debug());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base32_refuses_stray_bits() {
        // One byte is two characters, whose last two bits carry nothing: "ae" is 0x01, "af" would be too.
        assert_eq!(from_base32("ae"), Some(vec![1]));
        assert_eq!(from_base32("AE"), Some(vec![1]));
        assert_eq!(from_base32("af"), None);
    }

    #[test]
    fn hosts_are_names_or_addresses_and_nothing_else() {
        assert_eq!(
            parse_host("Relay.Example.com.").as_deref(),
            Some("relay.example.com")
        );
        assert_eq!(parse_host("::ffff:192.0.2.1").as_deref(), Some("192.0.2.1"));
        assert_eq!(parse_host("2001:DB8:0::1").as_deref(), Some("2001:db8::1"));
        for bad in [
            "",
            ".",
            "a..b",
            "-a",
            "a-",
            "a b",
            "a/b",
            "a@b",
            "a\n",
            "é",
            "1.2.3",
            "256.1.1.1",
            "fe80::1%eth0",
        ] {
            assert_eq!(parse_host(bad), None, "{bad:?}");
        }
        assert_eq!(parse_host(&"a".repeat(64)), None);
        assert_eq!(parse_host(&"a.".repeat(127)).map(|h| h.len()), Some(253));
        assert_eq!(parse_host(&"ab.".repeat(127)), None);
    }

    #[test]
    fn truncation_never_splits_a_character() {
        assert_eq!(truncated("aé", 2), "a");
        assert_eq!(truncated("aé", 3), "aé");
    }
}
