//! The ranks of one job, as processes.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use rustix::process::{Pid, Signal};
use sapwood::bootstrap::{Job, variable};

/// Says to this program that it is a rank, and what it does.
pub const ROLE: &str = "SAPWOOD_TEST_ROLE";

pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

pub fn expect(condition: bool, otherwise: impl Into<String>) -> Result<(), Failed> {
    if condition {
        Ok(())
    } else {
        Err(otherwise.into().into())
    }
}

/// A port that nobody listens on, and that the system gives to no connection by itself.
pub fn free_port(host: &str) -> u16 {
    let from = 10_000 + (std::process::id() % 10_000) as u16;
    static NEXT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(0);
    loop {
        let next = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let port = from + next % 10_000;
        if TcpListener::bind((host, port)).is_ok() {
            return port;
        }
    }
}

/// The ranks of one job, as processes. Whatever is still alive when it is dropped is killed.
pub struct Ranks {
    pub folder: tempfile::TempDir,
    pub name: String,
    size: u32,
    pub children: Vec<Option<Child>>,
}

impl Ranks {
    pub fn new(size: u32) -> Self {
        Self::at(Job::local(1).unwrap()[0].rendezvous.to_string(), size)
    }

    pub fn at(name: String, size: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(folder.path().join("secret"))
            .unwrap();
        file.write_all(b"a secret of this test alone").unwrap();
        Self {
            folder,
            name,
            size,
            children: (0..size).map(|_| None).collect(),
        }
    }

    /// At a port of this host: `127.0.0.1` or `::1`.
    pub fn at_port(host: &str, size: u32) -> Self {
        let port = free_port(host);
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.into()
        };
        Self::at(format!("{host}:{port}"), size)
    }

    pub fn start(&mut self, rank: u32, role: &str) {
        let program = Command::new(std::env::current_exe().unwrap());
        self.start_with(rank, role, program);
    }

    /// With this program's path as the last argument of `command`, or as the command itself, and what is set in it.
    pub fn start_with(&mut self, rank: u32, role: &str, mut command: Command) {
        let child = command
            .env(ROLE, role)
            .env(variable::RANK, rank.to_string())
            .env(variable::SIZE, self.size.to_string())
            .env(variable::RENDEZVOUS, &self.name)
            .env(variable::SECRET_FILE, self.folder.path().join("secret"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        self.children[rank as usize] = Some(child);
    }

    /// On a host of that name.
    pub fn start_on(&mut self, rank: u32, role: &str, host: &str) {
        let mut program = Command::new(std::env::current_exe().unwrap());
        program.env(variable::HOST, host);
        self.start_with(rank, role, program);
    }

    pub fn start_all(size: u32, role: impl Fn(u32) -> &'static str) -> Self {
        Self::new(size).all(role)
    }

    pub fn all(mut self, role: impl Fn(u32) -> &'static str) -> Self {
        (0..self.size).for_each(|rank| self.start(rank, role(rank)));
        self
    }

    /// Reads one line of a rank's, or everything up to its end.
    pub fn hear(&mut self, rank: u32, line_only: bool) -> String {
        let stdout = self.children[rank as usize]
            .as_mut()
            .unwrap()
            .stdout
            .as_mut()
            .unwrap();
        let (mut text, mut byte) = (Vec::new(), [0]);
        while stdout.read(&mut byte).unwrap() == 1 && !(line_only && byte == *b"\n") {
            text.push(byte[0]);
        }
        String::from_utf8(text).unwrap()
    }

    pub fn kill(&mut self, rank: u32) {
        self.children[rank as usize].as_mut().unwrap().kill().unwrap();
    }

    pub fn signal(&mut self, rank: u32, signal: Signal) {
        let process = Pid::from_child(self.children[rank as usize].as_ref().unwrap());
        rustix::process::kill_process(process, signal).unwrap();
    }

    /// Everything that a rank still says; it must end well.
    pub fn finish(&mut self, rank: u32) -> Result<String, Failed> {
        let text = self.hear(rank, false);
        let status = self.children[rank as usize].take().unwrap().wait().unwrap();
        if status.success() {
            Ok(text)
        } else {
            Err(format!("rank {rank}: {status}, signal {:?}", status.signal()).into())
        }
    }
}

impl Drop for Ranks {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
