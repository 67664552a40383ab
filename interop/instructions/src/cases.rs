//! What is measured: messages through `dyn Endpoint`, signalled and reaped.

use sapwood::fabric::{Completion, Endpoint, Operation, Request, Status};

use crate::stub_driver::Pair;

/// How often each case is done.
const ROUNDS: u64 = 10_000;

/// How often it is done beforehand.
const WARM: u64 = 10;

/// One way of posting.
struct Case {
    name: &'static str,
    /// Bytes of one message.
    bytes: usize,
    /// Whether it is a read; else a write.
    read: bool,
    /// Posted together, of which the last is reported.
    together: u64,
}

const CASES: [Case; 4] = [
    Case {
        name: "write-8-alone",
        bytes: 8,
        read: false,
        together: 1,
    },
    Case {
        name: "write-8-by-64",
        bytes: 8,
        read: false,
        together: 64,
    },
    Case {
        name: "write-64KiB-alone",
        bytes: 65_536,
        read: false,
        together: 1,
    },
    Case {
        name: "read-8-alone",
        bytes: 8,
        read: true,
        together: 1,
    },
];

fn find(name: &str) -> Result<&'static Case, String> {
    CASES.iter().find(|case| case.name == name).ok_or_else(|| {
        let known: Vec<_> = CASES.iter().map(|case| case.name).collect();
        format!("there is no case '{name}', but {}", known.join(", "))
    })
}

/// How many messages a case sends.
pub fn messages(name: &str) -> Result<u64, String> {
    Ok(ROUNDS * find(name)?.together)
}

/// Does a case.
pub fn run(name: &str) -> Result<(), String> {
    let case = find(name)?;
    let mut pair = Pair::connected(1);
    let requests: Vec<_> = (0..case.together)
        .map(|id| Request {
            id,
            operation: operation(&pair, case),
            signaled: id + 1 == case.together,
        })
        .collect();
    let mut completions = Vec::with_capacity(16);
    // A few beforehand: lazy binding, first touches, what the fabric learns of its caller.
    let warm: u64 = (0..WARM)
        .map(|_| unmeasured(&mut *pair.endpoint, &requests, &mut completions))
        .sum();
    let reaped = measured(&mut *pair.endpoint, &requests, &mut completions, ROUNDS);
    match warm == WARM && reaped == ROUNDS {
        true => Ok(()),
        false => Err(format!("{name}: {reaped} of {ROUNDS} rounds completed")),
    }
}

fn operation(pair: &Pair, case: &Case) -> Operation {
    let (local, remote) = (pair.slice(0, case.bytes), pair.there(64));
    match case.read {
        true => Operation::Read { local, remote },
        false => Operation::Write {
            local,
            remote,
            immediate: None,
        },
    }
}

/// The name of the function below.
pub const CALLER: &str = "measured";

/// Callgrind counts while this function runs: its name is given to `--toggle-collect`. Its own instructions are the
/// caller's, not the fabric's: they are left out, as the driver's are.
#[inline(never)]
#[unsafe(no_mangle)]
fn measured(
    endpoint: &mut dyn Endpoint,
    requests: &[Request],
    completions: &mut Vec<Completion>,
    rounds: u64,
) -> u64 {
    let mut reaped = 0;
    for _ in 0..rounds {
        reaped += round(endpoint, requests, completions);
    }
    reaped
}

#[inline(never)]
fn unmeasured(endpoint: &mut dyn Endpoint, requests: &[Request], completions: &mut Vec<Completion>) -> u64 {
    round(endpoint, requests, completions)
}

/// Posts, and polls until the last is reported; 1 if it succeeded.
#[inline(always)]
fn round(endpoint: &mut dyn Endpoint, requests: &[Request], completions: &mut Vec<Completion>) -> u64 {
    if endpoint.post(1, requests).is_err() {
        return 0;
    }
    loop {
        match endpoint.poll(completions) {
            Ok(0) => {}
            Ok(_) => break,
            // Taken out of the result, so that the compiler drops nothing where there is none.
            Err(error) => return u64::from(error.to_string().is_empty()),
        }
    }
    let success = matches!(
        completions[..],
        [Completion {
            status: Status::Success,
            ..
        }]
    );
    completions.clear();
    u64::from(success)
}
