//! The backup-worker barrier: of M = N + b workers the first N gradients of a step win, late ones are dropped.
//!
//! [`protocol`] decides, and is what `docs/backup-barrier.md` describes and the model in `tests/backup_model` checks.
//! Nothing here may decide anything beside it.

pub mod protocol;
