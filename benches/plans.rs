//! Plans as they grow: `cargo bench --bench plans`, from 2⁴ to 2¹⁶ ranks.
//!
//! For each shape: making the rule, proving the plan for all ranks, and lowering one rank's own part, in time and in
//! bytes as an allocator counts them. The last line of a shape is the growth: the exponent of the number of ranks that
//! fits the last four doublings (0: does not grow, 1: as the ranks do). Names after `--` choose plans.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use sapwood::plan::verify::verify;
use sapwood::plan::{Collective, MAX_RANKS, Plan, Reach, builders};

/// Counts the bytes in use, and the most that there were.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all is the system allocator's; the counts change nothing about it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = IN_USE.fetch_add(layout.size(), Relaxed) + layout.size();
        MOST.fetch_max(now, Relaxed);
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What something costs: seconds, bytes of what it returns, and the most bytes in use meanwhile.
struct Cost {
    seconds: f64,
    kept: usize,
    most: usize,
}

fn cost<T>(work: impl FnOnce() -> T) -> (T, Cost) {
    let before = IN_USE.load(Relaxed);
    MOST.store(before, Relaxed);
    let started = Instant::now();
    let outcome = black_box(work());
    let seconds = started.elapsed().as_secs_f64();
    let kept = IN_USE.load(Relaxed).saturating_sub(before);
    let most = MOST.load(Relaxed).saturating_sub(before);
    (outcome, Cost { seconds, kept, most })
}

/// One rank's own part: the longest and largest of some ranks', each from nothing but the plan's name.
fn own_part(name: &str, collective: Collective, ranks: u32, reach: Reach) -> (f64, usize, usize) {
    let some = [0, 1, 2, ranks / 3, ranks / 2 - 1, ranks / 2, ranks - 2, ranks - 1];
    let costs = some.map(|rank| {
        let lower = || {
            let plan = builders::build(name, collective, ranks).expect("it was built before");
            let program = plan.lower(rank, reach).expect("there is such a rank");
            (plan, program)
        };
        let (_, cost) = cost(lower);
        cost
    });
    let mut seconds: Vec<f64> = costs.iter().map(|cost| cost.seconds).collect();
    seconds.sort_by(f64::total_cmp);
    let kept = costs.iter().map(|cost| cost.kept).max().unwrap_or(0);
    let most = costs.iter().map(|cost| cost.most).max().unwrap_or(0);
    (seconds[seconds.len() / 2], kept, most)
}

struct Row {
    build: f64,
    prove: f64,
    proof_bytes: f64,
    part: f64,
    part_bytes: f64,
}

fn row(name: &str, collective: Collective, ranks: u32, reach: Reach) -> Row {
    let (plan, built): (Plan, Cost) =
        cost(|| builders::build(name, collective, ranks).expect("a known plan"));
    let (proof, proved) = cost(|| verify(&plan, reach).expect("it is right"));
    let (part, kept, most) = own_part(name, collective, ranks, reach);
    println!(
        "{ranks:>7} {:>11.3} {:>10} {:>11.2} {:>11.0} {:>10.1} {:>11} {:>11}",
        built.seconds * 1e3,
        proof.tasks,
        proved.seconds * 1e3,
        proved.most as f64 / 1024.0,
        part * 1e6,
        kept,
        most
    );
    Row {
        build: built.seconds,
        prove: proved.seconds,
        proof_bytes: proved.most as f64,
        part,
        part_bytes: most as f64,
    }
}

/// The exponent over the last four doublings.
fn growth(rows: &[Row], of: impl Fn(&Row) -> f64) -> f64 {
    let last = rows.len() - 1;
    (of(&rows[last]) / of(&rows[last - 4])).log2() / 4.0
}

fn main() {
    let chosen: Vec<String> = std::env::args()
        .skip(1)
        .filter(|name| !name.starts_with("--"))
        .collect();
    let largest = MAX_RANKS.ilog2();
    let reaches = [Reach::LoadStore, Reach::Message { slots: 8 }];
    for (name, collective) in [
        ("binomial-tree", Collective::AllReduce),
        ("k-ary-tree", Collective::AllReduce),
        ("double-binary-tree", Collective::AllReduce),
        ("double-binary-tree", Collective::Broadcast { root: 5 }),
        ("double-binary-tree", Collective::Barrier),
        ("halving-doubling", Collective::AllReduce),
        ("dissemination", Collective::Barrier),
    ] {
        if !chosen.is_empty() && !chosen.iter().any(|chosen| chosen == name) {
            continue;
        }
        for reach in reaches {
            println!("\n{name}, {collective}, {}", reach.name());
            println!(
                "{:>7} {:>11} {:>10} {:>11} {:>11} {:>10} {:>11} {:>11}",
                "ranks", "build ms", "tasks", "prove ms", "proof KiB", "part µs", "part bytes", "at most"
            );
            let rows: Vec<Row> = (4..=largest)
                .map(|bits| row(name, collective, 1 << bits, reach))
                .collect();
            println!(
                "{:>7} {:>11.2} {:>10} {:>11.2} {:>11.2} {:>10.2} {:>11} {:>11.2}",
                "growth",
                growth(&rows, |row| row.build),
                "",
                growth(&rows, |row| row.prove),
                growth(&rows, |row| row.proof_bytes),
                growth(&rows, |row| row.part),
                "",
                growth(&rows, |row| row.part_bytes),
            );
        }
    }
}
