//! Counts the instructions that a message costs from the fabric's own interface to the driver and back, the driver left
//! out.
//!
//! `instructions run CASE` posts and polls, for callgrind to look at; `instructions report FILE [LIMIT]` reads what callgrind
//! wrote, and fails above the limit.

mod callgrind;
mod cases;
#[path = "../../../tests/stub_driver/mod.rs"]
mod stub_driver;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        ["run", case] => cases::run(case),
        ["report", case, file] => report(case, file, None),
        ["report", case, file, limit] => match limit.parse() {
            Ok(limit) => report(case, file, Some(limit)),
            Err(_) => Err(format!("'{limit}' is not a limit")),
        },
        _ => Err("usage: instructions run CASE | instructions report CASE FILE [LIMIT]".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("instructions: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the figures of one case, and where they come from.
fn report(case: &str, file: &str, limit: Option<u64>) -> Result<(), String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let profile = callgrind::Profile::read(&text)?;
    let messages = cases::messages(case)?;
    let [instructions, locked] = profile.without(&stub_driver::MEASURED, cases::CALLER)?;
    let each = instructions.div_ceil(messages);
    println!(
        "{case}: {each} instructions a message ({instructions} in {messages}), {} locked ones",
        tenths(locked, messages)
    );
    for (name, own) in profile.heaviest(&stub_driver::MEASURED).iter().take(12) {
        println!("    {:>6}  {name}", tenths(*own, messages));
    }
    match limit {
        Some(limit) if each > limit => Err(format!(
            "{case}: {each} instructions a message, {limit} are allowed"
        )),
        _ => Ok(()),
    }
}

/// A quotient with one digit behind the point.
fn tenths(sum: u64, count: u64) -> String {
    let tenths = (sum * 10).div_ceil(count);
    format!("{}.{}", tenths / 10, tenths % 10)
}
