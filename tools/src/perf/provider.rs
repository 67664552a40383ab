//! Opens the fabric that a test runs over. The only file of the tests that knows providers by name.

use std::str::FromStr;
use std::sync::Arc;

use sapwood::fabric::shm::Shm;
use sapwood::fabric::tcp::{self, Tcp};
use sapwood::fabric::verbs::{LinkLayer, Mtu, Settings, Verbs};
use sapwood::fabric::{Fabric, FabricError};

use super::arguments::PerfArguments;
use super::setup::Setup;
use super::test::Verb;
use crate::output::Failure;

/// The value of `--fabric`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// Verbs where a device can be used, else shm.
    Auto,
    Shm,
    Verbs,
    Tcp,
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "auto" => Ok(Self::Auto),
            "shm" => Ok(Self::Shm),
            "verbs" => Ok(Self::Verbs),
            "tcp" => Ok(Self::Tcp),
            _ => Err("no such fabric; auto, shm, verbs or tcp is needed".into()),
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
}

impl Provider {
    /// Opens what the flags ask for. `local_rank` says which of two sides on one host this is.
    ///
    /// # Errors
    /// What they name is not there or cannot be used.
    pub(super) fn open(arguments: &PerfArguments, setup: &Setup, local_rank: u32) -> Result<Self, Failure> {
        let refuse = |error: FabricError| Failure::Arguments(error.to_string());
        match arguments.fabric {
            Choice::Shm => Self::open_shm(arguments, setup),
            Choice::Tcp => Self::open_tcp(arguments, setup),
            Choice::Verbs => Self::open_verbs(arguments, setup, local_rank).map_err(refuse),
            Choice::Auto => match Self::open_verbs(arguments, setup, local_rank) {
                // Who names a device wants that one or an error.
                Err(error) if arguments.ib_dev.is_empty() => {
                    tracing::info!(%error, "no device can be used");
                    let mut provider = Self::open_shm(arguments, setup)?;
                    provider.remarks.insert(
                        0,
                        "over shm, as no RDMA device can be used here ('sapwood devices' says why)".into(),
                    );
                    Ok(provider)
                }
                opened => opened.map_err(refuse),
            },
        }
    }

    fn open_verbs(arguments: &PerfArguments, setup: &Setup, local_rank: u32) -> Result<Self, FabricError> {
        let settings = settings(arguments, setup, local_rank)?;
        let labels = match arguments.flow_label.as_slice() {
            [] => &[settings.flow_label][..],
            labels => &labels[..labels.len().min(setup.queue_pairs)],
        };
        let mut opened = Vec::with_capacity(labels.len());
        for flow_label in labels {
            opened.push(Verbs::open(&Settings {
                flow_label: *flow_label,
                ..settings.clone()
            })?);
        }
        let choice = opened[0].choice();
        let facts = Facts {
            device: Some(choice.device.clone()),
            port: Some(choice.port),
            transport: Some("IB".into()),
            link: Some(choice.link_layer.to_string()),
            gid: Some(choice.gid.to_string()),
            gid_index: (choice.link_layer == LinkLayer::Ethernet || choice.global_route)
                .then_some(choice.gid.index),
            mtu: Some(
                settings
                    .mtu
                    .map_or(choice.active_mtu, |most| most.min(choice.active_mtu))
                    .bytes(),
            ),
            inline: setup
                .sends_data()
                .then(|| opened[0].capabilities().inline_size as u32),
        };
        let fabrics = opened
            .into_iter()
            .map(|verbs| Arc::new(verbs) as Arc<dyn Fabric>)
            .collect();
        Ok(Self {
            fabrics,
            facts,
            remarks: Vec::new(),
        })
    }

    fn open_shm(arguments: &PerfArguments, setup: &Setup) -> Result<Self, Failure> {
        let shm = Shm::options().receiver_patience(setup.timeout).open();
        let shm = shm.map_err(|error| Failure::Arguments(error.to_string()))?;
        Ok(Self::without_device(Arc::new(shm), arguments))
    }

    fn open_tcp(arguments: &PerfArguments, setup: &Setup) -> Result<Self, Failure> {
        let refuse = |error: FabricError| Failure::Arguments(error.to_string());
        let mut settings = tcp::Settings::from_environment().map_err(|error| refuse(error.into()))?;
        settings.receiver_patience = setup.timeout;
        let tcp = Tcp::open(settings).map_err(refuse)?;
        Ok(Self::without_device(Arc::new(tcp), arguments))
    }

    fn without_device(fabric: Arc<dyn Fabric>, arguments: &PerfArguments) -> Self {
        let flags = flags_of_devices(arguments);
        let remarks = match flags.is_empty() {
            true => Vec::new(),
            false => vec![format!(
                "the {} fabric has no use for {}",
                fabric.name(),
                flags.join(", ")
            )],
        };
        Self {
            fabrics: vec![fabric],
            facts: Facts::default(),
            remarks,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        self.fabrics[0].name()
    }
}

/// The environment's settings, with perftest's defaults where those differ and nobody has said otherwise, and the flags.
fn settings(arguments: &PerfArguments, setup: &Setup, local_rank: u32) -> Result<Settings, FabricError> {
    let mut settings = Settings::from_environment()?;
    let unset =
        |name: &str| std::env::var_os(format!("SAPWOOD_VERBS_{name}")).is_none_or(|value| value.is_empty());
    settings.local_rank = local_rank as usize;
    if unset("TIMEOUT") {
        settings.timeout = 14;
    }
    if unset("QUEUE_DEPTH") {
        settings.queue_depth = setup.queue_depth();
    }
    if unset("READ_DEPTH") {
        // What the device allows.
        settings.read_depth = u8::MAX;
    }
    if unset("RELAXED_ORDERING") && setup.test.is_latency() && setup.test.verb == Verb::Write {
        // Else a write's last byte would say nothing, and every write needed an immediate.
        settings.relaxed_ordering = false;
    }
    if unset("INLINE_SIZE") {
        settings.inline_size = match (setup.test.is_latency(), setup.test.verb) {
            (true, Verb::Write) => 220,
            (true, Verb::Send) => 236,
            _ => 0,
        };
    }
    if !arguments.ib_dev.is_empty() {
        settings.devices.clone_from(&arguments.ib_dev);
    }
    settings.port = arguments.ib_port.or(settings.port);
    settings.gid_index = arguments.gid_index.map(u32::from).or(settings.gid_index);
    settings.service_level = arguments.sl.unwrap_or(settings.service_level);
    settings.timeout = arguments.qp_timeout.unwrap_or(settings.timeout);
    settings.traffic_class = arguments.tclass.unwrap_or(settings.traffic_class);
    settings.inline_size = setup.inline.unwrap_or(settings.inline_size);
    // Its parser lets only sizes through that there are.
    settings.mtu = arguments
        .mtu
        .and_then(|bytes| Mtu::try_from(bytes).ok())
        .or(settings.mtu);
    Ok(settings)
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
