//! Which plan an operation runs, or none; and its shape's first use.

use std::sync::Arc;

use super::shapes::Known;
use super::{Communicator, CommunicatorError, lazily};
use crate::engine::{Core, Engine, Signature, fits_small, parts_shown};
use crate::plan::Collective;
use crate::plan::cost::Setting;

/// The longest vector of an all-reduce of windows that is shown to all, in bytes, rather than stored straight into all
/// results: a second round of waiting is dearer up to here, copying what is shown beyond.
const SHOWN_AT_MOST: usize = 512;
/// The same where ranks share processors: a round costs a switch between processes, or several.
const SHOWN_IN_A_CROWD: usize = 4 << 10;

impl Communicator {
    /// The name of the plan that a collective runs whose longest buffer has `bytes` bytes on a rank. Small ones run
    /// none, where ranks look into each other's memory: every rank reads what all show (`flat`).
    pub fn plan_name(&self, collective: Collective, bytes: usize) -> String {
        let part = if collective.has_parts() {
            bytes / self.ranks as usize
        } else {
            bytes
        };
        if self.flat_way(collective, part).is_some() {
            return "flat".into();
        }
        self.plan_for(collective, bytes).to_owned()
    }

    /// How long such a collective is predicted to take, in microseconds: where there is a [`tuning`](super::Builder::tuning)
    /// and it has figures for these ranks. What runs no plan is not predicted.
    pub fn predicted_time(&self, collective: Collective, bytes: usize, in_place: bool) -> Option<f64> {
        let part = match collective.has_parts() {
            true => bytes / self.ranks as usize,
            false => bytes,
        };
        match self.flat_way(collective, part) {
            Some(_) => None,
            None => self.plans.predict(collective, bytes, in_place),
        }
    }

    /// Among which ranks, and with what reach, plans run here.
    pub fn setting(&self) -> &Setting {
        self.plans.setting()
    }

    /// As [`Self::small_way`], for what lies in windows: what is not tiny, and every rank combines a block of, is stored
    /// straight into all results instead.
    #[inline]
    pub(super) fn flat_way(&self, collective: Collective, part: usize) -> Option<&Core> {
        let core = self.small_way(collective, part)?;
        let shown = match core.group().crowded {
            true => SHOWN_IN_A_CROWD,
            false => SHOWN_AT_MOST,
        };
        let straight = || self.plan_for(collective, part) == "direct";
        let stored = collective == Collective::AllReduce && part > shown && straight();
        (!stored).then_some(core)
    }

    #[inline]
    pub(super) fn plan_for(&self, collective: Collective, bytes: usize) -> &str {
        self.plans.choose(collective, bytes)
    }

    /// The engine, if an operation with equal parts of so many bytes goes the way of small ones, which needs boards.
    #[inline]
    pub(super) fn small_way(&self, collective: Collective, part: usize) -> Option<&Core> {
        let Engine::Boards(core) = &*self.engine else {
            return None;
        };
        let shown = part.checked_mul(parts_shown(collective, self.ranks))?;
        let small = !self.plans.is_forced() && fits_small(self.ranks, shown);
        small.then_some(core)
    }

    /// A shape's program. At its first use it is proved, and where ranks reach each other by messages they make the
    /// queue pairs that it needs; `signature` says for what, to find ranks that called something else.
    pub(super) fn shape(
        &self,
        collective: Collective,
        plan: &str,
        signature: Signature,
    ) -> Result<Arc<Known>, CommunicatorError> {
        if let Some(known) = self.shapes.borrow().find(collective, plan) {
            return Ok(known);
        }
        if let Engine::Messages(_) = *self.engine {
            self.meet(signature)?;
            self.settle()?;
        }
        self.first_use(collective, plan)
    }

    fn first_use(&self, collective: Collective, plan: &str) -> Result<Arc<Known>, CommunicatorError> {
        let prepared = self.shapes.borrow().prepare(collective, plan);
        if let Engine::Messages(core) = &*self.engine {
            let wanted = prepared.as_ref().map(|known| {
                let program = &*known.prepared;
                (program.neighbours(), program.staging_slots())
            });
            let root = collective
                .root()
                .map_or(String::new(), |root| format!(" with root {root}"));
            let shape = format!("{collective}{root} by {plan}");
            lazily::connect(&self.meeting.borrow(), core, &shape, wanted)?;
        }
        let prepared = prepared?;
        self.shapes.borrow_mut().keep(collective, plan, prepared.clone());
        Ok(prepared)
    }

    /// Makes the queue pairs of the plan by which barriers go. Over them ranks also meet before they make others, and
    /// tell each other of trouble.
    pub(super) fn connect_for_barriers(&self) -> Result<(), CommunicatorError> {
        let plan = self.plan_for(Collective::Barrier, 0);
        self.first_use(Collective::Barrier, plan).map(drop)
    }
}
