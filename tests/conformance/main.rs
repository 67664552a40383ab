//! What every fabric has to do, as cases that know nothing of providers, run by ranks that are threads and by ranks
//! that are processes. A new provider is a folder in `src/fabric/`, and a line in `providers/mod.rs` here.
//!
//! The suite is itself under test: `providers/defective.rs` breaks a provider in one way at a time, and the case that
//! is there for it must fail. A case that a provider's capabilities rule out is listed as ignored, with the reason.

mod cases;
mod line;
mod link;
mod member;
mod providers;
mod runner;

use libtest_mimic::{Arguments, Failed, Trial};

use crate::cases::Case;
use crate::runner::{Mode, Run};

fn main() {
    runner::record_panics();
    if let Some(run) = Run::from_environment() {
        std::process::exit(run.play());
    }
    let mut trials = Vec::new();
    for provider in providers::all() {
        let missing = (provider.missing)();
        if let Some(why) = &missing {
            eprintln!("SKIPPED: all cases of {}: {why}", provider.name);
        }
        let fabric = missing.is_none().then(|| provider.open());
        for case in cases::all() {
            for mode in case.modes {
                let skip = match &fabric {
                    None => Some("cannot be opened here"),
                    Some(fabric) => (case.needs)(&**fabric).err(),
                };
                let mut name = format!("{}::{mode:?}::{}", provider.name, case.name);
                if let Some(why) = skip {
                    name = format!("{name} (skipped: {why})");
                }
                let run = Run::new(provider.name, case.name, *mode);
                let trial = Trial::test(name, move || run.run().map_err(Failed::from));
                trials.push(trial.with_ignored_flag(skip.is_some()));
            }
        }
    }
    for (defect, case, mode) in providers::defective::expected_failures() {
        let name = format!("defect::{defect}::fails::{case}");
        trials.push(Trial::test(name, move || must_fail(defect, case, mode)));
    }
    let mut arguments = Arguments::from_args();
    // Most of them wait: so many at a time that processors are busy, whatever is best for other tests.
    if !std::env::args().any(|argument| argument.starts_with("--test-threads")) {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        arguments.test_threads = Some(cores.max(6));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn must_fail(defect: &'static str, case: &'static str, mode: Mode) -> Result<(), Failed> {
    // The case itself must be sound, or its failure would prove nothing.
    Run::new("shm", case, mode).run()?;
    match Run::new(defect, case, mode).impatient().run() {
        Ok(()) => Err(format!("a provider with the defect {defect:?} passed {case:?}").into()),
        Err(message) => {
            println!(
                "{defect} was found by {case}: {}",
                message.lines().next().unwrap_or("")
            );
            Ok(())
        }
    }
}

/// Finds a case by its name.
fn case(name: &str) -> Case {
    cases::all()
        .into_iter()
        .find(|case| case.name == name)
        .unwrap_or_else(|| panic!("there is no case {name:?}"))
}
