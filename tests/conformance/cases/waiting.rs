//! Sleeping and waking: no wake-up is lost, and a waiting rank leaves the processor to others.

use std::time::{Duration, Instant};

use sapwood::fabric::{Access, Receive, Sleep};

use super::Case;
use crate::line::{Line, at, part, send, write_with};
use crate::member::{Member, Random};

pub const CASES: &[Case] = &[
    Case::new("a sleeper is woken by what arrives", woken),
    Case::new("a sleeper is woken when its request can go on", woken_to_go_on),
    Case::new("a sleeper in poll(2) is woken by what arrives", woken_from_poll),
    Case::new("a wait ends at its deadline", deadline),
    Case {
        ranks: 1,
        modes: super::THREADS,
        ..Case::new("an alarm ends a wait from another thread", alarm)
    },
    Case {
        modes: super::PROCESSES,
        ..Case::new("waiting costs next to no processor time", polite)
    },
    Case {
        needs: super::reach,
        ..Case::new("a doorbell loses no wake-up", doorbell)
    },
    Case {
        ranks: 1,
        modes: super::THREADS,
        needs: super::reach,
        ..Case::new("a rank's own doorbell wakes its wait's sleep", own_doorbell)
    },
];

/// Waits by `wait` alone, as a progress thread does.
fn wait_for(line: &mut Line, member: &Member, what: &str) {
    let deadline = member.deadline();
    loop {
        let found = line.endpoint.wait(deadline).expect("wait");
        assert!(found, "{what}: the wait was not ended");
        let came = line.poll_all();
        if !came.is_empty() {
            assert_eq!(came.len(), 1, "{came:?}");
            return;
        }
    }
}

/// Ping-pong with pauses that sweep over the moments around falling asleep.
fn woken(member: &mut Member) {
    let mut line = member.connect();
    let memory = member.memory(64, Access::ALL);
    let peer = 1 - member.rank;
    line.expect_immediates(peer, 0, 100);
    member.offer(peer, &memory);
    let theirs = member.accept(&mut line, peer);
    let mut random = Random(u64::from(member.rank));
    for round in 0..400u64 {
        if round % 2 == u64::from(member.rank) {
            let pause = [0, 20, 200, 2000][random.below(4)];
            std::thread::sleep(Duration::from_micros(random.below(pause + 1) as u64));
            // Now and then so long that the other is asleep even on a machine that is busy.
            if round % 100 < 2 {
                std::thread::sleep(Duration::from_millis(100));
            }
            let mut request = write_with(round, part(&memory, 0, 8), at(&theirs, 0), 1);
            request.signaled = false;
            line.post(peer, request);
        } else {
            wait_for(&mut line, member, "an immediate");
            line.endpoint
                .post_receive(peer, Receive { id: 0, local: None })
                .expect("a receive");
        }
    }
    member.barrier();
}

/// As `woken`, for who sleeps on the endpoint's descriptors itself: no nap ends by itself and hides a lost wake-up.
fn woken_from_poll(member: &mut Member) {
    let mut line = member.connect();
    let memory = member.memory(64, Access::ALL);
    let peer = 1 - member.rank;
    line.expect_immediates(peer, 0, 100);
    member.offer(peer, &memory);
    let theirs = member.accept(&mut line, peer);
    let mut random = Random(u64::from(member.rank) + 17);
    for round in 0..400u64 {
        if round % 2 == u64::from(member.rank) {
            for _ in 0..random.below(20_000) {
                std::hint::spin_loop();
            }
            let mut request = write_with(round, part(&memory, 0, 8), at(&theirs, 0), 1);
            request.signaled = false;
            line.post(peer, request);
            continue;
        }
        while line.poll_all().is_empty() {
            if !sleep_in_poll(&mut line, round) {
                wait_for_any(&mut line, member);
            }
        }
        line.endpoint
            .post_receive(peer, Receive { id: 0, local: None })
            .expect("a receive");
    }
    member.barrier();
}

fn wait_for_any(line: &mut Line, member: &Member) {
    assert!(
        line.endpoint.wait(member.deadline()).expect("wait"),
        "the wait was not ended"
    );
}

/// Arms the endpoint and sleeps on its descriptors; `false` if it has none.
fn sleep_in_poll(line: &mut Line, round: u64) -> bool {
    let mut descriptors = Vec::new();
    match line.endpoint.arm(&mut descriptors).expect("arm") {
        Sleep::Impossible => return false,
        Sleep::Needless => assert!(descriptors.is_empty(), "given although nothing is armed"),
        Sleep::Armed => {
            let entry = |fd: &i32| libc::pollfd {
                fd: *fd,
                events: libc::POLLIN,
                revents: 0,
            };
            let mut entries: Vec<_> = descriptors.iter().map(entry).collect();
            let forgotten = FORGOTTEN.as_millis() as i32;
            // SAFETY: as many valid entries, whose descriptors stay open while the endpoint is armed.
            let ready = unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, forgotten) };
            assert_ne!(ready, 0, "round {round}: nobody woke us");
            descriptors.retain(|fd| entries.iter().any(|entry| entry.fd == *fd && entry.revents != 0));
            line.endpoint.disarm(&descriptors).expect("disarm");
        }
    }
    true
}

fn woken_to_go_on(member: &mut Member) {
    let mut line = member.connect();
    let memory = member.memory(64, Access::ALL);
    for round in 0..50 {
        if member.rank == 0 {
            line.post(1, send(round, part(&memory, 0, 8), None));
            member.give(1, b"posted");
            wait_for(&mut line, member, "a send whose receive comes late");
        } else {
            member.take(0);
            std::thread::sleep(Duration::from_millis(round % 4));
            line.expect_send(0, round, part(&memory, 0, 8));
            wait_for(&mut line, member, "the late receive");
        }
    }
    member.barrier();
}

fn deadline(member: &mut Member) {
    let mut line = member.connect();
    for time in [0, 1, 30] {
        let start = Instant::now();
        let time = Duration::from_millis(time);
        assert!(
            !line.endpoint.wait(start + time).expect("wait"),
            "nothing was there to be found"
        );
        assert!(start.elapsed() >= time, "the wait ended early");
    }
    member.barrier();
}

fn processor_time() -> Duration {
    // SAFETY: an all-zero usage is a valid one, and the system call fills it in.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &mut usage), 0);
        usage
    };
    [usage.ru_utime, usage.ru_stime]
        .iter()
        .map(|time| Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64))
        .sum()
}

fn polite(member: &mut Member) {
    const WAIT: Duration = Duration::from_secs(5);
    let mut line = member.connect();
    line.expect_immediates(1 - member.rank, 0, 8);
    // A busy or emulated machine makes each wake-up dear: the best of three. Who spins is far off at once.
    let mut least = WAIT;
    for _ in 0..3 {
        let before = processor_time();
        let start = Instant::now();
        while start.elapsed() < WAIT {
            line.endpoint.wait(start + WAIT).expect("wait");
            assert!(line.poll_all().is_empty());
        }
        least = least.min(processor_time() - before);
        if least < WAIT / 100 || least > WAIT / 4 {
            break;
        }
    }
    assert!(
        least < WAIT / 100,
        "{least:?} of processor time for waiting {WAIT:?}"
    );
    member.barrier();
}

/// A sleep that nobody ends takes this long, and is then known to have been forgotten.
const FORGOTTEN: Duration = Duration::from_secs(10);

fn doorbell(member: &mut Member) {
    use std::sync::atomic::{AtomicU64, Ordering};
    let mut line = member.connect();
    let memory = member.memory(64, Access::READ);
    let peer = 1 - member.rank;
    member.offer(peer, &memory);
    let theirs = member.accept(&mut line, peer);
    let own_bell = line.endpoint.doorbell(member.rank).expect("one's own doorbell");
    let bell = line.endpoint.doorbell(peer).expect("the peer's doorbell");
    // SAFETY: an aligned word of a region that lives as long as this function; everybody accesses it atomically.
    let own = unsafe { memory.region().base().cast::<AtomicU64>().as_ref() };
    let mapped = theirs.mapped().expect("load/store reach").cast::<AtomicU64>();
    // SAFETY: as above, in the peer's region, which is only loaded from.
    let other = unsafe { mapped.as_ref() };
    let mut random = Random(u64::from(member.rank) + 3);
    for round in 1..=2000u64 {
        if round % 2 == u64::from(member.rank) {
            // From at once to about as long as the other needs to fall asleep.
            for _ in 0..random.below(3000) {
                std::hint::spin_loop();
            }
            own.store(round, Ordering::Release);
            bell.ring();
        } else {
            while other.load(Ordering::Acquire) < round {
                let start = Instant::now();
                own_bell.sleep(FORGOTTEN, || other.load(Ordering::Acquire) >= round);
                assert!(start.elapsed() < FORGOTTEN, "round {round}: nobody woke us");
            }
        }
    }
    member.barrier();
}

fn own_doorbell(member: &mut Member) {
    let line = member.connect();
    let bell = line.endpoint.doorbell(0).expect("one's own doorbell");
    let ringer = bell.clone();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        stop.store(true, std::sync::atomic::Ordering::Release);
        ringer.ring();
    });
    let start = Instant::now();
    while !stopped.load(std::sync::atomic::Ordering::Acquire) {
        bell.sleep(FORGOTTEN, || stopped.load(std::sync::atomic::Ordering::Acquire));
    }
    assert!(start.elapsed() < FORGOTTEN, "nobody woke us");
    thread.join().expect("the ringer");
}

/// Rings at moments around falling asleep; then before the wait has begun; then after the endpoint is gone.
fn alarm(member: &mut Member) {
    use std::sync::mpsc;
    let mut line = member.connect();
    let (ask, asked) = mpsc::channel::<u64>();
    let ringer = line.endpoint.alarm();
    let thread = std::thread::spawn(move || {
        let mut random = Random(9);
        while let Ok(pause) = asked.recv() {
            std::thread::sleep(Duration::from_micros(random.below(pause as usize + 1) as u64));
            ringer.wake_by_ref();
        }
        ringer
    });
    for round in 0..200u64 {
        ask.send([0, 50, 2000, 20_000][round as usize % 4])
            .expect("the ringer");
        let start = Instant::now();
        while !line.endpoint.wait(start + FORGOTTEN).expect("wait") {
            assert!(start.elapsed() < FORGOTTEN, "round {round}: nobody woke us");
        }
        assert!(line.poll_all().is_empty());
    }
    drop(ask);
    let ringer = thread.join().expect("the ringer");
    ringer.wake_by_ref();
    assert!(
        line.endpoint.wait(Instant::now()).expect("wait"),
        "a ring before the wait is kept"
    );
    line.poll_all();
    assert!(
        !line.endpoint.wait(Instant::now()).expect("wait"),
        "a poll takes the alarm back"
    );
    drop(line);
    ringer.wake();
}
