//! Collectives as data: builders, lowering, the verifier. Uses nothing of the modules above or beside it, and moves
//! no byte itself.

pub mod lowered;
