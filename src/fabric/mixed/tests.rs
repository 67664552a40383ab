//! What is particular to this provider; the contract itself is tested by the conformance suite.

use std::time::{Duration, Instant};

use super::*;
use crate::fabric::shm::Shm;
use crate::fabric::{Operation, RemoteSlice, Request, Slice, Status};
use crate::memory::{HugePages, MemoryKind};

fn pollable() -> Arc<dyn Fabric> {
    Arc::new(Shm::options().without_reach().pollable().open().unwrap())
}

/// A fabric that differs from shared memory in what it says, and in the memory that it takes.
#[derive(Debug)]
struct Other {
    inner: Arc<dyn Fabric>,
    capabilities: Capabilities,
    refuses: Option<&'static str>,
}

impl Other {
    fn new(change: impl FnOnce(&mut Capabilities)) -> Self {
        let inner = pollable();
        let mut capabilities = inner.capabilities().clone();
        change(&mut capabilities);
        Self {
            inner,
            capabilities,
            refuses: None,
        }
    }
}

impl Fabric for Other {
    fn name(&self) -> &'static str {
        "other"
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn register(&self, region: &Region, access: Access) -> Result<Arc<dyn Registration>, FabricError> {
        match self.refuses {
            None => self.inner.register(region, access),
            Some(why) => Err(FabricError::MemoryKind {
                fabric: "other",
                kind: region.kind().name(),
                why: why.into(),
            }),
        }
    }

    fn endpoint(&self, rank: Rank, generation: u32) -> Result<Box<dyn Endpoint>, FabricError> {
        self.inner.endpoint(rank, generation)
    }
}

/// Ranks 0 and 1 are near each other, rank 2 is far; all of them connected.
fn three(far: impl Fn() -> Arc<dyn Fabric>) -> Vec<(Mixed, Box<dyn Endpoint>)> {
    let near_ranks: [&[Rank]; 3] = [&[0, 1], &[0, 1], &[2]];
    let mut ranks: Vec<(Mixed, Box<dyn Endpoint>)> = (0..3)
        .map(|rank| {
            let mixed = Mixed::new(pollable(), far(), near_ranks[rank as usize].iter().copied());
            let endpoint = mixed.endpoint(rank, 1).unwrap();
            (mixed, endpoint)
        })
        .collect();
    for one in 0..3 {
        for other in 0..3 {
            if one < other {
                let (a, b) = (one as Rank, other as Rank);
                let first = ranks[one].1.prepare(b).unwrap();
                let second = ranks[other].1.prepare(a).unwrap();
                ranks[one].1.connect(b, second).unwrap();
                ranks[other].1.connect(a, first).unwrap();
            }
        }
    }
    ranks
}

fn memory(fabric: &Mixed, access: Access) -> Arc<dyn Registration> {
    fabric
        .register(&Region::host(4096, HugePages::Never).unwrap(), access)
        .unwrap()
}

fn slice(registration: &Arc<dyn Registration>) -> Slice {
    Slice {
        registration: registration.clone(),
        offset: 0,
        len: 8,
    }
}

fn outcome(endpoint: &mut dyn Endpoint, peer: Rank, operation: Operation) -> Status {
    let request = Request {
        id: 1,
        operation,
        signaled: true,
    };
    endpoint.post(peer, &[request]).unwrap();
    let mut found = Vec::with_capacity(4);
    while endpoint.poll(&mut found).unwrap() == 0 {}
    found[0].status
}

#[test]
fn what_is_offered_holds_for_every_pair() {
    let far = Other::new(|capabilities| {
        capabilities.inline_size = 200;
        capabilities.queue_depth = 64;
        capabilities.ordering = OrderingScope::ImmediateOnly;
        capabilities.atomic_domain = AtomicDomain::Device;
        capabilities.foreign_memory = false;
    });
    let near = Shm::new().unwrap();
    let found = Mixed::combined(near.capabilities(), far.capabilities());
    let expected = Capabilities {
        load_store: false,
        inline_size: 0,
        gpu_memory: false,
        foreign_memory: false,
        ordering: OrderingScope::ImmediateOnly,
        atomic_domain: AtomicDomain::None,
        progress_while_stopped: true,
        queue_depth: 64,
    };
    assert_eq!(found, expected);
    let alike = Mixed::combined(near.capabilities(), near.capabilities());
    assert_eq!(
        (alike.atomic_domain, alike.load_store),
        (AtomicDomain::Cpu, false)
    );
}

#[test]
fn atomics_of_two_domains_are_refused_at_near_and_far_peers_and_explained() {
    let far =
        || -> Arc<dyn Fabric> { Arc::new(Other::new(|found| found.atomic_domain = AtomicDomain::Device)) };
    for peer in [1u32, 2] {
        let mut ranks = three(far);
        let target = memory(&ranks[peer as usize].0, Access::ALL);
        let ours = memory(&ranks[0].0, Access::LOCAL);
        let endpoint = &mut *ranks[0].1;
        let region = endpoint.import(peer, target.export().unwrap()).unwrap();
        let remote = RemoteSlice { region, offset: 0 };
        let add = Operation::FetchAdd {
            local: slice(&ours),
            remote: remote.clone(),
            add: 1,
        };
        let request = Request {
            id: 7,
            operation: add,
            signaled: true,
        };
        endpoint.post(peer, &[request]).unwrap();
        let mut found = Vec::with_capacity(4);
        while endpoint.poll(&mut found).unwrap() == 0 {}
        assert_eq!(found[0].status, Status::RemoteAccess);
        let said = endpoint.explain(&found[0]);
        assert!(said.contains("no atomics"), "{said}");
    }
}

#[test]
fn by_one_means_all_ranks_and_the_owner_reach_a_word_in_one_domain() {
    let far =
        || -> Arc<dyn Fabric> { Arc::new(Other::new(|found| found.atomic_domain = AtomicDomain::Device)) };
    let fabrics = [0, 0, 1].map(|host| {
        let mates: &[Rank] = [&[0, 1][..], &[2]][host];
        Mixed::new(pollable(), far(), mates.iter().copied())
            .by_one_means()
            .unwrap()
    });
    let [owner, ..] = &fabrics;
    assert_eq!(
        (owner.name(), owner.capabilities().atomic_domain),
        ("other", AtomicDomain::Device)
    );
    assert!(owner.by_one_means().is_none());
    let memory = |fabric: &Arc<dyn Fabric>| {
        let region = Region::host(4096, HugePages::Never).unwrap();
        fabric.register(&region, Access::ALL).unwrap()
    };
    let words = memory(owner);
    let mut home = owner.endpoint(0, 1).unwrap();
    for (rank, fabric) in (0..).zip(&fabrics) {
        let mut own = (rank != 0).then(|| fabric.endpoint(rank, 1).unwrap());
        let there = home.prepare(rank).unwrap();
        match &mut own {
            None => home.connect(0, there).unwrap(),
            Some(own) => {
                home.connect(rank, own.prepare(0).unwrap()).unwrap();
                own.connect(0, there).unwrap();
            }
        }
        let endpoint = own.as_mut().unwrap_or(&mut home);
        let (region, earlier) = (
            endpoint.import(0, words.export().unwrap()).unwrap(),
            memory(fabric),
        );
        let add = Operation::FetchAdd {
            local: slice(&earlier),
            remote: RemoteSlice { region, offset: 0 },
            add: 1,
        };
        assert_eq!(outcome(&mut **endpoint, 0, add), Status::Success);
        // SAFETY: eight aligned bytes of a living region, to which nothing is written any more.
        let found = unsafe { earlier.region().base().cast::<u64>().read() };
        assert_eq!(found, u64::from(rank));
    }
    // A mixture of mixtures has it where the outer one's network has it; a fabric that is no mixture is it.
    let nested = Mixed::new(pollable(), Arc::new(Mixed::new(pollable(), far(), [0])), [0]);
    assert_eq!(nested.by_one_means().unwrap().name(), "other");
    assert!(pollable().by_one_means().is_none());
}

#[test]
fn memory_that_one_side_cannot_register_serves_the_other() {
    let far = || -> Arc<dyn Fabric> {
        let mut far = Other::new(|_| ());
        far.refuses = Some("it is too warm");
        Arc::new(far)
    };
    let mut ranks = three(far);
    let target = memory(&ranks[1].0, Access::ALL);
    let ours = memory(&ranks[0].0, Access::LOCAL);
    let near = ranks[0].1.import(1, target.export().unwrap()).unwrap();
    let remote = RemoteSlice {
        region: near,
        offset: 0,
    };
    let write = |remote: &RemoteSlice| Operation::Write {
        local: slice(&ours),
        remote: remote.clone(),
        immediate: None,
    };
    assert_eq!(outcome(&mut *ranks[0].1, 1, write(&remote)), Status::Success);
    let far_target = memory(&ranks[2].0, Access::ALL);
    let error = ranks[0]
        .1
        .import(2, far_target.export().unwrap())
        .unwrap_err()
        .to_string();
    assert!(error.contains("too warm") && error.contains("rank 2"), "{error}");
    // What is not registered with the peer's fabric, or is another peer's, ends in the queue pair's own time.
    assert_ne!(outcome(&mut *ranks[0].1, 2, write(&remote)), Status::Success);
    assert!(MemoryKind::name(ours.region().kind()).len() > 1);
}

#[test]
fn ranks_that_disagree_on_who_is_near_are_told() {
    let mixed = |near: &[Rank]| Mixed::new(pollable(), pollable(), near.iter().copied());
    let (one, other) = (mixed(&[0, 1]), mixed(&[1]));
    let mut first = one.endpoint(0, 1).unwrap();
    let mut second = other.endpoint(1, 1).unwrap();
    let parcel = second.prepare(0).unwrap();
    first.prepare(1).unwrap();
    let error = first.connect(1, parcel).unwrap_err().to_string();
    assert!(error.contains("do not agree"), "{error}");
}

#[test]
fn without_a_descriptor_to_sleep_on_it_still_wakes() {
    let near: Arc<dyn Fabric> = Arc::new(Shm::without_reach().unwrap());
    let mixed = Mixed::new(near, pollable(), [0]);
    let mut endpoint = mixed.endpoint(0, 1).unwrap();
    let start = Instant::now();
    assert!(!endpoint.wait(start + Duration::from_millis(20)).unwrap());
    assert!(start.elapsed() >= Duration::from_millis(20));
    endpoint.alarm().wake();
    assert!(endpoint.wait(Instant::now() + Duration::from_secs(10)).unwrap());
}

/// A mixture is a fabric like any other: it can be slept on as a part of a mixture.
#[test]
fn mixtures_nest() {
    let inner: Arc<dyn Fabric> = Arc::new(Mixed::new(pollable(), pollable(), [0]));
    let mixed = Mixed::new(pollable(), inner, []);
    let mut endpoint = mixed.endpoint(0, 1).unwrap();
    assert!(!endpoint.wait(Instant::now()).unwrap());
    let alarm = endpoint.alarm();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        alarm.wake();
    });
    assert!(endpoint.wait(Instant::now() + Duration::from_secs(10)).unwrap());
    thread.join().unwrap();
}
