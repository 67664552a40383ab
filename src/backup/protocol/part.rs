//! What a member does in one attempt: where it stands in the tree of the members, and how far it has come.

use super::{Members, Reach, Tag};

/// The most children of a node of the tree.
pub const MAXIMUM_CHILDREN: usize = 4;

/// How far a member has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// It has nothing to do but to look: no member, or its part is done.
    #[default]
    Idle,
    /// Those that could still write into its staging are to find out that they may not.
    Withdraw,
    /// And then to be fenced: in the other order one of them could come back in between.
    Fence,
    /// Its staging is free: its children are to be told.
    Ready,
    /// The part of the child with this number is awaited.
    Take(u16),
    /// Its own part is to be shown to its parent.
    Publish,
    /// The root's sum is complete and is to be kept.
    Hold,
    /// The root's result is awaited, to be kept here too.
    Follow,
    /// All members are to hold the result before it is committed.
    Gather,
    /// The result is to be committed.
    Commit,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Part {
    pub tag: Tag,
    pub stage: Stage,
    pub parent: u16,
    /// Among its parent's children.
    pub number: u16,
    pub root: u16,
    pub children: [u16; MAXIMUM_CHILDREN],
    pub count: u16,
    /// Once children were told that they may write: from which number on their parts are still awaited.
    granted: Option<u16>,
    /// Those that could still write into the staging: of attempts that were left.
    owed: [u16; MAXIMUM_CHILDREN],
    owing: u16,
}

impl Part {
    /// Leaves the attempt that it is in; what it is owed by children stays to be fenced.
    pub fn leave(&mut self) {
        let mut left = Self {
            owed: self.owed,
            owing: self.owing,
            ..Self::default()
        };
        // Whatever was owed before was fenced before children were told.
        for child in self.granted.unwrap_or(self.count)..self.count {
            left.owed[left.owing as usize] = self.children[child as usize];
            left.owing += 1;
        }
        *self = left;
    }

    /// Begins an attempt; `me` need not be a member.
    pub fn enter(&mut self, tag: Tag, members: &Members, me: u16, arity: u16, reach: Reach) {
        self.leave();
        self.tag = tag;
        let (Some(position), Some(root)) = (members.position(me), members.at(0)) else {
            return;
        };
        self.root = root;
        if position > 0 {
            self.parent = members.at((position - 1) / arity).unwrap_or(root);
            self.number = (position - 1) % arity;
        }
        for child in 0..arity {
            if let Some(worker) = members.at(position * arity + 1 + child) {
                self.children[self.count as usize] = worker;
                self.count += 1;
            }
        }
        self.stage = match (self.count, reach) {
            (0, _) => self.complete(me),
            (_, Reach::LoadStore | Reach::Reads) => Stage::Take(0),
            (_, Reach::Messages) if self.owing > 0 => Stage::Withdraw,
            (_, Reach::Messages) => Stage::Ready,
        };
    }

    /// Whom to fence next.
    pub fn debtor(&self) -> u16 {
        self.owed[self.owing.saturating_sub(1) as usize]
    }

    /// The debtor was fenced.
    pub fn fenced(&mut self) {
        self.owing = self.owing.saturating_sub(1);
        self.owed[self.owing as usize] = 0;
        if self.owing == 0 {
            self.stage = Stage::Ready;
        }
    }

    /// No child may write any more, of those that do not do so already.
    pub fn withdrawn(&mut self) {
        self.stage = Stage::Fence;
    }

    /// Children were told.
    pub fn told(&mut self) {
        self.granted = Some(0);
        self.stage = Stage::Take(0);
    }

    /// The part of a child is here.
    pub fn taken(&mut self, me: u16, child: u16) {
        let next = child + 1;
        if self.granted.is_some() {
            self.granted = Some(next);
        }
        self.stage = match next < self.count {
            true => Stage::Take(next),
            false => self.complete(me),
        };
    }

    fn complete(&self, me: u16) -> Stage {
        if me == self.root {
            Stage::Hold
        } else {
            Stage::Publish
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(ranks: &[u16]) -> Members {
        let mut members = Members::default();
        ranks.iter().for_each(|rank| members.insert(*rank));
        members
    }

    #[test]
    fn every_member_but_the_root_is_one_child_of_its_parent() {
        let ranks = (0..4096).filter(|rank| rank % 25 != 7).collect::<Vec<u16>>();
        let members = members(&ranks);
        for arity in 1..=MAXIMUM_CHILDREN as u16 {
            let part = |rank| {
                let mut part = Part::default();
                part.enter(Tag(1), &members, rank, arity, Reach::LoadStore);
                part
            };
            for rank in &ranks[1..] {
                let here = part(*rank);
                let parent = part(here.parent);
                assert!(here.number < parent.count && parent.children[here.number as usize] == *rank);
            }
            assert_eq!((part(7).stage, part(7).count), (Stage::Idle, 0));
        }
    }

    #[test]
    fn who_was_told_and_did_not_come_is_fenced() {
        let mut part = Part::default();
        part.enter(Tag(1), &members(&[0, 1, 2, 3]), 0, 3, Reach::Messages);
        assert_eq!(part.stage, Stage::Ready);
        part.told();
        part.taken(0, 0);
        assert_eq!(part.stage, Stage::Take(1));
        part.enter(Tag(2), &members(&[0, 1, 2]), 0, 2, Reach::Messages);
        assert_eq!((part.stage, part.debtor()), (Stage::Withdraw, 3));
        part.withdrawn();
        part.fenced();
        // Left before anybody was told: the debts stay.
        part.enter(Tag(3), &members(&[0, 1]), 0, 2, Reach::Messages);
        assert_eq!((part.stage, part.debtor()), (Stage::Withdraw, 2));
        part.withdrawn();
        part.fenced();
        assert_eq!(part.stage, Stage::Ready);
        part.told();
        part.taken(0, 0);
        assert_eq!(part.stage, Stage::Hold);
        part.enter(Tag(4), &members(&[0, 1]), 0, 2, Reach::Messages);
        assert_eq!(part.stage, Stage::Ready);
    }
}
