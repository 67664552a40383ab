//! The fastest stretch of a bandwidth test: over all posts and the completions after them, the least time for one
//! message. As in perftest, but without trying every pair.

use super::bandwidth::has_peak;
use super::setup::Setup;

/// When lists were posted and completions taken.
#[derive(Clone, Debug, Default)]
pub(super) struct Stamps {
    wanted: bool,
    /// Messages in each post.
    list: u64,
    /// Ticks of each post, in order.
    posts: Vec<u64>,
    /// How many messages were done, and the ticks.
    completions: Vec<(u64, u64)>,
}

impl Stamps {
    pub(super) fn new(setup: &Setup, initiates: bool) -> Self {
        let wanted = has_peak(setup, initiates);
        let messages = match setup.iterations() {
            Some(count) if wanted => count as usize * setup.queue_pairs,
            _ => 0,
        };
        let mut stamps = Self {
            wanted,
            list: setup.post_list as u64,
            // Written to, so that no page is faulted in between two stamps.
            posts: vec![u64::MAX; messages.div_ceil(setup.post_list)],
            completions: vec![(u64::MAX, 0); messages],
        };
        stamps.posts.clear();
        stamps.completions.clear();
        stamps
    }

    pub(super) fn wanted(&self) -> bool {
        self.wanted
    }

    #[inline]
    pub(super) fn posted(&mut self, ticks: u64) {
        self.posts.push(ticks);
    }

    #[inline]
    pub(super) fn completed(&mut self, done: u64, ticks: u64) {
        self.completions.push((done, ticks));
    }

    /// Ticks of one message in the fastest stretch.
    ///
    /// The least ratio of time to messages over all pairs: for a guess at it, the pair that lies furthest below the
    /// guess is found in one pass, and its ratio is the next guess, until none lies below (Dinkelbach's method).
    pub(super) fn fastest(&self) -> Option<f64> {
        let (last, at) = self.completions.last()?;
        let begin = *self.posts.first()?;
        let mut guess = at.saturating_sub(begin) as f64 / *last as f64;
        loop {
            let mut best = (0.0, guess);
            let mut posts = self.posts.iter().enumerate().peekable();
            let mut latest: Option<(f64, u64, u64)> = None;
            for (done, completed) in &self.completions {
                // Posts whose messages are all among those done.
                while let Some((number, posted)) =
                    posts.next_if(|(number, _)| *number as u64 * self.list < *done)
                {
                    let before = number as u64 * self.list;
                    let key = (posted - begin) as f64 - guess * before as f64;
                    if latest.is_none_or(|(most, ..)| key > most) {
                        latest = Some((key, before, *posted));
                    }
                }
                if let Some((key, before, posted)) = latest {
                    let below = guess * *done as f64 - completed.saturating_sub(begin) as f64 + key;
                    if below > best.0 {
                        best = (
                            below,
                            completed.saturating_sub(posted) as f64 / (done - before) as f64,
                        );
                    }
                }
            }
            if best.1 >= guess {
                return Some(guess);
            }
            guess = best.1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_hand(stamps: &Stamps) -> f64 {
        let mut least = f64::INFINITY;
        for (number, posted) in stamps.posts.iter().enumerate() {
            let before = number as u64 * stamps.list;
            for (done, completed) in stamps.completions.iter().filter(|(done, _)| *done > before) {
                least = least.min((completed - posted) as f64 / (done - before) as f64);
            }
        }
        least
    }

    #[test]
    fn the_fastest_stretch_is_found_as_by_trying_all() {
        let mut state = 12345_u64;
        let mut random = move |below: u64| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) % below
        };
        for list in [1, 4] {
            for _ in 0..50 {
                let mut stamps = Stamps {
                    wanted: true,
                    list,
                    ..Stamps::default()
                };
                let (mut now, mut posted, mut done) = (1_000_000, 0, 0);
                while done < 400 {
                    now += 1 + random(50);
                    if posted < 400 && (posted == done || random(2) == 0) {
                        stamps.posted(now);
                        posted += list;
                    } else if posted > done {
                        done += 1 + random(posted - done);
                        now += random(3000) * u64::from(random(10) == 0);
                        stamps.completed(done, now);
                    }
                }
                let (fast, slow) = (stamps.fastest().unwrap(), by_hand(&stamps));
                assert!((fast - slow).abs() <= slow * 1e-9, "{fast} {slow}");
            }
        }
    }

    #[test]
    fn nothing_stamped_no_peak() {
        assert_eq!(Stamps::default().fastest(), None);
    }
}
