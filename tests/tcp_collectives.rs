//! Communicators over tcp, on any machine: every collective gives the same bits as over shared memory with the same
//! plan; ranks that say that they are on different hosts use shared memory inside and a network across; what is staged is
//! counted, and a rank that leaves is named.

use std::time::Duration;

use sapwood::bootstrap::Job;
use sapwood::communicator::{Builder, Communicator};
use sapwood::engine::reduce::Operation;
use sapwood::exchange::Exchange;
use sapwood::fabric::select::Choice;
use sapwood::memory::Element;
use sapwood::plan::{Collective, hierarchical_name};

/// Runs `rank` on every rank of a job of threads and returns what they return, by rank.
fn with<T: Send>(
    size: u32,
    choice: Choice,
    hosts: impl Fn(u32) -> Option<String>,
    builder: &Builder,
    rank: impl Fn(Communicator) -> T + Sync,
) -> Vec<T> {
    let mut jobs = Job::local(size).expect("a job");
    for job in &mut jobs {
        job.fabric = choice;
        job.host = hosts(job.rank);
    }
    std::thread::scope(|scope| {
        let threads = jobs.iter().map(|job| {
            let (builder, rank) = (builder.clone().timeout(Duration::from_secs(60)), &rank);
            scope.spawn(move || rank(builder.join(job).unwrap_or_else(|error| panic!("{error}"))))
        });
        let threads = threads.collect::<Vec<_>>();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no rank panics"))
            .collect()
    })
}

fn one_host(_: u32) -> Option<String> {
    None
}

/// Values whose sums depend on their order.
fn value(rank: u32, index: usize) -> f64 {
    ((f64::from(rank) + 0.1) * (index as f64 + 0.37)).sin() * 10.0
}

/// The bytes of what a rank has after every collective, in and out of place.
fn outcomes<T: Element>(
    communicator: &Communicator,
    of: impl Fn(f64) -> T,
    operation: Operation,
) -> Vec<Vec<u8>> {
    let (rank, size) = (communicator.rank(), communicator.size());
    let mut outcomes = Vec::new();
    for count in [1, 1_001, 300_007] {
        let mut input = communicator.window::<T>(count).unwrap();
        let mut output = communicator.window::<T>(count).unwrap();
        let mut keep = |window: &[T]| {
            // SAFETY: elements are plain numbers, without padding.
            let bytes = unsafe { std::slice::from_raw_parts(window.as_ptr().cast(), size_of_val(window)) };
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
    }
    outcomes
}

fn same_bits<T: Element>(plan: &str, size: u32, of: impl Fn(f64) -> T + Sync, operation: Operation) {
    let builder = Communicator::builder().plan(plan);
    let [shm, tcp] = [Choice::Shm, Choice::Tcp].map(|choice| {
        with(size, choice, one_host, &builder, |it| {
            assert_eq!(it.fabric_name(), choice.to_string());
            outcomes(&it, &of, operation)
        })
    });
    assert!(
        shm == tcp,
        "{plan}, {size} ranks, {} with {operation}",
        T::TYPE.name()
    );
}

#[test]
fn every_plan_gives_the_bits_of_shared_memory() {
    for (plan, size) in [
        ("binomial-tree", 2),
        ("k-ary-tree:3", 4),
        ("double-binary-tree", 5),
        ("ring", 3),
        ("direct", 4),
    ] {
        same_bits(plan, size, |x| x as f32, Operation::Sum);
    }
}

#[test]
fn other_types_give_the_bits_of_shared_memory() {
    same_bits("ring", 3, |x| x, Operation::Average);
    same_bits("double-binary-tree", 3, half::bf16::from_f64, Operation::Sum);
    same_bits("direct", 2, |x| x as i64, Operation::Min);
}

/// Where there is a device, the network is that; the bits are the same.
#[test]
fn pretended_hosts_use_shared_memory_inside_and_a_network_across() {
    for (size, of_host) in [(4, 2), (5, 3)] {
        let host = |rank: u32| Some(format!("host-{}", rank / of_host));
        let numbers = (0..size).map(|rank| rank / of_host).collect::<Vec<_>>();
        let plan = hierarchical_name(&numbers);
        let mixed = with(size, Choice::Auto, host, &Communicator::builder(), |it| {
            assert_eq!(it.fabric_name(), "mixed");
            assert_eq!(it.plan_name(Collective::AllReduce, 1 << 20), plan);
            outcomes(&it, |x| x as f32, Operation::Sum)
        });
        let builder = Communicator::builder().plan(plan.as_str());
        let shm = with(size, Choice::Shm, one_host, &builder, |it| {
            outcomes(&it, |x| x as f32, Operation::Sum)
        });
        assert!(shm == mixed, "{plan}");
    }
}

#[test]
fn an_exchange_runs_over_tcp() {
    let builder = Communicator::builder().plan("double-binary-tree");
    let [shm, tcp] = [Choice::Shm, Choice::Tcp].map(|choice| {
        with(4, choice, one_host, &builder, |communicator| {
            let rank = communicator.rank() as usize;
            let names = (0..8)
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
                // Ready in another order on every rank.
                for turn in 0..names.len() {
                    let index = (turn * 5 + rank * 3 + round) % names.len();
                    let mut bucket = step.take(&names[index]).unwrap();
                    let values = bucket.as_mut_slice().iter_mut().enumerate();
                    values.for_each(|(i, x)| *x = value(rank as u32, i + round) as f32);
                    bucket.ready().unwrap();
                }
                let outcome = step.finish().unwrap();
                for name in &names {
                    sums.extend(outcome.mean(name).iter().map(|x| x.to_bits()));
                }
            }
            sums
        })
    });
    assert!(
        shm == tcp,
        "an exchange over tcp has other sums than over shared memory"
    );
}

#[test]
fn nothing_but_what_is_staged_to_be_summed_is_copied() {
    const COUNT: usize = 100_000;
    let builder = Communicator::builder().plan("binomial-tree");
    let copied = with(4, Choice::Tcp, one_host, &builder, |communicator| {
        let mut window = communicator.window::<f32>(COUNT).unwrap();
        window.fill(1.0);
        communicator.all_reduce(&mut window, Operation::Sum).unwrap();
        assert!(window.iter().all(|x| *x == 4.0));
        communicator.counters().bytes_copied
    });
    let bytes = (COUNT * size_of::<f32>()) as u64;
    // Ranks 1 and 3 are leaves; 2 takes in 3's gradients, 0 those of 1 and 2.
    assert_eq!(copied, [2 * bytes, 0, bytes, 0], "staged bytes, by rank");
}

#[test]
fn a_rank_that_leaves_is_named() {
    let builder = Communicator::builder().plan("binomial-tree");
    let said = with(3, Choice::Tcp, one_host, &builder, |communicator| {
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
