//! Protocols asked at once: the first that gives a port is enough, and what another one gives too late must not stay behind.
//!
//! A request that was sent may be answered however little the answer is wanted by then, and only the answer says which port
//! there is to give back. So nobody who was asked is dropped: the rest of the race is kept until it is over.

use std::pin::Pin;

use tokio::sync::watch;

type Leg<T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send>>;

/// Whether a port was given, for those who have not asked for one yet.
pub(super) type Decided = watch::Receiver<bool>;

pub(super) struct Race<T> {
    legs: Vec<Leg<T>>,
    decided: watch::Sender<bool>,
    failures: Vec<String>,
}

impl<T> Race<T> {
    pub(super) fn new() -> Self {
        Self {
            legs: Vec::new(),
            decided: watch::Sender::new(false),
            failures: Vec::new(),
        }
    }

    /// One more takes part. Those added first are looked at first, when several have something to say.
    pub(super) fn add<F>(&mut self, leg: impl FnOnce(Decided) -> F)
    where
        F: Future<Output = Result<T, String>> + Send + 'static,
    {
        self.legs.push(Box::pin(leg(self.decided.subscribe())));
    }

    /// What is given next; none when all have ended. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Option<T> {
        loop {
            let (n, ended) = std::future::poll_fn(|context| {
                for (n, leg) in self.legs.iter_mut().enumerate() {
                    if let std::task::Poll::Ready(ended) = leg.as_mut().poll(context) {
                        return std::task::Poll::Ready(Some((n, ended)));
                    }
                }
                match self.legs.is_empty() {
                    true => std::task::Poll::Ready(None),
                    false => std::task::Poll::Pending,
                }
            })
            .await?;
            drop(self.legs.remove(n));
            match ended {
                Ok(given) => {
                    self.decide();
                    return Some(given);
                }
                Err(why) => self.failures.push(why),
            }
        }
    }

    /// Whoever has not asked for a port yet ends without.
    pub(super) fn decide(&self) {
        self.decided.send_replace(true);
    }

    /// Why those that ended gave none.
    pub(super) fn failures(&self) -> String {
        self.failures.join("; ")
    }
}

impl<T> std::fmt::Debug for Race<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Race")
            .field("legs", &self.legs.len())
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    type Answer = oneshot::Sender<Result<&'static str, String>>;

    /// Two who have asked, and what each is told.
    fn two() -> (Race<&'static str>, [Answer; 2]) {
        let mut race = Race::new();
        let senders = [(); 2].map(|()| {
            let (answer, answered) = oneshot::channel();
            race.add(|_| async { answered.await.unwrap() });
            answer
        });
        (race, senders)
    }

    #[tokio::test]
    async fn what_a_loser_gets_is_told_of_too() {
        let (mut race, [slow, fast]) = two();
        fast.send(Ok("fast")).unwrap();
        assert_eq!(race.next().await, Some("fast"));
        // Somebody else was listened to meanwhile.
        tokio::select! {
            biased;
            late = race.next() => panic!("{late:?}"),
            () = std::future::ready(()) => {}
        }
        slow.send(Ok("slow")).unwrap();
        assert_eq!(race.next().await, Some("slow"));
        assert_eq!(race.next().await, None);
    }

    #[tokio::test]
    async fn who_has_not_asked_for_a_port_yet_asks_for_none_after_another_was_given() {
        let (mut race, [first, second]) = two();
        race.add(|mut decided| async move {
            decided.wait_for(|decided| *decided).await.unwrap();
            Err("still searching".to_owned())
        });
        first.send(Ok("first")).unwrap();
        assert_eq!(race.next().await, Some("first"));
        drop(second.send(Err("none".to_owned())));
        assert_eq!(race.next().await, None);
        assert_eq!(race.failures(), "none; still searching");
    }

    #[tokio::test]
    async fn a_failure_is_no_end_while_another_may_give_one() {
        let (mut race, [first, second]) = two();
        first.send(Err("refused".to_owned())).unwrap();
        second.send(Ok("second")).unwrap();
        assert_eq!(race.next().await, Some("second"));
        assert_eq!(race.failures(), "refused");
    }
}
