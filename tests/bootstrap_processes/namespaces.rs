//! Two network name spaces as two hosts, with a cable between them that can be pulled out.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};

use crate::ranks::{Ranks, expect};

pub fn trials() -> Vec<Trial> {
    let possible = Hosts::new();
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
            "hosts::a_silent_host_is_out_of_reach",
            a_silent_host_is_out_of_reach,
        ),
        trial(
            "hosts::a_silent_host_is_out_of_reach_though_something_is_on_its_way",
            a_silent_host_with_something_on_its_way,
        ),
    ]
}

/// Two processes that hold a network name space each.
struct Hosts {
    holders: [Child; 2],
}

fn run(command: &str) -> Result<(), String> {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .map_err(|error| format!("{command}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command}: {}", said.lines().next().unwrap_or("failed")))
}

impl Hosts {
    fn new() -> Result<Self, String> {
        let hold = || {
            Command::new("unshare")
                .args(["--net", "sleep", "600"])
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .map_err(|error| format!("unshare: {error}"))
        };
        let hosts = Self {
            holders: [hold()?, hold()?],
        };
        let own = std::fs::read_link("/proc/self/ns/net").map_err(|error| error.to_string())?;
        let until = Instant::now() + Duration::from_secs(5);
        for holder in &hosts.holders {
            let there = || std::fs::read_link(format!("/proc/{}/ns/net", holder.id())).ok();
            while there().is_none_or(|space| space == own) {
                if Instant::now() > until {
                    return Err("network name spaces need root".into());
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let [left, right] = [0, 1].map(|host| hosts.holders[host].id());
        run(&format!(
            "ip link add cable netns {left} type veth peer name cable netns {right}"
        ))?;
        for host in 0..2 {
            hosts.run_on(host, "ip link set lo up")?;
            hosts.run_on(host, &format!("ip addr add 10.77.0.{}/24 dev cable", host + 1))?;
            hosts.run_on(host, "ip link set cable up")?;
        }
        Ok(hosts)
    }

    fn enter(&self, host: usize) -> String {
        format!("nsenter --net=/proc/{}/ns/net", self.holders[host].id())
    }

    fn run_on(&self, host: usize, command: &str) -> Result<(), String> {
        run(&format!("{} {command}", self.enter(host)))
    }

    fn start(&self, ranks: &mut Ranks, rank: u32, host: usize, role: &str) {
        let enter = self.enter(host);
        let mut words = enter.split(' ');
        let mut command = Command::new(words.next().unwrap());
        command.args(words).arg(std::env::current_exe().unwrap());
        ranks.start_with(rank, role, command);
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for holder in &mut self.holders {
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

const RENDEZVOUS: &str = "10.77.0.1:7000";

fn ranks_on_two_hosts_meet() -> Result<(), Failed> {
    let hosts = Hosts::new()?;
    let mut ranks = Ranks::at(RENDEZVOUS.into(), 5);
    for rank in 0..5 {
        hosts.start(&mut ranks, rank, rank as usize % 2, "hand round");
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

fn a_killed_rank_is_named_on_both() -> Result<(), Failed> {
    let hosts = Hosts::new()?;
    for victim in [0, 1, 2] {
        let mut ranks = Ranks::at(RENDEZVOUS.into(), 5);
        for rank in 0..5 {
            let role = if rank == victim { "linger" } else { "compute" };
            hosts.start(&mut ranks, rank, rank as usize % 2, role);
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
    let hosts = Hosts::new()?;
    let mut ranks = Ranks::at(RENDEZVOUS.into(), 4);
    for rank in 0..4 {
        hosts.start(&mut ranks, rank, rank as usize % 2, role);
    }
    for rank in 0..4 {
        ranks.hear(rank, true);
    }
    std::thread::sleep(Duration::from_millis(200));
    hosts.run_on(0, "ip link set cable down")?;
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
