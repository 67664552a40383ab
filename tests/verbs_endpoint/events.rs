//! What the device says of its own accord is acted upon at once: with acknowledgements that are waited for without
//! end, nothing but the event can end a connection here.

use std::process::Command;
use std::time::{Duration, Instant};

use sapwood::fabric::{Access, Completion, Receive, Status};

use crate::end::{End, at, memory, part, write};
use crate::{Outcome, PATIENCE, quick, says};

fn run(line: &str) {
    let status = Command::new("sh").args(["-c", line]).status().expect("a shell");
    assert!(status.success(), "{line}: {status}");
}

/// Mends what a case broke, whatever becomes of it.
struct Mend(&'static str);

impl Drop for Mend {
    fn drop(&mut self) {
        run(self.0);
        std::thread::sleep(Duration::from_secs(3));
    }
}

/// Makes a fault while receives are posted and a request is in flight, and waits for what comes of it.
fn under_fault(fault: &str, mend: &'static str) -> (End, Vec<Completion>) {
    let mut settings = quick();
    settings.timeout = 0;
    let (mut one, other) = End::pair(&settings);
    let ours = memory(&one, 64, Access::ALL);
    let target = one.accept(&memory(&other, 64, Access::ALL));
    for id in 0..3 {
        one.endpoint
            .post_receive(1, Receive { id, local: None })
            .expect("a receive");
    }
    let mended = Mend(mend);
    run(fault);
    one.endpoint
        .post(1, &[write(9, part(&ours, 0, 8), at(&target, 0))])
        .expect("post");
    let deadline = Instant::now() + PATIENCE;
    let mut all = Vec::new();
    // What completes by itself before the event is read may do so.
    while all
        .iter()
        .filter(|completion: &&Completion| completion.id < 3)
        .count()
        < 3
    {
        assert!(Instant::now() < deadline, "the event ended nothing: {all:?}");
        one.endpoint.wait(deadline).expect("wait");
        all.extend(one.poll());
    }
    drop(mended);
    (one, all)
}

pub fn port_down() -> Outcome {
    let (one, all) = under_fault("ip link set v0 down", "ip link set v0 up");
    let first = all
        .iter()
        .find(|completion| completion.status != Status::Success)
        .expect("a failure");
    assert_eq!(first.status, Status::PeerUnreachable, "{all:?}");
    let text = one.endpoint.explain(first);
    println!("{text}");
    says(&text, &["port 1 went down", "sapwood devices", "GID", "rank 1"]);
    assert!(!one.endpoint.reachable(1));
    Ok(())
}

pub fn gid_gone() -> Outcome {
    let (one, all) = under_fault(
        "ip address del 10.9.0.1/24 dev v0",
        "ip address add 10.9.0.1/24 dev v0",
    );
    let first = all
        .iter()
        .find(|completion| completion.status != Status::Success)
        .expect("a failure");
    assert_eq!(first.status, Status::PeerUnreachable, "{all:?}");
    let text = one.endpoint.explain(first);
    println!("{text}");
    says(&text, &["GID", "10.9.0.1", "connect anew"]);
    Ok(())
}
