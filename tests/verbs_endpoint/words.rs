//! A word has one domain: the device that its owner has registered it with changes it, whoever asks; its owner, too, and
//! somebody on the same host who uses another device.

use std::time::Duration;

use sapwood::fabric::verbs::Settings;
use sapwood::fabric::{Access, Operation, Request, Status};

use crate::Outcome;
use crate::end::{End, at, memory, part};

const ADDS: u64 = 300;

/// Packets that a device has received, where its driver counts them as soft-RoCE's does.
fn received(end: &End) -> Option<u64> {
    // The kernel reads its counters anew after 10 ms only.
    std::thread::sleep(Duration::from_millis(50));
    let choice = end.fabric.choice();
    let (device, port) = (&choice.device, choice.port);
    let path = format!("/sys/class/infiniband/{device}/ports/{port}/hw_counters/rcvd_pkts");
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

pub fn one_domain() -> Outcome {
    let (mut owner, mut other) = End::pair(&Settings::from_environment().expect("settings"));
    let own = owner.endpoint.prepare(0).expect("prepare to oneself");
    owner.endpoint.connect(0, own).expect("connect to oneself");
    let words = memory(&owner, 64, Access::ALL);
    let devices = [&owner, &other].map(|end| end.fabric.choice().device.clone());
    let (from_owner, from_other) = (memory(&owner, 8, Access::LOCAL), memory(&other, 8, Access::LOCAL));
    let own_word = owner.endpoint.import(0, words.export()?)?;
    let their_word = other.accept(&words);
    let add = |word, earlier| Request {
        id: 1,
        operation: Operation::FetchAdd {
            local: part(earlier, 0, 8),
            remote: at(word, 8),
            add: 1,
        },
        signaled: true,
    };
    let before = [received(&owner), received(&other)];
    for _ in 0..ADDS {
        owner
            .endpoint
            .post(0, &[add(&own_word, &from_owner)])
            .expect("post");
        other
            .endpoint
            .post(0, &[add(&their_word, &from_other)])
            .expect("post");
        for end in [&mut owner, &mut other] {
            assert_eq!(end.next().status, Status::Success);
        }
    }
    // SAFETY: eight aligned bytes of a living region, on which nothing operates any more.
    let sum = unsafe { words.region().base().cast::<u64>().add(1).read() };
    assert_eq!(sum, 2 * ADDS, "an addition is lost");
    let after = [received(&owner), received(&other)];
    println!("{devices:?} have received {before:?} packets before and {after:?} after {ADDS} additions each");
    let came = |end: usize| Some(after[end]? - before[end]?);
    if let (Some(at_owner), Some(at_other), true) = (came(0), came(1), devices[0] != devices[1]) {
        // Of each addition of the owner, request and answer; of each of the other's, the request here and the answer there.
        assert!(at_owner >= 3 * ADDS, "{at_owner} packets at the word's device");
        assert!(
            (ADDS..2 * ADDS).contains(&at_other),
            "{at_other} packets at the other"
        );
    }
    Ok(())
}
