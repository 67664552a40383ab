//! Regions that a NIC, a peer process and a framework can all see. Knows nothing of ranks or fabrics.

mod element;

pub use element::{DataType, Element};
