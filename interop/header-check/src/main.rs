//! Compares the committed verbs bindings with the system's `infiniband/verbs.h`: size and alignment of every type, offset,
//! size and alignment of every field, every constant, every function's prototype. Compiles a C program with `$CC`
//! (default `cc`), runs it and compares what it prints with what Rust says. Judges nothing by what is absent: no
//! compiler, no header or a missing line is a failure.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::{env, fs};

mod ours {
    #![allow(
        clippy::undocumented_unsafe_blocks,
        clippy::unnecessary_cast,
        reason = "generated: places are named and never read, and every number is cast to the same type"
    )]
    use sapwood_sys::verbs::bindings::*;
    use std::mem::offset_of;

    /// Size and alignment of the field whose place the closure names. The closure is never called.
    fn of_field<T, F>(_: impl Fn(*const T) -> *const F) -> (usize, usize) {
        (size_of::<F>(), align_of::<F>())
    }

    include!(concat!(env!("OUT_DIR"), "/ours.rs"));
}

const PROGRAM: &str = include_str!(concat!(env!("OUT_DIR"), "/theirs.c"));

fn main() -> ExitCode {
    match run() {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("header-check: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<String, String> {
    let ours: BTreeMap<_, _> = ours::ours().into_iter().collect();
    let scratch = env::temp_dir().join(format!("header-check-{}", std::process::id()));
    fs::create_dir(&scratch).map_err(|error| format!("{}: {error}", scratch.display()))?;
    let theirs = header(&scratch);
    // Best effort: what stays behind is a few kilobytes in the folder for such things.
    let _ = fs::remove_dir_all(&scratch);
    let printed = theirs?;
    let theirs = parse(&printed)?;

    let differences = compare(&ours, &theirs);
    if !differences.is_empty() {
        return Err(format!(
            "the bindings and the header differ in {} of {} facts:\n  {}\n(bindings: sys/src/verbs; a newer header is \
             followed with sys/generate)",
            differences.len(),
            ours.len(),
            differences.join("\n  ")
        ));
    }
    falsify(&ours, &theirs)?;
    let of = |kind: &str| ours.keys().filter(|key| key.starts_with(kind)).count();
    Ok(format!(
        "header-check: {} facts agree: {} sizes, {} alignments, {} offsets, {} signs, {} constants, {} prototypes; each \
         falsified in turn was found",
        ours.len(),
        of("size of"),
        of("alignment of"),
        of("offset of"),
        of("sign of"),
        of("value of"),
        of("prototype of"),
    ))
}

/// What the header says, by a program compiled against it.
fn header(scratch: &Path) -> Result<String, String> {
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let (source, program) = (scratch.join("theirs.c"), scratch.join("theirs"));
    fs::write(&source, PROGRAM).map_err(|error| format!("{}: {error}", source.display()))?;
    let compiled = Command::new(&compiler)
        .args(["-std=gnu11", "-o"])
        .args([&program, &source])
        .output()
        .map_err(|error| format!("cannot run {compiler} (a C compiler is needed): {error}"))?;
    if !compiled.status.success() {
        return Err(format!(
            "{compiler} cannot compile the table against the system's infiniband/verbs.h (Debian has it in \
             libibverbs-dev):\n{}",
            String::from_utf8_lossy(&compiled.stderr)
        ));
    }
    let ran = Command::new(&program)
        .output()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    match ran.status.success() {
        true => String::from_utf8(ran.stdout).map_err(|error| error.to_string()),
        false => Err(format!("the compiled table ended with {}", ran.status)),
    }
}

fn parse(printed: &str) -> Result<BTreeMap<&str, i128>, String> {
    printed
        .lines()
        .map(|line| {
            let (key, value) = line.split_once(" = ").ok_or(line)?;
            Ok((key, value.parse().map_err(|_| line)?))
        })
        .collect::<Result<_, &str>>()
        .map_err(|line| format!("the compiled table printed a line that is none of its own: {line}"))
}

/// What only one side has, and what the sides say differently.
fn compare(ours: &BTreeMap<&str, i128>, theirs: &BTreeMap<&str, i128>) -> Vec<String> {
    let both = ours.iter().filter_map(|(key, our)| match theirs.get(key) {
        None => Some(format!("{key}: the header's table lacks it")),
        Some(their) if our != their => Some(format!("{key}: {our} in the bindings, {their} in the header")),
        Some(_) => None,
    });
    let only_theirs = theirs
        .keys()
        .filter(|key| !ours.contains_key(*key))
        .map(|key| format!("{key}: the bindings' table lacks it"));
    both.chain(only_theirs).collect()
}

/// Changes one fact after the other: the comparison must name that one and nothing else.
fn falsify(ours: &BTreeMap<&'static str, i128>, theirs: &BTreeMap<&str, i128>) -> Result<(), String> {
    let mut changed = ours.clone();
    for (key, value) in ours {
        changed.insert(key, value + 1);
        match &compare(&changed, theirs)[..] {
            [one] if one.starts_with(key) => {}
            other => return Err(format!("'{key}' was changed, and the comparison found {other:?}")),
        }
        changed.insert(key, *value);
    }
    Ok(())
}
