//! Which ranks share a host: what a rank says of the one it is on, and the numbers that the hosts of a job get.

use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

use super::{BootstrapError, Job, socket};

/// The longest name that a host may be given.
const NAME_LIMIT: usize = 64;

/// Tells hosts apart: ranks with the same identity can share memory.
///
/// That is: they run on one kernel since the same boot, nobody told one of them to say that it is elsewhere
/// ([`Job::host`]) and, where the job meets over the network, they are one user's, see the same name of their host, and
/// are in the same network and PID name spaces, as else they could neither meet at an abstract socket nor watch each
/// other's processes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HostIdentity {
    kernel: String,
    spaces: String,
    pretended: Option<String>,
}

impl HostIdentity {
    /// This host's identity, which changes when it boots.
    pub fn this() -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self {
            kernel: boot.trim().to_owned(),
            spaces: String::new(),
            pretended: None,
        }
    }

    /// What a rank of this job says of itself.
    pub(super) fn of(job: &Job) -> Self {
        let space = |name: &str| {
            let metadata = std::fs::metadata(format!("/proc/self/ns/{name}"));
            metadata.map_or(String::new(), |metadata| {
                format!("{name}:{}:{} ", metadata.dev(), metadata.ino())
            })
        };
        let spaces = if job.rendezvous.is_network() {
            // Machines that were woken from one snapshot share even the boot; their names they need for themselves.
            let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            let (net, pid, user) = (space("net"), space("pid"), socket::own_user());
            format!("{net}{pid}user:{user} name:{}", name.trim())
        } else {
            // They meet at one Unix socket, so that what they do not share is no obstacle.
            String::new()
        };
        Self {
            spaces,
            pretended: job.host.clone(),
            ..Self::this()
        }
    }

    /// Whether both are on one kernel, whatever they say.
    pub(super) fn shares_kernel(&self, other: &Self) -> bool {
        self.kernel == other.kernel
    }
}

/// Hosts numbered by first appearance: one number for each identity, in their order.
pub(super) fn numbered<'hosts>(identities: impl Iterator<Item = &'hosts HostIdentity>) -> Vec<u32> {
    let mut numbers = std::collections::HashMap::new();
    identities
        .map(|identity| {
            let next = numbers.len() as u32;
            *numbers.entry(identity).or_insert(next)
        })
        .collect()
}

/// Refuses a name for a host that could not be printed in one line; the error says what would be right.
pub(super) fn check_name(name: &str) -> Result<(), BootstrapError> {
    let printable = name.chars().all(|character| !character.is_control());
    if name.is_empty() || name.len() > NAME_LIMIT || !printable {
        return Err(BootstrapError::InvalidJob(format!(
            "a pretended host is called {name:?}: it must be 1 to {NAME_LIMIT} bytes of printable text"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_numbered_by_first_appearance() {
        let mut job = Job::local(1).unwrap().remove(0);
        let hosts = ["b", "a", "b", "c", "a"].map(|name| {
            job.host = Some(name.into());
            HostIdentity::of(&job)
        });
        assert_eq!(numbered(hosts.iter()), [0, 1, 0, 2, 1]);
        assert!(hosts[0].shares_kernel(&hosts[1]) && hosts[0] != hosts[1]);
    }

    #[test]
    fn names_that_cannot_be_printed_are_refused() {
        for name in ["", "two\nlines", &"x".repeat(65)] {
            assert!(check_name(name).is_err());
        }
        assert!(check_name("rack 3, left").is_ok());
    }
}
