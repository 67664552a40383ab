//! That the moves of a worker that is driven straight down are those of one that is asked what it wants after each: compared
//! wherever the model does one of the latter.

use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use sapwood::backup::protocol::{
    Access, Did, Doubts, Exclusion, Reach, Seal, Shape, Slot, Tag, Tickets, Want, Way, Word, Words, Worker,
    scan,
};

/// How often each was compared.
pub static COMPARED: [AtomicU64; 6] = [const { AtomicU64::new(0) }; 6];
pub const MOVES: [&str; 6] = ["took", "fills", "has_filled", "sees", "proposal", "has_summed"];

fn compared(index: usize) {
    COMPARED[index].fetch_add(1, Ordering::Relaxed);
}

/// What was wanted of `before` went so, and made `after` of it.
pub fn answered(before: &Worker, want: Want, did: Did, after: &Worker) {
    let mut worker = before.clone();
    let step = before.step();
    match (want, did) {
        (Want::Word(Access::Add(Word::Tickets(_))), Did::Found(found)) if before.is_usual() => {
            let ticket = worker.took(Tickets(found));
            let fills = |ticket| matches!(after.want(), Want::Word(Access::Swap { word, .. }) if word == Word::Slot(step, ticket));
            assert_eq!(ticket.is_some_and(fills), ticket.is_some(), "{before:?} {did:?}");
            compared(0);
        }
        (
            Want::Word(Access::Swap {
                word: Word::Slot(_, ticket),
                expected,
                desired,
            }),
            Did::Found(found),
        ) if desired != Slot::void(step).0 => {
            // Who goes straight looks first, and then does not expect anything else.
            let own = worker.fills(ticket, Slot(found));
            if found == expected || own.is_none() {
                worker = before.clone();
                let filled = worker.has_filled(ticket, Slot(expected), Slot(found));
                assert_eq!(filled, after.ticket() == Some(ticket), "{before:?} {did:?}");
                compared(2);
            } else {
                assert_eq!(own, Some(Slot(desired)));
                compared(1);
            }
        }
        (Want::Sum { tag }, Did::Done) => {
            assert_eq!(before.sums(), Some(tag));
            worker.has_summed(tag);
            compared(5);
        }
        (Want::Apply { tag }, Did::Done) => {
            assert_eq!(before.applies(), Some(tag));
            worker.has_applied(tag);
        }
        _ => return,
    }
    assert_eq!(worker, *after, "{before:?} {want:?} {did:?}");
}

/// It has looked, which made `after` of it.
pub fn looked(shape: &Shape, before: &Worker, words: &impl Words, after: &Worker) {
    if before.waits_usually().is_none() {
        return;
    }
    let (step, seal) = (before.step(), words.seal());
    let mut worker = before.clone();
    if worker.sees(seal) {
        assert_eq!(worker, *after, "{before:?} {seal:?}");
        return compared(3);
    }
    assert_eq!(worker, *before);
    let Some((few, desired)) = worker.proposal(seal, words) else {
        return;
    };
    let access = Access::Swap {
        word: Word::Seal(step),
        expected: seal.0,
        desired: desired.0,
    };
    assert_eq!(after.want(), Want::Word(access), "{before:?}");
    let tag = Tag::of(step, before.view(), desired.attempt());
    let scanned = scan(words, shape, step, 0, |_, _, _| {}).expect("the step's words");
    assert!(scanned.complete && few.members(tag) == Some(scanned.members.word(0)));
    // Done, or too late.
    for (found, then) in [(seal, desired), (desired, desired)] {
        let mut turned = after.clone();
        turned.did(Did::Found(found.0));
        turned.sees(then);
        let mut straight = before.clone();
        straight.sees(then);
        assert_eq!(straight, turned, "{before:?}");
    }
    compared(4);
}

/// Any words, of the step and of others: the model's steps are too few for a flat ring to come round.
#[derive(Debug)]
struct Page {
    seal: Seal,
    tickets: Tickets,
    slots: Vec<Slot>,
    exclusion: Exclusion,
}

impl Words for Page {
    fn seal(&self) -> Seal {
        self.seal
    }
    fn tickets(&self) -> Tickets {
        self.tickets
    }
    fn slot(&self, ticket: u16) -> Slot {
        self.slots.get(ticket as usize).copied().unwrap_or_default()
    }
    fn exclusion(&self, index: u16) -> Exclusion {
        if index == 0 {
            self.exclusion
        } else {
            Exclusion::default()
        }
    }
}

/// Nobody is doubted.
struct Trust;

impl Doubts for Trust {
    fn worker(&self, _: u16) -> bool {
        false
    }
    fn ticket(&self, _: u16) -> bool {
        false
    }
}

/// The worker answers, and so does one that goes straight.
fn did(worker: &mut Worker, did: Did) {
    let (before, want) = (worker.clone(), worker.want());
    worker.did(did);
    answered(&before, want, did, worker);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn whatever_the_words_are(
        ticket in 0u16..4,
        slots in prop::collection::vec((0u64..4, 0u16..5), 4),
        seal in (0u64..5, any::<bool>()),
        exclusion in 0u64..5,
        tickets in 0u64..6,
    ) {
        const STEP: u64 = 3;
        let shape = Shape::new(4, 1, 4, Reach::LoadStore, Way::Flat).unwrap();
        let mut worker = Worker::new(shape, 1);
        // Two steps before this one.
        for step in 1..STEP {
            worker.arrive();
            worker.did(Did::Found(Tickets::none(step).0));
            worker.did(Did::Found(0));
            let words = Page {
                seal: Seal::committed(step, 0),
                tickets: Tickets::none(step),
                slots: Vec::new(),
                exclusion: Exclusion::default(),
            };
            let before = worker.clone();
            worker.look(&words, &Trust);
            looked(&shape, &before, &words, &worker);
            did(&mut worker, Did::Done);
            did(&mut worker, Did::Done);
        }
        let slot = |(index, (step, worker)): (u16, &(u64, u16))| match worker {
            4 => Slot::void(*step),
            // Each has one ticket.
            _ if *step == STEP => Slot::of(STEP, (index + 1 + 3 * ticket) % 4, 0),
            worker => Slot::of(*step, *worker, 0),
        };
        let mut slots = (0..).zip(&slots).map(slot).collect::<Vec<_>>();
        worker.arrive();
        did(&mut worker, Did::Found(Tickets::none(STEP).0 + u64::from(ticket)));
        let Want::Word(Access::Swap { expected, .. }) = worker.want() else { panic!("a slot to be filled") };
        prop_assert_eq!(expected, 0);
        let found = slots[usize::from(ticket)];
        did(&mut worker, Did::Found(found.0));
        if let Want::Word(Access::Swap { expected, .. }) = worker.want() {
            did(&mut worker, Did::Found(expected));
        }
        if worker.ticket() != Some(ticket) {
            return Ok(());
        }
        slots[usize::from(ticket)] = Slot::of(STEP, 1, 0);
        // Nobody fills the slot of a ticket that was not taken.
        let filled = slots.iter().rposition(|slot| slot.step() == STEP).map_or(0, |last| last as u64 + 1);
        let words = Page {
            seal: match seal {
                (step, true) => Seal::committed(step, 0),
                (step, false) => Seal::committed(step.min(STEP - 1), 0),
            },
            tickets: Tickets(Tickets::none(STEP).0 + tickets.max(filled)),
            slots,
            exclusion: Exclusion::of(exclusion, 0),
        };
        let before = worker.clone();
        worker.look(&words, &Trust);
        looked(&shape, &before, &words, &worker);
    }
}
