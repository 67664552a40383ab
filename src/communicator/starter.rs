//! For the exchange: operations whose numbers are reserved by the step, started in any order and from any thread.

use std::sync::Arc;

use super::request::Fitted;
use super::{Communicator, CommunicatorError, Window};
use crate::engine::reduce::Operation;
use crate::engine::{Call, Engine, EngineError, MAXIMUM_ACTIVE, Ticket};
use crate::memory::Element;
use crate::plan::Collective;
use crate::plan::partition::Partition;

/// For the exchange: starts an operation under a reserved number from any thread that holds what it needs.
#[derive(Clone, Debug)]
pub(crate) struct Starter {
    engine: Arc<Engine>,
    call: Call,
}

impl Starter {
    /// Starts it as operation `sequence`.
    ///
    /// # Safety
    /// As [`Engine::start`].
    pub(crate) unsafe fn start(&self, sequence: u64) -> Result<Ticket, EngineError> {
        // SAFETY: passed on.
        unsafe {
            self.engine.start(Call {
                sequence,
                ..self.call.clone()
            })
        }
    }
}

impl Communicator {
    /// Prepares an in-place all-reduce of a window (as a part of one) that will be started many times, whatever its
    /// size by a plan: nothing is copied.
    pub(crate) fn starter<T: Element>(
        &self,
        window: &Window<T>,
        operation: Operation,
    ) -> Result<Starter, CommunicatorError> {
        let count = window.len();
        let fitted = Fitted {
            collective: Collective::AllReduce,
            operation,
            data_type: T::TYPE,
            partition: Partition::even(count),
            counts: 0,
            total: count,
            input: Some(self.read_piece("exchange", window, 0..count)?),
            result: None,
        };
        Ok(Starter {
            engine: self.engine().clone(),
            call: self.prepare(&fitted, Some(0))?,
        })
    }

    /// Reserves the numbers of a step's operations, which may be started in any order. Until [`Self::end_step`]
    /// nothing else can be called: operations in between would use the lines of those that are yet to start.
    pub(crate) fn begin_step(&self, count: u64) -> Result<u64, CommunicatorError> {
        debug_assert!(count <= MAXIMUM_ACTIVE as u64);
        self.usable()?;
        self.make_room(count)?;
        self.in_step.set(true);
        Ok(self.reserve(count))
    }

    /// Whether a step was begun and not ended.
    pub(crate) fn in_step(&self) -> bool {
        self.in_step.get()
    }

    /// All of the step's operations have ended, or the communicator is given up.
    pub(crate) fn end_step(&self) {
        self.in_step.set(false);
    }
}
