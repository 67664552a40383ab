//! Compares the committed verbs bindings with those that the `rdma-sys` crate generates on this machine, partly writes by
//! hand, and that others use on devices: sizes, alignments, offsets and constants.

use std::process::ExitCode;

mod compared {
    #![allow(
        clippy::undocumented_unsafe_blocks,
        clippy::unnecessary_cast,
        reason = "generated: places are named and never read, and every number is cast to the same type"
    )]
    use std::mem::offset_of;

    use rdma_sys as theirs;
    use sapwood_sys::verbs::bindings as ours;

    /// Size and alignment of the field whose place the closure names. The closure is never called.
    fn of_field<T, F>(_: impl Fn(*const T) -> *const F) -> (usize, usize) {
        (size_of::<F>(), align_of::<F>())
    }

    include!(concat!(env!("OUT_DIR"), "/table.rs"));
}

fn main() -> ExitCode {
    let table = compared::table();
    let different: Vec<_> = table.iter().filter(|(_, ours, theirs)| ours != theirs).collect();
    for (what, ours, theirs) in &different {
        eprintln!("{what}: {ours} in our bindings, {theirs} in rdma-sys");
    }
    println!(
        "rdma-sys-oracle: {} facts compared, {} differ",
        table.len(),
        different.len()
    );
    match different.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
