//! Communicators made from a communicator: all of its ranks agree over its control connections who comes together, and
//! each group then meets among itself. What comes of it shares nothing with the one it was made from.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{Builder, Communicator, CommunicatorError};
use crate::bootstrap::{Invitation, Part, Reachable};

/// What a rank says that it wants.
#[derive(Debug, Serialize, Deserialize)]
struct Wish {
    color: Option<u32>,
    key: i64,
    reachable: Reachable,
}

/// The ranks of each color, in the order of their keys.
fn groups(wishes: &[Wish]) -> BTreeMap<u32, Vec<u32>> {
    let mut groups = BTreeMap::<u32, Vec<u32>>::new();
    for (rank, wish) in (0..).zip(wishes) {
        if let Some(color) = wish.color {
            groups.entry(color).or_default().push(rank);
        }
    }
    for ranks in groups.values_mut() {
        // Stable: equal keys stay in the order of ranks.
        ranks.sort_by_key(|rank| wishes[*rank as usize].key);
    }
    groups
}

impl Communicator {
    /// A communicator for each color, of the ranks that gave it: collective over all ranks of this one. In it ranks are
    /// numbered in the order of their keys, and of their ranks here where keys are equal. With `None` a rank takes part
    /// in the call and is in no new communicator, which it gets told by `None`.
    ///
    /// The new communicator is independent of this one: it has connections, memory, windows, sequence numbers and
    /// witnesses of deaths of its own; either may fail or be dropped and the other goes on. Settings ([`Builder`]) are
    /// those of this one, and the current [timeout](Communicator::timeout). It takes a few milliseconds and, on each
    /// rank, about as many descriptors as joining the job did; it waits for operations that are in progress here.
    ///
    /// ```
    /// use sapwood::{bootstrap::Job, communicator::Communicator, engine::reduce::Operation};
    ///
    /// let rank = |job: Job| -> Result<f32, sapwood::communicator::CommunicatorError> {
    ///     let whole = Communicator::builder().join(&job)?;
    ///     // Ranks 0 and 1 in one, 2 and 3 in another.
    ///     let half = whole.split(Some(whole.rank() / 2), 0)?.expect("every rank gave a color");
    ///     let mut window = half.window::<f32>(10)?;
    ///     window.fill(whole.rank() as f32);
    ///     half.all_reduce(&mut window, Operation::Sum)?;
    ///     let sum = window[0];
    ///     half.finalize()?;
    ///     whole.finalize()?;
    ///     Ok(sum)
    /// };
    /// let ranks: Vec<_> = Job::local(4)?
    ///     .into_iter()
    ///     .map(|job| std::thread::spawn(move || rank(job)))
    ///     .collect();
    /// for (rank, sum) in ranks.into_iter().zip([1.0, 1.0, 5.0, 5.0]) {
    ///     assert_eq!(rank.join().unwrap()?, sum);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Communicator::all_gather_bytes`], after which this communicator cannot be divided or given new windows any
    /// more; as [`Builder::join`], which concerns the new communicator alone.
    ///
    /// [`Builder`]: super::Builder
    /// [`Builder::join`]: super::Builder::join
    pub fn split(&self, color: Option<u32>, key: i64) -> Result<Option<Self>, CommunicatorError> {
        self.divide("splitting a communicator", color, key, &self.made_with)
    }

    /// Another communicator of the same ranks, independent of this one. Collective.
    ///
    /// # Errors
    /// As [`Communicator::split`].
    pub fn duplicate(&self) -> Result<Self, CommunicatorError> {
        self.duplicate_as(self.made_with.clone())
    }

    /// As [`Communicator::duplicate`], with other settings: another plan, for instance. The timeout and the fabric are
    /// this one's. The settings are the same on every rank, but for a tuning, of which rank 0's counts.
    ///
    /// # Errors
    /// As [`Communicator::split`].
    pub fn duplicate_as(&self, settings: Builder) -> Result<Self, CommunicatorError> {
        let settings = settings.like(&self.made_with);
        let twin = self.divide("duplicating a communicator", Some(0), 0, &settings)?;
        Ok(twin.expect("every rank has the same color"))
    }

    fn divide(
        &self,
        call: &str,
        color: Option<u32>,
        key: i64,
        settings: &Builder,
    ) -> Result<Option<Self>, CommunicatorError> {
        self.settle()?;
        let meeting = self.meeting.borrow();
        let membership = meeting.members.membership();
        let reachable = membership.reachable();
        let wish = Wish {
            color,
            key,
            reachable,
        };
        let wishes = meeting.all_gather(call, &wish, Vec::new())?;
        let wishes: Vec<Wish> = wishes.into_iter().map(|(wish, _)| wish).collect();
        let mut groups = groups(&wishes);
        let ranks = color.and_then(|color| groups.remove(&color)).unwrap_or_default();
        let reachable: Vec<Reachable> = wishes.into_iter().map(|wish| wish.reachable).collect();

        // The first of each group opens where it meets; why it could not, its group must hear too.
        let opened = (ranks.first() == Some(&self.rank)).then(|| membership.open_part(&ranks, &reachable));
        let (part, said) = match opened {
            None => (None, None),
            Some(Ok((part, invitation))) => (Some(part), Some(Ok(invitation))),
            Some(Err(error)) => (None, Some(Err(error.to_string()))),
        };
        let invitations = meeting.all_gather(call, &said, Vec::new())?;
        let Some(&first) = ranks.first() else {
            return Ok(None);
        };
        let invitation: Option<Result<Invitation, String>> = invitations
            .into_iter()
            .map(|(said, _)| said)
            .nth(first as usize)
            .flatten();
        let part = match (part, invitation) {
            (Some(part), _) => part,
            (None, Some(Ok(invitation))) => membership.invited(&ranks, &invitation)?,
            (None, Some(Err(why))) => {
                return Err(CommunicatorError::Disagreement {
                    rank: self.rank,
                    call: "splitting a communicator",
                    what: format!("rank {first} could not open where its group is to meet: {why}"),
                });
            }
            (None, None) => return Err(meeting.unusable(first)),
        };
        self.made_of(&part, settings).map(Some)
    }

    /// The communicator of a part's ranks.
    fn made_of(&self, part: &Part<'_>, settings: &Builder) -> Result<Self, CommunicatorError> {
        let timeout = self.timeout();
        let membership = part.join(Instant::now() + timeout)?;
        settings
            .clone()
            .timeout(timeout)
            .build(membership, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_order_the_ranks_of_a_color() {
        let wish = |color, key| Wish {
            color,
            key,
            reachable: Reachable::default(),
        };
        let wishes = [
            wish(Some(7), 0),
            wish(None, -9),
            wish(Some(7), -1),
            wish(Some(0), 5),
            wish(Some(7), 0),
        ];
        let groups = groups(&wishes);
        assert_eq!(groups[&7], [2, 0, 4]);
        assert_eq!(groups[&0], [3]);
        assert_eq!(groups.len(), 2);
    }
}
