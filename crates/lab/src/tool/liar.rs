//! `liar MANNER ADDR...`: a STUN server that means harm, on each ADDR. Prints `ready`, and `asked by ADDR` for each question.
//!
//! | manner | what it answers |
//! |---|---|
//! | `lie=ADDR` | that address, whoever asks |
//! | `other` | the truth, to a question that was not asked: another transaction |
//! | `flood` | the truth a hundred times, and on and on, a thousand times a second |

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use byway_wire::stun::{self, Message, TransactionId};

/// Answers to one question, and between two of those that nobody asked for any more.
const AT_ONCE: usize = 100;
const THEN_EVERY: Duration = Duration::from_millis(1);
/// Longest STUN message that is read (docs/protocol.md).
const LONGEST: usize = 1_232;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manner {
    Lie(SocketAddr),
    Other,
    Flood,
}

pub(super) fn serve(args: &[String]) -> Result<()> {
    let (manner, addrs) = args.split_first().context("liar MANNER ADDR...")?;
    let manner = match manner.split_once('=') {
        Some(("lie", addr)) => Manner::Lie(addr.parse()?),
        None if manner == "other" => Manner::Other,
        None if manner == "flood" => Manner::Flood,
        _ => bail!("{manner}: lie=ADDR, other or flood"),
    };
    let sockets: Vec<Arc<UdpSocket>> = addrs
        .iter()
        .map(|addr| {
            Ok(Arc::new(
                UdpSocket::bind(addr).with_context(|| format!("binding {addr}"))?,
            ))
        })
        .collect::<Result<_>>()?;
    println!("ready");
    thread::scope(|scope| {
        for socket in &sockets {
            scope.spawn(|| answer(socket, manner));
        }
    });
    Ok(())
}

fn answer(socket: &Arc<UdpSocket>, manner: Manner) {
    let mut buffer = [0; LONGEST];
    loop {
        // An answer by ICMP to an answer of ours.
        let Ok((len, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let Ok(Message::Request { txid, .. }) = stun::decode(&buffer[..len]) else {
            continue;
        };
        println!("asked by {from}");
        let said = said(manner, txid, from);
        if manner != Manner::Flood {
            let _ = socket.send_to(&said, from);
            continue;
        }
        let socket = Arc::clone(socket);
        thread::spawn(move || {
            for n in 0.. {
                let _ = socket.send_to(&said, from);
                if n >= AT_ONCE {
                    thread::sleep(THEN_EVERY);
                }
            }
        });
    }
}

fn said(manner: Manner, TransactionId(mut txid): TransactionId, from: SocketAddr) -> Vec<u8> {
    let mut mapped = from;
    match manner {
        Manner::Lie(lie) => mapped = lie,
        Manner::Other => txid[0] ^= 1,
        Manner::Flood => {}
    }
    stun::encode_success(TransactionId(txid), mapped, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_manner_is_wrong_in_its_own_way() {
        let txid = TransactionId([7; 12]);
        let (from, lie) = (
            "192.0.2.1:5".parse().unwrap(),
            "192.0.2.9:9".parse().unwrap(),
        );
        let heard = |manner| match stun::decode(&said(manner, txid, from)).unwrap() {
            Message::Success { txid, mapped, .. } => (txid, mapped),
            other => panic!("{other:?}"),
        };
        assert_eq!(heard(Manner::Flood), (txid, from));
        assert_eq!(heard(Manner::Lie(lie)), (txid, lie));
        let (other, mapped) = heard(Manner::Other);
        assert!(other != txid && mapped == from);
    }
}
