//! What is particular to this provider; the contract itself is tested by the conformance suite.

use std::time::Instant;

use super::*;
use crate::fabric::{
    Completion, Operation, Parcel, Receive, RemoteRegion, RemoteSlice, Request, Slice, Status,
};
use crate::memory::HugePages;

fn pair() -> (Shm, [Box<dyn Endpoint>; 2]) {
    let fabric = Shm::new().unwrap();
    let mut ends = [fabric.endpoint(0, 1).unwrap(), fabric.endpoint(1, 1).unwrap()];
    let first = ends[0].prepare(1).unwrap();
    let second = ends[1].prepare(0).unwrap();
    ends[0].connect(1, second).unwrap();
    ends[1].connect(0, first).unwrap();
    (fabric, ends)
}

fn host(fabric: &Shm, len: usize, access: Access) -> Arc<dyn Registration> {
    let region = Region::host(len, HugePages::Never).unwrap();
    fabric.register(&region, access).unwrap()
}

fn slice(registration: &Arc<dyn Registration>, offset: usize, len: usize) -> Slice {
    Slice {
        registration: registration.clone(),
        offset,
        len,
    }
}

fn write(local: Slice, region: &Arc<dyn RemoteRegion>, immediate: Option<u32>) -> Request {
    let remote = RemoteSlice {
        region: region.clone(),
        offset: 0,
    };
    Request {
        id: 1,
        operation: Operation::Write {
            local,
            remote,
            immediate,
        },
        signaled: true,
    }
}

fn poll(endpoint: &mut Box<dyn Endpoint>) -> Vec<Completion> {
    let mut found = Vec::with_capacity(64);
    endpoint.poll(&mut found).unwrap();
    found
}

#[test]
fn foreign_memory_is_reached_and_has_no_atomics() {
    let (fabric, mut ends) = pair();
    let buffer = crate::memory::Buffer::from_vec(vec![0u8; 4096]).unwrap();
    let theirs = fabric.register(buffer.region(), Access::ALL).unwrap();
    let remote = ends[0].import(1, theirs.export().unwrap()).unwrap();
    assert!(remote.mapped().is_none());
    let ours = host(&fabric, 64, Access::LOCAL);
    // SAFETY: nobody else uses this region now.
    unsafe { ours.region().base().write_bytes(7, 64) };
    ends[0]
        .post(1, &[write(slice(&ours, 0, 64), &remote, None)])
        .unwrap();
    assert_eq!(poll(&mut ends[0])[0].status, Status::Success);
    assert_eq!((&buffer[..64], buffer[64]), (&[7u8; 64][..], 0));
    let remote = RemoteSlice {
        region: remote,
        offset: 0,
    };
    let add = Request {
        id: 2,
        operation: Operation::FetchAdd {
            local: slice(&ours, 0, 8),
            remote,
            add: 1,
        },
        signaled: true,
    };
    ends[0].post(1, &[add]).unwrap();
    assert_eq!(poll(&mut ends[0])[0].status, Status::RemoteOperation);
}

#[test]
fn memory_deregistered_in_the_middle_of_an_operation_is_kept_until_its_end() {
    let (fabric, mut endpoints) = pair();
    #[derive(Debug)]
    struct Told(Arc<std::sync::atomic::AtomicBool>);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }
    let freed = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut bytes = vec![0u64; 8];
    let base = std::ptr::NonNull::from(bytes.as_mut_slice()).cast();
    let owner = Arc::new((bytes, Told(freed.clone())));
    // SAFETY: the vector's memory stays where it is until the owner is dropped.
    let region = unsafe { Region::foreign(base, 64, owner) }.unwrap();
    let registration = fabric.register(&region, Access::ALL).unwrap();
    drop(region);
    let incoming = fabric.domain.incoming_of_a_test();
    // The peer's part, as if it were stopped in the middle of a copy.
    let (activity, revocation) = (&incoming[0].control.activity, &incoming[0].control.revocation);
    let mut ends = 0;
    activity
        .operate(&mut ends, revocation, || {
            drop(registration);
            fabric.domain.clean_up();
            assert!(!freed.load(std::sync::atomic::Ordering::SeqCst));
            assert_eq!(
                endpoints[0].fence(1, Instant::now()).unwrap(),
                crate::fabric::Fence::Quarantined
            );
        })
        .expect("not yet revoked");
    fabric.domain.clean_up();
    assert!(freed.load(std::sync::atomic::Ordering::SeqCst));
    assert_eq!(
        endpoints[0].fence(1, Instant::now()).unwrap(),
        crate::fabric::Fence::Fenced
    );
    assert!(activity.operate(&mut ends, revocation, || ()).is_none());
}

#[test]
fn what_a_peer_scribbles_into_the_control_segment_ends_the_queue_pair_and_nothing_else() {
    use std::sync::atomic::Ordering::SeqCst;
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // Often something that looks plausible.
        if random & 7 < 5 { random >> 59 } else { random }
    };
    let mut ended = 0;
    for _ in 0..200 {
        let (fabric, mut ends) = pair();
        let target = host(&fabric, 4096, Access::LOCAL);
        for id in 0..8 {
            let receive = Receive {
                id,
                local: Some(slice(&target, 64, 128)),
            };
            ends[0].post_receive(1, receive).unwrap();
        }
        for incoming in fabric.domain.incoming_of_a_test() {
            let control = &*incoming.control;
            for slot in control.slots.iter().take(16) {
                slot.what.store((next() % 8) | (next() << 32), SeqCst);
                slot.len.store(next(), SeqCst);
            }
            control.peer.produced.store(next(), SeqCst);
            control.owner.posted.store(next(), SeqCst);
            control.owner.consumed.store(next(), SeqCst);
            control.owner.taken.store(next(), SeqCst);
            control
                .capacities
                .iter()
                .for_each(|capacity| capacity.store(next(), SeqCst));
        }
        let send = Request {
            id: 100,
            operation: Operation::Send {
                local: slice(&target, 0, 100),
                immediate: Some(1),
            },
            signaled: true,
        };
        let _ = ends[1].post(0, std::slice::from_ref(&send));
        let _ = ends[0].post(1, &[send]);
        for end in &mut ends {
            let completions = poll(end);
            ended += usize::from(completions.iter().any(|c| c.status == Status::Flushed));
        }
        // SAFETY: the region is this test's alone.
        let bytes = unsafe { std::slice::from_raw_parts(target.region().base().as_ptr(), 4096) };
        assert!(
            bytes[192..].iter().all(|byte| *byte == 0),
            "bytes outside of the receive changed"
        );
    }
    assert!(ended > 100, "only {ended} queue pairs noticed");
}

#[test]
fn a_forked_child_is_refused_and_its_drops_disturb_nobody() {
    let (fabric, mut ends) = pair();
    let target = host(&fabric, 64, Access::ALL);
    let remote = ends[0].import(1, target.export().unwrap()).unwrap();
    let ours = host(&fabric, 64, Access::LOCAL);
    let request = write(slice(&ours, 0, 8), &remote, None);
    // SAFETY: the child allocates little, as no other thread of this test holds locks of ours, and leaves by _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused = matches!(ends[0].post(1, &[request]), Err(crate::fabric::PostError::Forked))
            && matches!(fabric.endpoint(5, 1), Err(FabricError::Forked))
            && matches!(ends[1].poll(&mut Vec::new()), Err(FabricError::Forked));
        drop((ends, target, fabric));
        // SAFETY: ends the child without running anything of the parent's.
        unsafe { libc::_exit(i32::from(!refused)) };
    }
    let mut status = -1;
    // SAFETY: waits for the child forked above.
    unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(status, 0);
    ends[0].post(1, &[request]).unwrap();
    assert_eq!(
        poll(&mut ends[0])[0].status,
        Status::Success,
        "key and endpoint are still valid"
    );
}

#[test]
fn sends_are_counted_as_copies_and_writes_are_not() {
    let (fabric, mut ends) = pair();
    let source = host(&fabric, 100_000, Access::LOCAL);
    let target = host(&fabric, 100_000, Access::ALL);
    let remote = ends[0].import(1, target.export().unwrap()).unwrap();
    ends[0]
        .post(1, &[write(slice(&source, 0, 100_000), &remote, None)])
        .unwrap();
    assert_eq!(ends[0].bytes_copied(), 0);
    let local = Some(slice(&target, 0, 100_000));
    ends[1].post_receive(0, Receive { id: 1, local }).unwrap();
    let send = Operation::Send {
        local: slice(&source, 0, 100_000),
        immediate: None,
    };
    let send = Request {
        id: 2,
        operation: send,
        signaled: false,
    };
    ends[0].post(1, &[send]).unwrap();
    let mut received = Vec::new();
    while received.is_empty() {
        received = poll(&mut ends[1]);
        poll(&mut ends[0]);
    }
    assert_eq!(
        (received[0].status, received[0].bytes),
        (Status::Success, 100_000)
    );
    assert_eq!(ends[0].bytes_copied(), 100_000);
}

#[test]
fn a_parcel_of_another_kind_or_without_its_descriptors_is_refused() {
    let (fabric, mut ends) = pair();
    let target = host(&fabric, 64, Access::READ);
    let parcel = target.export().unwrap();
    let short = Parcel {
        bytes: parcel.bytes.clone(),
        descriptors: Vec::new(),
    };
    assert!(
        ends[0]
            .import(1, short)
            .unwrap_err()
            .to_string()
            .contains("descriptors")
    );
    let connection = ends[0].prepare(7).unwrap();
    assert!(ends[0].import(1, connection).is_err());
    // A read-only peer gets a descriptor that cannot be mapped for writing.
    assert!(crate::memory::Mapping::of(&parcel.descriptors[1], 64, true).is_err());
    assert!(crate::memory::Mapping::of(&parcel.descriptors[1], 64, false).is_ok());
    // And nobody may write to the table of keys.
    assert!(crate::memory::Mapping::of(&parcel.descriptors[0], 64, true).is_err());
}
