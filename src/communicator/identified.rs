//! Communicators of jobs that no launcher has described.

use super::{Communicator, CommunicatorError};
use crate::bootstrap::UniqueId;

impl Communicator {
    /// The communicator of a job that was agreed on by means of the caller's own: every rank brings the same id, its
    /// rank and the size. Collective. For other settings than the usual ones:
    /// [`builder()`](Communicator::builder)`.join(&id.job(rank, size)?)`.
    ///
    /// ```
    /// use sapwood::bootstrap::UniqueId;
    /// use sapwood::communicator::Communicator;
    ///
    /// let id = UniqueId::on_one_host()?; // or UniqueId::new(), for ranks on any hosts
    /// let bytes = id.to_bytes(); // to be passed on to the other ranks, here a thread
    /// let other = std::thread::spawn(move || {
    ///     let id = UniqueId::from_bytes(&bytes).unwrap();
    ///     Communicator::from_unique_id(&id, 1, 2).unwrap().finalize().unwrap();
    /// });
    /// let communicator = Communicator::from_unique_id(&id, 0, 2)?;
    /// communicator.finalize()?;
    /// other.join().unwrap();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`UniqueId::job`] and [`Builder::join`](super::Builder::join).
    pub fn from_unique_id(id: &UniqueId, rank: u32, size: u32) -> Result<Self, CommunicatorError> {
        Self::builder().join(&id.job(rank, size)?)
    }
}
