//! What the ranks do, and say to the test.

use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::{Duration, Instant};

use sapwood::bootstrap::{BootstrapError, Departure, DepartureKind, Job, Membership, variable};

use crate::ranks::soon;

/// Says something to the test, at once.
fn say(what: impl std::fmt::Display) {
    println!("{what}");
    let _ = std::io::stdout().flush();
}

/// Connects again and again, as fast as it can, for as long as a test that hangs may take.
fn flood() {
    let name = std::env::var(variable::RENDEZVOUS).unwrap();
    let address = SocketAddr::from_abstract_name(name.trim_start_matches('@')).unwrap();
    let until = Instant::now() + Duration::from_secs(40);
    while Instant::now() < until {
        let _ = UnixStream::connect_addr(&address);
    }
}

/// What a rank does; it says `joined` first.
pub fn play(role: &str) {
    if role == "flood" {
        return flood();
    }
    // A launcher may have left some open.
    let inherited = open_sockets();
    let job = Job::from_environment().unwrap().unwrap();
    let deadline = match role {
        "be missed" => Instant::now() + Duration::from_secs(2),
        _ => soon(),
    };
    let membership = match Membership::join(&job, deadline) {
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
            drop(membership);
            nothing_stays_behind(inherited);
        }
        // Descriptors come from the ranks of this host, and from no others.
        "hand round" => {
            let host = membership.hosts()[job.rank as usize];
            let mates: Vec<_> = (0..job.size)
                .filter(|rank| membership.hosts()[*rank as usize] == host)
                .collect();
            assert_eq!(membership.host_ranks(), mates);
            for round in 0..3 {
                let files = (0..job.rank % 3)
                    .map(|_| std::fs::File::open("/dev/null").unwrap().into())
                    .collect();
                let all = membership
                    .all_gather("files", &[round; 70_000], files, soon())
                    .unwrap();
                for (rank, one) in (0..).zip(all) {
                    let due = if mates.contains(&rank) { rank % 3 } else { 0 };
                    assert_eq!((one.payload.len(), one.descriptors.len()), (70_000, due as usize));
                }
            }
            let mates: Vec<_> = mates.iter().map(u32::to_string).collect();
            say(mates.join(" "));
        }
        // Computes, as it were: looks at who is gone now and then, and says it at once.
        "compute" => {
            let patience = soon();
            let mut said: Vec<Departure> = Vec::new();
            while said.iter().all(|gone| gone.how == DepartureKind::Left) && Instant::now() < patience {
                std::thread::sleep(Duration::from_millis(5));
                for gone in membership.departures() {
                    if !said.contains(&gone) {
                        say(gone);
                        said.push(gone);
                    }
                }
            }
        }
        // Is stopped when it has brought its part and before it has got the others'.
        "stop in a step" => {
            let own = std::process::id();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(300));
                let own = rustix::process::Pid::from_raw(own as i32).unwrap();
                let _ = rustix::process::kill_process(own, rustix::process::Signal::STOP);
            });
            let all = membership
                .all_gather("much", &vec![1; 6_000_000], vec![], soon())
                .unwrap();
            assert!(all.iter().all(|one| one.payload.len() == 6_000_000));
            membership.barrier("awake", soon()).unwrap();
            say("passed");
        }
        "gather late and watch" => {
            std::thread::sleep(Duration::from_millis(1000));
            let all = membership
                .all_gather("much", &vec![1; 6_000_000], vec![], soon())
                .unwrap();
            assert_eq!(all.len(), job.size as usize);
            let until = Instant::now() + Duration::from_secs(13);
            while Instant::now() < until {
                for gone in membership.departures() {
                    say(gone);
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            say("watched");
            membership.barrier("awake", soon()).unwrap();
            say("passed");
        }
        "gather soon" => {
            std::thread::sleep(Duration::from_millis(700));
            let error = membership
                .all_gather("weights", &[0; 100_000], vec![], soon())
                .unwrap_err();
            say(format!("ERROR {error}"));
        }
        "gather in two seconds" => {
            let started = Instant::now();
            let error = membership
                .all_gather("weights", &[], vec![], started + Duration::from_secs(2))
                .unwrap_err();
            say(format!("ERROR {error}"));
            let late = started.elapsed().saturating_sub(Duration::from_secs(2));
            assert!(late < Duration::from_secs(1), "{late:?} after the deadline");
        }
        "fork and linger" => {
            // SAFETY: this process's own thread is the only one that the child needs.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: a system call that waits, and one that ends the child without running what the parent
                // registered for its exit.
                unsafe {
                    libc::sleep(10);
                    libc::_exit(0)
                };
            }
            std::thread::sleep(Duration::from_secs(120));
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
        "leave late" => std::thread::sleep(Duration::from_secs(1)),
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

fn open_sockets() -> usize {
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    open.filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter(|link| {
            let link = link.to_string_lossy();
            link.starts_with("socket:") || link.contains("sapwood") || link.contains("pidfd")
        })
        .count()
}

/// Where others still hold on to it, rank 0's thread goes on until they have left.
fn nothing_stays_behind(inherited: usize) {
    let patience = soon();
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    while threads() > 1 || open_sockets() > inherited {
        assert!(
            Instant::now() < patience,
            "{} threads and {} sockets are left",
            threads(),
            open_sockets()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}
