//! What a rank does while it joins, for whoever wants to show it.

use rustix::io::Errno;

use super::{BootstrapError, Rank, Rendezvous};

/// What a rank has come to in [`super::Membership::join_with`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum JoinProgress<'join> {
    /// Rank 0 has opened the rendezvous, here with the port that it has got.
    Open {
        /// Where the others find it.
        rendezvous: &'join Rendezvous,
    },
    /// Rank 0 waits for these; said when it begins to and whenever one of them has come.
    WaitingFor {
        /// The ranks that have not come, ascending.
        absent: &'join [Rank],
    },
    /// Another rank found nobody at the rendezvous and tries again until its deadline; said once for each reason.
    NobodyThere {
        /// Where it was.
        rendezvous: &'join Rendezvous,
        /// What the system said.
        why: Errno,
    },
    /// Rank 0 has taken this rank in, which waits for the rest now.
    Accepted,
}

/// Who is told of a join's progress, and who may end it.
pub(super) struct Watch<'watch> {
    pub(super) tell: &'watch mut dyn FnMut(JoinProgress<'_>),
    /// Asked now and then, if anybody can want to.
    pub(super) still: Option<&'watch mut dyn FnMut() -> Result<(), BootstrapError>>,
}

impl Watch<'_> {
    pub(super) fn tell(&mut self, progress: JoinProgress<'_>) {
        (self.tell)(progress);
    }

    /// The error is why the join must not go on.
    pub(super) fn still(&mut self) -> Result<(), BootstrapError> {
        self.still.as_mut().map_or(Ok(()), |still| still())
    }
}
