//! Plans chosen by what was measured: rank 0's counts for all, whatever the others have; a file that cannot be used is
//! refused before anybody is met. And links that were made slow are.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sapwood::bootstrap::Job;
use sapwood::communicator::{Communicator, CommunicatorError};
use sapwood::engine::reduce::Operation;
use sapwood::fabric::delayed::Delayed;
use sapwood::fabric::shm::Shm;
use sapwood::plan::Collective;
use sapwood::plan::cost::{Class, Curve, Link, Own, Parameters, Point, Residual, Shape, Tuning};

#[path = "ranks/mod.rs"]
mod support;

use support::{Reach, over_both, with_jobs};

const RANKS: u32 = 3;
const BYTES: usize = 1 << 20;
/// Neither the built-in table's choice nor the model's.
const WANTED: &str = "double-binary-tree";

/// Says of every plan but one that it is a thousand times slower than it should be; among so few ranks trees of any arity
/// are one plan, which has one of its names here.
fn tuning() -> Tuning {
    let link = Link::new(1.0, 0.5, 0.1, Curve::flat(0.1));
    let slow = |plan| {
        let shapes = [(true, false), (true, true), (false, false), (false, true)];
        shapes.map(|(shared, in_place)| {
            let collective = Collective::AllReduce;
            let shape = Shape {
                collective,
                ranks: RANKS,
                hosts: 1,
                shared,
                plan,
                in_place,
                chunk: 1.0,
            };
            Residual::new(&shape, vec![Point::new(1, 1000.0)])
        })
    };
    let others = [
        "direct",
        "ring",
        "ring:2",
        "halving-doubling",
        "k-ary-tree",
        "binomial-tree",
        "k-nomial",
    ];
    Tuning {
        parameters: Parameters {
            cores: 4,
            own: Own::new(0.01, Curve::flat(0.05)),
            links: [Some(link.clone()), Some(link), None],
        },
        residuals: others.into_iter().flat_map(slow).collect(),
    }
}

fn sums(communicator: &Communicator) -> bool {
    let mut window = communicator.window::<f32>(BYTES / 4).unwrap();
    window.fill(communicator.rank() as f32 + 1.0);
    communicator.all_reduce(&mut window, Operation::Sum).unwrap();
    window.iter().all(|x| *x == 6.0)
}

over_both!(
    rank_0_s_tuning_is_everyone_s,
    what_is_made_from_a_communicator_has_its_tuning
);

fn rank_0_s_tuning_is_everyone_s(reach: Reach) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tuning.toml");
    std::fs::write(&path, tuning().to_text()).unwrap();
    let mut jobs = Job::local(RANKS).unwrap();
    jobs[0].tuning = Some(path);
    // Another rank's is not looked at.
    jobs[1].tuning = Some(PathBuf::from("/nowhere/tuning.toml"));
    let all = with_jobs(jobs, reach.builder(), |communicator| {
        let plan = communicator.plan_name(Collective::AllReduce, BYTES);
        let predicted = communicator.predicted_time(Collective::AllReduce, BYTES, true);
        (plan, predicted, sums(&communicator))
    });
    for (plan, predicted, right) in &all {
        assert_eq!(plan, WANTED);
        assert!(*right && predicted.is_some_and(|time| time > 0.0 && Some(time) == all[0].1));
    }
}

fn what_is_made_from_a_communicator_has_its_tuning(reach: Reach) {
    let jobs = Job::local(RANKS).unwrap();
    let builder = reach.builder().tuning(tuning());
    let all = with_jobs(jobs, builder, |communicator| {
        let plan = |of: &Communicator| of.plan_name(Collective::AllReduce, BYTES);
        let twin = communicator.duplicate().unwrap();
        let other = communicator.duplicate_as(reach.builder().plan("ring")).unwrap();
        assert!(sums(&twin) && sums(&other));
        [plan(&communicator), plan(&twin), plan(&other)]
    });
    assert!(
        all.iter().all(|plans| *plans == [WANTED, WANTED, "ring"]),
        "{all:?}"
    );
}

/// Rank 0 alone is there: it hears of its file at once, and waits for nobody.
#[test]
fn a_bad_file_is_refused_before_anybody_is_met() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tuning.toml");
    std::fs::write(&path, tuning().to_text().replace("cores = 4", "cores = -4")).unwrap();
    let mut job = Job::local(2).unwrap().remove(0);
    job.tuning = Some(path.clone());
    let error = Communicator::builder()
        .timeout(Duration::from_secs(600))
        .join(&job)
        .unwrap_err();
    assert!(matches!(error, CommunicatorError::Tuning(_)), "{error}");
    let said = error.to_string();
    assert!(
        said.contains(path.to_str().unwrap()) && said.contains("(cores = -4)"),
        "{said}"
    );
}

/// Figures of pairs that this job does not have leave the choice to the built-in table.
#[test]
fn without_figures_the_built_in_table_chooses() {
    let mut none = tuning();
    none.parameters.links[Class::Memory as usize] = None;
    let names = |builder| {
        with_jobs(Job::local(RANKS).unwrap(), builder, |communicator| {
            assert_eq!(
                communicator.predicted_time(Collective::AllReduce, BYTES, false),
                None
            );
            communicator.plan_name(Collective::AllReduce, BYTES)
        })
    };
    assert_eq!(
        names(Reach::Mapped.builder().tuning(none)),
        names(Reach::Mapped.builder())
    );
}

#[test]
fn what_is_held_back_comes_later_and_is_right() {
    let delay = Duration::from_millis(20);
    let fabric = Delayed::new(Arc::new(Shm::without_reach().unwrap()), delay);
    let builder = Reach::Messages.builder().fabric(Arc::new(fabric));
    with_jobs(Job::local(RANKS).unwrap(), builder, |communicator| {
        assert!(!communicator.has_load_store() && sums(&communicator));
        communicator.barrier().unwrap();
        let start = Instant::now();
        communicator.barrier().unwrap();
        // No rank hears of another in less.
        assert!(start.elapsed() >= delay / 2);
    });
}
