//! What an engine is asked to run: a program prepared for it, and one call of a collective.

use std::sync::Arc;
use std::time::Duration;

use super::details::Details;
use super::message::Route;
use super::reduce::{Kernel, ScaledKernel};
use super::{Extent, Signature};
use crate::plan::Cut;
use crate::plan::Pieces;
use crate::plan::PlanError;
use crate::plan::lowered::{Action, Buffer, Place, Program};
use crate::plan::partition::{Partition, Placement, Side};

/// A program that the engine can run, made once for each shape.
#[derive(Debug)]
pub struct Prepared {
    pub(super) program: Program,
    pub(super) plan: String,
    plan_hash: u64,
    /// What its blocks stand for.
    pub(super) cut: Cut,
    /// The task that stores into all results, where there is little else.
    pub(super) storing_task: Option<usize>,
    /// How its messages go, where ranks reach each other by messages.
    pub(super) route: Option<Route>,
}

impl Prepared {
    /// Checks what the engine relies on: that the program is this rank's, needs no more counters and staging than
    /// there are, and stores into no other rank's memory than results.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the plan.
    pub fn new(program: Program, plan: &str, counters: usize, staging_slots: usize) -> Result<Self, String> {
        if program.tasks.len() > counters {
            return Err(format!(
                "plan {plan} has {} tasks, a board {counters} counters",
                program.tasks.len()
            ));
        }
        if program.staging_slots as usize > staging_slots {
            let needed = program.staging_slots;
            return Err(format!(
                "plan {plan} needs {needed} staging slots, there are {staging_slots}: choose one with fewer channels"
            ));
        }
        for task in &program.tasks {
            let (Action::Reduce { into, .. } | Action::Copy { into, .. }) = &task.action else {
                continue;
            };
            let elsewhere = |place: &&Place| place.rank != program.rank && place.buffer != Buffer::Result;
            if let Some(place) = into.iter().find(elsewhere) {
                return Err(format!("plan {plan} stores into slots of rank {}", place.rank));
            }
        }
        Ok(Self {
            cut: cut(&program)?,
            storing_task: super::straight::storing_task(&program.tasks, program.ranks),
            program,
            plan: plan.into(),
            plan_hash: super::signature::hash(plan),
            route: None,
        })
    }

    /// The same for ranks that reach each other by messages; `of` lowers the programs of the ranks that this one has
    /// to do with.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the plan.
    pub fn for_messages(
        program: Program,
        plan: &str,
        of: impl FnMut(u32) -> Result<Program, PlanError>,
    ) -> Result<Self, String> {
        let route = Route::new(&program, of).map_err(|why| format!("plan {plan}: {why}"))?;
        Ok(Self {
            cut: cut(&program)?,
            storing_task: None,
            program,
            plan: plan.into(),
            plan_hash: super::signature::hash(plan),
            route: Some(route),
        })
    }

    /// The ranks with which this one exchanges messages, ascending; none where ranks see each other's boards.
    pub fn neighbours(&self) -> &[u32] {
        self.route.as_ref().map_or(&[], |route| &route.neighbours)
    }

    /// Staging slots that this rank must own.
    pub fn staging_slots(&self) -> u32 {
        self.program.staging_slots
    }

    /// The plan's name.
    pub fn plan(&self) -> &str {
        &self.plan
    }
}

fn cut(program: &Program) -> Result<Cut, String> {
    Cut::new(program.collective, program.ranks, program.blocks).map_err(|error| error.to_string())
}

/// How contributions are multiplied before they are added.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// This rank's own factor; the others announce theirs.
    pub factor: f64,
    /// Multiplies and sums.
    pub kernel: ScaledKernel,
}

/// One call of a collective.
#[derive(Clone, Debug)]
pub struct Call {
    /// What to run.
    pub prepared: Arc<Prepared>,
    /// Its number on the communicator.
    pub sequence: u64,
    /// What was called.
    pub signature: Signature,
    /// Sums.
    pub kernel: Kernel,
    /// What contributions are multiplied by, where they are.
    pub scale: Option<Scale>,
    /// Bytes of one element.
    pub element: usize,
    /// Elements of the longest buffer of a rank.
    pub count: usize,
    /// How many elements are whose; it fits the program's collective and ranks.
    pub partition: Partition,
    /// Stands for counts that differ, 0 where all are the same: to find ranks with other counts.
    pub counts: u64,
    /// Input and result are one buffer.
    pub in_place: bool,
    /// What is stored into several ranks' results goes past the caches, which it would not stay in.
    pub past_caches: bool,
    /// Elements of a chunk, at least 1.
    pub chunk: usize,
    /// What an average is divided by, else 1.
    pub divisor: u32,
    /// Input and result; none where nothing moves.
    pub memory: Option<(Extent, Extent)>,
    /// Staging slots, and the bytes of one.
    pub staging: Option<(Extent, usize)>,
    /// How long it may take.
    pub timeout: Duration,
}

impl Call {
    /// What the other ranks' calls must agree with, beyond the signature.
    pub(super) fn details(&self) -> Details {
        let memory = self.memory.as_ref();
        let places = memory.map(|(input, result)| (input.place(), result.place()));
        Details::new(self.prepared.plan_hash ^ self.counts, places)
    }

    /// Where the elements of each block are.
    pub(super) fn placement(&self) -> Placement<'_> {
        let placement = Placement::new(self.prepared.cut, &self.partition, self.in_place);
        placement.expect("the counts fit the collective, as whoever makes a call has checked")
    }

    /// How runs of blocks are cut. Only plans have them whose blocks cut the one vector that all ranks have.
    pub(super) fn pieces(&self) -> Pieces {
        Pieces::new(self.count, self.prepared.program.blocks, self.chunk)
    }

    /// Where a block begins in the buffer that a place names, in elements; staging is addressed by chunks alone.
    pub(super) fn offset(&self, placement: &Placement<'_>, place: &Place, block: u32) -> usize {
        match place.buffer {
            Buffer::Input => placement.offset(Side::Input, place.rank, block),
            Buffer::Result => placement.offset(Side::Result, place.rank, block),
            Buffer::Staging { .. } => 0,
        }
    }
}
