//! Protocols asked at once: the first that gives a port is enough, and what another one gives too late must not stay behind.
//!
//! A request that was sent may be answered however little the answer is wanted by then, and only the answer says which port
//! there is to give back. So nobody who was asked is dropped: the rest of the race is kept until it is over.

use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

type Leg<T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send>>;

/// Whether a port was given, for those who have not asked for one yet.
pub(super) type Decided = watch::Receiver<bool>;

pub(super) struct Requests<T> {
    legs: FuturesUnordered<Leg<T>>,
    decided: watch::Sender<bool>,
    failures: Vec<String>,
}

impl<T> Requests<T> {
    pub(super) fn new() -> Self {
        Self {
            legs: FuturesUnordered::new(),
            decided: watch::Sender::new(false),
            failures: Vec::new(),
        }
    }

    /// One more takes part.
    pub(super) fn add<F>(&mut self, leg: impl FnOnce(Decided) -> F)
    where
        F: Future<Output = Result<T, String>> + Send + 'static,
    {
        self.legs.push(Box::pin(leg(self.decided.subscribe())));
    }

    /// What is given next; none when all have ended. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Option<T> {
        while let Some(ended) = self.legs.next().await {
            match ended {
                Ok(given) => {
                    self.decide();
                    return Some(given);
                }
                Err(why) => self.failures.push(why),
            }
        }
        None
    }

    /// Whoever has not asked for a port yet ends without.
    fn decide(&self) {
        self.decided.send_replace(true);
    }

    /// Gives back what those give who have asked already, and answer within `patience`. To give it back takes its own time.
    pub(super) async fn end(mut self, patience: Duration, give_back: impl AsyncFn(T)) {
        self.decide();
        let until = Instant::now() + patience;
        while let Ok(Some(given)) = timeout_at(until, self.next()).await {
            give_back(given).await;
        }
    }

    /// The same, however late they answer; with patience when there is a reason to hurry.
    pub(super) async fn end_unless(
        mut self,
        hurry: impl Future<Output = ()>,
        patience: Duration,
        give_back: impl AsyncFn(T),
    ) {
        self.decide();
        tokio::pin!(hurry);
        loop {
            tokio::select! {
                given = self.next() => match given {
                    Some(given) => give_back(given).await,
                    None => return,
                },
                () = &mut hurry => return self.end(patience, give_back).await,
            };
        }
    }

    /// Why those that ended gave none.
    pub(super) fn failures(&self) -> String {
        self.failures.join("; ")
    }
}

impl<T> std::fmt::Debug for Requests<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Requests")
            .field("legs", &self.legs.len())
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    type Answer = oneshot::Sender<Result<&'static str, String>>;

    /// Two who have asked, and what each is told.
    fn two() -> (Requests<&'static str>, [Answer; 2]) {
        let mut requests = Requests::new();
        let senders = [(); 2].map(|()| {
            let (answer, answered) = oneshot::channel();
            requests.add(|_| async { answered.await.unwrap() });
            answer
        });
        (requests, senders)
    }

    #[tokio::test]
    async fn what_a_loser_gets_is_told_of_too() {
        let (mut requests, [slow, fast]) = two();
        fast.send(Ok("fast")).unwrap();
        assert_eq!(requests.next().await, Some("fast"));
        // Somebody else was listened to meanwhile.
        tokio::select! {
            biased;
            late = requests.next() => panic!("{late:?}"),
            () = std::future::ready(()) => {}
        }
        slow.send(Ok("slow")).unwrap();
        assert_eq!(requests.next().await, Some("slow"));
        assert_eq!(requests.next().await, None);
    }

    #[tokio::test]
    async fn who_has_not_asked_for_a_port_yet_asks_for_none_after_another_was_given() {
        let (mut requests, [first, second]) = two();
        requests.add(|mut decided| async move {
            decided.wait_for(|decided| *decided).await.unwrap();
            Err("still searching".to_owned())
        });
        first.send(Ok("first")).unwrap();
        assert_eq!(requests.next().await, Some("first"));
        drop(second.send(Err("none".to_owned())));
        assert_eq!(requests.next().await, None);
        assert_eq!(requests.failures(), "none; still searching");
    }

    #[tokio::test]
    async fn what_was_answered_in_time_is_given_back_however_long_that_takes() {
        let (mut requests, [first, second]) = two();
        first.send(Ok("won")).unwrap();
        assert_eq!(requests.next().await, Some("won"));
        second.send(Ok("late")).unwrap();
        let given_back = AtomicU32::new(0);
        // No patience at all for answers, and some time for what gives back.
        requests
            .end(Duration::ZERO, async |late| {
                assert_eq!(late, "late");
                tokio::time::sleep(Duration::from_millis(20)).await;
                given_back.fetch_add(1, Ordering::Relaxed);
            })
            .await;
        assert_eq!(given_back.into_inner(), 1);
    }

    #[tokio::test]
    async fn an_answer_that_does_not_come_holds_nobody_up() {
        let (requests, [_silent, _too]) = two();
        requests
            .end(Duration::from_millis(1), async |given: &str| {
                panic!("{given}")
            })
            .await;
        let (requests, [_silent, _too]) = two();
        let hurry = std::future::ready(());
        requests
            .end_unless(hurry, Duration::ZERO, async |given: &str| panic!("{given}"))
            .await;
    }

    #[tokio::test]
    async fn without_hurry_even_the_latest_answer_is_given_back() {
        let (requests, [first, second]) = two();
        let given_back = AtomicU32::new(0);
        let ended = requests.end_unless(std::future::pending(), Duration::ZERO, async |_| {
            given_back.fetch_add(1, Ordering::Relaxed);
        });
        let answers = async {
            first.send(Ok("late")).unwrap();
            while given_back.load(Ordering::Relaxed) == 0 {
                tokio::task::yield_now().await;
            }
            second.send(Ok("later")).unwrap();
        };
        tokio::join!(ended, answers);
        assert_eq!(given_back.into_inner(), 2);
    }

    #[tokio::test]
    async fn a_failure_is_no_end_while_another_may_give_one() {
        let (mut requests, [first, second]) = two();
        first.send(Err("refused".to_owned())).unwrap();
        second.send(Ok("second")).unwrap();
        assert_eq!(requests.next().await, Some("second"));
        assert_eq!(requests.failures(), "refused");
    }
}
