//! What can be set about the verbs fabric, and the one place where the environment is read for it. Decides nothing:
//! what is left open here is chosen by `choose`.

use std::str::FromStr;

use super::VerbsError;
use super::gid::Subnet;
use super::mtu::Mtu;

/// How the verbs fabric is opened. Everything has a default that works on a well-kept network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Devices to choose from, as `mlx5_0` or, with a port, `mlx5_0:1`; a rank takes `devices[local_rank % len]`.
    /// Empty: all of them are looked at.
    pub devices: Vec<String>,
    /// Which of the ranks on its host this one is: spreads them over devices that are equally good.
    pub local_rank: usize,
    /// The port, from 1.
    pub port: Option<u8>,
    /// The entry of the port's GID table.
    pub gid_index: Option<u32>,
    /// Only GIDs whose address lies in it.
    pub subnet: Option<Subnet>,
    /// Queue pairs for each connection, between which large transfers are striped; 1 to 64.
    pub queue_pairs: usize,
    /// Requests, and receives, that one queue pair holds; the device may allow fewer.
    pub queue_depth: usize,
    /// The largest message whose bytes are taken at the post; the device may allow fewer.
    pub inline_size: usize,
    /// The traffic class (on RoCE v2 the DSCP in its upper six bits).
    pub traffic_class: u8,
    /// The service level (on RoCE the priority), 0 to 15.
    pub service_level: u8,
    /// The flow label, of 20 bits; on RoCE v2 it decides the UDP source port, and 0 lets the driver pick one.
    pub flow_label: u32,
    /// Packets a router may pass on, for RoCE v2 and global routes.
    pub hop_limit: u8,
    /// The partition key; without one, entry 0 of the port's table.
    pub partition_key: Option<u16>,
    /// An upper limit for the path MTU.
    pub mtu: Option<Mtu>,
    /// How long an acknowledgement may take before a packet is sent again: 4.096 µs · 2^timeout; 0 is forever.
    pub timeout: u8,
    /// How often a packet is sent again before the peer is taken for gone, 0 to 7. Soft-RoCE takes 7 to be without
    /// end, and a peer that is gone is never noticed.
    pub retry_count: u8,
    /// How often a message is sent again that found no receive, 0 to 6; 7 is without end.
    pub receiver_retry: u8,
    /// How long the sender of such a message is told to wait: a code of 5 bits (12 is 0.64 ms, 0 is 655 ms).
    pub receiver_timer: u8,
    /// Reads and atomics that one queue pair has in progress; the device may allow fewer.
    pub read_depth: u8,
    /// Lets the device write data in another order than it came, where it can: faster on some machines, and then
    /// only an immediate says that what was posted before it is there.
    pub relaxed_ordering: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            devices: Vec::new(),
            local_rank: 0,
            port: None,
            gid_index: None,
            subnet: None,
            queue_pairs: 1,
            queue_depth: 512,
            inline_size: 220,
            traffic_class: 0,
            service_level: 0,
            flow_label: 0,
            hop_limit: 64,
            partition_key: None,
            mtu: None,
            // 0.27 s: a dead peer is noticed by its queue pair after seconds, not half a minute.
            timeout: 16,
            // One less than there is, for the sake of soft-RoCE.
            retry_count: 6,
            receiver_retry: 7,
            receiver_timer: 12,
            read_depth: 16,
            relaxed_ordering: true,
        }
    }
}

/// What stands before every name in the environment.
const PREFIX: &str = "SAPWOOD_VERBS_";

impl Settings {
    /// The defaults, changed by `SAPWOOD_VERBS_DEVICE` (a list: `mlx5_0,mlx5_1:2`), `_PORT`, `_GID_INDEX`,
    /// `_SUBNET`, `_QUEUE_PAIRS`, `_QUEUE_DEPTH`, `_INLINE_SIZE`, `_TRAFFIC_CLASS`, `_SERVICE_LEVEL`,
    /// `_FLOW_LABEL`, `_HOP_LIMIT`, `_PARTITION_KEY`, `_MTU`, `_TIMEOUT`, `_RETRY_COUNT`, `_RECEIVER_RETRY`,
    /// `_RECEIVER_TIMER`, `_READ_DEPTH` and `_RELAXED_ORDERING` (0 or 1). Numbers may be hexadecimal (`0x8001`).
    ///
    /// # Errors
    /// [`VerbsError::Setting`]: a value that is not what its name asks for; all values are checked.
    pub fn from_environment() -> Result<Self, VerbsError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// As [`Settings::from_environment`], with the variables from elsewhere.
    ///
    /// # Errors
    /// As there.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, VerbsError> {
        let source = Source { variable };
        let mut settings = Self::default();
        if let Some((_, list)) = source.text("DEVICE") {
            let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
            settings.devices = names.map(str::to_owned).collect();
        }
        if let Some((name, text)) = source.text("SUBNET") {
            let subnet = Subnet::from_str(&text).map_err(|error| refuse(name, &text, error.to_string()))?;
            settings.subnet = Some(subnet);
        }
        if let Some(bytes) = source.number::<u32>("MTU")? {
            let mtu = Mtu::try_from(bytes)
                .map_err(|error| refuse(format!("{PREFIX}MTU"), &bytes.to_string(), error.to_string()))?;
            settings.mtu = Some(mtu);
        }
        settings.port = source.number("PORT")?.or(settings.port);
        settings.gid_index = source.number("GID_INDEX")?.or(settings.gid_index);
        settings.partition_key = source.number("PARTITION_KEY")?.or(settings.partition_key);
        source.set("QUEUE_PAIRS", &mut settings.queue_pairs)?;
        source.set("QUEUE_DEPTH", &mut settings.queue_depth)?;
        source.set("INLINE_SIZE", &mut settings.inline_size)?;
        source.set("TRAFFIC_CLASS", &mut settings.traffic_class)?;
        source.set("SERVICE_LEVEL", &mut settings.service_level)?;
        source.set("FLOW_LABEL", &mut settings.flow_label)?;
        source.set("HOP_LIMIT", &mut settings.hop_limit)?;
        source.set("TIMEOUT", &mut settings.timeout)?;
        source.set("RETRY_COUNT", &mut settings.retry_count)?;
        source.set("RECEIVER_RETRY", &mut settings.receiver_retry)?;
        source.set("RECEIVER_TIMER", &mut settings.receiver_timer)?;
        source.set("READ_DEPTH", &mut settings.read_depth)?;
        let mut relaxed = u8::from(settings.relaxed_ordering);
        source.set("RELAXED_ORDERING", &mut relaxed)?;
        if relaxed > 1 {
            return Err(refuse(
                format!("{PREFIX}RELAXED_ORDERING"),
                &relaxed.to_string(),
                "it is 0 or 1".into(),
            ));
        }
        settings.relaxed_ordering = relaxed == 1;
        settings.check()?;
        Ok(settings)
    }

    /// Refuses what no device could take; what this one cannot take is found when it is opened.
    ///
    /// # Errors
    /// [`VerbsError::Setting`] names the first setting that is out of its range.
    pub fn check(&self) -> Result<(), VerbsError> {
        let checks: [(&str, u64, u64, u64); 11] = [
            ("PORT", self.port.unwrap_or(1).into(), 1, 255),
            ("QUEUE_PAIRS", self.queue_pairs as u64, 1, 64),
            ("QUEUE_DEPTH", self.queue_depth as u64, 1, 1 << 16),
            ("INLINE_SIZE", self.inline_size as u64, 0, 4096),
            ("SERVICE_LEVEL", self.service_level.into(), 0, 15),
            ("FLOW_LABEL", self.flow_label.into(), 0, (1 << 20) - 1),
            ("HOP_LIMIT", self.hop_limit.into(), 1, 255),
            ("TIMEOUT", self.timeout.into(), 0, 31),
            ("RETRY_COUNT", self.retry_count.into(), 0, 7),
            ("RECEIVER_RETRY", self.receiver_retry.into(), 0, 7),
            ("RECEIVER_TIMER", self.receiver_timer.into(), 0, 31),
        ];
        for (name, value, least, most) in checks {
            if !(least..=most).contains(&value) {
                return Err(refuse(
                    format!("{PREFIX}{name}"),
                    &value.to_string(),
                    format!("it is {least} to {most}"),
                ));
            }
        }
        Ok(())
    }
}

fn refuse(name: impl Into<String>, value: &str, why: String) -> VerbsError {
    VerbsError::Setting {
        name: name.into(),
        value: value.to_owned(),
        why,
    }
}

struct Source<F> {
    variable: F,
}

impl<F: Fn(&str) -> Option<String>> Source<F> {
    /// Name and value of a variable that is set and not empty.
    fn text(&self, suffix: &str) -> Option<(String, String)> {
        let name = format!("{PREFIX}{suffix}");
        let text = (self.variable)(&name)?.trim().to_owned();
        (!text.is_empty()).then_some((name, text))
    }

    fn number<T: TryFrom<u64>>(&self, suffix: &str) -> Result<Option<T>, VerbsError> {
        let Some((name, text)) = self.text(suffix) else {
            return Ok(None);
        };
        let parsed = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        let value = parsed.map_err(|_| refuse(&name, &text, "it is not a number".into()))?;
        let value = T::try_from(value).map_err(|_| refuse(&name, &text, "it is too large".into()))?;
        Ok(Some(value))
    }

    fn set<T: TryFrom<u64>>(&self, suffix: &str, into: &mut T) -> Result<(), VerbsError> {
        if let Some(value) = self.number(suffix)? {
            *into = value;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, VerbsError> {
        Settings::from_variables(|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn nothing_set_is_the_default() {
        assert_eq!(read(&[]).unwrap(), Settings::default());
        assert_eq!(read(&[("SAPWOOD_VERBS_PORT", " ")]).unwrap(), Settings::default());
        Settings::default().check().unwrap();
    }

    #[test]
    fn every_value_reaches_its_setting() {
        let settings = read(&[
            ("SAPWOOD_VERBS_DEVICE", "r0, r1:2"),
            ("SAPWOOD_VERBS_PORT", "2"),
            ("SAPWOOD_VERBS_GID_INDEX", "3"),
            ("SAPWOOD_VERBS_SUBNET", "10.9.0.0/24"),
            ("SAPWOOD_VERBS_QUEUE_PAIRS", "4"),
            ("SAPWOOD_VERBS_QUEUE_DEPTH", "64"),
            ("SAPWOOD_VERBS_INLINE_SIZE", "96"),
            ("SAPWOOD_VERBS_TRAFFIC_CLASS", "106"),
            ("SAPWOOD_VERBS_SERVICE_LEVEL", "3"),
            ("SAPWOOD_VERBS_FLOW_LABEL", "0xabcde"),
            ("SAPWOOD_VERBS_HOP_LIMIT", "9"),
            ("SAPWOOD_VERBS_PARTITION_KEY", "0x8001"),
            ("SAPWOOD_VERBS_MTU", "1024"),
            ("SAPWOOD_VERBS_TIMEOUT", "18"),
            ("SAPWOOD_VERBS_RETRY_COUNT", "2"),
            ("SAPWOOD_VERBS_RECEIVER_RETRY", "5"),
            ("SAPWOOD_VERBS_RECEIVER_TIMER", "1"),
            ("SAPWOOD_VERBS_READ_DEPTH", "8"),
            ("SAPWOOD_VERBS_RELAXED_ORDERING", "0"),
        ]);
        let expected = Settings {
            devices: vec!["r0".into(), "r1:2".into()],
            local_rank: 0,
            port: Some(2),
            gid_index: Some(3),
            subnet: Some("10.9.0.0/24".parse().unwrap()),
            queue_pairs: 4,
            queue_depth: 64,
            inline_size: 96,
            traffic_class: 106,
            service_level: 3,
            flow_label: 0xabcde,
            hop_limit: 9,
            partition_key: Some(0x8001),
            mtu: Some(Mtu::Bytes1024),
            timeout: 18,
            retry_count: 2,
            receiver_retry: 5,
            receiver_timer: 1,
            read_depth: 8,
            relaxed_ordering: false,
        };
        assert_eq!(settings.unwrap(), expected);
    }

    #[test]
    fn what_is_out_of_range_is_refused_by_name() {
        for (name, value) in [
            ("SAPWOOD_VERBS_PORT", "0"),
            ("SAPWOOD_VERBS_PORT", "256"),
            ("SAPWOOD_VERBS_SUBNET", "10.9.0.0"),
            ("SAPWOOD_VERBS_MTU", "1500"),
            ("SAPWOOD_VERBS_QUEUE_PAIRS", "0"),
            ("SAPWOOD_VERBS_QUEUE_PAIRS", "many"),
            ("SAPWOOD_VERBS_FLOW_LABEL", "1048576"),
            ("SAPWOOD_VERBS_TIMEOUT", "32"),
            ("SAPWOOD_VERBS_RETRY_COUNT", "8"),
            ("SAPWOOD_VERBS_RELAXED_ORDERING", "2"),
            ("SAPWOOD_VERBS_GID_INDEX", "-1"),
        ] {
            let error = read(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }
}
