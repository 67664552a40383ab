//! A persistent collective that was run before allocates nothing when it is started, moved on and waited for, and makes
//! no system call while nobody has to wait, whatever the ranks reach each other by. Both ranks are driven by one thread,
//! in turn: so neither ever sleeps for the other, and what is counted is what the path itself does.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use sapwood::communicator::{Communicator, Pair, Persistent, Request};
use sapwood::engine::reduce::Operation;

#[path = "ranks/mod.rs"]
mod support;

use support::{REACHES, Reach, with};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
}

// SAFETY: everything is done by the system's allocator; counting touches a constant-initialised thread-local cell
// without a destructor, which allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count();
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's contract.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const RANKS: u32 = 2;
/// Elements that each rank has for each other: several chunks.
const COUNT: usize = 70_000;

const REQUESTS: usize = 8;

fn requests() -> [Request; REQUESTS] {
    [
        Request::all_reduce(Operation::Sum),
        Request::reduce(Operation::pre_multiplied_sum(0.5), 1),
        Request::broadcast(1),
        Request::reduce_scatter(Operation::Average),
        Request::all_gather(),
        Request::gather(0),
        Request::scatter(0),
        Request::all_to_all(),
    ]
}

/// One rank with everything that it starts.
struct Rank {
    communicator: Communicator,
    lasting: Vec<Persistent<Pair<f32>>>,
}

fn set_up(reach: Reach) -> Vec<Rank> {
    with(RANKS, reach.builder(), |communicator| {
        let lasting = requests().map(|request| {
            let (short, long) = (COUNT, COUNT * RANKS as usize);
            let (input, result) = match request.name() {
                "reduce-scatter" | "scatter" => (long, short),
                "all-gather" | "gather" => (short, long),
                _ => (long, long),
            };
            let (input, result) = (
                communicator.window(input).unwrap(),
                communicator.window(result).unwrap(),
            );
            communicator.persistent_into(&request, input, result).unwrap()
        });
        Rank {
            communicator,
            lasting: lasting.into(),
        }
    })
}

/// Starts everything and moves it to its end, a few times; says whether all ended well.
fn run(ranks: &mut [Rank], rounds: usize) -> bool {
    for _ in 0..rounds {
        for index in 0..REQUESTS {
            for rank in ranks.iter_mut() {
                if rank.lasting[index].start(&rank.communicator).is_err() {
                    return false;
                }
            }
            // More than it takes; each look at one rank moves what it can.
            let mut looks = 0;
            while ranks.iter().filter(|rank| rank.lasting[index].poll()).count() < ranks.len() {
                looks += 1;
                if looks > 1_000_000 {
                    return false;
                }
            }
            for rank in ranks.iter_mut() {
                if rank.lasting[index].wait().is_err() {
                    return false;
                }
            }
        }
    }
    true
}

#[test]
fn starting_again_allocates_nothing() {
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(Box::new(1)));
    assert!(ALLOCATIONS.get() > before, "the allocator does not count");
    for reach in REACHES {
        let mut ranks = set_up(reach);
        assert!(run(&mut ranks, 3), "{reach:?}");
        let before = ALLOCATIONS.get();
        assert!(run(&mut ranks, 20), "{reach:?}");
        assert_eq!(ALLOCATIONS.get() - before, 0, "{reach:?}");
    }
}

/// The role of a child of the test below, in its environment.
#[cfg(target_arch = "x86_64")]
const CONFINED: &str = "SAPWOOD_TEST_CONFINED";

#[test]
#[cfg(target_arch = "x86_64")]
#[cfg_attr(sanitized, ignore = "the address sanitizer makes system calls of its own")]
fn starting_again_makes_no_system_call() {
    use std::os::unix::process::ExitStatusExt;
    if let Ok(role) = std::env::var(CONFINED) {
        confined(&role);
    }
    for role in ["mapped", "messages", "disobedient"] {
        let name = "starting_again_makes_no_system_call";
        let output = std::process::Command::new(std::env::current_exe().expect("this program"))
            .args([name, "--exact", "--nocapture"])
            .env(CONFINED, role)
            .output()
            .expect("this program runs again");
        let said = String::from_utf8_lossy(&output.stderr);
        let status = output.status;
        match role {
            // That the confinement works at all.
            "disobedient" => assert_eq!(status.signal(), Some(libc::SIGSYS), "{status}: {said}"),
            _ => assert_eq!(
                status.code(),
                Some(0),
                "{role}: {status} (signal {} is a forbidden system call): {said}",
                libc::SIGSYS
            ),
        }
    }
}

/// Gives up every system call but ending, then starts everything again.
#[cfg(target_arch = "x86_64")]
fn confined(role: &str) -> ! {
    let reach = if role == "messages" {
        Reach::Messages
    } else {
        Reach::Mapped
    };
    let mut ranks = set_up(reach);
    let warm = run(&mut ranks, 3);
    forbid_system_calls();
    if role == "disobedient" {
        // SAFETY: no arguments.
        unsafe { libc::syscall(libc::SYS_getppid) };
    }
    let well = run(&mut ranks, 20);
    // SAFETY: ends this process at once.
    unsafe { libc::_exit(i32::from(!(warm && well))) }
}

/// From here on this thread may end the process and read the clock, which is a system call only where the kernel
/// gives programs no clock of their own. Everything else kills the process.
#[cfg(target_arch = "x86_64")]
fn forbid_system_calls() {
    let word = |code: u32, jt, k| libc::sock_filter {
        code: code as u16,
        jt,
        jf: 0,
        k,
    };
    let (load, give) = (
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        libc::BPF_RET | libc::BPF_K,
    );
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    // Offset 0 of what the filter sees is the number of the call.
    let mut program = [
        word(load, 0, 0),
        word(equal, 3, libc::SYS_exit_group as u32),
        word(equal, 2, libc::SYS_exit as u32),
        word(equal, 1, libc::SYS_clock_gettime as u32),
        word(give, 0, libc::SECCOMP_RET_KILL_PROCESS),
        word(give, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the filter lives until the call has copied it.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let result = libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter);
        assert_eq!(result, 0, "seccomp: {}", std::io::Error::last_os_error());
    }
}
