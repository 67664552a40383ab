//! Recording and counting allocate nothing, shown by an allocator that counts. A test binary of its own, with one
//! test, because an allocator serves a whole process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use sapwood::observe::{CopySite, Counters, Kind, NONE, Recorder};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is done by the system's allocator; counting touches a constant-initialised thread-local cell
// without a destructor, which allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(call: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    call();
    ALLOCATIONS.get() - before
}

#[test]
fn recording_and_counting_allocate_nothing() {
    assert!(
        allocations(|| drop(std::hint::black_box(Box::new(1)))) > 0,
        "the allocator does not count"
    );

    let recorder = Recorder::with_capacity(64);
    let counters = Counters::new();
    let recording = allocations(|| {
        for i in 0..1000 {
            recorder.mark(Kind::Reduce, 1, 2, i, NONE, 4096);
            counters.copied(CopySite::StageIn, 4096);
            counters.exchanged(4096);
            counters.wait();
            counters.sleep();
            counters.operation();
        }
    });
    assert_eq!(recording, 0);
    assert_eq!(recorder.recorded(), 1000);
    assert_eq!(counters.snapshot().bytes_copied, 4_096_000);
}
