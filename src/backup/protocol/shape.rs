//! How many workers, how many of them are enough, and what can be relied on where they run. The same on every worker.

use super::part::MAXIMUM_CHILDREN;

/// What the words and the data lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reach {
    /// One host's memory: words and whatever was shown outlive their owner's process, data is pulled, and nobody stores
    /// into memory that another worker owns.
    LoadStore,
    /// Memory goes with its owner; partial sums are written into a parent's staging, and the words' home can be lost.
    Messages,
    /// Memory goes with its owner, and the words' home can be lost; parts are read from where they lie, so that nobody
    /// writes into memory that another worker owns.
    Reads,
}

/// How the sum is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// Every worker adds up the members' gradients for itself. What arrived is complete, so that the seal is the commit.
    Flat,
    /// Along a tree of the members, in which each node has so many children at most.
    Tree {
        /// 1 is a chain.
        children: u16,
    },
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    workers: u16,
    members: u16,
    ring: u16,
    tickets: u16,
    exclusions: u16,
    pub(super) reach: Reach,
    pub(super) way: Way,
}

/// Why there is no such barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// More backups than can be spared, or too many workers.
    #[error("{workers} workers with {backups} backups: there are 1 to 4096, and at least one is no backup")]
    Workers {
        /// All of them.
        workers: u32,
        /// Those that need not be waited for.
        backups: u32,
    },
    /// A result that only members hold could be lost with them.
    #[error(
        "{workers} workers with {backups} backups: where memory goes with its process, more than half of the workers \
         must be needed for a step, else its result can be lost with those who hold it; use fewer backups"
    )]
    Losable {
        /// All of them.
        workers: u32,
        /// Those that need not be waited for.
        backups: u32,
    },
    /// Only where all see all.
    #[error("workers add up for themselves only where they see each other's memory; use a tree")]
    Flat,
    /// No such tree.
    #[error("a tree whose nodes have {children} children: 1 to {most} are possible", most = MAXIMUM_CHILDREN)]
    Tree {
        /// How many were asked for.
        children: u16,
    },
    /// Too few or too many results kept.
    #[error("a ring of {ring} steps: 2 to 1024 are possible")]
    Ring {
        /// How many were asked for.
        ring: u16,
    },
}

impl Shape {
    /// `ring`: of how many steps words and results are kept.
    ///
    /// # Errors
    /// See [`ShapeError`].
    pub fn new(workers: u32, backups: u32, ring: u16, reach: Reach, way: Way) -> Result<Self, ShapeError> {
        if !(1..=4096).contains(&workers) || backups >= workers {
            return Err(ShapeError::Workers { workers, backups });
        }
        if reach != Reach::LoadStore && 2 * backups >= workers && backups > 0 {
            return Err(ShapeError::Losable { workers, backups });
        }
        match way {
            Way::Flat if reach != Reach::LoadStore => return Err(ShapeError::Flat),
            Way::Tree { children } if !(1..=MAXIMUM_CHILDREN as u16).contains(&children) => {
                return Err(ShapeError::Tree { children });
            }
            Way::Flat | Way::Tree { .. } => {}
        }
        if !(2..=1024).contains(&ring) {
            return Err(ShapeError::Ring { ring });
        }
        Ok(Self {
            workers: workers as u16,
            members: (workers - backups) as u16,
            ring,
            // Once each, and again after a ticket was taken in vain.
            tickets: (2 * workers + 6).min(8191) as u16,
            exclusions: workers as u16,
            reach,
            way,
        })
    }

    /// M: all workers.
    pub const fn workers(&self) -> u16 {
        self.workers
    }

    /// N: how many gradients seal a step, and the divisor of their sum.
    pub const fn members(&self) -> u16 {
        self.members
    }

    /// What words and data lie in.
    pub const fn reach(&self) -> Reach {
        self.reach
    }

    /// Of how many steps words and results are kept.
    pub const fn ring(&self) -> u16 {
        self.ring
    }

    /// Tickets of one step that have a slot.
    pub const fn tickets(&self) -> u16 {
        self.tickets
    }

    /// Exclusions of one step that have a word.
    pub const fn exclusions(&self) -> u16 {
        self.exclusions
    }

    /// Whose memory the words of a view are in.
    pub const fn home(&self, view: u16) -> u16 {
        view % self.workers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_kept_is_refused() {
        let tree = Way::Tree { children: 2 };
        assert!(Shape::new(4, 2, 4, Reach::LoadStore, Way::Flat).is_ok());
        assert!(Shape::new(4096, 163, 4, Reach::Messages, tree).is_ok());
        assert!(Shape::new(1, 0, 2, Reach::Messages, tree).is_ok());
        let losable = ShapeError::Losable {
            workers: 4,
            backups: 2,
        };
        assert_eq!(Shape::new(4, 2, 4, Reach::Messages, tree), Err(losable));
        assert_eq!(
            Shape::new(4, 1, 4, Reach::Messages, Way::Flat),
            Err(ShapeError::Flat)
        );
        assert!(Shape::new(4, 4, 4, Reach::LoadStore, tree).is_err());
        assert!(Shape::new(5000, 4, 4, Reach::LoadStore, tree).is_err());
        assert!(Shape::new(4, 1, 1, Reach::LoadStore, tree).is_err());
        assert!(Shape::new(4, 1, 2, Reach::LoadStore, Way::Tree { children: 9 }).is_err());
    }
}
