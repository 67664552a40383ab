//! What happened, cheaply enough to stay on: events in a fixed ring ([`Recorder`]), how much was moved
//! ([`Counters`]), and what is being waited for ([`Recorder::last_waits`]). Errors at a deadline, traces and
//! pictures are made from these. Nothing here allocates, locks or makes a system call while recording, and nothing
//! here knows what the rest of the library does.

mod clock;
mod counters;
mod event;
mod recorder;
mod repeats;
mod slot;
mod wait;

pub use clock::{Clock, Conversion};
pub use counters::{CopySite, CounterValues, Counters, SiteValues};
pub use event::{Event, Kind, NONE};
pub use recorder::Recorder;
pub(crate) use repeats::Repeats;
pub use wait::OpenWait;
