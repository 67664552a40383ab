//! The backup-worker barrier: of M = N + b workers the first N gradients of a step win, late ones are dropped.
//!
//! [`protocol`] decides, and is what `docs/backup-barrier.md` describes and the model in `tests/backup_model` checks.
//! Nothing here may decide anything beside it: a [`Barrier`] does what a [`protocol::Worker`] wants done, and says how it
//! went.
//!
//! ```
//! use sapwood::{backup::Barrier, bootstrap::Job, communicator::Communicator};
//!
//! let communicator = Communicator::builder().join(&Job::local(1)?.remove(0))?;
//! let mut barrier = Barrier::<f32>::builder(&communicator, 4).backups(0).build()?;
//! for step in 1..4 {
//!     barrier.gradient().fill(step as f32); // the backward pass
//!     let ended = barrier.finish()?;
//!     assert_eq!((ended.step, barrier.result()), (step, &[step as f32; 4][..]));
//!     assert_eq!(barrier.members(), [0]);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod answering;
mod barrier;
mod catching_up;
mod connecting;
mod core;
mod doubting;
mod driving;
mod error;
mod ground;
mod leaving;
mod lines;
mod mapped;
mod memory;
pub mod protocol;
mod racing;
mod remote;
mod results;
mod returning;
mod settings;
mod straight;
mod summing;
#[cfg(test)]
mod tests;
mod tree;

pub use barrier::{Barrier, Ended, How};
pub use error::BackupError;
pub use settings::Builder;
