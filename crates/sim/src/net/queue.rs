//! What happens when: a priority queue in which events of one time come out in the order they went in, so that a run
//! has exactly one order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Queue<T> {
    /// Time, number, and the place in `items`: what is sorted is small, what happens stays where it lies.
    order: BinaryHeap<Reverse<(Duration, u64, u32)>>,
    items: Vec<Option<T>>,
    free: Vec<u32>,
    next: u64,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self {
            order: BinaryHeap::new(),
            items: Vec::new(),
            free: Vec::new(),
            next: 0,
        }
    }
    pub(super) fn push(&mut self, at: Duration, item: T) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.items.push(None);
            self.items.len() as u32 - 1
        });
        self.items[place as usize] = Some(item);
        self.order.push(Reverse((at, self.next, place)));
        self.next += 1;
    }
    /// The first item not later than `limit`.
    pub(super) fn pop_until(&mut self, limit: Duration) -> Option<(Duration, T)> {
        let Reverse((at, _, place)) = *self.order.peek()?;
        if at > limit {
            return None;
        }
        self.order.pop();
        self.free.push(place);
        self.items[place as usize].take().map(|item| (at, item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_those_of_one_time_in_the_order_they_were_made() {
        let mut q = Queue::new();
        let s = Duration::from_secs;
        for (at, item) in [(2, 'c'), (1, 'a'), (2, 'd'), (1, 'b'), (9, 'z')] {
            q.push(s(at), item);
        }
        let popped: String = std::iter::from_fn(|| q.pop_until(s(5)))
            .map(|(_, c)| c)
            .collect();
        assert_eq!(popped, "abcd");
    }
}
