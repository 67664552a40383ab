//! What a path does that it should not: an allocator that counts, and a thread that may make no system call.

#![allow(dead_code, reason = "not every test file uses all of it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

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

/// How often this thread allocates, grows or gives back memory during the call. Looks first whether that is counted.
pub fn allocations(call: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(Box::new(1)));
    assert!(ALLOCATIONS.get() > before, "the allocator does not count");
    let before = ALLOCATIONS.get();
    call();
    ALLOCATIONS.get() - before
}

/// From here on this thread may end the process and read the clock, which is a system call only where the kernel
/// gives programs no clock of their own. Everything else kills the process.
#[cfg(target_arch = "x86_64")]
pub fn forbid_system_calls() {
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

/// Runs this program's test `name` again with `variable` set to `role`.
pub fn again(name: &str, variable: &str, role: &str) -> std::process::Output {
    std::process::Command::new(std::env::current_exe().expect("this program"))
        .args([name, "--exact", "--nocapture"])
        .env(variable, role)
        .output()
        .expect("this program runs again")
}

/// For a child that shows that it is confined at all: a system call that is forbidden.
#[cfg(target_arch = "x86_64")]
pub fn disobey() {
    // SAFETY: no arguments.
    unsafe { libc::syscall(libc::SYS_getppid) };
}

/// Ends the process at once, which is all that it may do.
pub fn leave(well: bool) -> ! {
    // SAFETY: no memory is involved.
    unsafe { libc::_exit(i32::from(!well)) }
}
