//! Processes of one host that meet at an abstract socket.

use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};

use crate::ranks::{Ranks, expect, soon};

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("processes_join_and_exchange", processes_join_and_exchange),
        Trial::test("a_killed_rank_is_named_by_all_others", || {
            a_killed_rank_is_named_by_all_others(2)
        }),
        Trial::test("a_killed_rank_0_is_named_by_all_others", || {
            a_killed_rank_is_named_by_all_others(0)
        }),
        Trial::test("a_killed_rank_whose_forked_child_lives_on_is_named", || {
            a_killed_rank_with_a_child_is_named(Ranks::new)
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
            "a_file_where_the_socket_should_be_is_left_alone",
            a_file_is_left_alone,
        ),
        Trial::test(
            "more_descriptors_than_fit_the_limit_are_an_error",
            descriptors_beyond_the_limit,
        ),
    ]
}

/// Both a killed rank 0 and another one, while a child that either has forked keeps everything open that it can.
pub fn a_killed_rank_with_a_child_is_named(job: impl Fn(u32) -> Ranks) -> Result<(), Failed> {
    for victim in [0, 2] {
        let mut ranks = job(4);
        for rank in 0..4 {
            ranks.start(
                rank,
                if rank == victim {
                    "fork and linger"
                } else {
                    "gather"
                },
            );
        }
        for rank in 0..4 {
            ranks.hear(rank, true);
        }
        std::thread::sleep(Duration::from_millis(50));
        ranks.kill(victim);
        let killed = Instant::now();
        for rank in (0..4).filter(|rank| *rank != victim) {
            let said = ranks.finish(rank)?;
            let named = said.starts_with(&format!("ERROR rank {victim} died"));
            expect(named, format!("rank {rank} said {said:?}"))?;
        }
        // The child lives for ten seconds.
        expect(
            killed.elapsed() < Duration::from_secs(8),
            "named when the child had ended",
        )?;
    }
    Ok(())
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
    std::thread::sleep(Duration::from_millis(200));
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
    // A rank that rank 0 has accepted holds the roll. Who is not is told nothing, and sees rank 0 go.
    let accepted = |rank: usize| {
        let folder = format!("/proc/{}/fd", ranks.children[rank].as_ref().unwrap().id());
        let links = std::fs::read_dir(&folder)
            .unwrap()
            .flatten()
            .flat_map(|entry| std::fs::read_link(entry.path()));
        links
            .into_iter()
            .any(|link| link.to_string_lossy().contains("sapwood-roll"))
    };
    let patience = soon();
    while !(accepted(1) && accepted(2)) {
        expect(Instant::now() < patience, "ranks 1 and 2 were never accepted")?;
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

/// A mistyped path: whatever is there is somebody's. So is what has taken the socket's place when the job ends.
fn a_file_is_left_alone() -> Result<(), Failed> {
    let mut ranks = Ranks::new(2);
    let folder = ranks.folder.path().to_owned();
    let (file, link) = (folder.join("results"), folder.join("link"));
    std::fs::write(&file, "of many days")?;
    std::os::unix::fs::symlink(&file, &link)?;
    for path in [&file, &link, &folder] {
        ranks.name = path.display().to_string();
        ranks.start(0, "exchange");
        let said = ranks.finish(0)?;
        let told = said.starts_with(&format!(
            "ERROR rendezvous {} exists and is no socket: choose another path",
            path.display()
        ));
        expect(told, format!("rank 0 said {said:?}"))?;
        expect(
            std::fs::read_to_string(&file)? == "of many days",
            "the file was changed",
        )?;
    }
    let path = folder.join("meet");
    ranks.name = path.display().to_string();
    ranks.start(0, "exchange");
    let patience = soon();
    while !path.exists() {
        expect(Instant::now() < patience, "rank 0 never opened the rendezvous")?;
        std::thread::sleep(Duration::from_millis(5));
    }
    std::fs::rename(&path, folder.join("moved"))?;
    std::fs::write(&path, "of many days")?;
    ranks.name = folder.join("moved").display().to_string();
    ranks.start(1, "exchange");
    for rank in 0..2 {
        let said = ranks.finish(rank)?;
        expect(said == "joined\n0 1\n", format!("rank {rank} said {said:?}"))?;
    }
    expect(
        std::fs::read_to_string(&path)? == "of many days",
        "the file in the socket's place was changed",
    )
}
