//! A connection that has not introduced itself yet, to the rendezvous or to what a rank keeps open for others:
//! everything that a stranger can make a rank read.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::Job;
use super::channel::Channel;
use super::message::{self, Greeting, Hello, Kind};
use super::noise::{HANDSHAKE_BYTES, Handshake};
use super::socket::Origin;

/// The largest hello.
const HELLO_LIMIT: usize = 4096;

/// A connection that has not introduced itself yet.
pub(super) struct Visitor {
    pub(super) origin: Origin,
    pub(super) since: Instant,
    pub(super) stage: Stage,
    /// The largest message that it may send once it has proved itself.
    limit: usize,
}

pub(super) enum Stage {
    /// The first handshake message is arriving.
    Unproved {
        socket: Arc<OwnedFd>,
        frame: [u8; 4 + HANDSHAKE_BYTES],
        length: usize,
    },
    /// It knows the secret; its hello is arriving.
    Proved(Box<Channel>),
}

/// What came of looking at a visitor.
pub(super) enum Progress {
    Waiting,
    Refused(String),
    Introduced(Hello),
}

impl Visitor {
    pub(super) fn new(socket: OwnedFd, origin: Origin) -> Self {
        let stage = Stage::Unproved {
            socket: Arc::new(socket),
            frame: [0; 4 + HANDSHAKE_BYTES],
            length: 0,
        };
        Self {
            origin,
            since: Instant::now(),
            stage,
            limit: HELLO_LIMIT,
        }
    }

    /// Where it may send something larger than a hello without having been answered.
    pub(super) fn with_limit(self, limit: usize) -> Self {
        let limit = limit.max(HELLO_LIMIT);
        Self { limit, ..self }
    }

    /// It has come, and sent nothing.
    pub(super) fn said_nothing(&self) -> bool {
        matches!(self.stage, Stage::Unproved { length: 0, .. })
    }

    /// It comes from where descriptors mean nothing.
    pub(super) fn is_from_network(&self) -> bool {
        matches!(self.origin, Origin::Address(_))
    }

    pub(super) fn descriptor(&self) -> std::os::fd::BorrowedFd<'_> {
        match &self.stage {
            Stage::Unproved { socket, .. } => socket.as_fd(),
            Stage::Proved(channel) => channel.socket().as_fd(),
        }
    }

    /// Takes what has arrived and answers it.
    pub(super) fn advance(&mut self, job: &Job) -> Progress {
        let (network, limit) = (self.is_from_network(), self.limit);
        if let Stage::Unproved {
            socket,
            frame,
            length,
        } = &mut self.stage
        {
            match read_frame(socket, frame, length) {
                Ok(true) => {}
                Ok(false) => return Progress::Waiting,
                Err(reason) => return Progress::Refused(reason.into()),
            }
            match prove(job, socket, &frame[4..]) {
                Ok(noise) => {
                    // The same descriptor: where strangers hold as many as there may be, another one would be one too
                    // many.
                    let channel = Channel::new(Arc::clone(socket), noise, limit);
                    let channel = if network { channel.over_network() } else { channel };
                    self.stage = Stage::Proved(Box::new(channel));
                }
                Err(reason) => return Progress::Refused(reason),
            }
        }
        match &mut self.stage {
            Stage::Unproved { .. } => Progress::Waiting,
            Stage::Proved(channel) => {
                if let Err(problem) = channel.receive() {
                    return Progress::Refused(format!("it {problem}"));
                }
                match channel.next_message() {
                    Some(message) if message.kind == Kind::Hello => introduce(job, channel, &message.body),
                    Some(message) => {
                        Progress::Refused(format!("it sent a {:?} instead of a hello", message.kind))
                    }
                    None if channel.is_closed() => Progress::Refused("it hung up before its hello".into()),
                    None => Progress::Waiting,
                }
            }
        }
    }
}

/// Reads the first handshake message, no byte more; true when it is whole. No descriptor can come with it: the
/// kernel drops those that a plain `recv` does not ask for.
fn read_frame(
    socket: &OwnedFd,
    frame: &mut [u8; 4 + HANDSHAKE_BYTES],
    length: &mut usize,
) -> Result<bool, &'static str> {
    while *length < frame.len() {
        match rustix::net::recv(socket, &mut frame[*length..], RecvFlags::DONTWAIT) {
            Ok((_, 0)) | Err(Errno::CONNRESET | Errno::PIPE) => return Err("it hung up in the handshake"),
            Ok((_, received)) => *length += received,
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => return Ok(false),
            Err(_) => return Err("it cannot be read from"),
        }
        if *length >= 4 && frame[..4] != (HANDSHAKE_BYTES as u32).to_le_bytes() {
            return Err("it does not speak Sapwood's protocol");
        }
    }
    Ok(true)
}

/// Checks the proof in the first handshake message and answers with this rank's.
fn prove(job: &Job, socket: &OwnedFd, message: &[u8]) -> Result<snow::TransportState, String> {
    let mut handshake = Handshake::responder(&job.secret).map_err(|error| error.to_string())?;
    handshake
        .read(message)
        .map_err(|_| "its job secret is not this job's")?;
    let answer = handshake
        .write()
        .map_err(|error| format!("the handshake failed ({error})"))?;
    let frame = [&(HANDSHAKE_BYTES as u32).to_le_bytes()[..], &answer].concat();
    if rustix::net::send(socket, &frame, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) != Ok(frame.len()) {
        return Err("it hung up in the handshake".into());
    }
    let noise = handshake.finish();
    noise.map_err(|error| format!("the handshake failed ({error})"))
}

/// Reads a hello. The version comes first, since nothing else of a hello may be relied on before it fits.
fn introduce(job: &Job, channel: &mut Channel, body: &[u8]) -> Progress {
    let reason = match message::decode::<Greeting>(body) {
        Ok(greeting) if greeting.magic != message::MAGIC => "its hello is not Sapwood's".into(),
        Ok(greeting) if greeting.version != message::PROTOCOL_VERSION => format!(
            "it speaks version {} of the protocol and rank {} speaks version {}: all ranks must use the same Sapwood",
            greeting.version,
            job.rank,
            message::PROTOCOL_VERSION
        ),
        Ok(_) => match message::decode::<Hello>(body) {
            Ok(hello) => return Progress::Introduced(hello),
            Err(problem) => format!("it {problem}"),
        },
        Err(problem) => format!("it {problem}"),
    };
    channel.queue_body(Kind::Refused, message::encode(&reason));
    let _ = channel.flush();
    Progress::Refused(reason)
}

#[cfg(test)]
mod tests {
    use super::super::socket::{self, Credentials};
    use super::*;
    use proptest::prelude::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    use std::os::fd::AsRawFd;

    fn visit(job: &Job) -> (OwnedFd, Visitor, Job) {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (client, socket) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        let origin = Origin::Process(Credentials {
            pid: 1,
            uid: socket::own_user(),
        });
        (client, Visitor::new(socket, origin), job.clone())
    }

    /// A client that knows the secret, and the visitor that it is to rank 0.
    fn proved() -> (Channel, Visitor, Job) {
        let (client, mut visitor, job) = visit(&Job::local(2).unwrap()[0]);
        let mut handshake = Handshake::initiator(&job.secret).unwrap();
        let frame = [
            &(HANDSHAKE_BYTES as u32).to_le_bytes()[..],
            &handshake.write().unwrap(),
        ]
        .concat();
        // Two pieces: half a handshake is waited for.
        rustix::io::write(&client, &frame[..30]).unwrap();
        assert!(matches!(visitor.advance(&job), Progress::Waiting));
        rustix::io::write(&client, &frame[30..]).unwrap();
        let before = visitor.descriptor().as_raw_fd();
        assert!(matches!(visitor.advance(&job), Progress::Waiting));
        // Whoever proves himself when descriptors have run out needs no other.
        assert_eq!(visitor.descriptor().as_raw_fd(), before);
        let mut answer = [0; 4 + HANDSHAKE_BYTES];
        assert_eq!(rustix::io::read(&client, &mut answer).unwrap(), answer.len());
        handshake.read(&answer[4..]).unwrap();
        (
            Channel::new(client, handshake.finish().unwrap(), 1000),
            visitor,
            job,
        )
    }

    fn refusal(progress: Progress) -> Option<String> {
        if let Progress::Refused(reason) = progress {
            Some(reason)
        } else {
            None
        }
    }

    #[test]
    fn another_version_is_told_why() {
        let (mut client, mut visitor, job) = proved();
        client.queue_body(
            Kind::Hello,
            br#"{"magic": "sapwood", "version": 99, "new": []}"#.to_vec(),
        );
        client.flush().unwrap();
        assert!(refusal(visitor.advance(&job)).unwrap().contains("version 99"));
        client.receive().unwrap();
        let message = client.next_message().unwrap();
        let reason: String = message::decode(&message.body).unwrap();
        assert!(
            message.kind == Kind::Refused && reason.contains("version 99"),
            "{reason}"
        );
    }

    #[test]
    fn a_hello_that_is_none_is_refused() {
        for (kind, body) in [
            (Kind::Hello, &b"gibberish"[..]),
            (Kind::Hello, br#"{"magic": "heartwood", "version": 1}"#),
            (Kind::Hello, br#"{"magic": "sapwood", "version": 1, "rank": -1}"#),
            (Kind::Contribution, b""),
        ] {
            let (mut client, mut visitor, job) = proved();
            client.queue_body(kind, body.to_vec());
            client.flush().unwrap();
            assert!(refusal(visitor.advance(&job)).is_some());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn random_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 52..10_000)) {
            let (client, mut visitor, job) = visit(&Job::local(2).unwrap()[0]);
            rustix::io::write(&client, &bytes).unwrap();
            prop_assert!(refusal(visitor.advance(&job)).is_some());
        }

        #[test]
        fn random_bytes_with_a_plausible_length_are_refused(bytes in prop::collection::vec(any::<u8>(), 48)) {
            let (client, mut visitor, job) = visit(&Job::local(2).unwrap()[0]);
            rustix::io::write(&client, &[&48u32.to_le_bytes()[..], &bytes].concat()).unwrap();
            prop_assert!(refusal(visitor.advance(&job)).unwrap().contains("secret"));
        }
    }
}
