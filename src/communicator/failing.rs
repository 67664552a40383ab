//! What has failed, for who does not want to wait for it: a look that never blocks.

use super::{AbortHandle, Communicator, CommunicatorError};
use crate::engine::{Engine, EngineError};

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
    /// As [`Communicator::async_error`], from any thread.
    pub fn async_error(&self) -> Option<CommunicatorError> {
        let engine: &Engine = &self.engine;
        if let Some(error) = engine.failure() {
            return Some(error.into());
        }
        let death = self.members.first_death()?;
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
