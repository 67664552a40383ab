//! How long a job takes that joins, does one barrier and leaves: from the first process's start to the last one's end,
//! for 2 to 64 ranks, and for 16 beside the same program of Open MPI's, both under `mpirun`.
//!
//!     cargo bench --bench startup [-- --rounds 9]
//!
//! Every rank is this program, started again. Processes without any communication are timed besides: what starting
//! costs by itself.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sapwood::bootstrap::{Job, Membership, variable};
use sapwood::communicator::Communicator;

/// What this program does as a rank: the value of the first argument.
const RANK: &str = "--as-rank";
const RANKS: [u32; 6] = [2, 4, 8, 16, 32, 64];
/// Ranks beside Open MPI's.
const TWINS: u32 = 16;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, what] = arguments.as_slice()
        && first == RANK
    {
        return be_a_rank(what);
    }
    let rounds = arguments.iter().position(|word| word == "--rounds");
    let rounds = rounds
        .and_then(|place| arguments.get(place + 1)?.parse().ok())
        .unwrap_or(7);
    if arguments.iter().any(|word| word == "--test") {
        return;
    }
    growth(rounds);
    beside_open_mpi(rounds);
}

fn be_a_rank(what: &str) {
    if what == "nothing" {
        return;
    }
    let job = Job::from_environment().expect("a launcher's environment");
    let job = job.expect("a launcher");
    if what == "bootstrap" {
        let membership = Membership::join(&job, Instant::now() + job.timeout).expect("all join");
        return membership
            .barrier("start-up", Instant::now() + job.timeout)
            .expect("all come");
    }
    let communicator = Communicator::builder().join(&job).expect("all join");
    communicator.barrier().expect("all come");
}

fn this_program() -> PathBuf {
    std::env::current_exe().expect("this program's own file")
}

/// The ranks of one job, started one after the other and waited for.
fn run_job(ranks: u32, what: &str) -> Duration {
    let jobs = Job::local(ranks).expect("a job");
    let secret = jobs[0].secret.to_descriptor().expect("a memory file");
    // Inherited by all: this program starts nothing else.
    rustix::io::fcntl_setfd(&secret, rustix::io::FdFlags::empty()).expect("an open descriptor");
    let secret = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&secret));
    let started = Instant::now();
    let children: Vec<_> = jobs
        .iter()
        .map(|job| {
            Command::new(this_program())
                .args([RANK, what])
                .env(variable::RANK, job.rank.to_string())
                .env(variable::SIZE, ranks.to_string())
                .env(variable::RENDEZVOUS, job.rendezvous.to_string())
                .env(variable::SECRET_FILE, &secret)
                .spawn()
                .expect("a process")
        })
        .collect();
    for mut child in children {
        assert!(child.wait().expect("a child").success(), "a rank failed");
    }
    started.elapsed()
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

fn growth(rounds: usize) {
    println!("start, join, one barrier, leave, end; milliseconds, medians of {rounds} rounds");
    println!(
        "{:>6} {:>10} {:>10} {:>13} {:>9}",
        "ranks", "nothing", "bootstrap", "communicator", "per rank"
    );
    let mut before: Option<(u32, f64)> = None;
    for ranks in RANKS {
        let mut times = [const { Vec::new() }; 3];
        for _ in 0..rounds {
            for (times, what) in times.iter_mut().zip(["nothing", "bootstrap", "communicator"]) {
                times.push(run_job(ranks, what));
            }
        }
        let [nothing, bootstrap, communicator] = times.map(median);
        let own = communicator - nothing;
        print!(
            "{ranks:>6} {nothing:>10.1} {bootstrap:>10.1} {communicator:>13.1} {:>9.2}",
            communicator / f64::from(ranks)
        );
        match before.replace((ranks, own)) {
            Some((_, earlier)) if earlier > 0.0 && own > 0.0 => {
                println!("   what joining adds has grown {:.1} times", own / earlier);
            }
            _ => println!(),
        }
    }
}

fn beside_open_mpi(rounds: usize) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/startup.c");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let twin = folder.path().join("startup");
    let compiled = Command::new("mpicc")
        .args(["-O2", "-o"])
        .arg(&twin)
        .arg(&source)
        .status();
    if !compiled.is_ok_and(|status| status.success()) {
        println!("\nbeside Open MPI: NOT RUN: mpicc is missing; apt-get install openmpi-bin libopenmpi-dev");
        return;
    }
    let this = this_program();
    let ours = [this.as_os_str(), RANK.as_ref(), "communicator".as_ref()];
    let nothing = [this.as_os_str(), RANK.as_ref(), "nothing".as_ref()];
    let theirs = [twin.as_os_str()];
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..rounds {
        for (times, program) in times.iter_mut().zip([&ours[..], &theirs, &nothing]) {
            times.push(under_mpirun(program));
        }
    }
    let [ours, theirs, nothing] = times.map(median);
    println!("\n{TWINS} ranks under mpirun, milliseconds, medians of {rounds} alternating rounds");
    println!(
        "a program that does nothing {nothing:.1}; Sapwood {ours:.1}; Open MPI {theirs:.1}; ratio {:.2}",
        ours / theirs
    );
}

fn under_mpirun(program: &[&std::ffi::OsStr]) -> Duration {
    let started = Instant::now();
    let status = Command::new("mpirun")
        .args(["-n", &TWINS.to_string(), "--oversubscribe", "--bind-to", "none"])
        .args(program)
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .stdin(Stdio::null())
        .status();
    assert!(
        status.expect("mpirun").success(),
        "{program:?} failed under mpirun"
    );
    started.elapsed()
}
