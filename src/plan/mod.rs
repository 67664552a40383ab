//! Collectives as data: builders, lowering, the verifier. Uses nothing of the modules above or beside it, and moves
//! no byte itself.

pub mod lowered;

/// What a plan achieves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Collective {
    /// Every rank gets the reduction of all inputs.
    AllReduce,
    /// The root gets the reduction of all inputs.
    Reduce {
        /// Who.
        root: u32,
    },
    /// Every rank gets the root's input.
    Broadcast {
        /// Whose.
        root: u32,
    },
    /// No rank leaves before all have come.
    Barrier,
}
