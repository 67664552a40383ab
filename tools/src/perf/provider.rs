//! Opens the fabric that a test runs over. The only file of the tests that knows providers by name.

use std::str::FromStr;
use std::sync::Arc;

use sapwood::fabric::Fabric;
use sapwood::fabric::shm::Shm;

use super::arguments::PerfArguments;
use super::setup::Setup;
use crate::output::Failure;

/// The value of `--fabric`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Auto,
    Shm,
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "auto" => Ok(Self::Auto),
            "shm" => Ok(Self::Shm),
            "verbs" | "tcp" => Err("not built yet; auto or shm is needed".into()),
            _ => Err("no such fabric; auto or shm is needed".into()),
        }
    }
}

/// An open fabric, and what people want to know of it.
pub(super) struct Provider {
    /// One for each flow label that was given, else one: queue pairs take them in turn.
    pub(super) fabrics: Vec<Arc<dyn Fabric>>,
    pub(super) facts: Facts,
    /// Sentences for people: what could not be honoured.
    pub(super) remarks: Vec<String>,
}

/// What the header says of the fabric; `None` where it has no such thing.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) device: Option<String>,
    pub(super) port: Option<u8>,
    pub(super) transport: Option<String>,
    pub(super) link: Option<String>,
    pub(super) gid: Option<String>,
    pub(super) gid_index: Option<u32>,
    pub(super) mtu: Option<u32>,
    /// Messages up to so many bytes are posted inline.
    pub(super) inline: Option<u32>,
    /// Of each queue pair, and of its other end.
    pub(super) local: Vec<String>,
    pub(super) remote: Vec<String>,
}

impl Provider {
    /// Opens what the flags ask for.
    ///
    /// # Errors
    /// What they name is not there or cannot be used.
    pub(super) fn open(arguments: &PerfArguments, setup: &Setup) -> Result<Self, Failure> {
        match arguments.fabric {
            Choice::Auto | Choice::Shm => Self::open_shm(arguments, setup),
        }
    }

    fn open_shm(arguments: &PerfArguments, setup: &Setup) -> Result<Self, Failure> {
        let shm = Shm::options().receiver_patience(setup.timeout).open();
        let shm = shm.map_err(|error| Failure::Arguments(error.to_string()))?;
        let mut provider = Self {
            fabrics: vec![Arc::new(shm)],
            facts: Facts::default(),
            remarks: Vec::new(),
        };
        let flags = flags_of_devices(arguments);
        if !flags.is_empty() {
            provider
                .remarks
                .push(format!("the shm fabric has no use for {}", flags.join(", ")));
        }
        Ok(provider)
    }

    pub(super) fn name(&self) -> &'static str {
        self.fabrics[0].name()
    }
}

/// The flags given that only a device understands.
fn flags_of_devices(arguments: &PerfArguments) -> Vec<&'static str> {
    let given = [
        ("-d", !arguments.ib_dev.is_empty()),
        ("-i", arguments.ib_port.is_some()),
        ("-x", arguments.gid_index.is_some()),
        ("-m", arguments.mtu.is_some()),
        ("-S", arguments.sl.is_some()),
        ("-u", arguments.qp_timeout.is_some()),
        ("-I", arguments.inline_size.is_some()),
        ("--tclass", arguments.tclass.is_some()),
        ("--flow_label", !arguments.flow_label.is_empty()),
    ];
    given
        .into_iter()
        .filter_map(|(flag, given)| given.then_some(flag))
        .collect()
}
