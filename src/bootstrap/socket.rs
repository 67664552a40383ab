//! Sockets at a rendezvous: listening, connecting, who is at the other end, and waiting with a deadline.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::event::{PollFd, Timespec};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::{BootstrapError, Rendezvous, tcp};
use crate::fabric::verbs::Subnet;

/// More connections than any job has ranks may wait to be accepted; the kernel cuts it to its own limit.
const BACKLOG: i32 = 4096;

fn address(rendezvous: &Rendezvous) -> Result<SocketAddrUnix, Errno> {
    match rendezvous {
        Rendezvous::Abstract(name) => SocketAddrUnix::new_abstract_name(name.as_bytes()),
        Rendezvous::Path(path) => SocketAddrUnix::new(path),
        Rendezvous::Network { .. } => Err(Errno::AFNOSUPPORT),
    }
}

fn stream_socket() -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
}

/// One attempt to connect to a socket of this host, which does not wait.
pub(super) fn connect_to_socket(rendezvous: &Rendezvous) -> Result<OwnedFd, Errno> {
    let socket = stream_socket()?;
    rustix::net::connect(&socket, &address(rendezvous)?)?;
    Ok(socket)
}

/// A socket's path, and which file it is: somebody may put another one in its place.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    file: Option<(u64, u64)>,
}

/// Device and number of what is at a path, itself and not what it leads to.
fn file_at(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Takes the socket away that a killed rank 0 has left at a path, where nobody answers. Nothing else that is there may
/// be touched: whoever mistypes a path must not lose a file.
fn clear(path: &Path) -> Result<(), BootstrapError> {
    let refuse = |what: String| {
        let path = path.display();
        Err(BootstrapError::InvalidJob(format!(
            "rendezvous {path} {what}: choose another path"
        )))
    };
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => refuse("exists and is no socket".into()),
        Ok(metadata) if metadata.uid() != own_user() => {
            refuse(format!("is a socket of user {}", metadata.uid()))
        }
        Ok(_) => {
            let _ = std::fs::remove_file(path);
            Ok(())
        }
        Err(_) => Ok(()),
    }
}

/// A listening socket; takes its path away again when dropped.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) socket: OwnedFd,
    place: Option<Place>,
    network: bool,
}

impl Listener {
    pub(super) fn open(
        rendezvous: &Rendezvous,
        subnet: Option<&Subnet>,
        deadline: Instant,
    ) -> Result<Self, BootstrapError> {
        if let Rendezvous::Network { host, port } = rendezvous {
            return Ok(Self {
                socket: tcp::listen((host, *port), subnet, BACKLOG, deadline)?,
                place: None,
                network: true,
            });
        }
        let failed = || BootstrapError::system(format!("opening the rendezvous {rendezvous}"));
        let socket = stream_socket().map_err(failed())?;
        let address = address(rendezvous).map_err(failed())?;
        if let Rendezvous::Path(path) = rendezvous {
            // The mode of the socket becomes that of its path: the job's user alone may connect.
            rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(failed())?;
            // A path outlives a killed rank 0. One that nobody listens on any more is in nobody's use.
            let answer = connect_once(rendezvous, None, deadline);
            if answer.is_err_and(|nobody| nobody.error == Errno::CONNREFUSED) {
                clear(path)?;
            }
        }
        match rustix::net::bind(&socket, &address) {
            Ok(()) => {}
            Err(Errno::ADDRINUSE) => {
                return Err(BootstrapError::RendezvousTaken {
                    rendezvous: rendezvous.to_string(),
                });
            }
            Err(error) => return Err(failed()(error)),
        }
        let place = match rendezvous {
            Rendezvous::Path(path) => Some(Place {
                path: path.clone(),
                file: file_at(path),
            }),
            _ => None,
        };
        let network = false;
        let listener = Self {
            socket,
            place,
            network,
        };
        listener.listen().map_err(failed())?;
        Ok(listener)
    }

    /// A socket that has a name in the abstract name space, and to which nobody can connect yet.
    pub(super) fn unheard(rendezvous: &Rendezvous) -> Result<Self, Errno> {
        let socket = stream_socket()?;
        rustix::net::bind(&socket, &address(rendezvous)?)?;
        Ok(Self {
            socket,
            place: None,
            network: false,
        })
    }

    /// From here on others can connect to it.
    pub(super) fn listen(&self) -> Result<(), Errno> {
        rustix::net::listen(&self.socket, BACKLOG)
    }

    /// Where it is found: what it was opened as, with the port that it has got.
    pub(super) fn found_at(&self, rendezvous: &Rendezvous) -> Result<Rendezvous, BootstrapError> {
        let mut found = rendezvous.clone();
        if let Rendezvous::Network { port, .. } = &mut found {
            *port =
                tcp::port(&self.socket).map_err(BootstrapError::system("asking for the rendezvous' port"))?;
        }
        Ok(found)
    }

    /// The next connection, if one is waiting, and where it comes from.
    pub(super) fn accept(&self) -> Result<Option<(OwnedFd, Origin)>, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        loop {
            let (socket, from) = match rustix::net::acceptfrom_with(&self.socket, flags) {
                Ok(accepted) => accepted,
                Err(Errno::AGAIN) => return Ok(None),
                // The last four are an earlier end's of the connection that would have come.
                Err(
                    Errno::INTR
                    | Errno::CONNABORTED
                    | Errno::PROTO
                    | Errno::HOSTUNREACH
                    | Errno::NETUNREACH
                    | Errno::NETDOWN,
                ) => continue,
                Err(error) => return Err(error),
            };
            // A connection that is gone already has nothing more to say.
            if !self.network {
                if let Ok(credentials) = peer_credentials(&socket) {
                    return Ok(Some((socket, Origin::Process(credentials))));
                }
            } else if let Some(Ok(address)) = from.map(SocketAddr::try_from)
                && tcp::tune(&socket).is_ok()
            {
                return Ok(Some((socket, Origin::Address(address))));
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(Place { path, file }) = &self.place
            && file.is_some()
            && file_at(path) == *file
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// One attempt to connect. To a Unix socket it does not wait; over the network it may until the deadline.
pub(super) fn connect_once(
    rendezvous: &Rendezvous,
    subnet: Option<&Subnet>,
    deadline: Instant,
) -> Result<OwnedFd, NotThere> {
    if let Rendezvous::Network { host, port } = rendezvous {
        let socket = tcp::connect(host, *port, subnet, deadline)?;
        tcp::tune(&socket)?;
        return Ok(socket);
    }
    Ok(connect_to_socket(rendezvous)?)
}

/// Why nobody was reached: what the system said of a connection, or why none could be tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NotThere {
    pub(super) error: Errno,
    pub(super) why: Option<String>,
}

impl From<Errno> for NotThere {
    fn from(error: Errno) -> Self {
        Self { error, why: None }
    }
}

impl fmt::Display for NotThere {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            Some(why) => formatter.write_str(why),
            None => self.error.fmt(formatter),
        }
    }
}

/// Where a connection comes from, as the kernel knows it.
#[derive(Debug)]
pub(super) enum Origin {
    /// A process of this host.
    Process(Credentials),
    /// Somewhere on the network.
    Address(SocketAddr),
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(Credentials { pid, uid }) => write!(formatter, "process {pid} of user {uid}"),
            Self::Address(address) => {
                let plain = SocketAddr::new(address.ip().to_canonical(), address.port());
                write!(formatter, "{plain}")
            }
        }
    }
}

/// Whose process is at the other end, as the kernel knows it. For a connection that was made to a listener, the
/// one who called `listen`.
#[derive(Debug)]
pub(super) struct Credentials {
    /// 0 if the process is in a PID name space that this one cannot see.
    pub(super) pid: i32,
    pub(super) uid: u32,
}

pub(super) fn peer_credentials(socket: &impl AsFd) -> Result<Credentials, Errno> {
    let mut credentials = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the option writes at most `length` bytes, which is the size of the structure it is given, and any
    // bytes make a valid `ucred`.
    let code = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &mut length,
        )
    };
    if code != 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    Ok(Credentials {
        pid: credentials.pid,
        uid: credentials.uid,
    })
}

/// The user that this process runs as.
pub(super) fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Polls until something is ready or `until` has come; an interrupted poll goes on.
pub(super) fn poll_until(entries: &mut [PollFd<'_>], until: Instant) -> Result<usize, BootstrapError> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match rustix::event::poll(entries, Some(&timeout)) {
            Err(Errno::INTR) => {}
            other => return other.map_err(BootstrapError::system("waiting for the other ranks")),
        }
    }
}

/// Waits for one descriptor.
pub(super) fn wait_for(
    descriptor: &impl AsFd,
    events: rustix::event::PollFlags,
    until: Instant,
) -> Result<bool, BootstrapError> {
    Ok(poll_until(&mut [PollFd::new(descriptor, events)], until)? > 0)
}
