//! One send of several pieces with segmentation offload, which `quinn-udp` does of one piece.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use quinn_udp::EcnCodepoint;

use super::trains::MAX_PIECES;

/// Sends datagrams of `segment` bytes each, the last possibly shorter, from one of our addresses if one is named. There are no more pieces than a
/// train has, and together they are what the kernel takes.
pub(super) fn send(
    socket: &impl AsRawFd,
    (to, from): (SocketAddr, Option<IpAddr>),
    ecn: Option<EcnCodepoint>,
    pieces: &[&[u8]],
    segment: usize,
) -> io::Result<()> {
    let too_much = || io::Error::from(io::ErrorKind::InvalidInput);
    let segment = u16::try_from(segment).map_err(|_| too_much())?;
    let mut slices = [IoSlice::new(&[]); MAX_PIECES];
    let slices = slices.get_mut(..pieces.len()).ok_or_else(too_much)?;
    for (slice, piece) in slices.iter_mut().zip(pieces) {
        *slice = IoSlice::new(piece);
    }
    let ecn = ecn.map_or(0, |ecn| ecn as u8);
    let (tos, class) = (ecn, i32::from(ecn));
    let mark = match to {
        SocketAddr::V4(_) => ControlMessage::Ipv4Tos(&tos),
        SocketAddr::V6(_) => ControlMessage::Ipv6TClass(&class),
    };
    let batch = ControlMessage::UdpGsoSegments(&segment);
    let to = SockaddrStorage::from(to);
    let send = |control: &[ControlMessage<'_>]| {
        let fd = socket.as_raw_fd();
        sendmsg(fd, slices, control, MsgFlags::empty(), Some(&to)).map(drop)
    };
    let sent = match from {
        None => send(&[batch, mark]),
        Some(IpAddr::V4(ip)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from_ne_bytes(ip.octets()),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            send(&[batch, mark, ControlMessage::Ipv4PacketInfo(&info)])
        }
        Some(IpAddr::V6(ip)) => {
            let info = libc::in6_pktinfo {
                ipi6_ifindex: 0,
                ipi6_addr: libc::in6_addr {
                    s6_addr: ip.octets(),
                },
            };
            send(&[batch, mark, ControlMessage::Ipv6PacketInfo(&info)])
        }
    };
    sent.map_err(io::Error::from)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]
mod tests {
    use std::net::UdpSocket;

    use quinn_udp::{RecvMeta, UdpSocketState};

    use super::*;

    /// Sends the pieces to a socket of this address; the datagrams that come, and what the kernel says of the first.
    fn through(
        ip: &str,
        from: Option<IpAddr>,
        ecn: Option<EcnCodepoint>,
        pieces: &[&[u8]],
    ) -> (Vec<Vec<u8>>, RecvMeta) {
        let ip: IpAddr = ip.parse().unwrap();
        let wildcard: SocketAddr = match ip {
            IpAddr::V4(_) => "0.0.0.0:0".parse().unwrap(),
            IpAddr::V6(_) => "[::]:0".parse().unwrap(),
        };
        let (sender, receiver) = (UdpSocket::bind(wildcard), UdpSocket::bind((ip, 0)));
        let (sender, receiver) = (sender.unwrap(), receiver.unwrap());
        let state = UdpSocketState::new((&receiver).into()).unwrap();
        let to = receiver.local_addr().unwrap();
        send(&sender, (to, from), ecn, pieces, 100).unwrap();
        receiver.set_nonblocking(false).unwrap();
        let mut buffer = vec![0; 65_535];
        let mut meta = [RecvMeta::default()];
        let mut datagrams = Vec::new();
        let total: usize = pieces.iter().map(|p| p.len()).sum();
        let mut first = None;
        while datagrams.iter().map(Vec::len).sum::<usize>() < total {
            let buffers = &mut [io::IoSliceMut::new(&mut buffer)];
            state.recv((&receiver).into(), buffers, &mut meta).unwrap();
            let whole = &buffer[..meta[0].len];
            datagrams.extend(whole.chunks(meta[0].stride).map(<[u8]>::to_vec));
            first.get_or_insert(meta[0]);
        }
        (datagrams, first.unwrap())
    }

    #[test]
    fn pieces_arrive_as_the_datagrams_that_they_were() {
        let (first, second) = ([[1; 100], [2; 100]].concat(), [[3; 100], [4; 100]].concat());
        let pieces: [&[u8]; 3] = [&first, &second, &[5; 30]];
        for ip in ["127.0.0.1", "::1"] {
            let (datagrams, meta) = through(ip, None, Some(EcnCodepoint::Ect1), &pieces);
            let all: Vec<_> = datagrams.iter().map(|d| (d[0], d.len())).collect();
            assert_eq!(all, [(1, 100), (2, 100), (3, 100), (4, 100), (5, 30)]);
            assert_eq!(meta.ecn, Some(EcnCodepoint::Ect1), "{ip}");
        }
    }

    #[test]
    fn they_leave_from_the_address_that_is_named() {
        let pieces: [&[u8]; 2] = [&[1; 100], &[2; 100]];
        for (ip, from) in [("127.0.0.1", "127.0.0.9"), ("::1", "::1")] {
            let from: IpAddr = from.parse().unwrap();
            let (datagrams, meta) = through(ip, Some(from), None, &pieces);
            assert_eq!((datagrams.len(), meta.addr.ip()), (2, from));
            assert_eq!(meta.ecn, None);
        }
    }

    #[test]
    fn more_pieces_than_a_train_has_are_refused() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = (socket.local_addr().unwrap(), None);
        let pieces = [&[1; 100][..]; MAX_PIECES + 1];
        let error = send(&socket, to, None, &pieces, 100).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let error = send(&socket, to, None, &pieces[..2], 70_000).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
