//! What ranks that reach each other over another fabric must have in common with ranks that share memory: with the same
//! plan the same bits, and copies only where something is staged to be summed.

use std::time::Duration;

use sapwood::bootstrap::Job;
use sapwood::communicator::{Builder, Communicator};
use sapwood::engine::reduce::Operation;
use sapwood::exchange::Exchange;
use sapwood::fabric::select::Choice;
use sapwood::memory::Element;
use sapwood::plan::{Collective, hierarchical_name};

/// Values whose sums depend on their order.
pub fn value(rank: u32, index: usize) -> f64 {
    ((f64::from(rank) + 0.1) * (index as f64 + 0.37)).sin() * 10.0
}

/// The bytes of what a rank has after all-reduces of windows and of a slice, a reduction and a broadcast.
pub fn outcomes<T: Element>(
    communicator: &Communicator,
    counts: &[usize],
    of: impl Fn(f64) -> T,
    operation: Operation,
) -> Vec<Vec<u8>> {
    let (rank, size) = (communicator.rank(), communicator.size());
    let mut outcomes = Vec::new();
    for &count in counts {
        let mut input = communicator.window::<T>(count).unwrap();
        let mut output = communicator.window::<T>(count).unwrap();
        let mut keep = |elements: &[T]| {
            // SAFETY: elements are plain numbers without padding, so each of their bytes is initialised.
            let bytes =
                unsafe { std::slice::from_raw_parts(elements.as_ptr().cast(), size_of_val(elements)) };
            outcomes.push(<[u8]>::to_vec(bytes));
        };
        let fill = |window: &mut [T], shift| {
            let values = window.iter_mut().enumerate();
            values.for_each(|(i, x)| *x = of(value(rank, i + shift)));
        };
        fill(&mut input, 0);
        communicator
            .all_reduce_into(&input, &mut output, operation)
            .unwrap();
        keep(&output);
        communicator.all_reduce(&mut input, operation).unwrap();
        keep(&input);
        fill(&mut input, 1);
        communicator.reduce(&mut input, operation, size / 2).unwrap();
        keep(&input);
        communicator.broadcast(&mut input, size - 1).unwrap();
        keep(&input);
        communicator.barrier().unwrap();
        let mut slice = vec![of(value(rank, 5)); count];
        communicator.all_reduce_slice(&mut slice, operation).unwrap();
        keep(&slice);
    }
    outcomes
}

/// A fabric beside shared memory.
pub struct Over {
    pub choice: Choice,
    pub timeout: Duration,
    /// Elements of the vectors.
    pub counts: &'static [usize],
}

impl Over {
    /// Runs `rank` on every rank of a job of threads that asks for `choice`; `host` says where each pretends to be.
    fn with_hosts<T: Send>(
        &self,
        size: u32,
        choice: Choice,
        host: impl Fn(u32) -> Option<String>,
        plan: Option<&str>,
        rank: impl Fn(Communicator) -> T + Sync,
    ) -> Vec<T> {
        let mut jobs = Job::local(size).expect("a job");
        for job in &mut jobs {
            job.fabric = choice;
            job.host = host(job.rank);
        }
        let builder = Communicator::builder().timeout(self.timeout);
        super::with_jobs(jobs, plan.into_iter().fold(builder, Builder::plan), rank)
    }

    /// Over this fabric, with a plan.
    pub fn with<T: Send>(&self, size: u32, plan: &str, rank: impl Fn(Communicator) -> T + Sync) -> Vec<T> {
        self.with_hosts(size, self.choice, |_| None, Some(plan), rank)
    }

    /// In shared memory and over this fabric, with a plan.
    fn with_both<T: Send>(
        &self,
        size: u32,
        plan: &str,
        rank: impl Fn(Communicator) -> T + Sync,
    ) -> [Vec<T>; 2] {
        [Choice::Shm, self.choice].map(|choice| {
            self.with_hosts(
                size,
                choice,
                |_| None,
                Some(plan),
                |communicator| {
                    assert_eq!(communicator.fabric_name(), choice.to_string());
                    rank(communicator)
                },
            )
        })
    }

    pub fn same_bits<T: Element>(
        &self,
        plan: &str,
        size: u32,
        of: impl Fn(f64) -> T + Sync,
        operation: Operation,
    ) {
        let [shared, over] = self.with_both(size, plan, |it| outcomes(&it, self.counts, &of, operation));
        let what = T::TYPE.name();
        assert!(shared == over, "{plan}, {size} ranks, {what} with {operation}");
    }

    /// Ranks that say that they are on hosts of `of_host` each: shared memory inside, a network across.
    pub fn pretended_hosts(&self, size: u32, of_host: u32) {
        let numbers = (0..size).map(|rank| rank / of_host).collect::<Vec<_>>();
        let plan = hierarchical_name(&numbers);
        let host = |rank: u32| Some(format!("host-{}", rank / of_host));
        let sums = |it: &Communicator| outcomes(it, self.counts, |x| x as f32, Operation::Sum);
        let mixed = self.with_hosts(size, Choice::Auto, host, None, |it| {
            assert_eq!(it.fabric_name(), "mixed");
            assert_eq!(it.plan_name(Collective::AllReduce, 1 << 20), plan);
            sums(&it)
        });
        let shared = self.with_hosts(size, Choice::Shm, |_| None, Some(&plan), |it| sums(&it));
        assert!(shared == mixed, "{plan}");
        println!("{size} ranks on hosts of {of_host}: {plan}, the same bits as in shared memory");
    }

    /// Buckets that get ready in another order on every rank.
    pub fn exchange(&self, buckets: usize) {
        let [shared, over] = self.with_both(4, "double-binary-tree", |communicator| {
            let rank = communicator.rank();
            let names = (0..buckets)
                .map(|bucket| format!("bucket {bucket}"))
                .collect::<Vec<_>>();
            let mut builder = Exchange::builder(communicator);
            for (index, name) in names.iter().enumerate() {
                builder = builder.bucket(name.as_str(), 100 + index * 3_000);
            }
            let mut exchange = builder.build().unwrap();
            let mut sums = Vec::new();
            for round in 0..3 {
                let mut step = exchange.begin().unwrap();
                for turn in 0..names.len() {
                    let index = (turn * 5 + rank as usize * 3 + round) % names.len();
                    let mut bucket = step.take(&names[index]).unwrap();
                    let values = bucket.as_mut_slice().iter_mut().enumerate();
                    values.for_each(|(i, x)| *x = value(rank, i + round) as f32);
                    bucket.ready().unwrap();
                }
                let outcome = step.finish().unwrap();
                for name in &names {
                    sums.extend(outcome.mean(name).iter().map(|x| x.to_bits()));
                }
            }
            sums
        });
        assert!(shared == over, "an exchange has other sums than in shared memory");
    }

    /// A leaf's gradient and the results are not copied.
    pub fn only_what_is_staged_is_copied(&self) {
        const COUNT: usize = 100_000;
        let copied = self.with(4, "binomial-tree", |communicator| {
            let mut window = communicator.window::<f32>(COUNT).unwrap();
            window.fill(1.0);
            communicator.all_reduce(&mut window, Operation::Sum).unwrap();
            assert!(window.iter().all(|x| *x == 4.0));
            communicator.counters().bytes_copied
        });
        let bytes = (COUNT * size_of::<f32>()) as u64;
        // Ranks 1 and 3 are leaves; 2 takes in 3's gradients, 0 those of 1 and 2.
        assert_eq!(copied, [2 * bytes, 0, bytes, 0], "staged bytes, by rank");
        println!("all-reduce of {bytes} bytes along a binomial tree: staged by rank {copied:?}");
    }

    pub fn a_rank_that_leaves_is_named(&self) {
        let said = self.with(3, "binomial-tree", |communicator| {
            if communicator.rank() == 1 {
                return String::new();
            }
            let mut window = communicator.window::<f32>(64);
            let error = match &mut window {
                Ok(window) => communicator
                    .all_reduce(window, Operation::Sum)
                    .map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            error.expect_err("rank 1 has left")
        });
        for text in [&said[0], &said[2]] {
            assert!(text.contains("rank 1"), "{text}");
        }
    }
}
