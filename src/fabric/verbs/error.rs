//! What can go wrong with a verbs device, one variant for each verb, with what mends it. Completion errors are not
//! here: they come through the completion queue and are explained by the endpoint.

use std::fmt;

use sapwood_sys::verbs::LoadError;

use super::attributes::InvalidAttributes;
use super::choice::ChoiceError;
use super::memlock::MemlockError;
use crate::fabric::{FabricError, Rank};

/// Why something could not be done with a verbs device.
#[derive(Debug, thiserror::Error)]
pub enum VerbsError {
    /// libibverbs is not there, or is not the right one.
    #[error(transparent)]
    Library(#[from] LoadError),
    /// A setting has a value that it cannot have.
    #[error("{name}={value} cannot be used: {why}")]
    Setting {
        /// The environment's name for it.
        name: String,
        /// What it was set to.
        value: String,
        /// What it should be.
        why: String,
    },
    /// No device, port and GID satisfies the settings.
    #[error(transparent)]
    Choice(#[from] ChoiceError),
    /// The device's file is not for this user.
    #[error(transparent)]
    Permission(#[from] PermissionError),
    /// The memory lock limit would be broken; found before the call.
    #[error(transparent)]
    Memlock(#[from] MemlockError),
    /// Attributes that the transition, the port or the device do not allow; found before the call.
    #[error(transparent)]
    Attributes(#[from] InvalidAttributes),
    /// The device, its driver or the library cannot do this at all.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// A verb failed.
    #[error(transparent)]
    Verb(#[from] VerbError),
}

impl From<VerbsError> for FabricError {
    fn from(error: VerbsError) -> Self {
        FabricError::Provider {
            fabric: super::NAME,
            source: Box::new(error),
        }
    }
}

impl From<VerbError> for FabricError {
    fn from(error: VerbError) -> Self {
        VerbsError::Verb(error).into()
    }
}

/// The device's file exists but may not be opened by this user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no permission to open {file} of device {device} ({who}): {remedy}")]
pub struct PermissionError {
    /// The RDMA device.
    pub device: String,
    /// Under /dev/infiniband.
    pub file: String,
    /// The file's mode, owner and group, and who asked.
    pub who: String,
    /// What gives access.
    pub remedy: String,
}

/// Something that this device, driver, kernel or library does not offer (EOPNOTSUPP, or a symbol that is missing).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {verb} is not supported{}", reason(.why))]
pub struct Unsupported {
    /// The C function.
    pub verb: &'static str,
    /// Where it was asked for.
    pub place: Place,
    /// What lacks it, if that is known.
    pub why: Option<String>,
}

fn reason(why: &Option<String>) -> String {
    why.as_ref().map(|why| format!(": {why}")).unwrap_or_default()
}

/// Which device, port and peer a call was about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The RDMA device.
    pub device: String,
    /// Its port, where one is meant.
    pub port: Option<u8>,
    /// The rank at the other end of the queue pair, where there is one.
    pub peer: Option<Rank>,
}

impl Place {
    /// The device as a whole.
    pub fn device(name: impl Into<String>) -> Self {
        Self {
            device: name.into(),
            port: None,
            peer: None,
        }
    }

    /// One of its ports.
    #[must_use]
    pub fn port(mut self, port: u8) -> Self {
        self.port = Some(port);
        self
    }

    /// A queue pair to that rank.
    #[must_use]
    pub fn peer(mut self, peer: Rank) -> Self {
        self.peer = Some(peer);
        self
    }

    /// The error of a verb that answered `errno`: of the given variant, or [`Unsupported`].
    pub fn failed(&self, variant: fn(Failure) -> VerbError, errno: i32) -> VerbsError {
        self.failed_with(variant, errno, String::new())
    }

    /// As [`Place::failed`], with what was asked for in words.
    pub fn failed_with(&self, variant: fn(Failure) -> VerbError, errno: i32, asked: String) -> VerbsError {
        let error = variant(Failure {
            place: self.clone(),
            errno,
            asked,
        });
        if errno == libc::EOPNOTSUPP || errno == libc::EPROTONOSUPPORT {
            let verb = error.verb();
            let place = self.clone();
            return Unsupported {
                verb,
                place,
                why: None,
            }
            .into();
        }
        error.into()
    }

    /// As [`Place::failed`], with the errno that the call has just left behind (for verbs that return null).
    pub fn failed_now(&self, variant: fn(Failure) -> VerbError) -> VerbsError {
        self.failed(variant, last_errno())
    }
}

/// The calling thread's errno.
pub(super) fn last_errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "device {}", self.device)?;
        if let Some(port) = self.port {
            write!(f, " port {port}")?;
        }
        if let Some(peer) = self.peer {
            write!(f, ", queue pair to rank {peer}")?;
        }
        Ok(())
    }
}

/// A verb's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which device, port and peer.
    pub place: Place,
    /// What the verb answered.
    pub errno: i32,
    /// What was asked for: sizes, attributes. Empty where the verb's name says all.
    pub asked: String,
}

macro_rules! verb_errors {
    ($($(#[$doc:meta])* $variant:ident = $verb:literal;)*) => {
        /// A verb that failed.
        #[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
        pub enum VerbError {
            $($(#[$doc])* #[error("{}", sentence($verb, .0))] $variant(Failure),)*
        }

        impl VerbError {
            /// The C function that failed.
            pub fn verb(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $verb,)*
                }
            }

            /// Where, and what it answered.
            pub fn failure(&self) -> &Failure {
                match self {
                    $(Self::$variant(failure) => failure,)*
                }
            }
        }
    };
}

verb_errors! {
    /// The devices could not be listed.
    GetDeviceList = "ibv_get_device_list";
    /// The device could not be opened.
    OpenDevice = "ibv_open_device";
    /// Its limits could not be read.
    QueryDevice = "ibv_query_device";
    /// A port's state could not be read.
    QueryPort = "ibv_query_port";
    /// An entry of the GID table could not be read.
    QueryGid = "ibv_query_gid";
    /// An entry of the table of partition keys could not be read.
    QueryPartitionKey = "ibv_query_pkey";
    /// No protection domain.
    AllocateProtectionDomain = "ibv_alloc_pd";
    /// A protection domain is still in use, or the device is gone.
    DeallocateProtectionDomain = "ibv_dealloc_pd";
    /// Memory could not be registered.
    RegisterMemory = "ibv_reg_mr";
    /// A dma-buf could not be registered.
    RegisterDmaBuf = "ibv_reg_dmabuf_mr";
    /// A registration could not be given up.
    Deregister = "ibv_dereg_mr";
    /// No completion channel.
    CreateCompletionChannel = "ibv_create_comp_channel";
    /// The completion channel is still in use.
    DestroyCompletionChannel = "ibv_destroy_comp_channel";
    /// No completion queue.
    CreateCompletionQueue = "ibv_create_cq";
    /// The completion queue is still in use.
    DestroyCompletionQueue = "ibv_destroy_cq";
    /// A completion queue could not be made larger.
    ResizeCompletionQueue = "ibv_resize_cq";
    /// Completions could not be taken.
    PollCompletionQueue = "ibv_poll_cq";
    /// The completion queue could not be armed.
    ArmCompletionQueue = "ibv_req_notify_cq";
    /// The completion channel could not be read.
    GetCompletionEvent = "ibv_get_cq_event";
    /// The device's asynchronous events could not be read.
    GetAsyncEvent = "ibv_get_async_event";
    /// No queue pair.
    CreateQueuePair = "ibv_create_qp";
    /// A queue pair could not change into the state INIT.
    ModifyToInit = "ibv_modify_qp to INIT";
    /// A queue pair could not change into the state RTR.
    ModifyToReadyToReceive = "ibv_modify_qp to RTR";
    /// A queue pair could not change into the state RTS.
    ModifyToReadyToSend = "ibv_modify_qp to RTS";
    /// A queue pair could not change into the state SQD, or within it.
    ModifyToDrained = "ibv_modify_qp to SQD";
    /// A queue pair could not change into the state ERR.
    ModifyToError = "ibv_modify_qp to ERR";
    /// A queue pair could not change into the state RESET.
    ModifyToReset = "ibv_modify_qp to RESET";
    /// A queue pair's state could not be read.
    QueryQueuePair = "ibv_query_qp";
    /// A queue pair could not be destroyed.
    DestroyQueuePair = "ibv_destroy_qp";
    /// Requests could not be posted.
    PostSend = "ibv_post_send";
    /// Receives could not be posted.
    PostReceive = "ibv_post_recv";
}

fn sentence(verb: &str, failure: &Failure) -> String {
    let Failure { place, errno, asked } = failure;
    let asked = if asked.is_empty() {
        String::new()
    } else {
        format!(" ({asked})")
    };
    let reason = std::io::Error::from_raw_os_error(*errno);
    let hint = hint(verb, *errno)
        .map(|hint| format!("; {hint}"))
        .unwrap_or_default();
    format!("{place}: {verb}{asked} failed: {reason}{hint}")
}

/// The usual cause and what mends it.
fn hint(verb: &str, errno: i32) -> Option<&'static str> {
    Some(match (verb, errno) {
        ("ibv_get_device_list", libc::ENOSYS) => {
            "this kernel has no RDMA: load the device's driver (for soft-RoCE: `modprobe rdma_rxe`), or in a \
             container mount /sys and pass /dev/infiniband in"
        }
        ("ibv_open_device", libc::ENOENT | libc::ENXIO | libc::ENODEV) => {
            "its file under /dev/infiniband is not there: load ib_uverbs (`modprobe ib_uverbs`), in a container pass \
             it in (`--device /dev/infiniband/…`)"
        }
        ("ibv_reg_mr", libc::ENOMEM) => {
            "either the limit on locked memory (`ulimit -l`; raise it with `ulimit -l unlimited`, in \
             /etc/security/limits.conf or with LimitMEMLOCK=infinity in the systemd unit) or the device's own memory \
             for registrations"
        }
        ("ibv_reg_mr", libc::EFAULT) => "not all of it is memory that this process has mapped and may write",
        ("ibv_reg_mr", libc::EPERM | libc::EACCES) => {
            "the memory is mapped read-only, but peers shall write to it"
        }
        ("ibv_reg_dmabuf_mr", libc::EBADF) => "the descriptor is not that of a dma-buf",
        ("ibv_create_qp" | "ibv_create_cq" | "ibv_resize_cq", libc::ENOMEM | libc::EINVAL) => {
            "fewer or smaller queues may fit: SAPWOOD_VERBS_QUEUE_DEPTH, SAPWOOD_VERBS_INLINE_SIZE, \
             SAPWOOD_VERBS_QUEUE_PAIRS; `sapwood devices` shows the device's limits"
        }
        (_, libc::EMFILE) => "raise the limit on open files: `ulimit -n`",
        (_, libc::EIO) => "the device has failed or was removed; see the kernel's log (`dmesg`)",
        ("ibv_modify_qp to RTR", libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::ENETUNREACH) => {
            "the peer's address does not answer: both GIDs must lie in networks that reach each other (`ping` it from \
             this port's interface), and be of the same type"
        }
        (verb, libc::EINVAL) if verb.starts_with("ibv_modify_qp") => {
            "the driver does not say which attribute; everything that was sent is listed"
        }
        (verb, libc::ENOMEM) if verb.starts_with("ibv_create") || verb.starts_with("ibv_alloc") => {
            "the device's resources, or the limit on locked memory (`ulimit -l`), are exhausted"
        }
        ("ibv_destroy_qp" | "ibv_destroy_cq" | "ibv_dealloc_pd" | "ibv_dereg_mr", libc::EBUSY) => {
            "something still uses it"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_where_what_why_and_what_to_do() {
        let place = Place::device("r0").port(1).peer(3);
        let error = place.failed_with(VerbError::RegisterMemory, libc::ENOMEM, "4096 bytes".into());
        let text = FabricError::from(error).to_string();
        for part in [
            "fabric verbs",
            "device r0 port 1",
            "rank 3",
            "ibv_reg_mr (4096 bytes)",
            "ulimit -l unlimited",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn what_is_not_supported_is_a_type_of_its_own() {
        let error = Place::device("r0").failed(VerbError::RegisterDmaBuf, libc::EOPNOTSUPP);
        let VerbsError::Unsupported(unsupported) = &error else {
            panic!("{error}")
        };
        assert_eq!(unsupported.verb, "ibv_reg_dmabuf_mr");
        assert_eq!(error.to_string(), "device r0: ibv_reg_dmabuf_mr is not supported");
    }

    #[test]
    fn the_errno_stays_reachable() {
        let error = Place::device("r0").failed(VerbError::CreateQueuePair, libc::EINVAL);
        let VerbsError::Verb(error) = error else {
            panic!("{error}")
        };
        assert_eq!(
            (error.verb(), error.failure().errno),
            ("ibv_create_qp", libc::EINVAL)
        );
    }
}
