//! PMI-1, the protocol between a rank and the process manager that has started it (MPICH's `mpiexec`, `srun
//! --mpi=pmi2`), as far as rank 0 needs it to tell all others something: a key-value store and a barrier.
//!
//! A request and its answer are one line of `key=value` words each. A process manager serves one client in a process's
//! whole life, and takes one that goes without a farewell for a crash. This module must never say more than
//! [`broadcast`] does, since it runs in programs that may be something else's rank, too.

use std::os::fd::AsFd;
use std::time::Instant;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::{BootstrapError, Rank, socket};

/// No answer is longer.
const LINE_LIMIT: usize = 64 << 10;
const KEY: &str = "sapwood-rendezvous-1";
/// What mends a connection that cannot be used.
const OTHERWISE: &str = "set SAPWOOD_RENDEZVOUS=HOST:PORT of rank 0 and SAPWOOD_SECRET_FILE instead";

/// Gives every rank the word that rank 0 brings, which must have no white space. Collective, and possible once in a
/// process's life. `name` is how the connection is called in errors.
pub(super) fn broadcast(
    connection: &impl AsFd,
    name: &str,
    rank: Rank,
    word: Option<&str>,
    deadline: Instant,
) -> Result<String, BootstrapError> {
    let mut client = Client {
        connection,
        name,
        deadline,
        received: Vec::new(),
    };
    client.ask("init pmi_version=1 pmi_subversion=1", "response_to_init")?;
    let maxima = client.ask("get_maxes", "maxes")?;
    let store = client.ask("get_my_kvsname", "my_kvsname")?.word("kvsname");
    let store = store.ok_or_else(|| client.problem("named no key-value store".into()))?;
    if let Some(word) = word {
        let longest = maxima.word("vallen_max").and_then(|text| text.parse().ok());
        // The last byte is the end's, where the store is C's.
        if let Some(longest) = longest.filter(|longest: &usize| word.len() >= *longest) {
            let problem = format!(
                "its values have at most {} bytes, and {} are needed; {OTHERWISE}",
                longest.saturating_sub(1),
                word.len()
            );
            return Err(client.problem(problem));
        }
        client.ask(
            &format!("put kvsname={store} key={KEY} value={word}"),
            "put_result",
        )?;
    }
    client.ask("barrier_in", "barrier_out")?;
    let told = match word {
        Some(word) => word.to_owned(),
        None => {
            let answer = client.ask(&format!("get kvsname={store} key={KEY}"), "get_result")?;
            let none = || client.problem(format!("has no {KEY}, which rank 0 was to put there"));
            answer.word("value").ok_or_else(none)?
        }
    };
    client.ask("finalize", "finalize_ack")?;
    tracing::debug!(
        rank,
        name,
        "the process manager has passed on where the ranks meet"
    );
    Ok(told)
}

struct Client<'client, Connection> {
    connection: &'client Connection,
    name: &'client str,
    deadline: Instant,
    received: Vec<u8>,
}

/// One line of words.
struct Answer(String);

impl Answer {
    fn word(&self, key: &str) -> Option<String> {
        let mut words = self.0.split_ascii_whitespace();
        words.find_map(|word| Some(word.strip_prefix(key)?.strip_prefix('=')?.to_owned()))
    }
}

impl<Connection: AsFd> Client<'_, Connection> {
    fn problem(&self, problem: String) -> BootstrapError {
        BootstrapError::ProcessManager {
            manager: self.name.to_owned(),
            problem,
        }
    }

    /// One request, and its answer, which must be of that kind and say that it went well.
    fn ask(&mut self, request: &str, kind: &str) -> Result<Answer, BootstrapError> {
        let what = request.split(' ').next().unwrap_or(request);
        self.send(format!("cmd={request}\n").as_bytes(), what)?;
        let answer = Answer(self.line(what)?);
        let failed = answer.word("rc").is_some_and(|code| code != "0");
        if answer.word("cmd").as_deref() != Some(kind) || failed {
            // What it is asked to store is nobody else's business.
            return Err(self.problem(format!("refuses {what:?}: {:?}; {OTHERWISE}", answer.0)));
        }
        Ok(answer)
    }

    fn send(&self, mut bytes: &[u8], what: &str) -> Result<(), BootstrapError> {
        while !bytes.is_empty() {
            match rustix::net::send(self.connection, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, what)?,
                Err(error) => return Err(self.gone(what, error)),
            }
        }
        Ok(())
    }

    fn line(&mut self, what: &str) -> Result<String, BootstrapError> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                return String::from_utf8(line)
                    .map_err(|_| self.problem(format!("answered {what:?} with what is no text")));
            }
            if self.received.len() > LINE_LIMIT {
                return Err(self.problem(format!(
                    "answered {what:?} with a line of more than {LINE_LIMIT} bytes"
                )));
            }
            let mut bytes = [0; 4096];
            match rustix::net::recv(self.connection, &mut bytes, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Err(self.gone(what, Errno::PIPE)),
                Ok((_, length)) => self.received.extend_from_slice(&bytes[..length]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(PollFlags::IN, what)?,
                Err(error) => return Err(self.gone(what, error)),
            }
        }
    }

    fn wait(&self, events: PollFlags, what: &str) -> Result<(), BootstrapError> {
        if socket::wait_for(self.connection, events, self.deadline)? {
            return Ok(());
        }
        Err(self.problem(match what {
            "barrier_in" => {
                "not all ranks have come to its barrier before the deadline (SAPWOOD_TIMEOUT)".into()
            }
            _ => format!("has not answered {what:?} before the deadline (SAPWOOD_TIMEOUT)"),
        }))
    }

    fn gone(&self, what: &str, error: Errno) -> BootstrapError {
        self.problem(match error {
            Errno::PIPE | Errno::CONNRESET => format!(
                "has closed the connection before it answered {what:?}: it serves one client in a process's life, and \
                 MPI or another job may have been that; {OTHERWISE}"
            ),
            error => format!("cannot be asked {what:?} ({error}); {OTHERWISE}"),
        })
    }
}

#[cfg(test)]
mod tests;
