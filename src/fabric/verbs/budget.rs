//! How much may be in flight on all connections together, so that the completion queue cannot overflow: an overflow
//! is the end of every queue pair on it. The queue grows with the connections; where it has reached the device's limit,
//! they share it, and who finds no room is told that its queue is full.
//!
//! Requests and receives have a half each: receives that wait for messages must not keep requests from being posted.

/// See the module. All numbers are of completions, one for each work request.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// For requests, and again for receives.
    limit: usize,
    requests: usize,
    receives: usize,
}

impl Budget {
    /// Sets the limits for a queue of `capacity`, of which `spare` are for requests of the endpoint's own.
    pub fn set(&mut self, capacity: usize, spare: usize) {
        self.limit = capacity.saturating_sub(spare) / 2;
    }

    /// Takes room for a request of `count` work requests, if there is.
    #[inline]
    pub fn take_request(&mut self, count: usize) -> bool {
        let fits = self.requests + count <= self.limit;
        self.requests += if fits { count } else { 0 };
        fits
    }

    /// Whether there would be room if nothing else were in flight.
    pub fn could_take(&self, count: usize) -> bool {
        count <= self.limit
    }

    /// Gives back what such a request took.
    #[inline]
    pub fn give_request(&mut self, count: usize) {
        debug_assert!(self.requests >= count);
        self.requests = self.requests.saturating_sub(count);
    }

    /// As [`Budget::take_request`], for receives: how many of `wanted` there is room for, `count` each.
    #[inline]
    pub fn take_receives(&mut self, wanted: usize, count: usize) -> usize {
        let fits = wanted.min((self.limit - self.receives.min(self.limit)) / count);
        self.receives += fits * count;
        fits
    }

    /// Gives back what one receive took.
    #[inline]
    pub fn give_receive(&mut self, count: usize) {
        debug_assert!(self.receives >= count);
        self.receives = self.receives.saturating_sub(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_half_takes_from_the_other() {
        let mut budget = Budget::default();
        budget.set(103, 3);
        assert_eq!(budget.take_receives(100, 4), 12);
        assert_eq!(budget.take_receives(1, 4), 0);
        assert!((0..50).all(|_| budget.take_request(1)));
        assert!(!budget.take_request(1));
        budget.give_request(1);
        assert!(!budget.take_request(2));
        assert!(budget.take_request(1));
        (0..12).for_each(|_| budget.give_receive(4));
        assert_eq!(budget.take_receives(100, 1), 50);
    }

    #[test]
    fn a_larger_queue_makes_room() {
        let mut budget = Budget::default();
        assert!(!budget.take_request(1));
        budget.set(10, 0);
        assert!((0..5).all(|_| budget.take_request(1)));
        assert!(!budget.take_request(1));
        budget.set(20, 0);
        assert!(budget.take_request(1));
    }
}
