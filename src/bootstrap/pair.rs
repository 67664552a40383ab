//! Two processes that a person starts by hand, one as the server and one as its client: the job that they are.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use super::{BootstrapError, Job, Rendezvous, Secret, socket, tcp};

/// How long a host's name may take to be looked up.
const LOOK_UP: Duration = Duration::from_secs(5);

/// Which of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairRole {
    /// Rank 0, which opens the rendezvous and waits.
    Server,
    /// Rank 1, which comes to it.
    Client,
}

impl Job {
    /// A job of two, of which the server is rank 0 and the client rank 1.
    ///
    /// With a secret they meet over the network: the client at the server's `host`, which the server may give too, to
    /// listen on that address only. Without one they are two processes of one user on one host, who meet at an
    /// abstract Unix socket named by the user and the port, where the kernel tells each which user the other is; the
    /// client's `host` must then be this one.
    ///
    /// # Errors
    /// [`BootstrapError::InvalidJob`] for a host that is another one, if there is no secret; for a host that is
    /// neither a name nor an address; for port 0.
    pub fn pair(
        port: u16,
        role: PairRole,
        host: Option<&str>,
        secret: Option<Secret>,
    ) -> Result<Self, BootstrapError> {
        if port == 0 {
            return Err(BootstrapError::InvalidJob(
                "port 0 is no port that both sides could know: it must be 1 to 65535".into(),
            ));
        }
        let (rank, host) = match role {
            PairRole::Server => (0, host.unwrap_or("::")),
            PairRole::Client => (1, host.unwrap_or("localhost")),
        };
        let (rendezvous, secret) = match secret {
            Some(secret) => (Rendezvous::network(host, port)?, secret),
            None => {
                Rendezvous::network(host, port)?;
                if role == PairRole::Client && !is_this_host(host)? {
                    return Err(BootstrapError::InvalidJob(format!(
                        "{host} is another host: give both sides a file with the same secret \
                         (`head -c 32 /dev/urandom > FILE && chmod 600 FILE`)"
                    )));
                }
                let name = format!("sapwood-pair-{}-{port}", socket::own_user());
                (Rendezvous::Abstract(name), known_to_all()?)
            }
        };
        // Each is the first on its host, as far as anybody can know before they meet; on one host the client is not.
        let local_rank = if rendezvous.is_network() { 0 } else { rank };
        Self::new(rank, 2, local_rank, rendezvous, secret)
    }
}

/// No secret at all: at a Unix socket both sides ask the kernel for the other's user and refuse any but their own,
/// so that it is the kernel who proves what else the secret does. It must never be used over the network.
pub(super) fn known_to_all() -> Result<Secret, BootstrapError> {
    Secret::from_bytes(b"one user's processes on one host".to_vec())
}

/// Whether an address of the host is one of this host's: a socket can be bound to it.
fn is_this_host(host: &str) -> Result<bool, BootstrapError> {
    let addresses = tcp::resolve(host, 0, Instant::now() + LOOK_UP).map_err(|problem| {
        BootstrapError::InvalidJob(format!("the host {host} is not known here: {problem}"))
    })?;
    Ok(addresses.iter().any(|address| UdpSocket::bind(address).is_ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_is_known_by_its_addresses() {
        for host in ["127.0.0.1", "127.0.0.2", "localhost"] {
            assert!(is_this_host(host).unwrap(), "{host}");
        }
        // Reserved for documentation: nobody has it.
        assert!(!is_this_host("192.0.2.1").unwrap());
    }

    #[test]
    fn another_host_needs_a_secret() {
        let error = Job::pair(18515, PairRole::Client, Some("192.0.2.1"), None).unwrap_err();
        assert!(error.to_string().contains("the same secret"), "{error}");
        let secret = Secret::random().unwrap();
        let job = Job::pair(18515, PairRole::Client, Some("192.0.2.1"), Some(secret)).unwrap();
        assert_eq!(job.rendezvous.to_string(), "192.0.2.1:18515");
    }

    #[test]
    fn one_user_on_one_host_needs_none() {
        let server = Job::pair(18515, PairRole::Server, None, None).unwrap();
        let client = Job::pair(18515, PairRole::Client, Some("127.0.0.1"), None).unwrap();
        assert_eq!(server.rendezvous, client.rendezvous);
        assert_eq!((server.rank, client.rank, client.size), (0, 1, 2));
        assert!(!server.rendezvous.is_network());
        assert!(Job::pair(0, PairRole::Server, None, None).is_err());
    }
}
