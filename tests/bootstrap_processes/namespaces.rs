//! Jobs on two network name spaces as two hosts.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};

use crate::name_spaces::NameSpaces;
use crate::ranks::{Ranks, expect};

pub fn trials() -> Vec<Trial> {
    let possible = hosts();
    let why = possible.as_ref().err().cloned();
    drop(possible);
    let trial = |name: &'static str, test: fn() -> Result<(), Failed>| {
        // Counted as ignored, and the reason is in the name.
        match &why {
            None => Trial::test(name, test),
            Some(why) => Trial::test(format!("{name} (skipped: {why})"), test).with_ignored_flag(true),
        }
    };
    vec![
        trial("hosts::ranks_on_two_hosts_meet", ranks_on_two_hosts_meet),
        trial(
            "hosts::a_killed_rank_is_named_on_both",
            a_killed_rank_is_named_on_both,
        ),
        trial(
            "hosts::rank_0_is_found_by_a_name_that_is_loopback_on_its_own_host",
            a_name_that_is_loopback_at_home,
        ),
        trial(
            "hosts::a_silent_host_is_out_of_reach",
            a_silent_host_is_out_of_reach,
        ),
        trial(
            "hosts::a_silent_host_is_out_of_reach_though_something_is_on_its_way",
            a_silent_host_with_something_on_its_way,
        ),
    ]
}

fn hosts() -> Result<NameSpaces, String> {
    NameSpaces::new("10.77.0")
}

/// Starts a rank on a host.
fn start(hosts: &NameSpaces, ranks: &mut Ranks, rank: u32, host: usize, role: &str) {
    ranks.start_with(rank, role, hosts.this_program(host));
}

const RENDEZVOUS: &str = "10.77.0.1:7000";

fn ranks_on_two_hosts_meet() -> Result<(), Failed> {
    let hosts = hosts()?;
    let mut ranks = Ranks::at(RENDEZVOUS.into(), 5);
    for rank in 0..5 {
        start(&hosts, &mut ranks, rank, rank as usize % 2, "hand round");
    }
    for (rank, mates) in (0..).zip(["0 2 4", "1 3", "0 2 4", "1 3", "0 2 4"]) {
        let said = ranks.finish(rank)?;
        expect(
            said == format!("joined\n{mates}\n"),
            format!("rank {rank} said {said:?}"),
        )?;
    }
    Ok(())
}

/// A program where names mean what this file says, and nothing else.
fn with_names(program: &Command, names: &Path) -> Command {
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "sh",
            "-c",
            "mount --bind \"$0\" /etc/hosts && exec \"$@\"",
        ])
        .arg(names)
        .arg(program.get_program())
        .args(program.get_args());
    command
}

/// As Debian writes a host's own name into its own list of names.
fn a_name_that_is_loopback_at_home() -> Result<(), Failed> {
    let hosts = hosts()?;
    let mut ranks = Ranks::at("left.test:7000".into(), 2);
    for (rank, names) in (0..).zip(["127.0.1.1 left.test left\n", "10.77.0.1 left.test left\n"]) {
        let file = ranks.folder.path().join(format!("names-{rank}"));
        std::fs::write(&file, names)?;
        let program = with_names(&hosts.this_program(rank as usize), &file);
        ranks.start_with(rank, "exchange", program);
    }
    for rank in 0..2 {
        let said = ranks.finish(rank)?;
        expect(said == "joined\n0 1\n", format!("rank {rank} said {said:?}"))?;
    }
    Ok(())
}

fn a_killed_rank_is_named_on_both() -> Result<(), Failed> {
    let hosts = hosts()?;
    for victim in [0, 1, 2] {
        let mut ranks = Ranks::at(RENDEZVOUS.into(), 5);
        for rank in 0..5 {
            let role = if rank == victim { "linger" } else { "compute" };
            start(&hosts, &mut ranks, rank, rank as usize % 2, role);
        }
        for rank in 0..5 {
            ranks.hear(rank, true);
        }
        std::thread::sleep(Duration::from_millis(200));
        ranks.kill(victim);
        let killed = Instant::now();
        for rank in (0..5).filter(|rank| *rank != victim) {
            let said = ranks.finish(rank)?;
            let deaths: Vec<&str> = said
                .lines()
                .filter(|line| !line.ends_with("left the job"))
                .collect();
            let named = deaths
                == [format!(
                    "rank {victim} died (its process ended without leaving the job)"
                )];
            expect(named, format!("rank {rank} said {said:?}"))?;
        }
        let took = killed.elapsed();
        println!("rank {victim} of 5 on two hosts: named by all {took:?} after it was killed");
        expect(took < Duration::from_secs(1), format!("it took {took:?}"))?;
    }
    Ok(())
}

fn a_silent_host_is_out_of_reach() -> Result<(), Failed> {
    pull_the_cable("compute", &["cannot be reached any more"])
}

/// Ranks 0 and 2 come to a step just when the cable has been pulled out: what they say, or the hub passes on, is not
/// acknowledged, so that the kernel does not ask by itself whether the other side is there.
fn a_silent_host_with_something_on_its_way() -> Result<(), Failed> {
    pull_the_cable("gather soon", &["ERROR rank ", "cannot be reached any more"])
}

fn pull_the_cable(role: &str, wanted: &[&str]) -> Result<(), Failed> {
    let hosts = hosts()?;
    let mut ranks = Ranks::at(RENDEZVOUS.into(), 4);
    for rank in 0..4 {
        start(&hosts, &mut ranks, rank, rank as usize % 2, role);
    }
    for rank in 0..4 {
        ranks.hear(rank, true);
    }
    std::thread::sleep(Duration::from_millis(200));
    hosts.pull_the_cable()?;
    let pulled = Instant::now();
    for rank in 0..4 {
        let said = ranks.finish(rank)?;
        let took = pulled.elapsed();
        println!("{role}: rank {rank} after {took:.1?}: {}", said.trim());
        expect(
            wanted.iter().all(|part| said.contains(part)),
            format!("rank {rank} said {said:?}"),
        )?;
        // Ten seconds of silence, and a second for a busy machine.
        expect(took < Duration::from_secs(12), format!("it took {took:?}"))?;
    }
    Ok(())
}
