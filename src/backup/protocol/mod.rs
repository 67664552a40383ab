//! What the barrier's words mean and what a worker does next: pure functions of what it has seen. No input or output, no
//! clock, no allocation; it never waits.
//!
//! A [`Worker`] says what it [wants](Worker::want) done; whoever drives it does that and answers ([`Worker::did`]), or
//! lets it [look](Worker::look) at the words of its step. The same code is driven by the barrier and by the model
//! checker, which tries every order, stop and crash. `docs/backup-barrier.md` says why it is as it is.

mod answer;
mod layout;
mod look;
mod members;
mod part;
mod recovery;
mod renumbered;
mod scan;
mod shape;
mod usual;
mod word;
mod worker;

pub use layout::{Layout, Word, modulo};
pub use look::{Doubts, Words};
pub use members::Members;
pub use part::MAXIMUM_CHILDREN;
pub use scan::{Hole, Scanned, listed, scan};
pub use shape::{Reach, Shape, ShapeError, Way};
pub use word::{Exclusion, Few, MAXIMUM_STEP, Opening, Seal, Slot, Tag, Tickets};
pub use worker::{Access, Did, Want, Worker};
