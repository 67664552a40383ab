//! The bootstrap between real processes: this program starts itself again as the ranks, kills some of them, and
//! reads what the others say. (Its own `main`, so that a rank is not a test in disguise.)

use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use sapwood::bootstrap::{BootstrapError, DepartureKind, Job, Membership, variable};

const ROLE: &str = "SAPWOOD_TEST_ROLE";

fn main() -> std::process::ExitCode {
    if let Ok(role) = std::env::var(ROLE) {
        as_rank(&role);
        return std::process::ExitCode::SUCCESS;
    }
    let trials = vec![
        Trial::test("processes_join_and_exchange", processes_join_and_exchange),
        Trial::test("a_killed_rank_is_named_by_all_others", || {
            a_killed_rank_is_named_by_all_others(2)
        }),
        Trial::test("a_killed_rank_0_is_named_by_all_others", || {
            a_killed_rank_is_named_by_all_others(0)
        }),
        Trial::test(
            "a_rank_that_dies_in_the_join_ends_it",
            a_rank_that_dies_in_the_join_ends_it,
        ),
        Trial::test(
            "a_rank_0_that_dies_in_a_handshake_is_named",
            a_rank_0_that_dies_in_a_handshake_is_named,
        ),
        Trial::test("a_clean_exit_is_no_death", a_clean_exit_is_no_death),
        Trial::test(
            "a_forked_child_is_refused_and_signs_nobody_off",
            a_forked_child_is_refused,
        ),
        Trial::test(
            "strangers_at_the_rendezvous_hold_nobody_up",
            strangers_hold_nobody_up,
        ),
        Trial::test(
            "more_descriptors_than_fit_the_limit_are_an_error",
            descriptors_beyond_the_limit,
        ),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// Says something to the test, at once.
fn say(what: impl std::fmt::Display) {
    println!("{what}");
    let _ = std::io::stdout().flush();
}

fn as_rank(role: &str) {
    let job = Job::from_environment().unwrap().unwrap();
    let membership = match Membership::join(&job, soon()) {
        Ok(membership) => membership,
        Err(error) => return say(format!("ERROR {error}")),
    };
    say("joined");
    match role {
        "exchange" => {
            let all = membership
                .all_gather("names", job.rank.to_string().as_bytes(), vec![], soon())
                .unwrap();
            let names: Vec<_> = all
                .into_iter()
                .map(|one| String::from_utf8(one.payload).unwrap())
                .collect();
            assert_eq!(membership.pids()[job.rank as usize] as u32, std::process::id());
            assert!((0..job.size).all(|rank| membership.same_process(rank) == (rank == job.rank)));
            assert!(
                membership
                    .departures()
                    .iter()
                    .all(|gone| gone.how == DepartureKind::Left)
            );
            say(names.join(" "));
        }
        // One rank stays away from the step until it is killed.
        "linger" => std::thread::sleep(Duration::from_secs(120)),
        "gather" => {
            let error = membership
                .all_gather("weights", &[0; 100_000], vec![], soon())
                .unwrap_err();
            say(format!("ERROR {error}"));
        }
        "leave" => {}
        "watch" => {
            let patience = soon();
            while membership.departures().len() + 1 < job.size as usize && Instant::now() < patience {
                std::thread::sleep(Duration::from_millis(2));
            }
            // Long enough for their processes to be gone altogether.
            std::thread::sleep(Duration::from_millis(200));
            for gone in membership.departures() {
                say(gone);
            }
        }
        "fork" => {
            if job.rank == 1 {
                // SAFETY: this process has one thread, so the child may do anything that it could.
                let child = unsafe { libc::fork() };
                if child == 0 {
                    let refused = membership.barrier("in the child", soon()) == Err(BootstrapError::Forked);
                    drop(membership);
                    // SAFETY: ends the child without running what the parent registered for its exit.
                    unsafe { libc::_exit(if refused { 0 } else { 1 }) };
                }
                let mut status = -1;
                // SAFETY: `child` is this process's own and `status` a valid place.
                unsafe { libc::waitpid(child, &mut status, 0) };
                say(format!("child {status}"));
            }
            membership.barrier("after the child", soon()).unwrap();
            say("passed");
        }
        "few descriptors" => {
            if job.rank == 1 {
                let limit = libc::rlimit {
                    rlim_cur: 40,
                    rlim_max: 40,
                };
                // SAFETY: `limit` is a valid structure that the call only reads.
                assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
            }
            let files = if job.rank == 0 { 200 } else { 0 };
            let files = (0..files)
                .map(|_| std::fs::File::open("/dev/null").unwrap().into())
                .collect();
            match membership.all_gather("windows", &[], files, soon()) {
                Ok(_) => say("passed"),
                Err(error) => say(format!("ERROR {error}")),
            }
        }
        other => panic!("there is no role {other:?}"),
    }
}

/// The ranks of one job, as processes. Whatever is still alive when it is dropped is killed.
struct Ranks {
    folder: tempfile::TempDir,
    name: String,
    size: u32,
    children: Vec<Option<Child>>,
}

impl Ranks {
    fn new(size: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(folder.path().join("secret"))
            .unwrap();
        file.write_all(b"a secret of this test alone").unwrap();
        let name = Job::local(1).unwrap()[0].rendezvous.to_string();
        Self {
            folder,
            name,
            size,
            children: (0..size).map(|_| None).collect(),
        }
    }

    fn start(&mut self, rank: u32, role: &str) {
        let child = Command::new(std::env::current_exe().unwrap())
            .env(ROLE, role)
            .env(variable::RANK, rank.to_string())
            .env(variable::SIZE, self.size.to_string())
            .env(variable::RENDEZVOUS, &self.name)
            .env(variable::SECRET_FILE, self.folder.path().join("secret"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        self.children[rank as usize] = Some(child);
    }

    fn start_all(size: u32, role: impl Fn(u32) -> &'static str) -> Self {
        let mut ranks = Self::new(size);
        (0..size).for_each(|rank| ranks.start(rank, role(rank)));
        ranks
    }

    /// Reads one line of a rank's, or everything up to its end.
    fn hear(&mut self, rank: u32, line_only: bool) -> String {
        let stdout = self.children[rank as usize]
            .as_mut()
            .unwrap()
            .stdout
            .as_mut()
            .unwrap();
        let (mut text, mut byte) = (Vec::new(), [0]);
        while stdout.read(&mut byte).unwrap() == 1 && !(line_only && byte == *b"\n") {
            text.push(byte[0]);
        }
        String::from_utf8(text).unwrap()
    }

    fn kill(&mut self, rank: u32) {
        self.children[rank as usize].as_mut().unwrap().kill().unwrap();
    }

    /// Everything that a rank still says; it must end well.
    fn finish(&mut self, rank: u32) -> Result<String, Failed> {
        let text = self.hear(rank, false);
        let status = self.children[rank as usize].take().unwrap().wait().unwrap();
        if status.success() {
            Ok(text)
        } else {
            Err(format!("rank {rank}: {status}, signal {:?}", status.signal()).into())
        }
    }
}

impl Drop for Ranks {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn expect(condition: bool, otherwise: impl Into<String>) -> Result<(), Failed> {
    if condition {
        Ok(())
    } else {
        Err(otherwise.into().into())
    }
}

fn processes_join_and_exchange() -> Result<(), Failed> {
    for size in [1, 2, 8, 32] {
        let mut ranks = Ranks::start_all(size, |_| "exchange");
        let names: Vec<_> = (0..size).map(|rank| rank.to_string()).collect();
        for rank in 0..size {
            let said = ranks.finish(rank)?;
            expect(
                said == format!("joined\n{}\n", names.join(" ")),
                format!("rank {rank} of {size} said {said:?}"),
            )?;
        }
    }
    Ok(())
}

fn a_killed_rank_is_named_by_all_others(victim: u32) -> Result<(), Failed> {
    let shared_memory = || {
        std::fs::read_dir("/dev/shm").map(|entries| {
            entries
                .flatten()
                .filter(|entry| entry.file_name().to_string_lossy().contains("sapwood"))
                .count()
        })
    };
    let before = shared_memory().ok();
    let mut ranks = Ranks::start_all(5, |rank| if rank == victim { "linger" } else { "gather" });
    for rank in 0..5 {
        ranks.hear(rank, true);
    }
    // The others are on their way into the step or wait in it; both must end.
    std::thread::sleep(Duration::from_millis(50));
    ranks.kill(victim);
    for rank in (0..5).filter(|rank| *rank != victim) {
        let said = ranks.finish(rank)?;
        let wanted = format!(
            "ERROR rank {victim} died (its process ended without leaving the job) during \"weights\"\n"
        );
        expect(said == wanted, format!("rank {rank} said {said:?}"))?;
    }
    let sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
    expect(!sockets.contains(&ranks.name), "the rendezvous is still there")?;
    expect(shared_memory().ok() == before, "something is left in /dev/shm")?;
    expect(
        std::fs::read_dir(ranks.folder.path())?.count() == 1,
        "something is left beside the secret",
    )
}

fn a_rank_that_dies_in_the_join_ends_it() -> Result<(), Failed> {
    let mut ranks = Ranks::new(4);
    for rank in 0..3 {
        ranks.start(rank, "gather");
    }
    // A rank that rank 0 has accepted holds the roll.
    let folder = format!("/proc/{}/fd", ranks.children[2].as_ref().unwrap().id());
    let accepted = || {
        let links = std::fs::read_dir(&folder)
            .unwrap()
            .flatten()
            .flat_map(|entry| std::fs::read_link(entry.path()));
        links
            .into_iter()
            .any(|link| link.to_string_lossy().contains("sapwood-roll"))
    };
    let patience = soon();
    while !accepted() {
        expect(Instant::now() < patience, "rank 2 was never accepted")?;
        std::thread::sleep(Duration::from_millis(2));
    }
    ranks.kill(2);
    let said = ranks.finish(0)?;
    expect(
        said.starts_with("ERROR rank 2 died"),
        format!("rank 0 said {said:?}"),
    )?;
    let said = ranks.finish(1)?;
    expect(
        said.starts_with("ERROR rank 2 died"),
        format!("rank 1 said {said:?}"),
    )
}

fn a_rank_0_that_dies_in_a_handshake_is_named() -> Result<(), Failed> {
    let mut ranks = Ranks::new(2);
    ranks.start(0, "exchange");
    let address = SocketAddr::from_abstract_name(&ranks.name[1..])?;
    let patience = soon();
    while UnixStream::connect_addr(&address).is_err() {
        expect(Instant::now() < patience, "the rendezvous never opened")?;
        std::thread::sleep(Duration::from_millis(2));
    }
    // A stopped process lets others connect, but does not answer.
    let root = rustix::process::Pid::from_child(ranks.children[0].as_ref().unwrap());
    rustix::process::kill_process(root, rustix::process::Signal::STOP)?;
    ranks.start(1, "exchange");
    let folder = format!("/proc/{}/fd", ranks.children[1].as_ref().unwrap().id());
    let connected = || {
        let links = std::fs::read_dir(&folder).unwrap().flatten();
        links
            .filter_map(|entry| std::fs::read_link(entry.path()).ok())
            .any(|link| link.to_string_lossy().contains("pidfd"))
    };
    while !connected() {
        expect(Instant::now() < patience, "rank 1 never connected")?;
        std::thread::sleep(Duration::from_millis(2));
    }
    ranks.kill(0);
    let said = ranks.finish(1)?;
    expect(
        said.starts_with("ERROR rank 0 died"),
        format!("rank 1 said {said:?}"),
    )
}

fn a_clean_exit_is_no_death() -> Result<(), Failed> {
    for watcher in 0..3 {
        let mut ranks = Ranks::start_all(3, |rank| if rank == watcher { "watch" } else { "leave" });
        let said = ranks.finish(watcher)?;
        let others: String = (0..3)
            .filter(|r| *r != watcher)
            .map(|rank| format!("rank {rank} left the job\n"))
            .collect();
        expect(
            said == format!("joined\n{others}"),
            format!("rank {watcher} said {said:?}"),
        )?;
    }
    Ok(())
}

fn a_forked_child_is_refused() -> Result<(), Failed> {
    let mut ranks = Ranks::start_all(2, |_| "fork");
    let said = [ranks.finish(0)?, ranks.finish(1)?];
    expect(
        said == ["joined\npassed\n", "joined\nchild 0\npassed\n"],
        format!("the ranks said {said:?}"),
    )
}

fn strangers_hold_nobody_up() -> Result<(), Failed> {
    let mut ranks = Ranks::new(3);
    ranks.start(0, "exchange");
    let address = SocketAddr::from_abstract_name(&ranks.name[1..])?;
    let patience = soon();
    let connect = || loop {
        match UnixStream::connect_addr(&address) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < patience, "the rendezvous never opened: {error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut held = Vec::new();
    for round in 0..100u32 {
        drop(connect());
        let mut garbage = connect();
        let bytes: Vec<u8> = (0..10_000u32)
            .map(|index| ((index ^ round).wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        // Refused before it has said everything: the write may fail.
        let _ = garbage.write_all(&bytes);
        // Says how long its message will be, and half of it, and then nothing.
        let mut half = connect();
        half.write_all(&[48, 0, 0, 0, 1, 2, 3]).unwrap();
        let mut wrong_secret = connect();
        wrong_secret
            .write_all(&[&[48, 0, 0, 0][..], &[9; 48]].concat())
            .unwrap();
        let mut answer = Vec::new();
        let _ = wrong_secret.read_to_end(&mut answer);
        expect(answer.is_empty(), "a stranger got an answer")?;
        held.extend([connect(), half]);
    }
    ranks.start(1, "exchange");
    ranks.start(2, "exchange");
    for rank in 0..3 {
        expect(
            ranks.finish(rank)?.ends_with("0 1 2\n"),
            format!("rank {rank} was held up"),
        )?;
    }
    Ok(())
}

fn descriptors_beyond_the_limit() -> Result<(), Failed> {
    let mut ranks = Ranks::start_all(3, |_| "few descriptors");
    ranks.finish(0)?;
    let said = ranks.finish(1)?;
    expect(
        said.contains("ERROR") && said.contains("ulimit -n"),
        format!("rank 1 said {said:?}"),
    )
}
