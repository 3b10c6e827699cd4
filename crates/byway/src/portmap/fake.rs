//! A gateway that speaks PCP on an address of loopback, of which other systems than Linux have one only. It says what its test
//! wants, one answer at a time.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::net::UdpSocket;

use super::gateway::Gateway;

pub(super) const SUCCESS: u8 = 0;
pub(super) const NOT_AUTHORIZED: u8 = 2;
pub(super) const NO_RESOURCES: u8 = 8;

/// More than any wait before a request.
const LONG: Duration = Duration::from_secs(15);

/// One that no other test has.
pub(super) async fn gateway(last: u8) -> (UdpSocket, Gateway) {
    let gateway = Gateway {
        addr: Ipv4Addr::new(127, 53, 51, last),
        local: Ipv4Addr::LOCALHOST,
    };
    let bound = UdpSocket::bind((gateway.addr, crab_nat::GATEWAY_PORT)).await;
    (bound.unwrap(), gateway)
}

/// Answers one `MAP` request (RFC 6887 section 11.1); the seconds and the nonce it asked with.
pub(super) async fn answer(socket: &UdpSocket, result: u8, seconds: u32) -> (u32, Vec<u8>) {
    let mut buffer = [0; 1100];
    let request = tokio::time::timeout(LONG, socket.recv_from(&mut buffer)).await;
    let (len, from) = request.expect("a request").unwrap();
    let request = &buffer[..len];
    assert_eq!((request[0], request[1], len), (2, 1, 60));
    let asked = u32::from_be_bytes(request[4..8].try_into().unwrap());
    let nonce = request[24..36].to_vec();
    let mut answer = request.to_vec();
    answer[1] |= 0x80;
    answer[3] = result;
    answer[4..8].copy_from_slice(&seconds.to_be_bytes());
    answer[8..24].fill(0);
    answer[44..60].copy_from_slice(&Ipv4Addr::new(203, 0, 113, 9).to_ipv6_mapped().octets());
    socket.send_to(&answer, from).await.unwrap();
    (asked, nonce)
}
