//! The tcp fabric beside what the kernel gives to anybody: a ping-pong of small messages and a stream of large ones, over
//! plain sockets and over the fabric, in turns, in one run; what counts is the ratio.
//!
//! Both sides are threads of this process, at loopback. The plain stream is one side that only writes and one that only
//! reads into one buffer: no framing, no tags, no completions. `cargo bench --bench tcp` prints medians of several turns.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use sapwood::fabric::tcp::{Settings, Tcp};
use sapwood::fabric::{
    Access, Completion, Endpoint, Fabric, Opcode, Operation, Parcel, Rank, Receive, Registration,
    RemoteRegion, RemoteSlice, Request, Slice, Status,
};
use sapwood::memory::{HugePages, Region};

const SMALL: usize = 8;
const ROUNDS: u64 = 5_000;
const LARGE: usize = 1 << 20;
const STREAM: u64 = 500;
/// Large messages under way.
const DEPTH: u64 = 16;
const TURNS: usize = 7;

/// What one turn took.
#[derive(Clone, Copy, Default)]
struct Turn {
    /// Half a round trip.
    latency: f64,
    /// Bytes per second.
    bandwidth: f64,
}

impl Turn {
    fn of(ping_pong: Duration, stream: Duration) -> Self {
        Self {
            latency: ping_pong.as_secs_f64() / ROUNDS as f64 / 2.0,
            bandwidth: (STREAM * LARGE as u64) as f64 / stream.as_secs_f64(),
        }
    }
}

fn plain() -> std::io::Result<Turn> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let echo = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        let mut bytes = vec![0; LARGE];
        for _ in 0..ROUNDS {
            spin_for(&mut socket, &mut bytes[..SMALL])?;
            socket.write_all(&bytes[..SMALL])?;
        }
        socket.set_nonblocking(false)?;
        for _ in 0..STREAM {
            socket.read_exact(&mut bytes)?;
        }
        socket.write_all(&[1])
    });
    let mut socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    let mut bytes = vec![0; LARGE];
    let start = Instant::now();
    for _ in 0..ROUNDS {
        socket.write_all(&bytes[..SMALL])?;
        spin_for(&mut socket, &mut bytes[..SMALL])?;
    }
    let ping_pong = start.elapsed();
    socket.set_nonblocking(false)?;
    let start = Instant::now();
    for _ in 0..STREAM {
        socket.write_all(&bytes)?;
    }
    socket.read_exact(&mut bytes[..1])?;
    let stream = start.elapsed();
    echo.join().expect("the other side")?;
    Ok(Turn::of(ping_pong, stream))
}

/// Looks until the bytes are there, as the fabric's poll does.
fn spin_for(socket: &mut TcpStream, bytes: &mut [u8]) -> std::io::Result<()> {
    socket.set_nonblocking(true)?;
    let mut done = 0;
    while done < bytes.len() {
        match socket.read(&mut bytes[done..]) {
            Ok(count) => done += count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(error) => return Err(error),
        }
    }
    socket.set_nonblocking(false)
}

/// One side of the fabric's turn.
struct Side {
    peer: Rank,
    endpoint: Box<dyn Endpoint>,
    memory: Arc<dyn Registration>,
    remote: Arc<dyn RemoteRegion>,
    found: Vec<Completion>,
}

impl Side {
    fn new(rank: Rank, give: &mpsc::Sender<[Parcel; 2]>, take: &mpsc::Receiver<[Parcel; 2]>) -> Self {
        let fabric = Tcp::open(Settings::default()).expect("the fabric opens");
        let peer = 1 - rank;
        let mut endpoint = fabric.endpoint(rank, 0).expect("an endpoint");
        let region = Region::host(LARGE, HugePages::WhereAvailable).expect("memory");
        let memory = fabric.register(&region, Access::ALL).expect("a registration");
        let parcels = [
            endpoint.prepare(peer).expect("a queue pair"),
            memory.export().expect("a parcel"),
        ];
        give.send(parcels).expect("the other side");
        let [connection, region] = take.recv().expect("the other side");
        endpoint.connect(peer, connection).expect("a connection");
        let remote = endpoint.import(peer, region).expect("a region");
        for _ in 0..DEPTH {
            endpoint
                .post_receive(peer, Receive { id: 0, local: None })
                .expect("a receive");
        }
        Self {
            peer,
            endpoint,
            memory,
            remote,
            found: Vec::with_capacity(64),
        }
    }

    fn write(&mut self, len: usize, immediate: Option<u32>, signaled: bool) {
        let operation = Operation::Write {
            local: Slice {
                registration: self.memory.clone(),
                offset: 0,
                len,
            },
            remote: RemoteSlice {
                region: self.remote.clone(),
                offset: 0,
            },
            immediate,
        };
        let request = Request {
            id: 0,
            operation,
            signaled,
        };
        self.endpoint.post(self.peer, &[request]).expect("room");
    }

    /// Polls; how many immediates came, and how many writes ended.
    fn poll(&mut self) -> (u64, u64) {
        self.found.clear();
        self.endpoint.poll(&mut self.found).expect("poll");
        let (mut arrived, mut ended) = (0, 0);
        for at in 0..self.found.len() {
            let completion = self.found[at];
            assert_eq!(
                completion.status,
                Status::Success,
                "{}",
                self.endpoint.explain(&completion)
            );
            if completion.opcode == Opcode::ReceiveWithImmediate {
                arrived += 1;
                self.endpoint
                    .post_receive(self.peer, Receive { id: 0, local: None })
                    .expect("a receive");
            } else {
                ended += 1;
            }
        }
        if self.found.is_empty() {
            std::thread::yield_now();
        }
        (arrived, ended)
    }

    fn wait_for_immediate(&mut self) {
        while self.poll().0 == 0 {}
    }
}

fn fabric() -> Turn {
    let (to_second, second) = mpsc::channel();
    let (to_first, first) = mpsc::channel();
    let echo = std::thread::spawn(move || {
        let mut side = Side::new(1, &to_first, &second);
        for _ in 0..ROUNDS {
            side.wait_for_immediate();
            side.write(SMALL, Some(0), false);
        }
        // The end of the stream.
        side.wait_for_immediate();
        side.write(SMALL, Some(0), true);
        while side.poll().1 == 0 {}
    });
    let mut side = Side::new(0, &to_second, &first);
    let start = Instant::now();
    for _ in 0..ROUNDS {
        side.write(SMALL, Some(0), false);
        side.wait_for_immediate();
    }
    let ping_pong = start.elapsed();
    let start = Instant::now();
    let (mut posted, mut done, mut answered) = (0, 0, 0);
    while done < STREAM {
        while posted < STREAM && posted - done < DEPTH {
            side.write(LARGE, (posted + 1 == STREAM).then_some(0), true);
            posted += 1;
        }
        let (arrived, ended) = side.poll();
        answered += arrived;
        done += ended;
    }
    let stream = start.elapsed();
    while answered == 0 {
        answered += side.poll().0;
    }
    echo.join().expect("the other side");
    Turn::of(ping_pong, stream)
}

fn median(turns: &[Turn], of: impl Fn(&Turn) -> f64) -> f64 {
    let mut values: Vec<f64> = turns.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    // What `cargo test --benches` wants of a program that is no test.
    if std::env::args().any(|argument| argument == "--test" || argument == "--list") {
        return;
    }
    let (mut limit, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        limit.push(plain().expect("sockets at loopback"));
        ours.push(fabric());
    }
    println!(
        "{:<28} {:>12} {:>12} {:>8}",
        "", "plain tcp", "fabric tcp", "ratio"
    );
    let [a, b] = [&limit, &ours].map(|turns| median(turns, |turn| turn.latency * 1e6));
    println!(
        "{:<28} {a:>12.2} {b:>12.2} {:>8.2}",
        "8 B ping-pong, half, us",
        b / a
    );
    let [a, b] = [&limit, &ours].map(|turns| median(turns, |turn| turn.bandwidth / 1e9));
    println!("{:<28} {a:>12.3} {b:>12.3} {:>8.2}", "1 MiB stream, GB/s", b / a);
}
