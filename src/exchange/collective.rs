//! All ranks are waited for: each bucket is averaged in place by an all-reduce of its own, as soon as it is ready.

use std::sync::{Arc, Mutex};

use super::ExchangeError;
use super::bucket::{Left, Returned, Slot};
use super::exchange::put_back;
use super::progress::Progress;
use super::state::{ALIGNMENT, Names};
use crate::bootstrap::Rank;
use crate::communicator::{Communicator, CommunicatorError, Window};
use crate::engine::reduce::Operation;
use crate::memory::Buffer;

#[derive(Debug)]
pub(super) struct Collective {
    progress: Option<Progress>,
    pub slots: Vec<Slot>,
    pub contributors: Vec<Rank>,
    pub state: Vec<f32>,
    /// The next step's number.
    step: u64,
}

impl Collective {
    pub fn new(
        communicator: &Communicator,
        names: &Names,
        state: &Names,
        progress: bool,
    ) -> Result<Self, ExchangeError> {
        let whole = Buffer::<f32>::allocate(names.total()).map_err(CommunicatorError::from)?;
        let slots = cut(communicator.register(whole)?, names)
            .into_iter()
            .map(|window| {
                let starter = communicator.starter(&window, Operation::Average)?;
                Ok(Slot {
                    starter: Some(Arc::new(starter)),
                    window: Some(window),
                })
            })
            .collect::<Result<_, CommunicatorError>>()?;
        let progress = if progress && communicator.size() > 1 {
            Some(Progress::start(communicator.engine().clone()).map_err(ExchangeError::Progress)?)
        } else {
            None
        };
        Ok(Self {
            progress,
            slots,
            contributors: (0..communicator.size()).collect(),
            state: vec![0.0; state.total()],
            step: 0,
        })
    }

    pub fn number(&self) -> u64 {
        self.step
    }

    pub fn has_progress_thread(&self) -> bool {
        self.progress.is_some()
    }

    /// The step's number, and that of the operation of its first bucket.
    pub fn begin(&mut self, communicator: &Communicator, count: usize) -> Result<(u64, u64), ExchangeError> {
        if communicator.in_step() {
            // Its drop has said so already, unless it was forgotten.
            communicator.abort_handle().abort();
            return Err(ExchangeError::Unfinished {
                rank: communicator.rank(),
                step: self.step - 1,
            });
        }
        let first = communicator.begin_step(count as u64)?;
        self.step += 1;
        Ok((self.step - 1, first))
    }

    /// Waits for the exchanges of all buckets. Says of each whether it was never made ready.
    pub fn finish(
        &mut self,
        communicator: &Communicator,
        returned: &Mutex<Vec<Returned>>,
    ) -> Result<Vec<bool>, ExchangeError> {
        // From here on every way out leaves nothing in flight, or the communicator refusing all work.
        communicator.end_step();
        let engine = communicator.engine();
        let mut failure = None;
        let unready = put_back(&mut self.slots, returned, |bucket| {
            if let Left::Started(ticket) = &bucket.left
                && let Err(error) = engine.wait(ticket)
            {
                bucket.window.hold();
                failure.get_or_insert(error);
            }
        });
        match failure {
            Some(error) => Err(CommunicatorError::from(error).into()),
            None => Ok(unready),
        }
    }
}

/// A window's parts as they are named.
pub(super) fn cut(window: Window<f32>, names: &Names) -> Vec<Window<f32>> {
    let mut rest = window;
    let mut parts = Vec::with_capacity(names.len());
    for (_, range) in names.iter() {
        let (part, tail) = rest.split_at(range.len());
        let padding = (range.len().next_multiple_of(ALIGNMENT) - range.len()).min(tail.len());
        rest = tail.split_at(padding).1;
        parts.push(part);
    }
    parts
}
