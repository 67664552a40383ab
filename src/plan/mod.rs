//! Collectives as data: builders, lowering, the verifier, the cost model. Uses nothing of the modules above or beside it, and moves
//! no byte itself.
//!
//! A [`Plan`] (dataflow level) is made by a builder ([`builders::build`]), lowered for one rank and one kind of
//! fabric ([`Plan::lower`]) and proved for all ranks at once ([`verify::verify`]).
//!
//! ```
//! use sapwood::plan::{Collective, Reach, builders, verify};
//!
//! let plan = builders::build("double-binary-tree", Collective::AllReduce, 7)?;
//! let mine = plan.lower(3, Reach::LoadStore)?;
//! assert_eq!((mine.rank, mine.ranks, mine.blocks), (3, 7, 2));
//! let proof = verify::verify(&plan, Reach::LoadStore)?;
//! assert!(proof.places > 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod builders;
mod collective;
pub mod cost;
mod cut;
pub mod dataflow;
pub mod draw;
mod error;
mod exchange;
mod forest;
mod halving;
mod hosts;
mod local_first;
pub mod lowered;
pub mod lowering;
mod nomial;
pub mod partition;
mod relay;
mod run;
pub mod table;
mod tree;
mod turned;
pub mod verify;

pub use collective::Collective;
pub use cut::Cut;
pub use dataflow::Plan;
pub use error::PlanError;
pub use hosts::hierarchical_name;
pub use lowering::Reach;
pub use partition::{Partition, Placement, Side};
pub use run::{Pieces, Run};
pub use table::{Table, default_chunk_bytes, default_past_caches_bytes, default_plan, default_plan_on};

/// The most ranks a plan may have.
pub const MAX_RANKS: u32 = 1 << 16;
