//! Each reason for which an agent must refuse, over real QUIC connections on loopback.

use quinn::VarInt;

use super::*;
use crate::tunnel::TunnelClosed;
use crate::tunnel::ends::{Ends, ends, key, record};

const SECRET: [u8; 32] = [9; 32];

fn by_secret() -> Admission {
    Admission {
        secrets: vec![
            TicketSecret::from_bytes([1; 32]),
            TicketSecret::from_bytes(SECRET),
        ],
        ..Admission::default()
    }
}

/// What the agent says to a client with this record and secret; `None`: admitted.
async fn answer(
    record_of: u8,
    secret: Option<[u8; 32]>,
    admission: &Admission,
) -> (Option<GreetError>, Ends) {
    let ends = ends().await;
    let secret = secret.map(TicketSecret::from_bytes);
    let mut records = greet_as_client(&ends.client, record(record_of), secret.as_ref())
        .await
        .unwrap();
    let agent = greet_as_agent(&ends.agent, record(2), key(1).node_id(), admission).await;
    match agent {
        Ok(seen) => {
            assert_eq!(seen.record.node(), key(1).node_id());
            let answer = records.next(key(2).node_id()).await.unwrap();
            assert_eq!(answer.unwrap().node(), key(2).node_id());
            (None, ends)
        }
        Err(error) => (Some(error), ends),
    }
}

/// Nobody but the client hears why it was refused, and it hears only that.
async fn assert_refused(error: Option<GreetError>, ends: Ends) {
    assert!(
        matches!(
            error,
            Some(GreetError::NotAllowed(_) | GreetError::WrongNode)
        ),
        "{error:?}"
    );
    let end = ends.client.closed().await;
    assert_eq!(
        TunnelClosed::from_connection(&end),
        TunnelClosed::NotAllowed
    );
}

#[tokio::test]
async fn whoever_holds_the_secret_is_admitted() {
    let (refused, _ends) = answer(1, Some(SECRET), &by_secret()).await;
    assert!(refused.is_none(), "{refused:?}");
}

#[tokio::test]
async fn a_listed_node_needs_no_secret_and_anyone_means_anyone() {
    let listed = Admission {
        nodes: [key(1).node_id()].into(),
        ..Admission::default()
    };
    let (refused, _ends) = answer(1, None, &listed).await;
    assert!(refused.is_none(), "{refused:?}");
    let anyone = Admission {
        anyone: true,
        ..Admission::default()
    };
    let (refused, _ends) = answer(1, None, &anyone).await;
    assert!(refused.is_none(), "{refused:?}");
}

#[tokio::test]
async fn a_wrong_secret_or_none_is_refused() {
    for secret in [Some([8; 32]), None] {
        let (refused, ends) = answer(1, secret, &by_secret()).await;
        assert_refused(refused, ends).await;
    }
}

#[tokio::test]
async fn an_empty_admission_admits_nobody() {
    let (refused, ends) = answer(1, Some(SECRET), &Admission::default()).await;
    assert_refused(refused, ends).await;
}

#[tokio::test]
async fn the_record_of_another_node_is_refused_even_with_the_secret() {
    let (refused, ends) = answer(3, Some(SECRET), &by_secret()).await;
    assert!(
        matches!(refused, Some(GreetError::WrongNode)),
        "{refused:?}"
    );
    assert_refused(refused, ends).await;
}

#[tokio::test]
async fn a_proof_is_worth_nothing_on_another_connection() {
    let first = ends().await;
    let second = ends().await;
    let secret = TicketSecret::from_bytes(SECRET);
    let stolen = secret.tunnel_proof(&exporter(&first.client).unwrap());
    let (mut send, _recv) = second.client.open_bi().await.unwrap();
    let greeting = Greeting {
        record: record(1),
        proof: Some(stolen),
    };
    message::write(&mut send, &greeting).await.unwrap();
    let refused = greet_as_agent(&second.agent, record(2), key(1).node_id(), &by_secret()).await;
    assert_refused(refused.err(), second).await;
}

#[tokio::test]
async fn what_is_no_greeting_is_a_breach_of_protocol() {
    for bytes in [
        &b"\xff\xff\xff\xff"[..],
        b"\0\0\0\x04\xff\xff\xff\xff",
        b"\0\0\0\0",
        b"\0\0",
    ] {
        let ends = ends().await;
        let (mut send, _recv) = ends.client.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        send.finish().unwrap();
        let refused = greet_as_agent(&ends.agent, record(2), key(1).node_id(), &by_secret()).await;
        assert!(
            matches!(refused, Err(GreetError::Malformed(_))),
            "{bytes:?}: {refused:?}"
        );
        let quinn::ConnectionError::ApplicationClosed(close) = ends.client.closed().await else {
            panic!("not closed by the agent");
        };
        assert_eq!(
            close.error_code,
            VarInt::from_u32(CloseCode::Protocol as u32)
        );
    }
}

#[tokio::test]
async fn an_agent_that_answers_for_another_node_is_left() {
    let ends = ends().await;
    let mut records = greet_as_client(&ends.client, record(1), None)
        .await
        .unwrap();
    let anyone = Admission {
        anyone: true,
        ..Admission::default()
    };
    greet_as_agent(&ends.agent, record(3), key(1).node_id(), &anyone)
        .await
        .unwrap();
    let error = records.next(key(2).node_id()).await.unwrap_err();
    assert!(matches!(error, GreetError::WrongNode), "{error}");
}
