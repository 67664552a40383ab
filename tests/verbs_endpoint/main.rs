//! What is particular to endpoints on a verbs device: everything dropped at any moment under load, what the device
//! says of its own accord, explanations, a completion queue that cannot grow. Cases that need a device, or make a
//! fault on one, are ignored where there is none or where nobody asked for it: `tools/rig/run endpoint` runs all of
//! them.

mod end;
mod events;
mod stress;
mod words;

use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use sapwood::fabric::verbs::{Settings, inventory};
use sapwood::fabric::{Access, Fabric, Operation, PostError, Receive, Status};

use crate::end::{End, at, memory, part, write};

/// Set to `1` by who lets the faults be made: as root, on devices that nobody needs.
const FAULTS: &str = "SAPWOOD_TEST_FAULTS";

/// Guards against hangs; nothing is judged by its speed.
const PATIENCE: Duration = Duration::from_secs(120);

type Outcome = Result<(), Failed>;

fn main() {
    let arguments = Arguments::from_args();
    let present = inventory().is_ok_and(|inventory| !inventory.devices.is_empty());
    let faults = present && std::env::var(FAULTS).is_ok_and(|value| value == "1");
    if !present {
        eprintln!(
            "SKIPPED: all of this needs a verbs device; this machine has none. `tools/rig/run endpoint` runs it."
        );
    } else if !faults {
        eprintln!("SKIPPED: what makes faults on devices; {FAULTS}=1 allows it, as root.");
    }
    let on_device = |name: &str, case: fn() -> Outcome| Trial::test(name, case).with_ignored_flag(!present);
    let fault = |name: &str, case: fn() -> Outcome| Trial::test(name, case).with_ignored_flag(!faults);
    let trials = vec![
        on_device("anything_may_be_dropped_at_any_moment_under_load", stress::drops),
        on_device("a_peer_that_left_is_explained", explained),
        on_device(
            "a_failure_that_nothing_reported_is_told_by_the_next_request",
            told,
        ),
        on_device(
            "connections_share_a_completion_queue_that_cannot_grow",
            shared_queue,
        ),
        on_device(
            "a_word_is_changed_by_its_owners_device_whoever_asks",
            words::one_domain,
        ),
        on_device("a_forked_child_is_refused_and_the_parent_goes_on", forked),
        fault(
            "a_port_that_goes_down_ends_its_connections_at_once",
            events::port_down,
        ),
        fault(
            "a_gid_that_goes_away_ends_its_connections_at_once",
            events::gid_gone,
        ),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

#[track_caller]
fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

/// Timers short enough to be waited for.
fn quick() -> Settings {
    let mut settings = Settings::from_environment().expect("settings");
    settings.timeout = 14;
    settings
}

fn explained() -> Outcome {
    let (mut one, mut other) = End::pair(&quick());
    let ours = memory(&one, 64, Access::ALL);
    let theirs = memory(&other, 64, Access::ALL);
    let target = one.accept(&theirs);
    one.endpoint
        .post(1, &[write(1, part(&ours, 0, 8), at(&target, 0))])
        .expect("post");
    assert_eq!(one.next().status, Status::Success);
    other.endpoint.disconnect(0);
    one.endpoint
        .post(1, &[write(2, part(&ours, 0, 8), at(&target, 0))])
        .expect("post");
    let failed = one.next();
    assert_eq!(failed.status, Status::PeerUnreachable, "{failed:?}");
    let text = one.endpoint.explain(&failed);
    println!("{text}");
    says(
        &text,
        &[
            "a write from rank 0",
            "to rank 1",
            "status 12",
            "queue pair 0x",
            "GID ",
            "path MTU",
            "67.1 ms",
            "4791",
            "ping",
        ],
    );
    assert!(!one.endpoint.reachable(1));
    Ok(())
}

/// Nothing is in flight when the peer goes; only the endpoint itself notices.
fn told() -> Outcome {
    let (mut one, other) = End::pair(&quick());
    let ours = memory(&one, 64, Access::ALL);
    let target = one.accept(&memory(&other, 64, Access::ALL));
    drop(other);
    let deadline = Instant::now() + PATIENCE;
    while one.endpoint.reachable(1) {
        assert!(Instant::now() < deadline, "the loss was not noticed");
        one.endpoint
            .wait(Instant::now() + Duration::from_millis(100))
            .expect("wait");
        assert!(one.poll().is_empty(), "there is nothing to complete");
    }
    one.endpoint
        .post(1, &[write(7, part(&ours, 0, 8), at(&target, 0))])
        .expect("it tells what happened");
    let told = one.next();
    assert_eq!((told.id, told.status), (7, Status::PeerUnreachable));
    says(
        &one.endpoint.explain(&told),
        &["asks whether the peer is there", "status 12"],
    );
    let refused = one
        .endpoint
        .post(1, &[write(8, part(&ours, 0, 8), at(&target, 0))]);
    assert_eq!(refused, Err(PostError::QueuePairError { posted: 0 }));
    Ok(())
}

/// Queues that are, all together, longer than any completion queue of the device.
fn shared_queue() -> Outcome {
    let mut settings = quick();
    let devices = inventory().expect("an inventory").devices;
    let limits = devices
        .iter()
        .filter_map(|device| device.details.as_ref())
        .map(|details| details.limits);
    let (most, depth) = limits
        .map(|limits| (limits.completion_depth as usize, limits.queue_depth as usize))
        .min()
        .expect("a device that can be opened");
    settings.queue_depth = depth.min(8192).min(most);
    let end = End::open(0, &settings);
    let (mut end, depth) = (end.0, end.1.capabilities().queue_depth);
    let peers = (most / depth + 2) as u32;
    if peers > 64 {
        return Err(format!("a completion queue of {most} is not filled by queues of {depth}").into());
    }
    let mut posted = 0;
    for peer in 1..=peers {
        end.prepare(peer).expect("prepare");
        let receives: Vec<_> = (0..depth as u64).map(|id| Receive { id, local: None }).collect();
        posted += match end.post_receives(peer, &receives) {
            Ok(()) => depth,
            Err(PostError::QueueFull { posted }) => posted,
            Err(error) => panic!("{error}"),
        };
    }
    assert!(posted < peers as usize * depth, "there is room for all {posted}");
    // Everything comes back, and not one more than fits.
    (1..=peers).for_each(|peer| end.disconnect(peer));
    let mut came = Vec::with_capacity(1024);
    let deadline = Instant::now() + PATIENCE;
    while posted > 0 {
        assert!(Instant::now() < deadline, "{posted} receives did not come back");
        came.clear();
        end.poll(&mut came).expect("the completion queue did not overrun");
        assert!(came.iter().all(|completion| completion.status == Status::Flushed));
        posted -= came.len();
    }
    Ok(())
}

fn forked() -> Outcome {
    let (mut one, other) = End::pair(&quick());
    let ours = memory(&one, 64, Access::ALL);
    let theirs = memory(&other, 64, Access::ALL);
    let target = one.accept(&theirs);
    // SAFETY: the child calls nothing that takes a lock of another thread's, and leaves without running destructors of
    // the test's harness.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork");
    if child == 0 {
        let refused = one
            .endpoint
            .post(1, &[write(1, part(&ours, 0, 8), at(&target, 0))])
            == Err(PostError::Forked)
            && one.endpoint.poll(&mut Vec::new()).is_err()
            && one.endpoint.wait(Instant::now()).is_err();
        drop((one, other, ours, theirs, target));
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(!refused)) };
    }
    let mut status = -1;
    // SAFETY: our own child, and a place for its status.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(
        status, 0,
        "the child was not refused, or died of dropping what it inherited"
    );
    one.endpoint
        .post(1, &[write(2, part(&ours, 0, 8), at(&target, 0))])
        .expect("post");
    let done = one.next();
    assert_eq!((done.id, done.status), (2, Status::Success));
    // An immediate, too: the other side's receives are untouched.
    let mut other = other;
    other
        .endpoint
        .post_receive(0, Receive { id: 9, local: None })
        .expect("a receive");
    let mut request = write(3, part(&ours, 0, 8), at(&target, 0));
    if let Operation::Write { immediate, .. } = &mut request.operation {
        *immediate = Some(5);
    }
    one.endpoint.post(1, &[request]).expect("post");
    assert_eq!(other.next().immediate, Some(5));
    Ok(())
}
