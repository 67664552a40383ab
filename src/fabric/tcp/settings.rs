//! What can be set about the tcp fabric, and the one place where the environment is read for it.

use std::time::Duration;

use super::TcpError;
use crate::fabric::verbs::Subnet;

/// How the tcp fabric is opened. Everything has a default that works on a well-kept network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Only addresses in it are used.
    pub subnet: Option<Subnet>,
    /// Only addresses of this interface are used.
    pub interface: Option<String>,
    /// A peer whose host has acknowledged nothing for this long is gone; 3 s at least.
    pub silence: Duration,
    /// Bytes of the kernel's send buffer of each connection; 0 lets the kernel choose, and change its mind.
    pub buffer: usize,
    /// How long a request waits for a receive of the peer before it ends with `ReceiverNotReady`.
    pub receiver_patience: Duration,
    /// How long a request waits for a connection to the peer before it ends with `PeerUnreachable`. A rank that is busy
    /// with something else answers no calls meanwhile.
    pub call_patience: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            subnet: None,
            interface: None,
            silence: Duration::from_secs(9),
            buffer: 0,
            receiver_patience: Duration::from_secs(10),
            call_patience: Duration::from_secs(45),
        }
    }
}

/// What stands before every name in the environment.
const PREFIX: &str = "SAPWOOD_TCP_";
/// The shortest silence that means something: the kernel reckons in seconds, and asks more than once.
const LEAST_SILENCE: u64 = 3;

impl Settings {
    /// The defaults, changed by `SAPWOOD_TCP_SUBNET` (`10.9.0.0/24`), `SAPWOOD_TCP_INTERFACE` (`eth0`),
    /// `SAPWOOD_TCP_SILENCE` (seconds) and `SAPWOOD_TCP_BUFFER` (bytes).
    ///
    /// # Errors
    /// [`TcpError::Setting`]: a value that is not what its name asks for.
    pub fn from_environment() -> Result<Self, TcpError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// As [`Settings::from_environment`], with the variables from elsewhere.
    ///
    /// # Errors
    /// As there.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, TcpError> {
        let text = |suffix: &str| {
            let name = format!("{PREFIX}{suffix}");
            let text = variable(&name)?.trim().to_owned();
            (!text.is_empty()).then_some((name, text))
        };
        let refuse = |name: String, value: String, why: String| TcpError::Setting { name, value, why };
        let mut settings = Self::default();
        if let Some((name, value)) = text("SUBNET") {
            let subnet = value.parse::<Subnet>();
            settings.subnet = Some(subnet.map_err(|error| refuse(name, value, error.to_string()))?);
        }
        settings.interface = text("INTERFACE").map(|(_, value)| value);
        if let Some((name, value)) = text("SILENCE") {
            settings.silence = match value.parse() {
                Ok(seconds @ LEAST_SILENCE..=86_400) => Duration::from_secs(seconds),
                _ => {
                    let why = format!("it is whole seconds, {LEAST_SILENCE} to 86400");
                    return Err(refuse(name, value, why));
                }
            };
        }
        if let Some((name, value)) = text("BUFFER") {
            settings.buffer = match value.parse() {
                Ok(bytes @ 0..=0x4000_0000) => bytes,
                _ => return Err(refuse(name, value, "it is bytes, at most 1 GiB".into())),
            };
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, TcpError> {
        Settings::from_variables(|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn every_value_reaches_its_setting_and_nothing_set_is_the_default() {
        assert_eq!(read(&[("SAPWOOD_TCP_SUBNET", " ")]).unwrap(), Settings::default());
        let settings = read(&[
            ("SAPWOOD_TCP_SUBNET", "10.9.0.0/24"),
            ("SAPWOOD_TCP_INTERFACE", "eth7"),
            ("SAPWOOD_TCP_SILENCE", "30"),
            ("SAPWOOD_TCP_BUFFER", "65536"),
        ]);
        let expected = Settings {
            subnet: Some("10.9.0.0/24".parse().unwrap()),
            interface: Some("eth7".into()),
            silence: Duration::from_secs(30),
            buffer: 65_536,
            ..Settings::default()
        };
        assert_eq!(settings.unwrap(), expected);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (name, value) in [
            ("SAPWOOD_TCP_SUBNET", "10.9.0.0"),
            ("SAPWOOD_TCP_SILENCE", "2"),
            ("SAPWOOD_TCP_SILENCE", "soon"),
            ("SAPWOOD_TCP_BUFFER", "-1"),
        ] {
            let error = read(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }
}
