//! Processes that meet over the network, on this host.

use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use rustix::process::Signal;

use crate::one_host::a_killed_rank_with_a_child_is_named;
use crate::ranks::{Ranks, expect};

const ADDRESSES: [&str; 2] = ["127.0.0.1", "::1"];

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test(
            "network::processes_join_and_exchange",
            processes_join_and_exchange,
        ),
        Trial::test(
            "network::descriptors_go_to_host_mates",
            descriptors_go_to_host_mates,
        ),
        Trial::test(
            "network::a_killed_rank_ends_the_step_on_all",
            a_killed_rank_ends_the_step_on_all,
        ),
        Trial::test(
            "network::a_killed_rank_is_named_by_all_who_compute",
            a_killed_rank_is_named_by_all_who_compute,
        ),
        Trial::test(
            "network::a_killed_rank_whose_forked_child_lives_on_is_named",
            || a_killed_rank_with_a_child_is_named(|size| Ranks::at_port("127.0.0.1", size)),
        ),
        Trial::test(
            "network::a_killed_rank_in_the_join_ends_it",
            a_killed_rank_in_the_join_ends_it,
        ),
        Trial::test(
            "network::a_name_that_nobody_knows_is_said_to_be_unknown",
            a_name_that_nobody_knows,
        ),
        Trial::test("network::a_clean_exit_is_no_death", a_clean_exit_is_no_death),
        Trial::test("network::a_stopped_rank_is_not_dead", a_stopped_rank_is_not_dead),
        Trial::test(
            "network::a_stopped_rank_0_holds_nobody_beyond_the_deadline",
            a_stopped_rank_0_holds_nobody,
        ),
    ]
}

fn processes_join_and_exchange() -> Result<(), Failed> {
    for (host, size) in ADDRESSES
        .into_iter()
        .flat_map(|host| [1, 2, 8, 32].map(|size| (host, size)))
    {
        let mut ranks = Ranks::at_port(host, size);
        // Rank 0 comes last: the others try until it is there.
        for rank in (0..size).rev() {
            ranks.start(rank, "exchange");
        }
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

fn descriptors_go_to_host_mates() -> Result<(), Failed> {
    let mut ranks = Ranks::at_port("127.0.0.1", 7);
    let hosts = ["left", "right", "left", "middle", "right", "left", "right"];
    for (rank, host) in (0..).zip(hosts) {
        ranks.start_on(rank, "hand round", host);
    }
    for (rank, mates) in (0..).zip(["0 2 5", "1 4 6", "0 2 5", "3", "1 4 6", "0 2 5", "1 4 6"]) {
        let said = ranks.finish(rank)?;
        expect(
            said == format!("joined\n{mates}\n"),
            format!("rank {rank} said {said:?}"),
        )?;
    }
    Ok(())
}

fn a_killed_rank_ends_the_step_on_all() -> Result<(), Failed> {
    for victim in [0, 2] {
        let mut ranks =
            Ranks::at_port("127.0.0.1", 5).all(|rank| if rank == victim { "linger" } else { "gather" });
        for rank in 0..5 {
            ranks.hear(rank, true);
        }
        std::thread::sleep(Duration::from_millis(50));
        ranks.kill(victim);
        for rank in (0..5).filter(|rank| *rank != victim) {
            let said = ranks.finish(rank)?;
            let wanted = format!(
                "ERROR rank {victim} died (its process ended without leaving the job) during \"weights\"\n"
            );
            expect(said == wanted, format!("rank {rank} said {said:?}"))?;
        }
    }
    Ok(())
}

/// Every rank on a host of its own, where nobody but rank 0 is connected to the victim; then on two hosts.
fn a_killed_rank_is_named_by_all_who_compute() -> Result<(), Failed> {
    for (victim, hosts) in [(3, 6), (0, 6), (3, 2), (0, 2)] {
        let mut ranks = Ranks::at_port("127.0.0.1", 6);
        for rank in 0..6 {
            let role = if rank == victim { "linger" } else { "compute" };
            ranks.start_on(rank, role, &format!("host {}", rank % hosts));
        }
        for rank in 0..6 {
            ranks.hear(rank, true);
        }
        std::thread::sleep(Duration::from_millis(200));
        ranks.kill(victim);
        let killed = Instant::now();
        for rank in (0..6).filter(|rank| *rank != victim) {
            let said = ranks.finish(rank)?;
            // The others leave when they have named it.
            let deaths: Vec<&str> = said
                .lines()
                .filter(|line| !line.ends_with("left the job"))
                .collect();
            let wanted = format!("rank {victim} died (its process ended without leaving the job)");
            expect(deaths == [wanted], format!("rank {rank} said {said:?}"))?;
        }
        let took = killed.elapsed();
        println!("rank {victim} of 6 on {hosts} hosts: named by all {took:?} after it was killed");
        expect(took < Duration::from_secs(1), format!("it took {took:?}"))?;
    }
    Ok(())
}

fn a_killed_rank_in_the_join_ends_it() -> Result<(), Failed> {
    let mut ranks = Ranks::at_port("127.0.0.1", 4);
    for rank in 0..3 {
        ranks.start(rank, "gather");
    }
    std::thread::sleep(Duration::from_millis(500));
    ranks.kill(2);
    for rank in [0, 1] {
        let said = ranks.finish(rank)?;
        expect(
            said.starts_with("ERROR rank 2 died"),
            format!("rank {rank} said {said:?}"),
        )?;
    }
    Ok(())
}

fn a_clean_exit_is_no_death() -> Result<(), Failed> {
    for watcher in 0..3 {
        let mut ranks = Ranks::at_port("127.0.0.1", 3);
        for rank in 0..3 {
            // Rank 0 tells of the others as long as it is there.
            let role = match rank {
                _ if rank == watcher => "watch",
                0 => "leave late",
                _ => "leave",
            };
            ranks.start_on(rank, role, &format!("host {rank}"));
        }
        let said = ranks.finish(watcher)?;
        let others: String = (0..3)
            .filter(|rank| *rank != watcher)
            .map(|rank| format!("rank {rank} left the job\n"))
            .collect();
        expect(
            said == format!("joined\n{others}"),
            format!("rank {watcher} said {said:?}"),
        )?;
    }
    Ok(())
}

/// A rank is stopped for longer than a host may be silent, while six megabytes from each other are on their way to it.
fn a_stopped_rank_is_not_dead() -> Result<(), Failed> {
    let mut ranks = Ranks::at_port("127.0.0.1", 4);
    for rank in 0..4 {
        let role = if rank == 3 {
            "stop in a step"
        } else {
            "gather late and watch"
        };
        ranks.start_on(rank, role, &format!("host {rank}"));
    }
    for rank in 0..3 {
        let said = [ranks.hear(rank, true), ranks.hear(rank, true)];
        expect(
            said == ["joined", "watched"],
            format!("rank {rank} said {said:?}"),
        )?;
    }
    ranks.signal(3, Signal::CONT);
    for rank in 0..4 {
        let said = ranks.finish(rank)?;
        expect(said.ends_with("passed\n"), format!("rank {rank} said {said:?}"))?;
    }
    Ok(())
}

fn a_stopped_rank_0_holds_nobody() -> Result<(), Failed> {
    let mut ranks = Ranks::at_port("127.0.0.1", 4);
    for rank in 0..4 {
        let role = if rank == 0 {
            "linger"
        } else {
            "gather in two seconds"
        };
        ranks.start_on(rank, role, &format!("host {}", rank % 2));
    }
    for rank in 0..4 {
        ranks.hear(rank, true);
    }
    ranks.signal(0, Signal::STOP);
    for rank in 1..4 {
        let said = ranks.finish(rank)?;
        let named = said.starts_with("ERROR") && said.contains("rank 0 does not answer");
        expect(named, format!("rank {rank} said {said:?}"))?;
    }
    Ok(())
}

fn a_name_that_nobody_knows() -> Result<(), Failed> {
    let mut ranks = Ranks::at("no-such-host.invalid:7000".into(), 2);
    ranks.start(1, "be missed");
    let said = ranks.finish(1)?;
    let named = said.starts_with("ERROR rank 0 did not open the rendezvous no-such-host.invalid:7000")
        && said.contains("the host's name \"no-such-host.invalid\": ");
    expect(named, format!("rank 1 said {said:?}"))
}
