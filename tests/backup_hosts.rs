//! Backup workers, several on each of several hosts: whoever reaches some of the others by shared memory and some by a network
//! takes the network for every word, of host-mates and of its own, too.
//!
//! The network is shared memory that says of itself that a device carries out its atomic operations. Over a real device the
//! same is in `backup_processes`.

use std::sync::Arc;
use std::time::Duration;

use sapwood::backup::{BackupError, Barrier};
use sapwood::bootstrap::Job;
use sapwood::communicator::Communicator;
use sapwood::fabric::mixed::Mixed;
use sapwood::fabric::shm::Shm;
use sapwood::fabric::tcp::{Settings, Tcp};
use sapwood::fabric::{
    Access, AtomicDomain, Capabilities, Endpoint, Fabric, FabricError, Rank, Registration,
};
use sapwood::memory::Region;

const RANKS: Rank = 4;

/// See the module.
#[derive(Debug)]
struct Network {
    inner: Shm,
    capabilities: Capabilities,
}

impl Network {
    fn new() -> Self {
        let inner = pollable();
        let capabilities = Capabilities {
            atomic_domain: AtomicDomain::Device,
            ..inner.capabilities().clone()
        };
        Self { inner, capabilities }
    }
}

impl Fabric for Network {
    fn name(&self) -> &'static str {
        "network"
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn register(&self, region: &Region, access: Access) -> Result<Arc<dyn Registration>, FabricError> {
        self.inner.register(region, access)
    }

    fn endpoint(&self, rank: Rank, generation: u32) -> Result<Box<dyn Endpoint>, FabricError> {
        self.inner.endpoint(rank, generation)
    }
}

fn pollable() -> Shm {
    Shm::options()
        .without_reach()
        .pollable()
        .open()
        .expect("it opens anywhere")
}

/// Runs `rank` on each of four ranks, two on each host, with shared memory inside of it.
fn on_two_hosts<T: Send>(
    network: impl Fn() -> Arc<dyn Fabric> + Sync,
    rank: impl Fn(Communicator) -> T + Sync,
) -> Vec<T> {
    let jobs = Job::local(RANKS).expect("a job");
    std::thread::scope(|scope| {
        let (rank, network) = (&rank, &network);
        let threads = jobs.iter().map(|job| {
            scope.spawn(move || {
                let mates = (0..RANKS).filter(|mate| mate / 2 == job.rank / 2);
                let mixed = Mixed::new(Arc::new(pollable()), network(), mates);
                let builder = Communicator::builder()
                    .fabric(Arc::new(mixed))
                    .timeout(Duration::from_secs(60));
                rank(builder.join(job).expect("joined"))
            })
        });
        let threads = threads.collect::<Vec<_>>();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    })
}

#[test]
fn words_have_one_domain_and_results_are_means() {
    const STEPS: u64 = 40;
    for (backups, count) in [(0, 3), (1, 3), (1, 100_000)] {
        let network = || -> Arc<dyn Fabric> { Arc::new(Network::new()) };
        let seen = on_two_hosts(network, |communicator| {
            let rank = communicator.rank();
            let mut barrier = Barrier::<f32>::builder(&communicator, count)
                .backups(backups)
                .state(1)
                .build()
                .expect("built");
            let mut results = vec![None; STEPS as usize + 1];
            while barrier.step() <= STEPS {
                let step = barrier.step();
                std::thread::sleep(Duration::from_micros(u64::from(rank) * 13 * step % 200));
                barrier.gradient().fill((1u64 << (8 * rank)) as f32 + step as f32);
                let ended = barrier.finish().expect("the step ends");
                if !barrier.result().is_empty() {
                    let members = barrier.members().to_vec();
                    let sum: f64 = members
                        .iter()
                        .map(|rank| f64::from((1u64 << (8 * rank)) as f32 + step as f32))
                        .sum();
                    let mean = (sum / members.len() as f64) as f32;
                    assert!(
                        barrier.result().iter().all(|x| (x - mean).abs() <= mean * 1e-6),
                        "step {step}: {members:?}"
                    );
                    results[ended.step as usize] = Some((members, barrier.result()[0].to_bits()));
                }
                barrier.update(|result, state| state[0] += result.first().copied().unwrap_or_default());
            }
            communicator.barrier().expect("all end");
            results
        });
        for step in 1..=STEPS as usize {
            let mut known = seen.iter().filter_map(|results| results[step].as_ref());
            let first = known.next().expect("somebody has each result");
            assert_eq!(first.0.len() as u32, RANKS - backups);
            assert!(known.all(|other| other == first), "step {step}");
        }
    }
}

#[test]
fn a_network_whose_words_stand_still_with_their_owner_is_refused_by_name() {
    let network = || -> Arc<dyn Fabric> { Arc::new(Tcp::open(Settings::default()).expect("sockets")) };
    let said = on_two_hosts(network, |communicator| {
        let built = Barrier::<f32>::builder(&communicator, 4)
            .backups(1)
            .build::<f32>();
        match built.expect_err("refused") {
            error @ BackupError::Messages { fabric: "tcp", .. } => error.to_string(),
            other => panic!("{other}"),
        }
    });
    assert!(said[0].contains("which tcp does not") && said[0].contains("without backups"));
}
