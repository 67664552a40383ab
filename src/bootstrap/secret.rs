//! The job's secret: read from a file or an inherited descriptor, never shown, wiped when dropped.

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::fs::{MemfdFlags, SealFlags};
use zeroize::Zeroizing;

use super::{BootstrapError, DEFAULT_TIMEOUT, noise, socket};

/// Bytes that every rank of one job knows and nobody else does.
///
/// Clones share one allocation, which is wiped when the last of them is dropped. `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<Vec<u8>>>);

impl Secret {
    /// Fewer bytes than this can be guessed and are refused.
    pub const MINIMUM_BYTES: usize = 16;
    /// More bytes than this are not a secret but a mistaken path.
    pub const MAXIMUM_BYTES: usize = 64 * 1024;

    /// A secret of the given bytes.
    ///
    /// # Errors
    /// [`BootstrapError::Secret`] if there are fewer than [`Self::MINIMUM_BYTES`] or more than
    /// [`Self::MAXIMUM_BYTES`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, BootstrapError> {
        Self::checked(Zeroizing::new(bytes), "given in memory")
    }

    /// 32 bytes from the operating system's random generator.
    ///
    /// # Errors
    /// [`BootstrapError::System`] if the generator gives none.
    pub fn random() -> Result<Self, BootstrapError> {
        let mut bytes = Zeroizing::new(vec![0; 32]);
        noise::fill_random(&mut bytes)?;
        Ok(Self(Arc::new(bytes)))
    }

    /// Reads the secret from a file, or from an inherited descriptor named as `/dev/fd/N`, which can be read again
    /// here, and which programs that this one starts do not inherit any more. Where it is a pipe, a FIFO or a terminal,
    /// whoever writes into it has [`DEFAULT_TIMEOUT`].
    ///
    /// # Errors
    /// [`BootstrapError::Secret`] if it cannot be read, if other users may read the file, or if its length is out
    /// of range.
    pub fn from_file(path: &Path) -> Result<Self, BootstrapError> {
        Self::from_file_until(path, DEFAULT_TIMEOUT)
    }

    /// As [`Self::from_file`], where whoever is to write it, into a pipe or at a terminal, has so long.
    pub(super) fn from_file_until(path: &Path, patience: Duration) -> Result<Self, BootstrapError> {
        let place = path.display().to_string();
        let problem = |problem: String| BootstrapError::Secret {
            place: place.clone(),
            problem,
        };
        // Neither a FIFO that nobody opens at its other end nor a terminal may hold this up.
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .map_err(|error| problem(format!("cannot be opened: {error}")))?;
        let metadata = file
            .metadata()
            .map_err(|error| problem(format!("cannot be examined: {error}")))?;
        // A memfd has mode 0777 and no name: its descriptor is the only way to it.
        if metadata.is_file() && metadata.nlink() > 0 && metadata.mode() & 0o077 != 0 {
            let mode = metadata.mode() & 0o777;
            return Err(problem(format!(
                "is open to other users (mode {mode:03o}); mend it with `chmod 600 {place}`"
            )));
        }
        let mut bytes = Zeroizing::new(Vec::new());
        read_all(&file, &mut bytes, patience).map_err(problem)?;
        if let Some(descriptor) = inherited(path) {
            // SAFETY: sets a flag of a number that was a descriptor's when it was opened by its name a moment ago.
            unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
        Self::checked(bytes, &place)
    }

    /// Puts the secret into a sealed, anonymous memory file, for a launcher to pass on to the ranks it starts: the
    /// descriptor closes on exec unless the caller clears that flag in the child, and nothing is left when it is
    /// closed.
    ///
    /// # Errors
    /// [`BootstrapError::System`] if the system gives no memory file.
    pub fn to_descriptor(&self) -> Result<OwnedFd, BootstrapError> {
        let failed = || BootstrapError::system("memory file for the job secret");
        let descriptor =
            rustix::fs::memfd_create("sapwood-secret", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
                .map_err(failed())?;
        let mut file = File::from(descriptor);
        file.write_all(&self.0).map_err(|error| {
            let source = rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO);
            BootstrapError::System {
                doing: "writing the job secret".into(),
                source,
            }
        })?;
        let descriptor = OwnedFd::from(file);
        let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&descriptor, seals).map_err(failed())?;
        Ok(descriptor)
    }

    /// For a launcher's key-value store, which takes text alone.
    pub(super) fn to_hexadecimal(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(2 * self.0.len()));
        for byte in self.0.iter() {
            text.extend(
                [byte >> 4, byte & 15].map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])),
            );
        }
        text
    }

    /// Reads what [`Self::to_hexadecimal`] wrote.
    pub(super) fn from_hexadecimal(text: &str) -> Option<Self> {
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() / 2));
        for pair in text.as_bytes().chunks(2) {
            let [high, low] = pair else { return None };
            bytes.push(digit(*high)? << 4 | digit(*low)?);
        }
        Self::checked(bytes, "passed on by the launcher").ok()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn checked(bytes: Zeroizing<Vec<u8>>, place: &str) -> Result<Self, BootstrapError> {
        let problem = match bytes.len() {
            length if length < Self::MINIMUM_BYTES => format!(
                "holds {length} bytes, fewer than {}; make one with `head -c 32 /dev/urandom > FILE && chmod 600 FILE`",
                Self::MINIMUM_BYTES
            ),
            length if length > Self::MAXIMUM_BYTES => {
                format!(
                    "is longer than {} bytes; is this the right file?",
                    Self::MAXIMUM_BYTES
                )
            }
            _ => return Ok(Self(Arc::new(bytes))),
        };
        Err(BootstrapError::Secret {
            place: place.into(),
            problem,
        })
    }
}

/// Until the end, or one byte more than a secret has; the error says what is wrong.
fn read_all(mut file: &File, bytes: &mut Vec<u8>, patience: Duration) -> Result<(), String> {
    let deadline = Instant::now() + patience;
    // In one piece, which is wiped as a whole: no vector may grow and leave what it held behind.
    bytes.reserve_exact(Secret::MAXIMUM_BYTES + 1);
    let mut piece = Zeroizing::new([0; 4096]);
    let kind = file.metadata().map(|metadata| metadata.file_type());
    let waits = kind.is_ok_and(|kind| kind.is_fifo() || kind.is_char_device());
    while bytes.len() <= Secret::MAXIMUM_BYTES {
        // One that nobody has written to yet looks as if it had ended.
        if waits && !socket::wait_for(&file, PollFlags::IN, deadline).map_err(|error| error.to_string())? {
            return Err(format!(
                "was not written to its end within {} s: it is no file, and whoever is to write the secret into it \
                 has not, or has not closed it",
                patience.as_secs_f64()
            ));
        }
        let room = (Secret::MAXIMUM_BYTES + 1 - bytes.len()).min(piece.len());
        match file.read(&mut piece[..room]) {
            Ok(0) => break,
            Ok(length) => bytes.extend_from_slice(&piece[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock && waits => {}
            Err(error) => return Err(format!("cannot be read: {error}")),
        }
    }
    Ok(())
}

/// The number in `/dev/fd/N`, but for the three that every program expects to have.
fn inherited(path: &Path) -> Option<RawFd> {
    let folders = ["/dev/fd", "/proc/self/fd"];
    let number = folders.iter().find_map(|folder| path.strip_prefix(folder).ok())?;
    number.to_str()?.parse().ok().filter(|number| *number > 2)
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn debug_shows_nothing() {
        let secret = Secret::from_bytes(b"correct horse battery staple".to_vec()).unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }

    #[test]
    fn travels_as_text() {
        let secret = Secret::from_bytes((0..=255).collect()).unwrap();
        let text = secret.to_hexadecimal();
        assert!(text.starts_with("000102") && text.ends_with("fdfeff"));
        assert_eq!(Secret::from_hexadecimal(&text).unwrap().bytes(), secret.bytes());
        for bad in ["", "00", &text[1..], "zz", &"0g".repeat(16)] {
            assert!(Secret::from_hexadecimal(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn lengths_are_bounded() {
        assert!(Secret::from_bytes(vec![1; 15]).is_err());
        assert!(Secret::from_bytes(vec![1; 16]).is_ok());
        assert!(Secret::from_bytes(vec![1; Secret::MAXIMUM_BYTES + 1]).is_err());
    }

    #[test]
    fn travels_through_a_descriptor_any_number_of_times() {
        let secret = Secret::random().unwrap();
        let descriptor = secret.to_descriptor().unwrap();
        let path = format!("/dev/fd/{}", descriptor.as_raw_fd());
        for _ in 0..3 {
            assert_eq!(
                Secret::from_file(Path::new(&path)).unwrap().bytes(),
                secret.bytes()
            );
        }
    }

    #[test]
    fn an_inherited_descriptor_is_inherited_by_nobody_else() {
        let descriptor = Secret::random().unwrap().to_descriptor().unwrap();
        rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::empty()).unwrap();
        Secret::from_file(Path::new(&format!("/dev/fd/{}", descriptor.as_raw_fd()))).unwrap();
        let flags = rustix::io::fcntl_getfd(&descriptor).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        for path in [
            "/dev/fd/x",
            "/dev/fd/",
            "/dev/fd/0",
            "/dev/fdx/3",
            "/tmp/3",
            "/dev/fd/3/4",
        ] {
            assert_eq!(inherited(Path::new(path)), None, "{path}");
        }
    }

    #[test]
    fn a_pipe_is_read_to_its_end_and_not_waited_for_beyond_the_deadline() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        // Nobody opens it; then somebody does and never closes it.
        let mut writer = None;
        for _ in 0..2 {
            let error = Secret::from_file_until(&path, Duration::from_millis(50)).unwrap_err();
            let said = error.to_string();
            assert!(
                said.contains("fifo") && said.contains("was not written to its end within 0.05 s"),
                "{said}"
            );
            let mut half = File::options().read(true).write(true).open(&path).unwrap();
            half.write_all(&[7; 20]).unwrap();
            writer = Some(half);
        }
        drop(writer);
        let said = std::thread::spawn({
            let path = path.clone();
            move || {
                let mut writer = File::options().write(true).open(path).unwrap();
                writer.write_all(&[7; 16]).unwrap();
                std::thread::sleep(Duration::from_millis(20));
                writer.write_all(&[8; 16]).unwrap();
            }
        });
        let secret = Secret::from_file_until(&path, Duration::from_secs(20)).unwrap();
        said.join().unwrap();
        assert_eq!(secret.bytes(), [[7; 16], [8; 16]].concat());
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [7; 32]).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = Secret::from_file(file.path()).unwrap_err().to_string();
        assert!(
            error.contains("mode 644") && error.contains("chmod 600"),
            "{error}"
        );
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(Secret::from_file(file.path()).is_ok());
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Secret::from_file(Path::new("/nonexistent/secret"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("/nonexistent/secret") && error.contains("cannot be opened"),
            "{error}"
        );
    }
}
