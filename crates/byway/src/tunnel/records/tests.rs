//! What an agent says of itself after the greeting, over real QUIC connections on loopback.

use byway_core::io::Admission;
use byway_wire::tunnel::CloseCode;
use quinn::VarInt;
use tokio::task::JoinHandle;

use super::*;
use crate::tunnel::ends::{Ends, ends, key, record};
use crate::tunnel::greeting::{greet_as_agent, greet_as_client};

const SHORT: Duration = Duration::from_millis(20);

async fn within<T>(future: impl Future<Output = T>) -> T {
    let limit = tokio::time::timeout(Duration::from_secs(20), future);
    limit.await.expect("in time")
}

async fn next(records: &mut AgentRecords) -> Result<Option<SignedRecord>, GreetError> {
    within(records.next(key(2).node_id())).await
}

fn start_telling(
    pause: Duration,
    later: SendStream,
    own: &watch::Sender<Arc<SignedRecord>>,
) -> JoinHandle<()> {
    tokio::spawn(tell(later, own.subscribe(), pause))
}

/// The agent's record as its `seq`-th change leaves it.
fn changed(seq: u64) -> SignedRecord {
    let mut content = record(2).record().clone();
    content.seq = seq;
    SignedRecord::sign(&key(2), content)
}

/// Both sides, greeted: what the client hears by, and what the agent speaks by.
async fn greeted() -> (Ends, AgentRecords, SendStream) {
    let ends = ends().await;
    let mut records = greet_as_client(&ends.client, record(1), None)
        .await
        .unwrap();
    records.pause = SHORT;
    let anyone = Admission {
        anyone: true,
        ..Admission::default()
    };
    let client = greet_as_agent(&ends.agent, record(2), key(1).node_id(), &anyone)
        .await
        .unwrap();
    let first = next(&mut records).await.unwrap();
    assert_eq!(first, Some(record(2)));
    (ends, records, client.later)
}

#[tokio::test]
async fn what_the_record_becomes_is_told_and_of_many_changes_the_last() {
    let (_ends, mut records, later) = greeted().await;
    let own = watch::Sender::new(Arc::new(record(2)));
    let mut shown = own.subscribe();
    shown.borrow_and_update();
    // It became another between the greeting and now.
    own.send_replace(Arc::new(changed(2)));
    let telling = tokio::spawn(tell(later, shown, SHORT));
    let heard = next(&mut records).await.unwrap();
    assert_eq!(heard, Some(changed(2)));
    // Of those that come at once the last.
    for seq in 3..=9 {
        own.send_replace(Arc::new(changed(seq)));
    }
    assert_eq!(next(&mut records).await.unwrap(), Some(changed(9)));
    // The agent's endpoint ends.
    drop(own);
    assert_eq!(next(&mut records).await.unwrap(), None);
    within(telling).await.unwrap();
}

/// However often it changes.
#[tokio::test]
async fn an_agent_says_no_more_than_one_in_a_pause() {
    let (_ends, mut records, later) = greeted().await;
    let own = watch::Sender::new(Arc::new(record(2)));
    let long = Duration::from_millis(300);
    let began = std::time::Instant::now();
    let telling = start_telling(long, later, &own);
    let mut seq = 2;
    let changing = async {
        while began.elapsed() < 2 * long {
            seq += 1;
            own.send_replace(Arc::new(changed(seq)));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    changing.await;
    drop(own);
    let mut heard = 0;
    while next(&mut records).await.unwrap().is_some() {
        heard += 1;
    }
    assert!((2..=4).contains(&heard), "{heard} of {seq}");
    within(telling).await.unwrap();
}

#[tokio::test]
async fn an_agent_that_says_much_is_heard_slowly() {
    let (_ends, mut records, mut later) = greeted().await;
    for seq in 2..=4 {
        let greeting = Greeting {
            record: changed(seq),
            proof: None,
        };
        message::write(&mut later, &greeting).await.unwrap();
    }
    let began = std::time::Instant::now();
    for seq in 2..=4 {
        let heard = next(&mut records).await.unwrap();
        assert_eq!(heard, Some(changed(seq)));
    }
    assert!(began.elapsed() >= 3 * records.pause);
}

#[tokio::test]
async fn the_telling_ends_with_the_tunnel_and_with_a_client_that_wants_no_more() {
    let own = watch::Sender::new(Arc::new(record(2)));
    let (_ends, records, later) = greeted().await;
    let telling = start_telling(SHORT, later, &own);
    // As a client does that reads the greeting alone.
    drop(records);
    within(telling).await.unwrap();

    let (ends, mut records, later) = greeted().await;
    let telling = start_telling(SHORT, later, &own);
    records.pause = Duration::from_secs(3_600);
    let hearing = tokio::spawn(async move { next(&mut records).await });
    ends.client.close(VarInt::from_u32(0), b"");
    assert!(matches!(within(hearing).await.unwrap(), Ok(None)));
    within(telling).await.unwrap();
    assert_eq!(own.receiver_count(), 0);
}

#[tokio::test]
async fn an_agent_of_before_ends_its_half_and_harms_nothing() {
    let (ends, mut records, mut later) = greeted().await;
    later.finish().unwrap();
    assert_eq!(next(&mut records).await.unwrap(), None);
    assert!(ends.client.close_reason().is_none());
}

#[tokio::test]
async fn another_nodes_record_ends_the_tunnel_and_so_does_what_is_none() {
    let (ends, mut records, mut later) = greeted().await;
    let greeting = Greeting {
        record: record(3),
        proof: None,
    };
    message::write(&mut later, &greeting).await.unwrap();
    let refused = next(&mut records).await;
    assert!(matches!(refused, Err(GreetError::WrongNode)), "{refused:?}");
    closed(&ends, CloseCode::NotAllowed).await;

    for bytes in [&b"\xff\xff\xff\xff"[..], b"\0\0", b"\0\0\0\x04ab"] {
        let (ends, mut records, mut later) = greeted().await;
        later.write_all(bytes).await.unwrap();
        later.finish().unwrap();
        let refused = next(&mut records).await;
        let malformed = matches!(refused, Err(GreetError::Malformed(_)));
        assert!(malformed, "{bytes:?}: {refused:?}");
        closed(&ends, CloseCode::Protocol).await;
    }
}

async fn closed(ends: &Ends, code: CloseCode) {
    let quinn::ConnectionError::ApplicationClosed(close) = within(ends.agent.closed()).await else {
        panic!("not closed by the client");
    };
    assert_eq!(close.error_code, VarInt::from_u32(code as u32));
}
