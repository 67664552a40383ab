//! Two processes, each with one queue pair: ours made by `sapwood::fabric::verbs`, theirs by the `ibverbs` crate, which
//! shares no line with it. Ours starts theirs and drives it over a pipe; what moves is checked at both ends.
//!
//! `ibverbs-peer ours OUR_DEVICE THEIR_DEVICE GID_INDEX`

mod operations;
mod ours;
mod theirs;
mod words;

use std::process::ExitCode;
use std::time::Duration;

/// How long anything may take: an emulated machine is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whatever went wrong, in words.
type Outcome<T> = Result<T, String>;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let (who, outcome) = match arguments[..] {
        ["ours", our_device, their_device, index] => ("ours", ours::run(our_device, their_device, index)),
        ["theirs", device, index] => ("theirs", theirs::run(device, index)),
        _ => {
            eprintln!("usage: ibverbs-peer ours OUR_DEVICE THEIR_DEVICE GID_INDEX");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("ibverbs-peer, {who}: {why}");
            ExitCode::FAILURE
        }
    }
}
