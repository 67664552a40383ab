//! What strangers, and members that do not keep the protocol, can do to a rank: nothing but lose their own connection.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::frame::{FRAGMENT, Frame, HEADER, INLINE, Kind, PLAIN, TAG};
use super::parcel::{ConnectionParcel, Hello, RegionParcel, Welcome};
use super::seal::{NONCE, Nonces, Pact, SECRET, Session, TOKEN};
use super::*;
use crate::fabric::parcel::Ends;
use crate::fabric::{Completion, Operation, Parcel, Receive, RemoteSlice, Request, Slice, Status};
use crate::memory::HugePages;

mod calls;
mod serving;

const LEN: usize = 4096;

/// Rank 0, with memory that peers may use, which is to stay as it is.
struct Victim {
    fabric: Tcp,
    endpoint: Box<dyn Endpoint>,
    memory: Arc<dyn Registration>,
    told: ConnectionParcel,
    key: u64,
    connected: bool,
}

/// Rank 1, which knows all that a member knows, and keeps to nothing.
struct Rogue {
    socket: TcpStream,
    session: Session,
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn address(told: &ConnectionParcel) -> std::net::SocketAddr {
    (std::net::Ipv4Addr::LOCALHOST, told.addresses[0].port()).into()
}

impl Victim {
    fn new() -> Self {
        Self::of(Tcp::open(Settings::default()).unwrap())
    }

    fn of(fabric: Tcp) -> Self {
        let mut endpoint = fabric.endpoint(0, 3).unwrap();
        let told = ConnectionParcel::decode(&endpoint.prepare(1).unwrap().bytes).unwrap();
        let region = Region::host(LEN, HugePages::Never).unwrap();
        let memory = fabric.register(&region, Access::ALL).unwrap();
        let key = RegionParcel::decode(&memory.export().unwrap().bytes).unwrap().key;
        for id in 0..4 {
            endpoint.post_receive(1, Receive { id, local: None }).unwrap();
        }
        Self {
            fabric,
            endpoint,
            memory,
            told,
            key,
            connected: false,
        }
    }

    fn parcel_of_rogue(&self) -> ConnectionParcel {
        ConnectionParcel {
            ends: Ends {
                from: 1,
                to: 0,
                ..self.told.ends
            },
            domain: 77,
            secret: [9; SECRET],
            token: [8; TOKEN],
            ..self.told.clone()
        }
    }

    /// Told where rank 1 is, once.
    fn expect(&mut self) {
        if !self.connected {
            let bytes = self.parcel_of_rogue().encode();
            let descriptors = Vec::new();
            self.endpoint.connect(1, Parcel { bytes, descriptors }).unwrap();
            self.connected = true;
        }
    }

    /// Connected, after which rank 1 has said these first words.
    fn with_rogue(&mut self, change: impl FnOnce(&mut [u8])) -> Rogue {
        self.expect();
        self.rogue(change)
    }

    fn rogue(&mut self, change: impl FnOnce(&mut [u8])) -> Rogue {
        let (mut socket, welcome) = self.call();
        let (session, mut words) = self.words(welcome);
        change(&mut words);
        socket.write_all(&words).unwrap();
        Rogue { socket, session }
    }

    /// Calls, and hears what everybody is told.
    fn call(&mut self) -> (TcpStream, Welcome) {
        let mut socket = TcpStream::connect(address(&self.told)).unwrap();
        let welcome = self.welcomes(&mut socket);
        (socket, welcome)
    }

    fn welcomes(&mut self, socket: &mut TcpStream) -> Welcome {
        let mut bytes = [0; Welcome::BYTES];
        let mut heard = 0;
        let deadline = soon();
        socket.set_nonblocking(true).unwrap();
        while heard < bytes.len() {
            assert!(Instant::now() < deadline, "no welcome");
            self.endpoint.ready().unwrap();
            match socket.read(&mut bytes[heard..]) {
                Ok(0) => panic!("hung up"),
                Ok(count) => heard += count,
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
            }
        }
        socket.set_nonblocking(false).unwrap();
        Welcome::decode(&bytes).unwrap()
    }

    /// What rank 1 has to say to that.
    fn words(&self, welcome: Welcome) -> (Session, [u8; Hello::BYTES]) {
        let pact = Pact::new((1, &[9; SECRET]), (0, &self.told.secret), 3);
        let (listener, dialer) = (welcome.nonce, [6; NONCE]);
        let session = pact.session(&Nonces { listener, dialer });
        let words = Hello::encode([1, 0], 3, self.told.token, dialer, &session);
        (session, words)
    }

    fn post(&mut self, id: u64, operation: Operation) {
        let request = Request {
            id,
            operation,
            signaled: true,
        };
        self.endpoint.post(1, &[request]).unwrap();
    }

    /// A send of nothing but this.
    fn empty_send(&self, immediate: Option<u32>) -> Operation {
        Operation::Send {
            local: Slice {
                registration: self.memory.clone(),
                offset: 0,
                len: 0,
            },
            immediate,
        }
    }

    /// Drives the endpoint until so much has completed.
    fn until(&mut self, count: usize) -> Vec<Completion> {
        let mut came = Vec::with_capacity(64);
        let deadline = soon();
        while came.len() < count {
            assert!(Instant::now() < deadline, "only {came:?}");
            self.endpoint.poll(&mut came).unwrap();
        }
        came
    }

    /// Whether whoever is at the other end has been hung up on.
    fn hangs_up_on(&mut self, socket: &mut TcpStream) -> bool {
        socket.set_nonblocking(true).unwrap();
        let deadline = soon();
        let mut bytes = [0; 4096];
        while Instant::now() < deadline {
            self.endpoint.ready().unwrap();
            match socket.read(&mut bytes) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return true,
            }
        }
        false
    }

    fn is_unharmed(&self) -> bool {
        // SAFETY: a living region that only this test's thread, by its own endpoint, writes.
        let bytes = unsafe { std::slice::from_raw_parts(self.memory.region().base().as_ptr(), LEN) };
        bytes.iter().all(|byte| *byte == 0)
    }

    /// Rank 1 as it should be still gets through.
    fn still_serves(mut self) {
        let fabric = Tcp::open(Settings::default()).unwrap();
        let mut peer = fabric.endpoint(1, 3).unwrap();
        let theirs = peer.prepare(0).unwrap();
        let ours = Parcel {
            bytes: self.told.encode(),
            descriptors: Vec::new(),
        };
        peer.connect(0, ours).unwrap();
        self.endpoint.connect(1, theirs).unwrap();
        let region = peer.import(0, self.memory.export().unwrap()).unwrap();
        let source = fabric
            .register(&Region::host(LEN, HugePages::Never).unwrap(), Access::LOCAL)
            .unwrap();
        let operation = Operation::Write {
            local: Slice {
                registration: source,
                offset: 0,
                len: LEN,
            },
            remote: RemoteSlice { region, offset: 0 },
            immediate: Some(5),
        };
        let request = Request {
            id: 1,
            operation,
            signaled: true,
        };
        peer.post(0, &[request]).unwrap();
        let (mut came, mut went) = (Vec::with_capacity(8), Vec::with_capacity(8));
        let deadline = soon();
        while came.is_empty() || went.is_empty() {
            assert!(Instant::now() < deadline, "{came:?}, {went:?}");
            self.endpoint.poll(&mut came).unwrap();
            peer.poll(&mut went).unwrap();
        }
        assert_eq!((came[0].status, came[0].immediate), (Status::Success, Some(5)));
        assert_eq!(went[0].status, Status::Success);
        assert_eq!(self.fabric.name(), "tcp");
    }
}

impl Rogue {
    fn say(&mut self, frame: &Frame, body: &[u8]) {
        let plain = frame.encode();
        self.say_plain(&plain, body);
    }

    /// A header with a good tag, whatever it says, and a body with a good tag.
    fn say_plain(&mut self, plain: &[u8; PLAIN], body: &[u8]) {
        let seal = &mut self.session.dialer_to_listener;
        let mut bytes = plain.to_vec();
        bytes.extend(seal.header(plain));
        if !body.is_empty() {
            seal.begin_body();
            // SAFETY: bytes of the caller's.
            unsafe { seal.add(body.as_ptr(), body.len()) };
            bytes.extend(body);
            bytes.extend(seal.body_tag());
        }
        // It may have been hung up on already.
        let _ = self.socket.write_all(&bytes);
    }
}

/// An empty send.
fn send() -> Frame {
    Frame {
        kind: Kind::Send,
        first: true,
        last: true,
        ..Frame::counts(0, 0)
    }
}

fn write_of(victim: &Victim, body: usize) -> Frame {
    Frame {
        kind: Kind::Write,
        first: true,
        last: true,
        key: victim.key,
        words: [body as u64, 0],
        body,
        ..Frame::counts(0, 0)
    }
}

#[test]
fn strangers_are_turned_away_and_members_get_through() {
    let mut victim = Victim::new();
    let mut noise = vec![0u8; 10_000];
    let mut state = 1u64;
    for byte in &mut noise {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *byte = (state >> 56) as u8;
    }
    // A port scan, a visitor that says nothing, garbage, half of the first words, and those of another program.
    drop(TcpStream::connect(address(&victim.told)).unwrap());
    let _silent = TcpStream::connect(address(&victim.told)).unwrap();
    for words in [&noise[..], b"GET / HTTP/1.1\r\n\r\n"] {
        let mut socket = TcpStream::connect(address(&victim.told)).unwrap();
        socket.write_all(words).unwrap();
        assert!(victim.hangs_up_on(&mut socket));
    }
    let half = {
        let (mut socket, welcome) = victim.call();
        socket.write_all(&victim.words(welcome).1[..30]).unwrap();
        socket
    };
    // Another version, rank, generation, and token.
    for at in [8, 12, 16, 20, 24] {
        let mut rogue = victim.rogue(|words| words[at] ^= 4);
        assert!(
            victim.hangs_up_on(&mut rogue.socket),
            "first words changed at {at}"
        );
    }
    drop(half);
    victim.still_serves();
}

#[test]
fn whoever_does_not_know_the_secret_is_turned_away_although_it_has_the_token() {
    let mut victim = Victim::new();
    let mut rogue = victim.with_rogue(|words| *words.last_mut().unwrap() ^= 1);
    assert!(victim.hangs_up_on(&mut rogue.socket));
    // The real one is still expected.
    let mut rogue = victim.rogue(|_| ());
    rogue.say(&send(), &[]);
    assert_eq!(victim.until(1)[0].status, Status::Success);
    // And nobody else after that.
    let mut second = victim.rogue(|_| ());
    assert!(victim.hangs_up_on(&mut second.socket));
}

#[test]
fn what_is_changed_or_repeated_on_its_way_ends_the_connection_undone() {
    for (what, at) in [("header", 3), ("tag", PLAIN + 2), ("last of tag", HEADER - 1)] {
        let mut victim = Victim::new();
        let mut rogue = victim.with_rogue(|_| ());
        let mut frame = write_of(&victim, 0);
        frame.set_payload([7; INLINE], INLINE);
        let plain = frame.encode();
        let mut bytes = plain.to_vec();
        bytes.extend(rogue.session.dialer_to_listener.header(&plain));
        bytes[at] ^= 1;
        rogue.socket.write_all(&bytes).unwrap();
        assert_eq!(victim.until(1)[0].status, Status::PeerUnreachable, "{what}");
        assert!(victim.is_unharmed(), "{what}");
    }
    // A good frame a second time.
    let mut victim = Victim::new();
    let mut rogue = victim.with_rogue(|_| ());
    let frame = send();
    let plain = frame.encode();
    let mut bytes = plain.to_vec();
    bytes.extend(rogue.session.dialer_to_listener.header(&plain));
    rogue.socket.write_all(&[bytes.clone(), bytes].concat()).unwrap();
    let came = victim.until(2);
    assert_eq!(came[0].status, Status::Success);
    assert_eq!(came[1].status, Status::PeerUnreachable);
}

#[test]
fn a_body_that_was_changed_is_never_announced() {
    let mut victim = Victim::new();
    let mut rogue = victim.with_rogue(|_| ());
    let frame = Frame {
        immediate: Some(1),
        ..write_of(&victim, 100)
    };
    let plain = frame.encode();
    let mut bytes = plain.to_vec();
    bytes.extend(rogue.session.dialer_to_listener.header(&plain));
    bytes.extend([1; 100 + TAG]);
    rogue.socket.write_all(&bytes).unwrap();
    assert_eq!(victim.until(1)[0].status, Status::PeerUnreachable);
}

#[test]
fn a_member_reaches_no_more_than_it_was_given() {
    let wrong: &[fn(&mut Frame)] = &[
        |frame| frame.key += 1,
        |frame| frame.offset = LEN as u64 - 15,
        |frame| frame.offset = u64::MAX - 8,
        |frame| (frame.inline, frame.body, frame.last, frame.words[0]) = (0, 64, false, LEN as u64 + 1),
    ];
    for (number, change) in wrong.iter().enumerate() {
        let mut victim = Victim::new();
        let mut rogue = victim.with_rogue(|_| ());
        let mut frame = write_of(&victim, 0);
        frame.set_payload([7; INLINE], INLINE);
        change(&mut frame);
        rogue.say(&frame, &vec![7; frame.body]);
        assert_eq!(victim.until(1)[0].status, Status::Flushed, "{number}");
        assert!(victim.is_unharmed(), "{number}");
        let mut header = [0; HEADER];
        rogue
            .socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let refused = loop {
            victim.endpoint.ready().unwrap();
            rogue.socket.read_exact(&mut header).unwrap();
            let plain: &[u8; PLAIN] = header.first_chunk().unwrap();
            match Frame::decode(plain).unwrap().kind {
                Kind::Refusal(status) => break status,
                _ => continue,
            }
        };
        assert_eq!(refused, Status::RemoteAccess, "{number}");
    }
}

#[test]
fn a_member_that_breaks_the_protocol_loses_its_connection_only() {
    let send = send();
    let wrong = [
        // A receive too many, an acknowledgement of nothing, an answer to nothing, pieces that do not belong together.
        vec![send; 5],
        vec![Frame::counts(1, 0)],
        vec![Frame {
            kind: Kind::Answer,
            ..send
        }],
        vec![Frame {
            kind: Kind::Refusal(Status::RemoteAccess),
            ..Frame::counts(0, 0)
        }],
        vec![Frame {
            kind: Kind::Write,
            first: false,
            body: 8,
            ..send
        }],
        vec![Frame {
            body: 8,
            words: [9, 0],
            kind: Kind::Write,
            ..send
        }],
        vec![Frame::counts(0, 9), Frame::counts(0, u32::MAX - 9)],
    ];
    for (number, frames) in wrong.iter().enumerate() {
        let mut victim = Victim::new();
        let mut rogue = victim.with_rogue(|_| ());
        for frame in frames {
            let mut frame = *frame;
            frame.key = if frame.kind == Kind::Write {
                victim.key
            } else {
                frame.key
            };
            rogue.say(&frame, &vec![0; frame.body]);
        }
        let deadline = soon();
        let mut came = Vec::with_capacity(64);
        while victim.endpoint.reachable(1) {
            assert!(Instant::now() < deadline, "{number}: {came:?}");
            victim.endpoint.poll(&mut came).unwrap();
        }
        assert!(victim.is_unharmed(), "{number}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Headers of a member that has lost its mind: whatever they say, tagged as they should be.
    #[test]
    fn no_header_of_a_member_makes_a_rank_panic(
        headers in proptest::collection::vec((1u8..9, 0u8..16, proptest::array::uniform32(any::<u8>()), 0u32..2000), 1..12),
    ) {
        let mut victim = Victim::new();
        let mut rogue = victim.with_rogue(|_| ());
        for (kind, flags, noise, body) in headers {
            let mut plain = [0; PLAIN];
            plain[24..].copy_from_slice(&noise);
            (plain[0], plain[1]) = (kind, flags);
            plain[3] = u8::from(kind == 7);
            let body = if matches!(kind, 1 | 2 | 6) { body } else { 0 };
            plain[8..12].copy_from_slice(&body.to_le_bytes());
            if noise[0] % 2 == 0 {
                plain[24..32].copy_from_slice(&victim.key.to_le_bytes());
                plain[32..40].copy_from_slice(&u64::from(noise[1]).to_le_bytes());
                plain[40..48].copy_from_slice(&u64::from(body).to_le_bytes());
            }
            rogue.say_plain(&plain, &vec![1; body as usize]);
        }
        drop(rogue);
        let deadline = soon();
        let mut came = Vec::with_capacity(64);
        while victim.endpoint.reachable(1) {
            prop_assert!(Instant::now() < deadline, "{:?}", came);
            victim.endpoint.poll(&mut came).unwrap();
        }
    }

    /// Bytes of anybody who got between the two.
    #[test]
    fn no_bytes_make_a_rank_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let mut victim = Victim::new();
        let mut rogue = victim.with_rogue(|_| ());
        let _ = rogue.socket.write_all(&bytes);
        drop(rogue);
        let came = victim.until(4);
        prop_assert_eq!(came[0].status, Status::PeerUnreachable);
        prop_assert!(victim.is_unharmed());
    }
}

#[test]
fn a_body_is_at_most_a_fragment() {
    let mut victim = Victim::new();
    let mut rogue = victim.with_rogue(|_| ());
    rogue.say(&write_of(&victim, FRAGMENT + 1), &[]);
    assert_eq!(victim.until(1)[0].status, Status::PeerUnreachable);
}
