//! What has failed, for who does not want to wait for it: a look that never blocks.

use super::members::first_death;
use super::{AbortHandle, Communicator, CommunicatorError};
use crate::engine::EngineError;

impl Communicator {
    /// What has failed so that the communicator cannot be used any more, if anything has that this rank can know of
    /// without waiting: an operation of this rank, one of another rank that has told, a rank that has died, an abort.
    /// [`CommunicatorError::culprit`] says which rank it is about. It never blocks, ends nothing that is in progress, and
    /// costs a system call or two: for a look now and then, between or during operations. Another thread asks
    /// [`AbortHandle::async_error`].
    ///
    /// ```
    /// use sapwood::{bootstrap::Job, communicator::Communicator};
    ///
    /// let communicator = Communicator::builder().join(&Job::local(1)?.remove(0))?;
    /// assert!(communicator.async_error().is_none());
    /// communicator.abort_handle().abort(); // any thread may
    /// let error = communicator.async_error().expect("it was aborted");
    /// assert_eq!(error.culprit(), Some(0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn async_error(&self) -> Option<CommunicatorError> {
        self.abort_handle().async_error()
    }
}

impl AbortHandle {
    /// As [`Communicator::async_error`], from any thread; also where the communicator is gone, which is an error, too.
    pub fn async_error(&self) -> Option<CommunicatorError> {
        let (Some(engine), Some(members)) = (self.engine.upgrade(), self.members.upgrade()) else {
            let (rank, reason) = (self.rank, "it was dropped".to_owned());
            return Some(EngineError::Poisoned { rank, reason }.into());
        };
        if let Some(error) = engine.failure() {
            return Some(error.into());
        }
        let death = first_death(&members)?;
        Some(
            EngineError::Gone {
                rank: engine.rank(),
                peer: death.rank,
                how: death.how.to_string(),
                on: "no operation was waiting for it".into(),
            }
            .into(),
        )
    }
}
