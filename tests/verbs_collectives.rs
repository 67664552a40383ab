//! Communicators over a verbs device: every collective gives the same bits as over shared memory with the same plan;
//! ranks that say that they are on different hosts use shared memory inside and verbs across; queue pairs are opened
//! to neighbours only. Ignored where there is no device: `tools/rig/run collectives` runs all of it.

use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use sapwood::bootstrap::Job;
use sapwood::communicator::{Builder, Communicator};
use sapwood::engine::reduce::Operation;
use sapwood::exchange::Exchange;
use sapwood::fabric::select::Choice;
use sapwood::fabric::verbs::inventory;
use sapwood::memory::Element;
use sapwood::plan::{Collective, hierarchical_name};

const PLANS: [&str; 5] = [
    "binomial-tree",
    "k-ary-tree:3",
    "double-binary-tree",
    "ring",
    "direct",
];

/// Emulated processors are slow, and there are few of them.
const TIMEOUT: Duration = Duration::from_secs(240);

type Outcome = Result<(), Failed>;
type Case = fn() -> Outcome;

fn main() {
    let arguments = Arguments::from_args();
    let present = inventory().is_ok_and(|inventory| !inventory.devices.is_empty());
    if !present {
        eprintln!("SKIPPED: all of it needs a verbs device; `tools/rig/run collectives` brings one.");
    }
    let trials: [(&str, Case); 7] = [
        ("every_plan_gives_the_bits_of_shared_memory", every_plan),
        ("every_type_gives_the_bits_of_shared_memory", every_type),
        (
            "sixteen_ranks_open_queue_pairs_to_their_neighbours_only",
            sixteen_ranks,
        ),
        (
            "pretended_hosts_use_shared_memory_inside_and_verbs_across",
            pretended_hosts,
        ),
        ("an_exchange_runs_over_verbs", exchange),
        ("a_leafs_gradient_and_the_result_are_not_copied", copies),
        ("a_rank_that_leaves_is_named", leaving),
    ];
    let trials = trials.map(|(name, case)| Trial::test(name, case).with_ignored_flag(!present));
    libtest_mimic::run(&arguments, trials.into()).exit();
}

/// Runs `rank` on every rank of a job of threads and returns what they return, by rank. The ranks take the devices of
/// `SAPWOOD_VERBS_DEVICE` in turn.
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
            let (builder, rank) = (builder.clone().timeout(TIMEOUT), &rank);
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
    for count in [1, 1_001, 50_007] {
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
        let mut slice = vec![of(value(rank, 5)); count];
        communicator.all_reduce_slice(&mut slice, operation).unwrap();
        keep(&slice);
    }
    outcomes
}

fn same_bits<T: Element>(plan: &str, size: u32, of: impl Fn(f64) -> T + Sync, operation: Operation) {
    let builder = Communicator::builder().plan(plan);
    let [shm, verbs] = [Choice::Shm, Choice::Verbs].map(|choice| {
        with(size, choice, one_host, &builder, |it| {
            assert_eq!(it.fabric_name(), choice.to_string());
            outcomes(&it, &of, operation)
        })
    });
    assert!(
        shm == verbs,
        "{plan}, {size} ranks, {} with {operation}",
        T::TYPE.name()
    );
}

fn every_plan() -> Outcome {
    for plan in PLANS {
        for size in [2, 3, 4] {
            same_bits(plan, size, |x| x as f32, Operation::Sum);
        }
    }
    same_bits("double-binary-tree", 7, |x| x as f32, Operation::Sum);
    Ok(())
}

fn every_type() -> Outcome {
    same_bits("ring", 3, |x| x, Operation::Average);
    same_bits("double-binary-tree", 3, half::f16::from_f64, Operation::Sum);
    same_bits("direct", 3, half::bf16::from_f64, Operation::Average);
    same_bits("binomial-tree", 2, |x| x as i32, Operation::Product);
    same_bits("direct", 2, |x| x as i64, Operation::Min);
    same_bits("k-ary-tree", 4, |x| x as u8, Operation::Max);
    Ok(())
}

fn sixteen_ranks() -> Outcome {
    const RANKS: u32 = 16;
    let builder = Communicator::builder().plan("binomial-tree");
    let connections = with(RANKS, Choice::Verbs, one_host, &builder, |communicator| {
        let rank = communicator.rank();
        let mut window = communicator.window::<f32>(5_000).unwrap();
        window.fill(rank as f32);
        communicator.all_reduce(&mut window, Operation::Sum).unwrap();
        assert!(window.iter().all(|x| *x == 120.0), "0 + 1 + … + 15");
        communicator.barrier().unwrap();
        communicator.connections()
    });
    for (rank, mine) in (0..RANKS).zip(&connections) {
        // A binomial tree: the parent takes away the lowest bit, children add lower ones.
        let expected = (0..RANKS)
            .filter(|&other| {
                let (low, high) = (rank.min(other), rank.max(other));
                low != high && high & (high - 1) == low
            })
            .collect::<Vec<_>>();
        assert_eq!(*mine, expected, "rank {rank}");
    }
    let pairs = connections.iter().map(Vec::len).sum::<usize>() / 2;
    println!("16 ranks, binomial tree: {pairs} connections; every rank to every other would be 120");
    Ok(())
}

fn pretended_hosts() -> Outcome {
    for (size, of_host) in [(4, 2), (5, 3), (6, 2)] {
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
        println!("{size} ranks on hosts of {of_host}: {plan}, the same bits as in shared memory");
    }
    Ok(())
}

fn exchange() -> Outcome {
    let builder = Communicator::builder().plan("double-binary-tree");
    let [shm, verbs] = [Choice::Shm, Choice::Verbs].map(|choice| {
        with(4, choice, one_host, &builder, |communicator| {
            let rank = communicator.rank();
            let names = (0..12)
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
        })
    });
    assert!(
        shm == verbs,
        "an exchange over verbs has other sums than over shared memory"
    );
    Ok(())
}

fn copies() -> Outcome {
    const COUNT: usize = 100_000;
    let builder = Communicator::builder().plan("binomial-tree");
    let copied = with(4, Choice::Verbs, one_host, &builder, |communicator| {
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
    Ok(())
}

fn leaving() -> Outcome {
    let builder = Communicator::builder().plan("binomial-tree");
    let said = with(3, Choice::Verbs, one_host, &builder, |communicator| {
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
    Ok(())
}
