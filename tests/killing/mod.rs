//! What the tests that kill processes need to start some: a secret that nobody has to clean up, and chance.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};

/// The job's secret, in a memory file that the children inherit: nothing in /tmp.
pub fn secret() -> OwnedFd {
    let file = rustix::fs::memfd_create("secret", rustix::fs::MemfdFlags::empty()).expect("a memory file");
    let mut file = File::from(file);
    file.write_all(&random::<[u8; 32]>()).expect("room for 32 bytes");
    file.into()
}

fn random<T: Default + AsMut<[u8]>>() -> T {
    let mut bytes = T::default();
    rustix::rand::getrandom(bytes.as_mut(), rustix::rand::GetRandomFlags::empty()).expect("random bytes");
    bytes
}

pub fn below(limit: u64) -> u64 {
    u64::from_ne_bytes(random::<[u8; 8]>()) % limit
}

/// This program once more, as a rank of a job of so many that meet at `place`, with its output in a pipe.
pub fn rank(rank: u32, size: u32, place: &str, secret: &OwnedFd) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .env("SAPWOOD_RANK", rank.to_string())
        .env("SAPWOOD_SIZE", size.to_string())
        .env("SAPWOOD_LOCAL_RANK", rank.to_string())
        .env("SAPWOOD_RENDEZVOUS", place)
        .env("SAPWOOD_SECRET_FILE", format!("/dev/fd/{}", secret.as_raw_fd()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
}
