//! Raw verbs bindings, loaded at run time by symbol version. No policy lives here: what a call means, when it is
//! made and who owns the memory behind it is decided in `sapwood::fabric`.
//!
//! Building needs no header, no clang and no libibverbs; a program that uses this starts where there is none, and
//! [`verbs::Verbs::load`] says so.

pub mod mlx5;
mod symbol;
pub mod verbs;
