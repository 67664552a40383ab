//! Two network name spaces as two hosts, with a cable between them: ranks on both meet, choose shared memory inside and
//! tcp across, and sum. Needs root and `ip`; ignored elsewhere, with the reason in the names. This program is also the
//! ranks.

use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, ExitCode, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use sapwood::bootstrap::variable;
use sapwood::communicator::Communicator;
use sapwood::engine::reduce::Operation;

#[path = "name_spaces/mod.rs"]
mod name_spaces;

use name_spaces::NameSpaces;

const ROLE: &str = "SAPWOOD_TEST_ROLE";
const RENDEZVOUS: &str = "10.78.0.1:7100";
const RANKS: u32 = 4;

fn main() -> ExitCode {
    if std::env::var_os(ROLE).is_some() {
        return match rank() {
            Ok(said) => {
                println!("{said}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                println!("ERROR {error}");
                ExitCode::FAILURE
            }
        };
    }
    let missing = Hosts::new().err();
    if let Some(why) = &missing {
        eprintln!("SKIPPED: two hosts over tcp: {why}");
    }
    let trial = |name: &str, test: fn() -> Result<(), Failed>| match &missing {
        None => Trial::test(name, test),
        Some(why) => Trial::test(format!("{name} (skipped: {why})"), test).with_ignored_flag(true),
    };
    let trials = vec![
        trial("ranks_on_two_hosts_sum_over_tcp", sum),
        trial("the_network_can_be_chosen", chosen),
        trial("a_silent_host_is_noticed", silent),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// What a rank does: sums, says over what, and goes on until a collective fails if it is told to.
fn rank() -> Result<String, Box<dyn std::error::Error>> {
    let communicator = Communicator::from_environment()?;
    let mut window = communicator.window::<f32>(200_000)?;
    window.fill(communicator.rank() as f32);
    communicator.all_reduce(&mut window, Operation::Sum)?;
    let expected = (RANKS * (RANKS - 1) / 2) as f32;
    if window.iter().any(|x| *x != expected) {
        return Err("the sum is wrong".into());
    }
    if std::env::var(ROLE).as_deref() == Ok("forever") {
        println!("summed");
        loop {
            communicator.all_reduce(&mut window, Operation::Max)?;
        }
    }
    communicator.barrier()?;
    Ok(format!("summed over {}", communicator.fabric_name()))
}

/// Two hosts, and the ranks on them.
struct Hosts {
    spaces: NameSpaces,
    folder: tempfile::TempDir,
    ranks: Vec<Child>,
}

impl Hosts {
    fn new() -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let secret = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(folder.path().join("secret"));
        secret
            .and_then(|mut file| file.write_all(b"a secret of this test alone"))
            .map_err(|error| error.to_string())?;
        let spaces = NameSpaces::new("10.78.0")?;
        for host in 0..2 {
            // The same on both: an address that leads nobody anywhere.
            spaces.run_on(host, "ip link add bridge type veth peer name other")?;
            spaces.run_on(host, "ip addr add 172.31.0.1/16 dev bridge")?;
            spaces.run_on(host, "ip link set bridge up")?;
            spaces.run_on(host, "ip link set other up")?;
        }
        Ok(Self {
            spaces,
            folder,
            ranks: Vec::new(),
        })
    }

    /// Starts all ranks, two on each host.
    fn start(&mut self, role: &str, settings: &[(&str, &str)]) -> Result<(), Failed> {
        for rank in 0..RANKS {
            let mut program = self.spaces.this_program(rank as usize / 2);
            let child = program
                .env(ROLE, role)
                .env(variable::RANK, rank.to_string())
                .env(variable::SIZE, RANKS.to_string())
                .env(variable::LOCAL_RANK, (rank % 2).to_string())
                .env(variable::RENDEZVOUS, RENDEZVOUS)
                .env(variable::SECRET_FILE, self.folder.path().join("secret"))
                .envs(settings.iter().copied())
                .stdout(Stdio::piped())
                .spawn()?;
            self.ranks.push(child);
        }
        Ok(())
    }

    /// What each rank said, and whether it ended well.
    fn finish(&mut self) -> Result<Vec<(String, bool)>, Failed> {
        let mut all = Vec::new();
        for child in &mut self.ranks {
            let mut said = String::new();
            if let Some(stdout) = &mut child.stdout {
                stdout.read_to_string(&mut said)?;
            }
            all.push((said, child.wait()?.success()));
        }
        Ok(all)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for child in &mut self.ranks {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn all_say(hosts: &mut Hosts, wanted: &str) -> Result<(), Failed> {
    for (rank, (said, well)) in hosts.finish()?.into_iter().enumerate() {
        if !well || !said.contains(wanted) {
            return Err(format!("rank {rank} said {said:?}").into());
        }
    }
    Ok(())
}

fn sum() -> Result<(), Failed> {
    let mut hosts = Hosts::new()?;
    // Not whatever devices this machine may have, which are in none of the two.
    hosts.start("once", &[("SAPWOOD_VERBS_DEVICE", "none-of-this-name")])?;
    all_say(&mut hosts, "summed over mixed")
}

fn chosen() -> Result<(), Failed> {
    let mut hosts = Hosts::new()?;
    let settings = [(variable::FABRIC, "tcp"), ("SAPWOOD_TCP_SUBNET", "10.78.0.0/24")];
    hosts.start("once", &settings)?;
    all_say(&mut hosts, "summed over tcp")?;
    drop(hosts);
    let mut hosts = Hosts::new()?;
    hosts.start(
        "once",
        &[(variable::FABRIC, "tcp"), ("SAPWOOD_TCP_INTERFACE", "eth9")],
    )?;
    for (said, well) in hosts.finish()? {
        if well || !said.contains("eth9") {
            return Err(format!("a rank without that interface said {said:?}").into());
        }
    }
    Ok(())
}

/// The cable is pulled out in the middle of collectives; nobody says good-bye.
fn silent() -> Result<(), Failed> {
    let mut hosts = Hosts::new()?;
    let settings = [(variable::FABRIC, "tcp"), ("SAPWOOD_TCP_SILENCE", "3")];
    hosts.start("forever", &settings)?;
    for child in &mut hosts.ranks {
        let mut line = [0; 7];
        if let Some(stdout) = &mut child.stdout {
            stdout.read_exact(&mut line)?;
        }
    }
    std::thread::sleep(Duration::from_millis(100));
    hosts.spaces.pull_the_cable()?;
    let pulled = Instant::now();
    for (rank, (said, well)) in hosts.finish()?.into_iter().enumerate() {
        if well || !said.contains("ERROR") || !said.contains("rank ") {
            return Err(format!("rank {rank} said {said:?}").into());
        }
    }
    let took = pulled.elapsed();
    println!("a cable was pulled out: all ranks had given up after {took:.1?}");
    if took > Duration::from_secs(30) {
        return Err(format!("it took {took:?}").into());
    }
    Ok(())
}
