//! Whose gradients were dropped. A worker that is always late contributes nothing: what the model learns is biased
//! towards the data of the others.

use crate::bootstrap::Rank;

/// How often each worker's gradient was in the mean, as far as this worker has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Participation {
    steps: u64,
    jumped: u64,
    dropped: Vec<u64>,
}

/// Steps after which a worker that was in so few is said to be always late.
const ENOUGH: u64 = 20;

impl Participation {
    pub(super) fn new(workers: u32) -> Self {
        Self {
            dropped: vec![0; workers as usize],
            ..Self::default()
        }
    }

    /// A step had these contributors, ascending.
    pub(super) fn saw(&mut self, contributors: &[Rank]) {
        self.steps += 1;
        let mut contributors = contributors.iter().peekable();
        for (rank, dropped) in (0..).zip(&mut self.dropped) {
            match contributors.next_if_eq(&&rank) {
                Some(_) => {}
                None => *dropped += 1,
            }
        }
    }

    /// So many steps were jumped over.
    pub(super) fn jumped_over(&mut self, steps: u64) {
        self.jumped += steps;
    }

    /// Steps whose mean this worker has seen.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Steps that it has jumped over, whose contributors it does not know.
    pub fn jumped(&self) -> u64 {
        self.jumped
    }

    /// In how many of the steps seen each worker's gradient was not in the mean, by rank.
    pub fn dropped(&self) -> &[u64] {
        &self.dropped
    }

    /// Workers that were in fewer than one of ten means, once there were enough steps to say so: the model hardly learns
    /// from their data.
    pub fn hardly_heard(&self) -> Vec<Rank> {
        let rare = |dropped: u64| self.steps >= ENOUGH && 10 * (self.steps - dropped) < self.steps;
        let ranks = (0..).zip(&self.dropped);
        ranks
            .filter(|(_, dropped)| rare(**dropped))
            .map(|(rank, _)| rank)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_always_late_is_named() {
        let mut participation = Participation::new(4);
        for step in 0..40 {
            participation.saw(if step % 2 == 0 { &[0, 1, 3] } else { &[0, 1] });
        }
        participation.jumped_over(2);
        assert_eq!(participation.dropped(), [0, 0, 40, 20]);
        assert_eq!((participation.steps(), participation.jumped()), (40, 2));
        assert_eq!(participation.hardly_heard(), [2]);
    }
}
