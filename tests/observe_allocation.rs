//! Recording and counting allocate nothing, shown by an allocator that counts. A test binary of its own, with one
//! test, because an allocator serves a whole process.

mod counting;

use counting::allocations;
use sapwood::observe::{CopySite, Counters, Kind, NONE, Recorder};

#[test]
fn recording_and_counting_allocate_nothing() {
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
