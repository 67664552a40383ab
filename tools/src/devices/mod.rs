//! `sapwood devices`: what RDMA devices there are, and which one Sapwood takes. Looks and prints; changes nothing.

mod document;
mod tables;

use std::process::ExitCode;

use sapwood::fabric::verbs::{Inventory, Settings, choose, inventory};

use crate::output::{Failure, Output};
use document::{Chosen, Document};

const EXAMPLE: &str = "\
Examples:
  sapwood devices
  sapwood devices --counters --json devices.json

The device, port and GID that Sapwood would take here are marked with '*', with the reason below; SAPWOOD_VERBS_DEVICE,
_PORT, _GID_INDEX and _SUBNET change what it takes.
Exits with 0 if everything that is there could be looked at, no device included; 1 if libibverbs is missing or a device
could not be opened; 2 on bad arguments.";

/// Lists RDMA devices, ports and GIDs, and says which of them would be used and why
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct DevicesArguments {
    /// Also show the ports' counters that are not 0
    #[arg(long)]
    counters: bool,
    /// Also write everything, counters included, as JSON to a file, or to standard output with '-'
    #[arg(long, value_name = "FILE")]
    json: Option<String>,
}

/// Lists.
pub fn run(arguments: &DevicesArguments) -> Result<ExitCode, Failure> {
    let settings = Settings::from_environment().map_err(|error| Failure::Arguments(error.to_string()))?;
    let mut output = Output::open(arguments.json.as_deref())?;
    let inventory = match inventory() {
        Ok(inventory) => inventory,
        Err(error) => {
            output.json(&Document::unknown(error.to_string()))?;
            return Err(Failure::Check(error.to_string()));
        }
    };
    let chosen = choose(&inventory, &settings);
    let problems = problems(&inventory);
    output.text(&tables::devices(&inventory, chosen.as_ref().ok()));
    if arguments.counters {
        output.text(&tables::counters(&inventory));
    }
    output.text(&match &chosen {
        Ok(choice) => format!("\n* is what Sapwood takes: {choice}\n"),
        Err(error) => format!("\nSapwood takes none: {error}\n"),
    });
    for problem in &problems {
        output.text(&format!("{problem}\n"));
    }
    output.json(&Document::of(
        &inventory,
        chosen.as_ref().map(Chosen::from).map_err(ToString::to_string),
    ))?;
    match problems.len() {
        0 => Ok(ExitCode::SUCCESS),
        1 => Err(Failure::Check(
            "a device could not be looked at; see above".into(),
        )),
        count => Err(Failure::Check(format!(
            "{count} devices could not be looked at; see above"
        ))),
    }
}

/// What could not be looked at, a sentence each.
fn problems(inventory: &Inventory) -> Vec<String> {
    let unopened = inventory.devices.iter().filter_map(|device| {
        device
            .error
            .as_ref()
            .map(|error| format!("device {}: {error}", device.name))
    });
    let without_driver = inventory.without_driver.iter().map(|device| {
        format!("device {device}: libibverbs has no driver for it (Debian has them in ibverbs-providers)")
    });
    unopened.chain(without_driver).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_looked_at_is_named() {
        let mut inventory = tables::tests::two_devices();
        assert!(problems(&inventory).is_empty());
        inventory.devices[1].error = Some("no permission".into());
        inventory.without_driver.push("x0".into());
        let said = problems(&inventory);
        assert!(
            said[0].contains("r1: no permission") && said[1].contains("x0"),
            "{said:?}"
        );
    }
}
