//! Runs programs in a random order on real memory, the way a fabric might: arrivals late, ranks late, slow or early
//! gone, and callers who overwrite their buffers as soon as they have them back.

use std::collections::HashMap;
use std::fmt::Write;
use std::ops::Range;

use sapwood::plan::lowered::{Action, Buffer, Place, Program, Progress, Rank, Task};
use sapwood::plan::verify::Claim;
use sapwood::plan::{Collective, Cut, Partition, Pieces, Placement, Reach, Side};

/// A small generator (SplitMix64): no library's may change what a seed means.
pub struct Random(u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// A value and how often it was said to be complete.
type Word = (u64, u32);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Cell {
    rank: Rank,
    /// 0: input, 1: result, or both if they are one buffer, 2: staging.
    kind: u8,
    /// The element; of staging, the slot and where in it.
    index: usize,
}

struct Flight {
    from: (usize, usize),
    chunk: u32,
    cell: Cell,
    word: Word,
}

struct Machine<'a> {
    claim: &'a Claim,
    programs: &'a [Program],
    random: Random,
    cut: Cut,
    counts: Partition,
    /// Elements by block.
    lengths: Vec<u32>,
    /// Elements of a chunk.
    size: u32,
    pieces: Pieces,
    in_place: Vec<bool>,
    begun: Vec<bool>,
    ended: Vec<bool>,
    done: Vec<Vec<u32>>,
    memory: HashMap<Cell, Word>,
    flights: Vec<Flight>,
    weights: Vec<Vec<u64>>,
}

fn input_of(rank: Rank, block: u32, element: u32) -> u64 {
    Random(u64::from(rank) << 40 | u64::from(block) << 20 | u64::from(element)).next()
}

/// The rank whose part a block belongs to: in an all-to-all the sender.
fn owner(claim: &Claim, block: u32) -> Rank {
    (u64::from(block) * u64::from(claim.ranks) / u64::from(claim.blocks)) as Rank
}

/// Whose inputs a rank finds in its result in a block, if anything: written down anew, not asked of the library.
fn wanted(claim: &Claim, rank: Rank, block: u32) -> Option<Range<Rank>> {
    let all = 0..claim.ranks;
    let only = |rank: Rank| rank..rank + 1;
    let part = owner(claim, block);
    match claim.collective {
        Collective::AllReduce => Some(all),
        Collective::Reduce { root } => (rank == root).then_some(all),
        Collective::Broadcast { root } => Some(only(root)),
        Collective::Barrier => None,
        Collective::ReduceScatter => (rank == part).then_some(all),
        Collective::AllGather => Some(only(part)),
        Collective::Gather { root } => (rank == root).then(|| only(part)),
        Collective::Scatter { root } => (rank == part).then(|| only(root)),
        Collective::AllToAll => {
            let each = claim.blocks / (claim.ranks * claim.ranks);
            let receiver = block / each % claim.ranks;
            (rank == receiver).then(|| only(part))
        }
    }
}

/// Whether a rank's input holds a block.
fn gives(claim: &Claim, rank: Rank, block: u32) -> bool {
    match claim.collective {
        Collective::Broadcast { root } | Collective::Scatter { root } => rank == root,
        Collective::AllGather | Collective::Gather { .. } | Collective::AllToAll => {
            rank == owner(claim, block)
        }
        Collective::AllReduce
        | Collective::Reduce { .. }
        | Collective::ReduceScatter
        | Collective::Barrier => true,
    }
}

/// One run.
///
/// # Errors
/// What went wrong, in words.
pub fn run(claim: &Claim, programs: &[Program], seed: u64) -> Result<(), String> {
    let mut random = Random(seed);
    let ranks = programs.len();
    let least = [1, 0, 3, 6][random.below(4)];
    let cut = Cut::new(claim.collective, claim.ranks, claim.blocks).map_err(|error| error.to_string())?;
    let each = cut.blocks_per_part() as usize;
    let mut count = || least * each + random.below(each + 1);
    let counts = match claim.collective {
        Collective::AllToAll => {
            let counts: Vec<usize> = (0..cut.parts()).map(|_| count()).collect();
            Partition::per_pair(claim.ranks, &counts)
        }
        _ if claim.collective.has_parts() => {
            let counts: Vec<usize> = (0..claim.ranks).map(|_| count()).collect();
            Partition::per_rank(&counts)
        }
        _ => Ok(Partition::even(count())),
    };
    let counts = counts.map_err(|error| error.to_string())?;
    let placement = Placement::new(cut, &counts, false).map_err(|error| error.to_string())?;
    let lengths: Vec<u32> = (0..claim.blocks)
        .map(|block| placement.len(block) as u32)
        .collect();
    let long = programs.iter().flat_map(|program| &program.tasks);
    let size = match long.into_iter().any(|task| task.run.is_long()) {
        // Several chunks to a block, or several blocks to a chunk.
        true => [1, 1, 2, 3 + random.below(14)][random.below(4)],
        false => 1,
    };
    let pieces = Pieces::new(lengths.iter().sum::<u32>() as usize, claim.blocks, size);
    let all_in_place = random.below(3);
    let in_place = (0..ranks)
        .map(|_| all_in_place == 0 || all_in_place == 1 && random.below(2) == 0)
        .map(|in_place| in_place && claim.collective != Collective::AllToAll)
        .collect();
    // Some ranks and tasks are much slower than others; a different few each time.
    let spread = random.below(4);
    let mut weight = || 1u64 << [0, 3, 10, 20][spread].min(random.below(21));
    let weights = programs
        .iter()
        .map(|p| (0..=p.tasks.len()).map(|_| weight()).collect())
        .collect();
    let mut machine = Machine {
        claim,
        programs,
        random,
        cut,
        counts,
        lengths,
        size: size as u32,
        pieces,
        in_place,
        begun: vec![false; ranks],
        ended: vec![false; ranks],
        done: programs.iter().map(|p| vec![0; p.tasks.len()]).collect(),
        memory: HashMap::new(),
        flights: Vec::new(),
        weights,
    };
    machine.run()
}

impl Machine<'_> {
    fn run(&mut self) -> Result<(), String> {
        loop {
            for rank in 0..self.programs.len() {
                if self.begun[rank] && !self.ended[rank] && self.all_done(rank) && self.random.below(2) == 0 {
                    self.end(rank)?;
                }
            }
            // (rank, task): task 0 stands for the beginning, the others are moved by one.
            let mut able: Vec<(usize, usize)> = Vec::new();
            for rank in 0..self.programs.len() {
                if !self.begun[rank] {
                    able.push((rank, 0));
                    continue;
                }
                let able_tasks = (0..self.programs[rank].tasks.len()).filter(|&task| self.able(rank, task));
                able.extend(able_tasks.map(|task| (rank, task + 1)));
            }
            let landing = !self.flights.is_empty() && (able.is_empty() || self.random.below(3) == 0);
            if landing {
                let index = self.random.below(self.flights.len());
                let flight = self.flights.swap_remove(index);
                self.memory.insert(flight.cell, flight.word);
                continue;
            }
            if able.is_empty() {
                let waiting = (0..self.programs.len()).find(|&rank| !self.all_done(rank));
                match waiting {
                    Some(rank) => return Err(format!("rank {rank} waits for ever")),
                    None if self.ended.iter().all(|&ended| ended) => return Ok(()),
                    None => continue,
                }
            }
            let total: u64 = able.iter().map(|&(rank, task)| self.weights[rank][task]).sum();
            let mut pick = self.random.next() % total;
            let chosen = able.iter().find(|&&(rank, task)| {
                let weight = self.weights[rank][task];
                let found = pick < weight;
                pick = pick.saturating_sub(weight);
                found
            });
            match *chosen.unwrap_or(&able[0]) {
                (rank, 0) => self.begin(rank),
                (rank, task) => self.act(rank, task - 1)?,
            }
        }
    }

    fn runs(&self, rank: usize, task: usize) -> u32 {
        let task = &self.programs[rank].tasks[task];
        match task.action {
            Action::Signal => 1,
            _ if task.run.is_long() => self.pieces.count(task.block, task.run) as u32,
            _ => self.length(task.block).div_ceil(self.size),
        }
    }

    fn all_done(&self, rank: usize) -> bool {
        (0..self.done[rank].len()).all(|task| self.done[rank][task] >= self.runs(rank, task))
    }

    /// Whether `peer` sees `count` chunks of a task done: what was sent to it must have arrived.
    fn sees(&self, peer: usize, rank: usize, task: usize, count: u32) -> bool {
        let late = |flight: &Flight| {
            flight.from == (rank, task) && flight.cell.rank as usize == peer && flight.chunk < count
        };
        self.done[rank][task] >= count && !self.flights.iter().any(late)
    }

    fn able(&self, rank: usize, task: usize) -> bool {
        let chunk = self.done[rank][task];
        if chunk >= self.runs(rank, task) {
            return false;
        }
        let task_here = &self.programs[rank].tasks[task];
        task_here.waits.iter().all(|wait| {
            let (peer, awaited) = (wait.rank as usize, wait.task as usize);
            let Some(target) = self
                .programs
                .get(peer)
                .and_then(|program| program.tasks.get(awaited))
            else {
                return false;
            };
            if peer != rank && !target.notify.contains(&(rank as Rank)) {
                return false;
            }
            let count = match wait.progress {
                Progress::Whole => self.runs(peer, awaited),
                Progress::Chunk { lag } => {
                    let (block, backwards) = (task_here.block, task_here.run.backwards);
                    let ahead = self.pieces.ahead(block, backwards, wait.ahead);
                    let needed = i64::from(chunk) + 1 + ahead - i64::from(lag);
                    // Whole, once it has no more than that.
                    (needed.max(0) as u32).min(self.runs(peer, awaited))
                }
            };
            self.sees(rank, peer, awaited, count)
        })
    }

    fn placement(&self, rank: Rank) -> Placement<'_> {
        let in_place = self.in_place.get(rank as usize) == Some(&true);
        Placement::new(self.cut, &self.counts, in_place).expect("counts were made for the cut")
    }

    fn length(&self, block: u32) -> u32 {
        self.lengths.get(block as usize).copied().unwrap_or(0)
    }

    /// The elements of a task's chunk: their block, and where in it they are.
    fn elements(&self, task: &Task, chunk: u32) -> Vec<(u32, u32)> {
        let chunk_of = |block, chunk: u32| {
            let begin = chunk * self.size;
            (begin..(begin + self.size).min(self.length(block))).map(move |element| (block, element))
        };
        if !task.run.is_long() {
            return chunk_of(task.block, chunk).collect();
        }
        let (blocks, chunk) = self.pieces.blocks(task.block, task.run, u64::from(chunk));
        blocks.flat_map(|block| chunk_of(block, chunk as u32)).collect()
    }

    /// Where an element is, of all that a chunk has the one with this number.
    fn cell(&self, place: &Place, (block, element): (u32, u32), chunk: u32, number: usize) -> Cell {
        let rank = place.rank;
        let placement = self.placement(rank);
        let element = |side| placement.offset(side, rank, block) + element as usize;
        let in_place = self.in_place.get(rank as usize) == Some(&true);
        let (kind, index) = match place.buffer {
            Buffer::Input => (u8::from(in_place), element(Side::Input)),
            Buffer::Result => (1, element(Side::Result)),
            Buffer::Staging { first, slots } => (
                2,
                (first + chunk % slots.max(1)) as usize * self.size as usize + number,
            ),
        };
        Cell { rank, kind, index }
    }

    fn all_elements(&self) -> Vec<(u32, u32)> {
        let elements = |block| (0..self.length(block)).map(move |element| (block, element));
        (0..self.claim.blocks).flat_map(elements).collect()
    }

    /// What a rank's buffers hold at first.
    fn inputs(&self, rank: Rank) -> HashMap<Cell, Word> {
        let held = self.all_elements().into_iter();
        let held = held.filter(|&(block, _)| gives(self.claim, rank, block));
        let word = |(block, element)| {
            let place = Place {
                rank,
                buffer: Buffer::Input,
            };
            (
                self.cell(&place, (block, element), 0, 0),
                (input_of(rank, block, element), 0),
            )
        };
        held.map(word).collect()
    }

    fn begin(&mut self, rank: usize) {
        self.begun[rank] = true;
        let inputs = self.inputs(rank as Rank);
        self.memory.extend(inputs);
    }

    fn act(&mut self, rank: usize, task: usize) -> Result<(), String> {
        let chunk = self.done[rank][task];
        self.done[rank][task] += 1;
        let programs = self.programs;
        let task_here = &programs[rank].tasks[task];
        for (number, element) in self.elements(task_here, chunk).into_iter().enumerate() {
            self.move_element((rank, task), task_here, (chunk, number), element)?;
        }
        Ok(())
    }

    fn move_element(
        &mut self,
        (rank, task): (usize, usize),
        task_here: &Task,
        (chunk, number): (u32, usize),
        element: (u32, u32),
    ) -> Result<(), String> {
        // Memory that nobody has written holds something else each time.
        let mut read = |place: &Place| {
            let cell = self.cell(place, element, chunk, number);
            let noise = (self.random.next(), 0);
            *self.memory.entry(cell).or_insert(noise)
        };
        let (word, into) = match &task_here.action {
            Action::Signal => return Ok(()),
            Action::Copy { source, into } => (read(source), into),
            Action::Reduce {
                sources,
                into,
                complete,
            } => {
                let words: Vec<Word> = sources.iter().map(read).collect();
                let sum = words.iter().fold(0u64, |sum, word| sum.wrapping_add(word.0));
                let marks: u32 = words.iter().map(|word| word.1).sum();
                ((sum, marks + u32::from(*complete)), into)
            }
        };
        for place in into {
            if place.buffer == Buffer::Input {
                return Err(format!("rank {rank} writes into an input"));
            }
            let cell = self.cell(place, element, chunk, number);
            // A store is seen by whoever has heard, by however many ranks, of what came after it; a message is not.
            if place.rank as usize == rank || self.claim.reach == Reach::LoadStore {
                self.memory.insert(cell, word);
            } else {
                self.flights.push(Flight {
                    from: (rank, task),
                    chunk,
                    cell,
                    word,
                });
            }
        }
        Ok(())
    }

    fn end(&mut self, rank: usize) -> Result<(), String> {
        self.ended[rank] = true;
        let late = self.begun.iter().position(|&begun| !begun);
        if let (Collective::Barrier, Some(late)) = (self.claim.collective, late) {
            return Err(format!(
                "rank {rank} leaves the barrier before rank {late} enters it"
            ));
        }
        let ranks = self.programs.len() as Rank;
        let me = rank as Rank;
        let mut wanted_here = self.inputs(me);
        let reduced = u32::from(self.claim.collective.combines() && ranks > 1);
        for (block, element) in self.all_elements() {
            let Some(from) = wanted(self.claim, me, block) else {
                continue;
            };
            let words = from.map(|rank| input_of(rank, block, element));
            let place = Place {
                rank: me,
                buffer: Buffer::Result,
            };
            let word = (words.fold(0u64, u64::wrapping_add), reduced);
            wanted_here.insert(self.cell(&place, (block, element), 0, 0), word);
        }
        for (cell, word) in &wanted_here {
            if self.memory.get(cell) != Some(word) {
                let what = if cell.kind == 0 { "input" } else { "result" };
                return Err(format!("rank {rank}'s {what} is wrong in element {}", cell.index));
            }
        }
        let own = |cell: &&Cell| cell.rank == me && cell.kind != 2;
        if let Some(cell) = self
            .memory
            .keys()
            .filter(own)
            .find(|cell| !wanted_here.contains_key(cell))
        {
            return Err(format!(
                "rank {rank}'s element {} is touched, which is to stay as it is",
                cell.index
            ));
        }
        // The memory is the caller's again, who writes something else; staging serves the next operation.
        for (cell, word) in self.memory.iter_mut().filter(|(cell, _)| cell.rank == me) {
            *word = (self.random.next() | u64::from(cell.kind), 7);
        }
        Ok(())
    }
}

/// The programs as text, for a failure.
pub fn show(programs: &[Program]) -> String {
    let mut text = String::new();
    for program in programs {
        let _ = writeln!(text, "rank {} ({} slots)", program.rank, program.staging_slots);
        for (index, task) in program.tasks.iter().enumerate() {
            let _ = writeln!(text, "  {index}: {task:?}");
        }
    }
    text
}
