//! Two network name spaces as two hosts, with a cable between them that can be pulled out. Needs root and `ip`.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Two processes that hold a network name space each; their devices `cable` have the addresses `SUBNET.1` and
/// `SUBNET.2`.
pub struct NameSpaces {
    holders: [Child; 2],
}

fn run(command: &str) -> Result<(), String> {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap_or_default())
        .args(words)
        .output()
        .map_err(|error| format!("{command}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command}: {}", said.lines().next().unwrap_or("failed")))
}

impl NameSpaces {
    /// `subnet` as in `10.77.0`. If they cannot be made, the error says why.
    pub fn new(subnet: &str) -> Result<Self, String> {
        let hold = || {
            Command::new("unshare")
                .args(["--net", "sleep", "600"])
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .map_err(|error| format!("unshare: {error}"))
        };
        let spaces = Self {
            holders: [hold()?, hold()?],
        };
        let own = std::fs::read_link("/proc/self/ns/net").map_err(|error| error.to_string())?;
        let until = Instant::now() + Duration::from_secs(5);
        for holder in &spaces.holders {
            let there = || std::fs::read_link(format!("/proc/{}/ns/net", holder.id())).ok();
            while there().is_none_or(|space| space == own) {
                if Instant::now() > until {
                    return Err("network name spaces need root".into());
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let [left, right] = [0, 1].map(|host: usize| spaces.holders[host].id());
        run(&format!(
            "ip link add cable netns {left} type veth peer name cable netns {right}"
        ))?;
        for host in 0..2 {
            spaces.run_on(host, "ip link set lo up")?;
            spaces.run_on(host, &format!("ip addr add {subnet}.{}/24 dev cable", host + 1))?;
            spaces.run_on(host, "ip link set cable up")?;
        }
        Ok(spaces)
    }

    fn enter(&self, host: usize) -> String {
        format!("nsenter --net=/proc/{}/ns/net", self.holders[host].id())
    }

    /// Runs a command in one of them.
    pub fn run_on(&self, host: usize, command: &str) -> Result<(), String> {
        run(&format!("{} {command}", self.enter(host)))
    }

    /// This program once more, to be started in one of them.
    pub fn this_program(&self, host: usize) -> Command {
        let enter = self.enter(host);
        let mut words = enter.split(' ');
        let mut command = Command::new(words.next().unwrap_or_default());
        command
            .args(words)
            .arg(std::env::current_exe().expect("this program"));
        command
    }

    /// Pulls the cable out; nobody says good-bye.
    pub fn pull_the_cable(&self) -> Result<(), String> {
        self.run_on(0, "ip link set cable down")
    }
}

impl Drop for NameSpaces {
    fn drop(&mut self) {
        for holder in &mut self.holders {
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}
