//! All-reduce of memory that the caller owns and did not register: as the library does it, through a window (two copies
//! more than in a window), beside cross-memory attach, where the kernel copies from the other rank's memory.
//!
//!     cargo bench --bench unregistered [-- --rounds 15]
//!
//! The ranks are processes, f32 is summed, and the two take turns in the same processes. Attach is done as well as it can
//! be: each rank reads its own share of all others' memory into a piece of the cache, sums it into its own memory, and
//! reads the other shares from those who summed them; ranks meet in barriers in between.

use std::process::Command;
use std::time::Instant;

use sapwood::bootstrap::{Job, variable};
use sapwood::communicator::Communicator;
use sapwood::engine::reduce::{Kernel, Operation, kernel};
use sapwood::memory::DataType;

const RANK: &str = "--as-rank";
const SIZES: [usize; 7] = [64 << 10, 256 << 10, 1 << 20, 2 << 20, 4 << 20, 8 << 20, 32 << 20];
/// Of a share, so much is read at a time, to be summed while it is in the cache.
const PIECE: usize = 128 << 10;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rounds = arguments.iter().position(|word| word == "--rounds");
    let rounds = rounds
        .and_then(|place| arguments.get(place + 1)?.parse().ok())
        .unwrap_or(15);
    if arguments.iter().any(|word| word == "--test") {
        return;
    }
    if arguments.first().is_some_and(|word| word == RANK) {
        return be_a_rank(rounds);
    }
    for ranks in [2, 4] {
        println!(
            "\n{ranks} ranks, f32 sum, in place; microseconds, medians of {rounds} rounds that take turns"
        );
        println!("{:>10} {:>12} {:>12} {:>9}", "bytes", "window", "attach", "ratio");
        run_job(ranks, rounds);
    }
}

/// The ranks of one job: this program again.
fn run_job(ranks: u32, rounds: usize) {
    let jobs = Job::local(ranks).expect("a job");
    let secret = jobs[0].secret.to_descriptor().expect("a memory file");
    rustix::io::fcntl_setfd(&secret, rustix::io::FdFlags::empty()).expect("an open descriptor");
    let secret = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&secret));
    let program = std::env::current_exe().expect("this program's own file");
    let children: Vec<_> = jobs
        .iter()
        .map(|job| {
            Command::new(&program)
                .args([RANK, "--rounds", &rounds.to_string()])
                .env(variable::RANK, job.rank.to_string())
                .env(variable::SIZE, ranks.to_string())
                .env(variable::RENDEZVOUS, job.rendezvous.to_string())
                .env(variable::SECRET_FILE, &secret)
                .spawn()
                .expect("a process")
        })
        .collect();
    for mut child in children {
        assert!(child.wait().expect("a child").success(), "a rank failed");
    }
}

fn be_a_rank(rounds: usize) {
    let job = Job::from_environment()
        .expect("a launcher's environment")
        .expect("a launcher");
    let communicator = Communicator::builder().join(&job).expect("all join");
    let mut attach = Attach::new(&communicator);
    for bytes in SIZES {
        let (rank, ranks) = (communicator.rank(), communicator.size());
        let mut data = vec![0f32; bytes / 4];
        attach.meet(data.as_ptr() as usize);
        let (mut by_window, mut by_attach) = (Vec::new(), Vec::new());
        for round in 0..rounds + 2 {
            for way in [true, false] {
                data.fill((rank + 1) as f32);
                communicator.barrier().expect("all come");
                let start = Instant::now();
                match way {
                    true => communicator
                        .all_reduce_slice(&mut data, Operation::Sum)
                        .expect("all call it"),
                    false => attach.all_reduce(&mut data),
                }
                let mut took = [start.elapsed().as_secs_f64() * 1e6];
                assert!(
                    data.iter()
                        .all(|value| *value == (ranks * (ranks + 1) / 2) as f32)
                );
                communicator
                    .all_reduce_slice(&mut took, Operation::Max)
                    .expect("all call it");
                if round >= 2 {
                    if way { &mut by_window } else { &mut by_attach }.push(took[0]);
                }
            }
        }
        let median = |times: &mut Vec<f64>| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        };
        let (window, attached) = (median(&mut by_window), median(&mut by_attach));
        if rank == 0 {
            println!(
                "{bytes:>10} {window:>12.1} {attached:>12.1} {:>9.2}",
                attached / window
            );
        }
    }
}

/// All-reduce by reading the other ranks' memory through the kernel.
struct Attach<'a> {
    communicator: &'a Communicator,
    /// By rank: process and first byte.
    peers: Vec<(i32, usize)>,
    kernel: Kernel,
    /// A piece for each other rank.
    pieces: Vec<Vec<f32>>,
}

impl<'a> Attach<'a> {
    fn new(communicator: &'a Communicator) -> Self {
        let others = communicator.size() as usize - 1;
        Self {
            communicator,
            peers: Vec::new(),
            kernel: kernel(DataType::F32, Operation::Sum),
            pieces: vec![vec![0.0; PIECE / 4]; others],
        }
    }

    /// Tells the others where this rank's memory is.
    fn meet(&mut self, address: usize) {
        let mut mine = Vec::new();
        mine.extend(std::process::id().to_le_bytes());
        mine.extend(address.to_le_bytes());
        let all = self
            .communicator
            .all_gather_bytes("telling where memory is", &mine)
            .expect("all come");
        let peer = |bytes: &Vec<u8>| {
            let pid = i32::from_le_bytes(bytes[..4].try_into().expect("four bytes"));
            let address = usize::from_le_bytes(bytes[4..].try_into().expect("eight bytes"));
            (pid, address)
        };
        self.peers = all.iter().map(peer).collect();
    }

    fn read(&self, rank: usize, at: usize, into: *mut u8, bytes: usize) {
        let (pid, address) = self.peers[rank];
        let here = libc::iovec {
            iov_base: into.cast(),
            iov_len: bytes,
        };
        let there = libc::iovec {
            iov_base: (address + at) as *mut _,
            iov_len: bytes,
        };
        // SAFETY: `into` has so many bytes, and the kernel checks the other side.
        let moved = unsafe { libc::process_vm_readv(pid, &here, 1, &there, 1, 0) };
        assert_eq!(moved, bytes as isize, "{}", std::io::Error::last_os_error());
    }

    fn all_reduce(&mut self, data: &mut [f32]) {
        let (rank, ranks) = (
            self.communicator.rank() as usize,
            self.communicator.size() as usize,
        );
        let len = data.len();
        let share = |rank: usize| len * rank / ranks..len * (rank + 1) / ranks;
        let base = data.as_mut_ptr();
        self.communicator.barrier().expect("all come");
        let mut mine = share(rank);
        while !mine.is_empty() {
            let count = mine.len().min(PIECE / 4);
            // SAFETY: within the share.
            let own = unsafe { base.add(mine.start) }.cast::<u8>();
            let mut sources = vec![own.cast_const()];
            let pieces: Vec<*mut u8> = self
                .pieces
                .iter_mut()
                .map(|piece| piece.as_mut_ptr().cast())
                .collect();
            for (piece, peer) in pieces.into_iter().zip((0..ranks).filter(|peer| *peer != rank)) {
                self.read(peer, mine.start * 4, piece, count * 4);
                sources.push(piece.cast_const());
            }
            // SAFETY: all have so many elements; the result is exactly the first source.
            unsafe { (self.kernel)(own, &sources, count, 1) };
            mine.start += count;
        }
        self.communicator.barrier().expect("all come");
        for further in 1..ranks {
            let peer = (rank + further) % ranks;
            let theirs = share(peer);
            // SAFETY: within the vector.
            let into = unsafe { base.add(theirs.start) }.cast::<u8>();
            self.read(peer, theirs.start * 4, into, theirs.len() * 4);
        }
        self.communicator.barrier().expect("all come");
    }
}
