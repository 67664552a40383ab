//! When steps are sealed, given when their gradients arrive: order statistics, for several numbers of backup workers at
//! once. Knows no law of arrival.

/// How long steps took to be sealed with one number of backup workers; in the unit of the arrival times.
#[derive(Clone, Debug)]
pub struct SealTimes {
    ascending: Vec<f64>,
}

impl SealTimes {
    /// The mean over all steps.
    pub fn mean(&self) -> f64 {
        self.ascending.iter().sum::<f64>() / self.ascending.len() as f64
    }

    /// The time within which the share `q` of the steps was sealed (nearest rank).
    pub fn quantile(&self, q: f64) -> f64 {
        let rank = (q * self.ascending.len() as f64).ceil() as usize;
        self.ascending[rank.clamp(1, self.ascending.len()) - 1]
    }

    /// The step that took longest.
    pub fn longest(&self) -> f64 {
        self.quantile(1.0)
    }

    /// The share of the steps that were sealed within this time.
    pub fn share_within(&self, time: f64) -> f64 {
        let within = self.ascending.partition_point(|sealed| *sealed <= time);
        within as f64 / self.ascending.len() as f64
    }
}

/// Seals each step with 0, 1, … and `most_backups` backup workers; one entry for each of these. `arrivals` is given the
/// step's number and writes the time of every worker.
///
/// # Panics
/// Without steps, or if nobody is left to wait for: `most_backups` must be below `workers`.
pub fn seal_times(
    workers: usize,
    most_backups: usize,
    steps: usize,
    mut arrivals: impl FnMut(usize, &mut [f64]),
) -> Vec<SealTimes> {
    assert!(steps > 0, "a time needs a step");
    assert!(most_backups < workers, "a step needs a gradient");
    let mut times = vec![0.0; workers];
    let mut sealed = vec![Vec::with_capacity(steps); most_backups + 1];
    for step in 0..steps {
        arrivals(step, &mut times);
        let first = workers - 1 - most_backups;
        // Nothing asks for the order of those before.
        times.select_nth_unstable_by(first, f64::total_cmp);
        times[first..].sort_unstable_by(f64::total_cmp);
        for (column, time) in sealed.iter_mut().zip(times.iter().rev()) {
            column.push(*time);
        }
    }
    let ascending = |mut times: Vec<f64>| {
        times.sort_unstable_by(f64::total_cmp);
        SealTimes { ascending: times }
    };
    sealed.into_iter().map(ascending).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against sorting each step whole; and a further backup worker never makes a step longer.
        #[test]
        fn a_step_is_sealed_by_its_nth_arrival(
            (workers, times) in (1usize..9).prop_flat_map(|workers| {
                let step = prop::collection::vec(0.0f64..10.0, workers);
                (Just(workers), prop::collection::vec(step, 1..20))
            }),
        ) {
            let columns = seal_times(workers, workers - 1, times.len(), |step, to| to.copy_from_slice(&times[step]));
            for (backups, column) in columns.iter().enumerate() {
                let mut expected: Vec<f64> = times
                    .iter()
                    .map(|step| {
                        let mut step = step.clone();
                        step.sort_unstable_by(f64::total_cmp);
                        step[workers - 1 - backups]
                    })
                    .collect();
                expected.sort_unstable_by(f64::total_cmp);
                prop_assert_eq!(&column.ascending, &expected);
            }
            for pair in columns.windows(2) {
                let (fewer, more) = (&pair[0], &pair[1]);
                prop_assert!(fewer.mean() >= more.mean() && fewer.longest() >= more.longest());
                prop_assert!([0.5, 0.99].iter().all(|q| fewer.quantile(*q) >= more.quantile(*q)));
            }
        }
    }

    #[test]
    fn figures_of_four_steps() {
        let column = &seal_times(1, 0, 4, |step, times| times[0] = [3.0, 1.0, 2.0, 10.0][step])[0];
        assert_eq!(
            (column.mean(), column.quantile(0.5), column.quantile(0.99)),
            (4.0, 2.0, 10.0)
        );
        assert_eq!(
            (
                column.longest(),
                column.share_within(2.0),
                column.share_within(0.5)
            ),
            (10.0, 0.5, 0.0)
        );
    }
}
