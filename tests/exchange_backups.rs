//! The exchange with backup workers, among ranks that are threads: who is late is told so, stops computing, has the mean
//! all the same; who is far behind gets the others' weights; everybody's weights are the same bits.

use std::time::Duration;

use sapwood::bootstrap::Job;
use sapwood::communicator::Communicator;
use sapwood::exchange::{Builder, Exchange, ExchangeError};

fn on_all<T: Send>(
    size: u32,
    shape: impl Fn(Builder) -> Builder + Sync,
    rank: impl Fn(u32, Exchange) -> T + Sync,
) -> Vec<T> {
    let jobs = Job::local(size).expect("a job");
    std::thread::scope(|scope| {
        let (rank, shape) = (&rank, &shape);
        let threads = jobs.iter().map(|job| {
            scope.spawn(move || {
                let communicator = Communicator::builder().join(job).expect("joined");
                rank(
                    job.rank,
                    shape(Exchange::builder(communicator))
                        .build()
                        .expect("an exchange"),
                )
            })
        });
        let threads = threads.collect::<Vec<_>>();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    })
}

const STEPS: u64 = 60;

fn gradient(rank: u32, step: u64, index: usize) -> f32 {
    ((u64::from(rank) * 31 + step * 7 + index as u64) % 509) as f32
}

/// What a rank has seen.
#[derive(Debug, PartialEq)]
struct Seen {
    late: u64,
    jumped: u64,
    stopped: u64,
    weights: Vec<u32>,
}

fn train(rank: u32, exchange: &mut Exchange, dawdle: Duration) -> Seen {
    let mut seen = Seen {
        late: 0,
        jumped: 0,
        stopped: 0,
        weights: Vec::new(),
    };
    exchange.set_state(|mut state| state.of("weights").fill(1.0));
    loop {
        let mut step = exchange.begin().unwrap();
        let number = step.number();
        if number >= STEPS {
            break;
        }
        for name in ["b", "a"] {
            if step.sealed() {
                seen.stopped += 1;
                break;
            }
            std::thread::sleep(dawdle);
            let mut bucket = step.take(name).unwrap();
            let elements = bucket.iter_mut().enumerate();
            elements.for_each(|(index, x)| *x = gradient(rank, number, index));
            bucket.ready().unwrap();
        }
        let mut outcome = step.finish().unwrap();
        assert_eq!(outcome.number(), number);
        if let Some(to) = outcome.caught_up() {
            assert!(to >= number && outcome.contributors().is_empty());
            seen.jumped += to + 1 - number;
            continue;
        }
        seen.late += u64::from(outcome.is_late());
        let contributors = outcome.contributors().to_vec();
        assert_eq!(contributors.len() as u32, outcome.divisor());
        assert_eq!(contributors.contains(&rank), !outcome.is_late());
        for name in ["a", "b"] {
            for (index, x) in outcome.mean(name).iter().enumerate() {
                let sum = contributors.iter().map(|rank| gradient(*rank, number, index));
                assert_eq!(*x, sum.sum::<f32>() / contributors.len() as f32);
            }
        }
        outcome.update(|mean, mut state| {
            let [weights, moments] = state.these(["weights", "moments"]);
            for (index, gradient) in mean.of("a").iter().chain(mean.of("b")).enumerate() {
                moments[index] = moments[index] * 0.5 + gradient;
                weights[index] -= moments[index] * 0.125;
            }
        });
    }
    let parts = [exchange.state("weights"), exchange.state("moments")];
    seen.weights = parts.concat().iter().map(|x| x.to_bits()).collect();
    let participation = exchange.participation();
    assert_eq!(participation.steps() + participation.jumped(), STEPS);
    assert_eq!(
        (participation.dropped()[rank as usize], participation.jumped()),
        (seen.late, seen.jumped)
    );
    seen
}

fn shape(builder: Builder, backups: Option<u32>) -> Builder {
    let builder = builder.bucket("a", 100).bucket("b", 33).state("weights", 133);
    let builder = builder.state("moments", 133);
    match backups {
        Some(backups) => builder.backups(backups),
        None => builder,
    }
}

fn trained(size: u32, backups: Option<u32>, dawdle: impl Fn(u32) -> u64 + Sync) -> Vec<Seen> {
    let seen = on_all(
        size,
        |builder| shape(builder, backups),
        |rank, mut exchange| train(rank, &mut exchange, Duration::from_micros(dawdle(rank))),
    );
    assert!(seen.iter().all(|one| one.weights == seen[0].weights));
    seen
}

#[test]
fn without_backups_all_are_in_every_mean_whichever_way() {
    let [collective, none] = [None, Some(0)].map(|backups| trained(3, backups, |_| 100));
    assert_eq!(collective, none);
    assert_eq!((none[0].late, none[0].jumped), (0, 0));
}

#[test]
fn the_slow_one_is_not_waited_for_and_has_the_same_weights() {
    for slow in [0, 2] {
        let dawdle = |rank| if rank == slow { 20_000 } else { 300 };
        let seen = trained(4, Some(1), dawdle);
        let one = &seen[slow as usize];
        // It is so far behind that it has to copy the others' weights, again and again.
        assert!(one.jumped > 0 && one.stopped > 0, "{one:?}");
        let others = seen.iter().enumerate().filter(|(rank, _)| *rank != slow as usize);
        assert!(others.map(|(_, seen)| seen.jumped).sum::<u64>() < STEPS);
    }
}

#[test]
fn a_step_can_be_begun_again() {
    on_all(
        2,
        |builder| shape(builder, Some(1)),
        |_, mut exchange| {
            let mut step = exchange.begin().unwrap();
            let bucket = step.take("a").unwrap();
            let error = step.finish().unwrap_err();
            assert!(
                matches!(&error, ExchangeError::NotReady { names, .. } if names == "a, b"),
                "{error}"
            );
            drop(bucket);
            // The other may have decided it meanwhile: this one has not arrived.
            let mut step = exchange.begin().unwrap();
            assert_eq!(step.number(), 0);
            for name in ["a", "b"] {
                step.take(name).unwrap().ready().unwrap();
            }
            assert_eq!(step.finish().unwrap().divisor(), 1);
        },
    );
}

#[test]
fn what_cannot_be_is_refused() {
    let refused = |shape: fn(Builder) -> Builder| {
        let job = Job::local(1).unwrap().remove(0);
        let communicator = Communicator::builder().join(&job).unwrap();
        let built = shape(Exchange::builder(communicator)).build();
        built.unwrap_err().to_string()
    };
    let text = refused(|builder| builder.bucket("a", 3).backups(1));
    assert!(text.contains("1 workers with 1 backups"), "{text}");
    let text = refused(|builder| builder.bucket("a", 3).backups(0).history(1));
    assert!(
        text.contains("a ring of 1 steps: 2 to 1024 are possible"),
        "{text}"
    );
    let text = refused(|builder| builder.bucket("a", 3).state("w", 0));
    assert!(text.contains("state \"w\": it has no elements"), "{text}");
}
