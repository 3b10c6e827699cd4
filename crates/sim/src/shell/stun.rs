//! STUN servers, honest and otherwise.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use byway_wire::stun::{self, Message, TransactionId};

use crate::net::{Happening, HostId, Network};
use crate::rng::Rng;

/// The standard port.
pub const STUN_PORT: u16 = 3478;
/// The port from which a server that answers from elsewhere answers.
pub const OTHER_PORT: u16 = 3479;

/// What a flood comes to, for each request.
const FLOOD: usize = 1_000;

/// How a server behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// Answers as it should.
    Honest,
    /// Never answers.
    Dead,
    /// Answers after this long.
    Slow(Duration),
    /// Answers three times.
    Repeating,
    /// Answers as it should, and then goes on: a thousand answers more, every other to a question that nobody asked.
    Flooding,
    /// Says that everyone is here.
    Lying(SocketAddr),
    /// Answers with a transaction id of its own.
    WrongTransaction,
    /// Answers from another port.
    WrongSource,
    /// Answers with random bytes behind a STUN header.
    Garbage,
    /// Answers with far too much.
    Oversized,
    /// Answers with an error.
    Failing,
}

impl Manner {
    /// Those that need no more words, the honest one first.
    pub const PLAIN: [Self; 9] = [
        Self::Honest,
        Self::Dead,
        Self::Repeating,
        Self::Flooding,
        Self::WrongTransaction,
        Self::WrongSource,
        Self::Garbage,
        Self::Oversized,
        Self::Failing,
    ];
}

/// See the module's documentation.
#[derive(Debug)]
pub struct StunServer {
    host: HostId,
    manner: Manner,
    rng: Rng,
    /// Answers that wait for their time.
    waiting: VecDeque<(Duration, SocketAddr, Bytes)>,
}

impl StunServer {
    /// A server on a host.
    pub fn new(net: &Network, host: HostId, manner: Manner) -> Self {
        Self {
            host,
            manner,
            rng: net.rng(&format!("stun {}", host.0)),
            waiting: VecDeque::new(),
        }
    }

    /// Something happened on the host.
    pub fn handle(&mut self, net: &mut Network, what: Happening) {
        if let Happening::Datagram { from, data, .. } = what
            && let Ok(Message::Request { txid, .. }) = stun::decode(&data)
        {
            self.answer(net, from, txid);
        }
        while let Some((at, to, data)) = self.waiting.pop_front() {
            if at > net.now() {
                self.waiting.push_front((at, to, data));
                break;
            }
            net.send(self.host, STUN_PORT, to, data);
        }
        net.wake_at(self.host, self.waiting.front().map(|(at, ..)| *at));
    }

    fn answer(&mut self, net: &mut Network, from: SocketAddr, txid: TransactionId) {
        let right = stun::encode_success(txid, from, stun::MAX_LEN);
        let mut send = |port, data: Vec<u8>| net.send(self.host, port, from, Bytes::from(data));
        match self.manner {
            Manner::Honest => send(STUN_PORT, right),
            Manner::Dead => {}
            Manner::Slow(wait) => {
                let at = net.now() + wait;
                self.waiting.push_back((at, from, Bytes::from(right)));
            }
            Manner::Repeating => {
                for _ in 0..3 {
                    send(STUN_PORT, right.clone());
                }
            }
            Manner::Flooding => {
                send(STUN_PORT, right.clone());
                for _ in 0..FLOOD / 2 {
                    let mut other = [0; 12];
                    self.rng.fill(&mut other);
                    let answer = stun::encode_success(TransactionId(other), from, stun::MAX_LEN);
                    send(STUN_PORT, answer);
                    send(STUN_PORT, right.clone());
                }
            }
            Manner::Lying(addr) => send(STUN_PORT, stun::encode_success(txid, addr, stun::MAX_LEN)),
            Manner::WrongTransaction => {
                let mut other = [0; 12];
                self.rng.fill(&mut other);
                let answer = stun::encode_success(TransactionId(other), from, stun::MAX_LEN);
                send(STUN_PORT, answer);
            }
            Manner::WrongSource => send(OTHER_PORT, right),
            Manner::Garbage => {
                let mut answer = right;
                self.rng.fill(&mut answer[20..]);
                send(STUN_PORT, answer);
            }
            Manner::Oversized => {
                let mut answer = right;
                answer.resize(1400, 0xff);
                let len = (answer.len() - 20) as u16;
                answer[2..4].copy_from_slice(&len.to_be_bytes());
                send(STUN_PORT, answer);
            }
            Manner::Failing => send(STUN_PORT, stun::encode_unknown_attributes(txid, &[0x7f00])),
        }
    }
}
