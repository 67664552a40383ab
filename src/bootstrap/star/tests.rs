use std::sync::mpsc;

use super::*;
use crate::bootstrap::membership::Meeting;
use crate::bootstrap::{Job, Membership};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// Two ranks of one host that have met over the network.
fn two() -> [Membership; 2] {
    let jobs = Job::networked(2, "127.0.0.1").unwrap();
    let (first, second) = (jobs[0].clone(), jobs[1].clone());
    let other = std::thread::spawn(move || Membership::join(&second, soon()).unwrap());
    let root = Membership::join(&first, soon()).unwrap();
    [root, other.join().unwrap()]
}

fn star(membership: &Membership) -> &Star {
    match &membership.meeting {
        Meeting::Network(star) => star,
        Meeting::OneHost(_) => panic!("they met over the network"),
    }
}

#[test]
fn an_interruption_ends_the_wait_for_descriptors_of_a_host_mate() {
    let [root, other] = two();
    std::thread::scope(|scope| {
        // It says that it has come, and hands nothing round.
        let (ended, end) = mpsc::channel::<()>();
        scope.spawn(move || {
            let star = star(&other);
            let mut line = star.line.lock().unwrap();
            star.exchange(&mut line, "windows", &[], 1, soon()).unwrap();
            drop(line);
            let _ = end.recv();
        });
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            root.interrupt();
        });
        let (descriptor, _) = rustix::pipe::pipe().unwrap();
        let error = root
            .all_gather("windows", &[], vec![descriptor], soon())
            .unwrap_err();
        assert!(matches!(error, BootstrapError::Interrupted { .. }), "{error}");
        drop(ended);
    });
}

#[test]
fn the_others_hear_of_an_interruption_also_where_the_line_was_busy() {
    let [root, other] = two();
    let line = star(&root).line.lock().unwrap();
    root.interrupt();
    drop(line);
    // Whoever had it, and asked for news, has told them.
    star(&root).take_news();
    let (other, until) = (star(&other), soon());
    // Not from the host's own roll, which hosts elsewhere do not see.
    while other.gone.how(0).is_none() {
        assert!(Instant::now() < until, "nobody was told");
        std::thread::sleep(Duration::from_millis(1));
        other.take_news();
    }
    assert_eq!(other.gone.how(0), Some(DepartureKind::GaveUp));
}
