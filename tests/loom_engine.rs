//! Interleavings, and reorderings that the memory model allows, of what the engine's waits rest on: lines and slots
//! that are used in turn, and several drivers of one engine of which only one can sleep last.
//! Run with `RUSTFLAGS="--cfg loom" cargo test --release --test loom_engine`; otherwise this file is empty.
#![cfg(loom)]

mod atomics {
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
}

// The very code that the library runs.
#[allow(dead_code)]
#[path = "../src/fabric/handshake.rs"]
mod handshake;
#[allow(dead_code)]
#[path = "../src/engine/line.rs"]
mod line;

mod boards {
    use super::line::Line;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU64, Ordering};

    /// What one rank shows: a line for each operation, and payload slots for turns.
    struct Board {
        lines: [Line; 3],
        slots: [UnsafeCell<u64>; 2],
    }

    impl Board {
        fn new() -> Self {
            Self {
                lines: std::array::from_fn(|_| Line::for_a_model()),
                slots: std::array::from_fn(|_| UnsafeCell::new(0)),
            }
        }
    }

    /// The steps of `small_exchange`, with `slots` slots in use; loom reports an access to one that is not ordered.
    fn exchange(boards: &[Board; 2], rank: usize, operations: usize, slots: usize) {
        for turn in 0..operations {
            let (sequence, slot) = (turn as u64 + 1, turn % slots);
            let own = &boards[rank];
            own.lines[turn].reuse();
            // SAFETY: that nobody reads the slot now is what this model finds out.
            own.slots[slot].with_mut(|payload| unsafe { *payload = 10 * sequence + rank as u64 });
            own.lines[turn].announce(sequence, 7);
            let theirs = &boards[1 - rank];
            while theirs.lines[turn].announced() != sequence {
                loom::thread::yield_now();
            }
            assert_eq!(theirs.lines[turn].signature(), 7);
            // SAFETY: as above, of writers.
            let payload = theirs.slots[slot].with(|payload| unsafe { *payload });
            assert_eq!(payload, 10 * sequence + 1 - rank as u64);
        }
    }

    fn two_ranks(operations: usize, slots: usize) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(move || {
            let boards = Arc::new([Board::new(), Board::new()]);
            let other = boards.clone();
            let peer = loom::thread::spawn(move || exchange(&other, 1, operations, slots));
            exchange(&boards, 0, operations, slots);
            peer.join().unwrap();
        });
    }

    #[test]
    fn two_slots_in_turn_are_enough() {
        two_ranks(3, 2);
    }

    /// The model can fail: one slot is overwritten while it is read.
    #[test]
    #[should_panic]
    fn one_slot_is_not() {
        two_ranks(2, 1);
    }

    /// A line changes from operation 1 to operation 65 while a peer looks for 1.
    fn line_changes(hands: impl Fn(&Line) + Send + Sync + Copy + 'static) {
        loom::model(move || {
            let shared = Arc::new((Line::for_a_model(), AtomicU64::new(0)));
            let (line, detail) = &*shared;
            line.reuse();
            detail.store(1, Ordering::Relaxed);
            line.announce(1, 1);
            let other = shared.clone();
            let reader = loom::thread::spawn(move || {
                let (line, detail) = &*other;
                line.of(1, || (line.signature(), detail.load(Ordering::Relaxed)))
            });
            hands(line);
            detail.store(2, Ordering::Relaxed);
            line.announce(65, 2);
            let found = reader.join().unwrap();
            assert!(matches!(found, None | Some((1, 1))), "{found:?}");
        });
    }

    #[test]
    fn a_line_is_not_taken_for_the_operation_before() {
        line_changes(Line::reuse);
    }

    /// The model can fail: without taking the line first, the later signature is found under the earlier number.
    #[test]
    #[should_panic]
    fn without_reuse_it_is() {
        line_changes(|_| {});
    }
}

/// Ranks that store into each other's memory.
mod stores {
    use super::line::Line;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU64, Ordering};

    /// One rank: its announcements, how far it is, and a vector of a block for each rank, input and result in one.
    struct Rank {
        lines: [Line; 2],
        stored: AtomicU64,
        vector: [UnsafeCell<u64>; 2],
    }

    impl Rank {
        fn new() -> Self {
            Self {
                lines: std::array::from_fn(|_| Line::for_a_model()),
                stored: AtomicU64::new(0),
                vector: std::array::from_fn(|_| UnsafeCell::new(0)),
            }
        }
    }

    /// The steps of `straight`, in place, and of a caller that writes its vector before each call and reads it after;
    /// loom reports an access that is not ordered.
    fn all_reduce(ranks: &[Rank; 2], rank: usize, waits_for_the_end: bool) {
        let (own, other) = (&ranks[rank], &ranks[1 - rank]);
        for operation in 0..2 {
            let sequence = operation as u64 + 1;
            for block in &own.vector {
                // SAFETY: that nobody else accesses it now is what this model finds out.
                block.with_mut(|value| unsafe { *value = 10 * sequence + rank as u64 });
            }
            own.lines[operation].reuse();
            own.lines[operation].announce(sequence, 7);
            while other.lines[operation].announced() != sequence {
                loom::thread::yield_now();
            }
            // SAFETY: as above.
            let sum = ranks
                .iter()
                .map(|rank_of| rank_of.vector[rank].with(|value| unsafe { *value }))
                .sum::<u64>();
            for rank_of in ranks {
                // SAFETY: as above.
                rank_of.vector[rank].with_mut(|value| unsafe { *value = sum });
            }
            own.stored.store(sequence, Ordering::Release);
            while waits_for_the_end && other.stored.load(Ordering::Acquire) < sequence {
                loom::thread::yield_now();
            }
            for block in &own.vector {
                // SAFETY: as above.
                assert_eq!(block.with(|value| unsafe { *value }), 20 * sequence + 1);
            }
        }
    }

    fn two_ranks(waits_for_the_end: bool) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(move || {
            let ranks = Arc::new([Rank::new(), Rank::new()]);
            let both = ranks.clone();
            let peer = loom::thread::spawn(move || all_reduce(&both, 1, waits_for_the_end));
            all_reduce(&ranks, 0, waits_for_the_end);
            peer.join().unwrap();
        });
    }

    #[test]
    fn results_are_whole_when_all_have_stored() {
        two_ranks(true);
    }

    /// The model can fail: who does not wait for the other's stores reads what is being stored.
    #[test]
    #[should_panic]
    fn without_the_second_round_they_are_not() {
        two_ranks(false);
    }
}

mod drivers {
    use super::handshake::Bell;
    use loom::sync::atomic::{AtomicU32, Ordering};
    use loom::sync::{Arc, Condvar, Mutex};

    /// The engine of one rank: a token, and an operation that ends once the peer has published and somebody looked.
    struct Engine {
        token: Mutex<()>,
        published: AtomicU32,
        done: AtomicU32,
        bell: Bell,
        futex: (Mutex<()>, Condvar),
    }

    impl Engine {
        fn ring(&self) {
            self.bell.ring(|_, _| {
                let _guard = self.futex.0.lock().unwrap();
                self.futex.1.notify_all();
            });
        }

        /// As `Core::drive`: gives way if the token is taken.
        fn drive(&self) {
            let Ok(_token) = self.token.try_lock() else { return };
            if self.published.load(Ordering::Acquire) == 1 && self.done.load(Ordering::Relaxed) == 0 {
                self.done.store(1, Ordering::Release);
                self.ring();
            }
        }

        /// As `Core::wait`, without spinning and with naps that never end by themselves.
        fn wait(&self) {
            let ready = || {
                self.drive();
                self.done.load(Ordering::Acquire) == 1
            };
            while !ready() {
                self.bell.sleep(ready, |word, before| {
                    let guard = self.futex.0.lock().unwrap();
                    if word.load(Ordering::Relaxed) == before {
                        drop(self.futex.1.wait(guard).unwrap());
                    }
                });
            }
        }
    }

    /// One thread waits, another looks once and goes (as `Core::poll` with `hands_on`), a peer publishes.
    fn a_driver_leaves(hands_on: bool) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(move || {
            let engine = Arc::new(Engine {
                token: Mutex::new(()),
                published: AtomicU32::new(0),
                done: AtomicU32::new(0),
                bell: Bell::for_a_model(),
                futex: (Mutex::new(()), Condvar::new()),
            });
            let (peers, leavers) = (engine.clone(), engine.clone());
            let peer = loom::thread::spawn(move || {
                peers.published.store(1, Ordering::Release);
                peers.ring();
            });
            let leaver = loom::thread::spawn(move || {
                leavers.drive();
                if hands_on {
                    leavers.ring();
                }
            });
            engine.wait();
            peer.join().unwrap();
            leaver.join().unwrap();
        });
    }

    #[test]
    fn a_driver_that_leaves_hands_on() {
        a_driver_leaves(true);
    }

    /// The model can fail: without that, both the peer's ring and the token are missed.
    #[test]
    #[should_panic]
    fn else_the_one_that_waits_may_sleep_for_ever() {
        a_driver_leaves(false);
    }
}
