//! Everybody who can come to a rendezvous without belonging there, over both kinds of socket: what each of them is told,
//! what rank 0 logs, and that the job comes together all the same. (A test.)

use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::channel::Channel;
use super::message::{self, Hello, Kind};
use super::noise::{HANDSHAKE_BYTES, Handshake};
use super::{BootstrapError, HostIdentity, Job, Membership, Secret, control, socket};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// Remembers what is logged on a thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

/// One event, as a line.
#[derive(Default)]
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.push_str(&format!("{field}={value:?} "));
    }
}

impl Subscriber for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// A connection to the rendezvous, when it is open.
fn connect(job: &Job) -> OwnedFd {
    let patience = soon();
    loop {
        match socket::connect_once(&job.rendezvous, None, patience) {
            Ok(socket) => return socket,
            Err(error) => assert!(Instant::now() < patience, "the rendezvous never opened: {error}"),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn first_message(secret: &Secret) -> (Handshake, Vec<u8>) {
    let mut handshake = Handshake::initiator(secret).unwrap();
    let message = handshake.write().unwrap();
    let frame = [&(HANDSHAKE_BYTES as u32).to_le_bytes()[..], &message].concat();
    (handshake, frame)
}

fn write(socket: &OwnedFd, bytes: &[u8]) {
    // Who is refused before it has said everything cannot say the rest.
    let _ = std::fs::File::from(socket.try_clone().unwrap()).write_all(bytes);
}

/// All bytes that come before the end.
fn until_the_end(socket: &OwnedFd) -> Vec<u8> {
    let mut all = Vec::new();
    let mut bytes = [0; 4096];
    loop {
        assert!(
            socket::wait_for(socket, rustix::event::PollFlags::IN, soon()).unwrap(),
            "no end"
        );
        match rustix::io::read(socket, &mut bytes) {
            Ok(0) | Err(rustix::io::Errno::CONNRESET) => return all,
            Ok(length) => all.extend_from_slice(&bytes[..length]),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Knows the secret, and says this.
fn introduce(job: &Job, hello: &Hello) -> String {
    let socket = connect(job);
    let (mut handshake, frame) = first_message(&job.secret);
    write(&socket, &frame);
    let mut answer = Vec::new();
    while answer.len() < frame.len() {
        assert!(
            socket::wait_for(&socket, rustix::event::PollFlags::IN, soon()).unwrap(),
            "no answer"
        );
        let mut bytes = [0; 4 + HANDSHAKE_BYTES];
        let length = rustix::io::read(&socket, &mut bytes).unwrap();
        assert!(length > 0, "refused in the handshake");
        answer.extend_from_slice(&bytes[..length]);
    }
    handshake.read(&answer[4..]).unwrap();
    let mut channel = Channel::new(socket, handshake.finish().unwrap(), 1 << 20);
    channel.queue_body(Kind::Hello, message::encode(hello));
    channel.flush().unwrap();
    let patience = soon();
    loop {
        if let Some(message) = channel.next_message() {
            assert_eq!(message.kind, Kind::Refused);
            return message::decode(&message.body).unwrap();
        }
        assert!(
            !channel.is_closed() && Instant::now() < patience,
            "nothing was said"
        );
        control::turn(&mut [&mut channel], |_| 0, patience).unwrap();
    }
}

#[test]
fn each_is_refused_with_a_line_on_both_sides_and_the_job_goes_on() {
    for jobs in [Job::local(3).unwrap(), Job::networked(3, "127.0.0.1").unwrap()] {
        let lines = Lines::default();
        let remember = lines.clone();
        let root = jobs[0].clone();
        let rank_0 = std::thread::spawn(move || {
            tracing::subscriber::with_default(remember, || Membership::join(&root, soon()))
        });
        let job = &jobs[1];

        // A port scan.
        drop(connect(job));
        // Ten thousand bytes of garbage.
        let garbage = connect(job);
        write(
            &garbage,
            &(0..10_000u32)
                .map(|index| (index * 7 + 1) as u8)
                .collect::<Vec<_>>(),
        );
        assert!(until_the_end(&garbage).is_empty(), "a stranger got an answer");
        // Half a handshake, and then nothing.
        let (_, frame) = first_message(&job.secret);
        let half = connect(job);
        write(&half, &frame[..30]);
        // Another secret: said on that side by its error.
        let mut stranger = job.clone();
        stranger.secret = Secret::random().unwrap();
        let error = Membership::join(&stranger, soon()).unwrap_err();
        assert!(
            matches!(error, BootstrapError::NotAuthenticated { .. }),
            "{error}"
        );
        assert!(error.to_string().contains("its job secret differs"), "{error}");
        // Another version of this protocol, and a rank that cannot be.
        let mut hello = Hello {
            magic: message::MAGIC.into(),
            version: message::PROTOCOL_VERSION + 1,
            rank: 1,
            size: 3,
            local_rank: 1,
            host: HostIdentity::of(job),
            pid: 1,
        };
        let told = introduce(job, &hello);
        let versions =
            [message::PROTOCOL_VERSION, message::PROTOCOL_VERSION + 1].map(|v| format!("version {v}"));
        assert!(versions.iter().all(|version| told.contains(version)), "{told}");
        hello.version = message::PROTOCOL_VERSION;
        hello.rank = 3;
        assert!(introduce(job, &hello).contains("rank 3 of 3"));

        let others: Vec<_> = jobs[1..]
            .iter()
            .cloned()
            .map(|job| std::thread::spawn(move || Membership::join(&job, soon())))
            .collect();
        let mut members = vec![rank_0.join().unwrap().unwrap()];
        members.extend(others.into_iter().map(|other| other.join().unwrap().unwrap()));
        std::thread::scope(|scope| {
            for member in &members {
                scope.spawn(|| member.barrier("all the same", soon()).unwrap());
            }
        });
        assert!(until_the_end(&half).is_empty(), "half a handshake got an answer");

        let lines = lines.0.lock().unwrap();
        for why in [
            "it hung up in the handshake",
            "it does not speak Sapwood's protocol",
            "its job secret is not this job's",
            "it had not finished the handshake when all ranks had come",
            &versions[1],
            "rank 3 of 3, which cannot come here",
        ] {
            let said = |line: &&String| {
                line.contains("refused a connection to the rendezvous") && line.contains(why)
            };
            let line = lines
                .iter()
                .find(said)
                .unwrap_or_else(|| panic!("{why}: {lines:?}"));
            // Where it came from: a process, or an address.
            assert!(
                line.contains("from=process") || line.contains("from=127.0.0.1:"),
                "{line}"
            );
        }
    }
}

#[test]
fn a_flood_is_a_few_lines_in_the_log() {
    for jobs in [Job::local(2).unwrap(), Job::networked(2, "127.0.0.1").unwrap()] {
        let lines = Lines::default();
        let remember = lines.clone();
        let root = jobs[0].clone();
        let rank_0 = std::thread::spawn(move || {
            tracing::subscriber::with_default(remember, || Membership::join(&root, soon()).map(drop))
        });
        for _ in 0..50 {
            let garbage = connect(&jobs[1]);
            write(&garbage, &[7; 100]);
            assert!(until_the_end(&garbage).is_empty());
        }
        Membership::join(&jobs[1], soon()).unwrap();
        rank_0.join().unwrap().unwrap();
        let lines = lines.0.lock().unwrap();
        let count = |part: &str| lines.iter().filter(|line| line.contains(part)).count();
        assert_eq!(count("refused a connection to the rendezvous"), 3, "{lines:?}");
        assert_eq!(count("refused more connections"), 1, "{lines:?}");
        assert_eq!(count("more=47"), 1, "{lines:?}");
    }
}
