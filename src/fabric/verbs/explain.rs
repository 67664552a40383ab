//! What the device's completion statuses mean: for programs ([`status`]) and for people ([`explanation`]).

use std::fmt::Write as _;

use sapwood_sys::verbs::bindings::*;

use super::ending::{Cause, Failure};
use super::gid::Gid;
use super::mtu::Mtu;
use crate::fabric::{Completion, Opcode, Operation, Rank, Status};

/// The contract's word for a status of the device's, of a request.
pub(super) fn status(code: ibv_wc_status) -> Status {
    match code {
        IBV_WC_SUCCESS => Status::Success,
        IBV_WC_WR_FLUSH_ERR => Status::Flushed,
        IBV_WC_LOC_LEN_ERR => Status::LocalLength,
        IBV_WC_LOC_QP_OP_ERR
        | IBV_WC_LOC_EEC_OP_ERR
        | IBV_WC_LOC_PROT_ERR
        | IBV_WC_MW_BIND_ERR
        | IBV_WC_LOC_ACCESS_ERR => Status::LocalProtection,
        IBV_WC_REM_ACCESS_ERR => Status::RemoteAccess,
        IBV_WC_REM_INV_REQ_ERR
        | IBV_WC_REM_OP_ERR
        | IBV_WC_REM_INV_RD_REQ_ERR
        | IBV_WC_REM_ABORT_ERR
        | IBV_WC_BAD_RESP_ERR => Status::RemoteOperation,
        IBV_WC_RNR_RETRY_EXC_ERR => Status::ReceiverNotReady,
        _ => Status::PeerUnreachable,
    }
}

/// The same, of a receive: all that can be wrong with one is that it is too short, or no memory that may be written.
pub(super) fn status_of_receive(code: ibv_wc_status) -> Status {
    match code {
        // Soft-RoCE's word for a message that does not fit.
        IBV_WC_LOC_QP_OP_ERR => Status::LocalLength,
        _ => status(code),
    }
}

/// What a request is called in completions.
pub(super) fn opcode(operation: &Operation) -> Opcode {
    match operation {
        Operation::Write { .. } => Opcode::Write,
        Operation::Read { .. } => Opcode::Read,
        Operation::FetchAdd { .. } => Opcode::FetchAdd,
        Operation::CompareSwap { .. } => Opcode::CompareSwap,
        Operation::Send { .. } => Opcode::Send,
    }
}

/// One side of a connection, as far as it matters when the other does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Side {
    pub rank: Rank,
    pub gid: Gid,
    pub lid: u16,
    pub mtu: Mtu,
    /// Of its queue pairs.
    pub numbers: Vec<u32>,
}

/// Everything about a connection that an explanation names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub device: String,
    pub port: u8,
    pub ethernet: bool,
    pub ours: Side,
    pub theirs: Option<Side>,
    /// The setting; an acknowledgement is waited for 4.096 µs · 2^timeout.
    pub timeout: u8,
    pub retry_count: u8,
    pub receiver_retry: u8,
    pub receiver_timer: u8,
}

impl Path {
    fn ends(&self, text: &mut String) {
        let Self {
            device, port, ours, ..
        } = self;
        let _ = write!(text, "rank {} (device {device} port {port}, ", ours.rank);
        ours.describe(text, self.ethernet);
        if let Some(theirs) = &self.theirs {
            let _ = write!(text, ") to rank {} (", theirs.rank);
            theirs.describe(text, self.ethernet);
            let mtu = ours.mtu.min(theirs.mtu);
            let _ = write!(text, "), path MTU {mtu}");
        } else {
            text.push_str("), never connected");
        }
    }

    /// How long one acknowledgement is waited for, in milliseconds.
    fn timeout_ms(&self) -> f64 {
        4.096e-3 * f64::from(1u32 << self.timeout.min(31))
    }

    /// What to run to see whether the path works at all.
    fn check(&self) -> String {
        match &self.theirs {
            Some(theirs) if self.ethernet => {
                // Frames of the path MTU with the headers of RoCE v2, less those of IP and ICMP.
                let size = self.ours.mtu.min(theirs.mtu).bytes() + 32;
                format!("ping -M do -s {size} {}", theirs.gid.address())
            }
            Some(theirs) => format!("ibtracert {} {}; ibqueryerrors", self.ours.lid, theirs.lid),
            None => "sapwood devices".into(),
        }
    }
}

impl Side {
    fn describe(&self, text: &mut String, ethernet: bool) {
        let numbers: Vec<_> = self.numbers.iter().map(|number| format!("{number:#x}")).collect();
        let many = if numbers.len() == 1 { "" } else { "s" };
        let _ = write!(text, "GID {}", self.gid);
        if !ethernet {
            let _ = write!(text, ", LID {}", self.lid);
        }
        let _ = write!(text, ", MTU {}, queue pair{many} {}", self.mtu, numbers.join(" "));
    }
}

/// What happened to a connection, for who asks about one of its completions.
pub(super) fn explanation(completion: &Completion, path: &Path, failure: Option<&Failure>) -> String {
    let mut text = format!("{} from ", completion.opcode);
    path.ends(&mut text);
    let _ = write!(text, ": {}", completion.status);
    let Some(failure) = failure else {
        return text;
    };
    match &failure.cause {
        Cause::Asked => text.push_str("; this rank disconnected or fenced that peer"),
        Cause::Refused => {
            let why = match failure.status {
                Status::RemoteOperation => "an atomic was asked for on a word that is not aligned to 8 bytes",
                _ => {
                    "a local slice leaves its registration, is too long for a whole queue, or is of another fabric"
                }
            };
            let _ = write!(text, "; found at the post, nothing was sent: {why}");
        }
        Cause::Event(what) => {
            let _ = write!(text, "; the device reported: {what}");
        }
        Cause::Verb(what) => {
            let _ = write!(text, "; {what}");
        }
        Cause::Report {
            status: code,
            vendor,
            number,
            opcode,
            probe,
        } => {
            if completion.status == Status::Flushed && failure.status != Status::Flushed {
                let _ = write!(text, "; what failed first was {opcode}: {}", failure.status);
            }
            if *probe {
                text.push_str("; noticed by a message that only asks whether the peer is there");
            }
            let name = name(*code);
            let _ = write!(
                text,
                "; queue pair {number:#x} reported status {code} ({name}), vendor error {vendor:#x}. {}",
                causes(*code, path)
            );
        }
    }
    text
}

/// The device's own word for a status.
fn name(code: ibv_wc_status) -> &'static str {
    match code {
        IBV_WC_SUCCESS => "success",
        IBV_WC_LOC_LEN_ERR => "local length error",
        IBV_WC_LOC_QP_OP_ERR => "local queue pair operation error",
        IBV_WC_LOC_PROT_ERR => "local protection error",
        IBV_WC_WR_FLUSH_ERR => "work request flushed",
        IBV_WC_BAD_RESP_ERR => "bad response",
        IBV_WC_LOC_ACCESS_ERR => "local access error",
        IBV_WC_REM_INV_REQ_ERR => "remote invalid request",
        IBV_WC_REM_ACCESS_ERR => "remote access error",
        IBV_WC_REM_OP_ERR => "remote operation error",
        IBV_WC_RETRY_EXC_ERR => "transport retry counter exceeded",
        IBV_WC_RNR_RETRY_EXC_ERR => "receiver-not-ready retry counter exceeded",
        IBV_WC_REM_ABORT_ERR => "remote aborted",
        IBV_WC_FATAL_ERR => "fatal error",
        IBV_WC_RESP_TIMEOUT_ERR => "response timeout",
        IBV_WC_GENERAL_ERR => "general error",
        _ => "a status that the InfiniBand specification does not explain",
    }
}

/// The usual causes, and what mends them.
fn causes(code: ibv_wc_status, path: &Path) -> String {
    match code {
        IBV_WC_RETRY_EXC_ERR | IBV_WC_RESP_TIMEOUT_ERR => unanswered(path),
        IBV_WC_RNR_RETRY_EXC_ERR => format!(
            "The peer had no receive posted for a send or an immediate, {} times in a row, each time telling us to \
             wait ({:.2} ms by its setting). It posts receives too late, or computes without driving its endpoint. \
             SAPWOOD_VERBS_RECEIVER_RETRY=7 waits without end; SAPWOOD_VERBS_RECEIVER_TIMER at the peer makes the \
             pauses longer.",
            u32::from(path.receiver_retry) + 1,
            receiver_timer_ms(path.receiver_timer)
        ),
        IBV_WC_REM_ACCESS_ERR => "The peer's device refused the address or the key: outside of the region, a right \
             that its registration does not give, or a registration that was dropped there. Both sides' windows must \
             be of the same generation."
            .into(),
        IBV_WC_REM_INV_REQ_ERR => "The peer's device could not carry it out: a send longer than the receive that \
             waits for it, an atomic on a word that is not aligned to 8 bytes or on a device without atomics, more \
             reads at a time than it answers, or, after lost packets, one that it took for another (soft-RoCE does)."
            .into(),
        IBV_WC_REM_OP_ERR => "The peer's device failed in the middle of it: its receive's memory may not be what its \
             registration says, or the queue pair there went to the error state. The peer's own report says more."
            .into(),
        IBV_WC_LOC_PROT_ERR | IBV_WC_LOC_ACCESS_ERR => "The local slice leaves its registration, or the registration \
             is of another device or was made by another fabric."
            .into(),
        IBV_WC_LOC_LEN_ERR => "A message came that is longer than the receive posted for it, or one was posted that \
             is longer than the port's largest message."
            .into(),
        IBV_WC_LOC_QP_OP_ERR => "The device found the work request itself inconsistent; the vendor error tells its \
             maker why."
            .into(),
        IBV_WC_WR_FLUSH_ERR => "The queue pair had failed before, and the device has not said why: usually the peer \
             sent something that is not allowed here, or an asynchronous event is on its way."
            .into(),
        IBV_WC_FATAL_ERR | IBV_WC_GENERAL_ERR => "The device itself has failed: see the kernel's log (`dmesg`).".into(),
        _ => "The vendor error and the device's documentation say more.".into(),
    }
}

fn unanswered(path: &Path) -> String {
    let tries = u32::from(path.retry_count) + 1;
    let once = path.timeout_ms();
    let total = once * f64::from(tries);
    let waited = if path.timeout == 0 {
        "It was waited for without end (timeout 0).".to_owned()
    } else {
        format!(
            "No acknowledgement came: {tries} tries of {once:.1} ms each (timeout {}, retry count {}; devices may wait \
             up to four times as long), {total:.0} ms together.",
            path.timeout, path.retry_count
        )
    };
    let network = if path.ethernet {
        "the two GIDs are in networks or VLANs that do not reach each other, or of different RoCE versions \
         (SAPWOOD_VERBS_GID_INDEX, SAPWOOD_VERBS_SUBNET); a switch or interface has a smaller MTU than the path MTU \
         (SAPWOOD_VERBS_MTU); a firewall drops UDP port 4791; packets are lost under load because priority flow \
         control or ECN is off for this traffic class (SAPWOOD_VERBS_TRAFFIC_CLASS, SAPWOOD_VERBS_SERVICE_LEVEL)"
    } else {
        "the subnet manager has no path between the two LIDs, or they moved; the partition keys differ \
         (SAPWOOD_VERBS_PARTITION_KEY); a link on the way is bad"
    };
    let check = path.check();
    format!(
        "{waited} Usual causes: the peer's process is dead, stopped its endpoint or fenced us; {network}; the timeout \
         is shorter than a busy network's worst moment (SAPWOOD_VERBS_TIMEOUT=18 waits 1 s). Try: {check}; `sapwood \
         devices` on both hosts."
    )
}

/// How long a sender is told to wait (InfiniBand specification, table 45).
fn receiver_timer_ms(code: u8) -> f64 {
    const MS: [f64; 32] = [
        655.36, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.16, 0.24, 0.32, 0.48, 0.64, 0.96, 1.28, 1.92,
        2.56, 3.84, 5.12, 7.68, 10.24, 15.36, 20.48, 30.72, 40.96, 61.44, 81.92, 122.88, 163.84, 245.76,
        327.68, 491.52,
    ];
    MS[usize::from(code & 31)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(rank: Rank, last: u8) -> Side {
        Side {
            rank,
            gid: Gid::from(std::net::IpAddr::from([10, 9, 0, last])),
            lid: u16::from(last),
            mtu: if last == 1 { Mtu::Bytes4096 } else { Mtu::Bytes1024 },
            numbers: vec![0x11, 0x12],
        }
    }

    fn path(ethernet: bool) -> Path {
        Path {
            device: "r0".into(),
            port: 1,
            ethernet,
            ours: side(0, 1),
            theirs: Some(side(3, 2)),
            timeout: 14,
            retry_count: 7,
            receiver_retry: 6,
            receiver_timer: 12,
        }
    }

    fn explained(code: ibv_wc_status, ethernet: bool, probe: bool) -> String {
        let completion = Completion {
            id: 1,
            peer: 3,
            opcode: Opcode::Write,
            status: status(code),
            bytes: 0,
            immediate: None,
        };
        let failure = Failure {
            cause: Cause::Report {
                status: code,
                vendor: 0x81,
                number: 0x11,
                opcode: Opcode::Write,
                probe,
            },
            status: status(code),
        };
        explanation(&completion, &path(ethernet), Some(&failure))
    }

    #[test]
    fn twelve_names_both_ends_the_times_and_the_usual_causes() {
        let text = explained(IBV_WC_RETRY_EXC_ERR, true, false);
        for part in [
            "rank 0",
            "rank 3",
            "r0 port 1",
            "::ffff:10.9.0.1",
            "::ffff:10.9.0.2",
            "0x11 0x12",
            "path MTU 1024",
            "status 12",
            "vendor error 0x81",
            "8 tries of 67.1 ms",
            "537 ms",
            "VLAN",
            "4791",
            "priority flow control",
            "ping -M do -s 1056 10.9.0.2",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let text = explained(IBV_WC_RETRY_EXC_ERR, false, true);
        for part in [
            "LID 1",
            "LID 2",
            "subnet manager",
            "ibtracert 1 2",
            "asks whether the peer is there",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn every_status_has_a_meaning_and_an_explanation() {
        for code in 0..=IBV_WC_TM_RNDV_INCOMPLETE {
            let text = explained(code, true, false);
            assert!(text.contains(&format!("status {code} (")), "{text}");
            assert_eq!(status(code) == Status::Success, code == IBV_WC_SUCCESS);
        }
        for (code, part) in [
            (IBV_WC_RNR_RETRY_EXC_ERR, "7 times in a row"),
            (IBV_WC_REM_ACCESS_ERR, "key"),
            (IBV_WC_REM_INV_REQ_ERR, "longer than the receive"),
            (IBV_WC_LOC_PROT_ERR, "leaves its registration"),
        ] {
            assert!(explained(code, true, false).contains(part), "{part}");
        }
    }
}
