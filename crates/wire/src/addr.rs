//! Socket addresses as bytes: the address (4 or 16), then the port (2, big endian). 6 bytes are IPv4, 18 are IPv6.
//!
//! Always canonical: an IPv4-mapped IPv6 address becomes IPv4 on the way out and on the way in, so that one place has
//! one name. Flow labels and scopes mean nothing on another machine and are left out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The same place without IPv4-mapped IPv6, flow label and scope: one place has one name, whatever socket it is seen from.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Appends address and port.
pub(crate) fn write(out: &mut Vec<u8>, addr: SocketAddr) {
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
    }
    out.extend_from_slice(&addr.port().to_be_bytes());
}

/// Address and port as bytes.
pub(crate) fn encode(addr: SocketAddr) -> Vec<u8> {
    let mut out = Vec::with_capacity(18);
    write(&mut out, addr);
    out
}

/// Reads 6 or 18 bytes; any other length is no address.
pub(crate) fn decode(bytes: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_last_chunk::<2>()?;
    let ip = match ip.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(ip).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(ip).ok()?),
        _ => return None,
    };
    Some(SocketAddr::new(
        ip.to_canonical(),
        u16::from_be_bytes(*port),
    ))
}

/// Family (4 or 6), then 16 bytes that hold either family (IPv4 first, then zeros), then the port: 19 bytes always.
pub(crate) fn encode_fixed(addr: SocketAddr) -> [u8; FIXED_LEN] {
    let mut out = [0; FIXED_LEN];
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) => {
            out[0] = 4;
            out[1..5].copy_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out[0] = 6;
            out[1..17].copy_from_slice(&ip.octets());
        }
    }
    out[17..].copy_from_slice(&addr.port().to_be_bytes());
    out
}

/// Length of [`encode_fixed`]'s result.
pub(crate) const FIXED_LEN: usize = 19;

/// Reads [`encode_fixed`]; `Ok(None)` is family 0, no address.
pub(crate) fn decode_fixed(bytes: &[u8; FIXED_LEN]) -> Result<Option<SocketAddr>, UnknownFamily> {
    let [family, a, b, c, d, ..] = *bytes;
    let port = u16::from_be_bytes([bytes[17], bytes[18]]);
    let ip = match family {
        0 => return Ok(None),
        4 => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        6 => {
            let mut octets = [0; 16];
            octets.copy_from_slice(&bytes[1..17]);
            IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()
        }
        _ => return Err(UnknownFamily),
    };
    Ok(Some(SocketAddr::new(ip, port)))
}

/// A family that is neither 0, 4 nor 6.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct UnknownFamily;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_become_ipv4_both_ways() {
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:443".parse().unwrap();
        let plain: SocketAddr = "192.0.2.1:443".parse().unwrap();
        assert_eq!(encode(mapped), [192, 0, 2, 1, 1, 0xbb]);
        let mut raw = Ipv4Addr::new(192, 0, 2, 1)
            .to_ipv6_mapped()
            .octets()
            .to_vec();
        raw.extend_from_slice(&443u16.to_be_bytes());
        assert_eq!(decode(&raw), Some(plain));
        let mut fixed = [0; FIXED_LEN];
        fixed[0] = 6;
        fixed[1..].copy_from_slice(&raw);
        assert_eq!(decode_fixed(&fixed), Ok(Some(plain)));
    }

    #[test]
    fn other_lengths_and_families_are_refused() {
        for len in (0..30).filter(|len| ![6, 18].contains(len)) {
            assert_eq!(decode(&vec![1; len]), None);
        }
        assert_eq!(decode_fixed(&[5; FIXED_LEN]), Err(UnknownFamily));
        assert_eq!(decode_fixed(&[0; FIXED_LEN]), Ok(None));
    }
}
