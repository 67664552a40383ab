//! How the two sides of a test meet and agree: who is which, what each was asked to do, and steps taken together.

use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sapwood::bootstrap::{BootstrapError, Gathered, Job, Membership};
use sapwood::fabric::{Capabilities, Parcel};
use serde::{Deserialize, Serialize};

use super::watch::{SILENCE, Side, gone};
use crate::output::Failure;

/// How long after a failure the end of the other side is looked for.
const MOMENT: Duration = Duration::from_millis(300);

/// Says on standard error what is waited for, once that has taken a second; takes it back by being dropped.
pub(super) struct Notice {
    done: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Notice {
    pub(super) fn after_silence(sentence: String) -> Self {
        let (done, ended) = channel::<()>();
        let thread = std::thread::Builder::new().name("notice".into()).spawn(move || {
            if ended.recv_timeout(SILENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                eprintln!("sapwood perf: {sentence}");
            }
        });
        Self {
            done: Some(done),
            thread: thread.ok(),
        }
    }
}

impl Drop for Notice {
    fn drop(&mut self) {
        self.done.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The two sides, met.
pub(super) struct Meeting {
    membership: Membership,
    side: Side,
    timeout: Duration,
    /// Only one of two sides at one terminal says what it waits for.
    announces: bool,
}

/// One setting that both sides must share: the flag, and its value on this side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Setting {
    pub(super) flag: String,
    pub(super) value: String,
}

impl Setting {
    pub(super) fn new(flag: &str, value: impl ToString) -> Self {
        Self {
            flag: flag.into(),
            value: value.to_string(),
        }
    }
}

/// How many bytes and descriptors each parcel of a gathered payload has.
#[derive(Debug, Serialize, Deserialize)]
struct Parcels(Vec<(Vec<u8>, usize)>);

impl Meeting {
    /// Waits for the other side. `place` says where, for people.
    pub(super) fn join(job: &Job, side: Side, place: &str, announces: bool) -> Result<Self, Failure> {
        let other = side.other().name();
        let _notice = Notice::after_silence(format!("{} is waiting for the {other} {place}", side.name()));
        let membership = Membership::join(job, Instant::now() + job.timeout).map_err(|error| {
            Failure::Check(match &error {
                BootstrapError::Missing { waited, .. } => format!(
                    "{}: no {other} came within {:.1} s {place}: run the same command with this host's name as the client",
                    side.name(),
                    waited.as_secs_f64()
                ),
                BootstrapError::NoRendezvous { waited, last, .. } => format!(
                    "{}: no {other} waited {place} within {:.1} s ({last}): start the same test there first, without \
                     a host",
                    side.name(),
                    waited.as_secs_f64()
                ),
                _ => format!("{}: meeting the {other} {place}: {error}", side.name()),
            })
        })?;
        Ok(Self {
            membership,
            side,
            timeout: job.timeout,
            announces,
        })
    }

    pub(super) fn membership(&self) -> &Membership {
        &self.membership
    }

    pub(super) fn side(&self) -> Side {
        self.side
    }

    /// A failure with its cause before it, if the other side's end is the cause: a request may fail a moment before
    /// that is known.
    pub(super) fn named(&self, failure: Failure) -> Failure {
        let Failure::Check(sentence) = &failure else {
            return failure;
        };
        let until = Instant::now() + MOMENT;
        loop {
            if let Some(cause) = gone(&self.membership, self.side) {
                return match sentence.contains(&cause) {
                    true => failure,
                    false => Failure::Check(format!("{cause} ({sentence})")),
                };
            }
            if Instant::now() >= until {
                return failure;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether both sides are on one host.
    pub(super) fn one_host(&self) -> bool {
        self.membership.host(0) == self.membership.host(1)
    }

    /// Memory is shared on one host only.
    pub(super) fn reached_by(&self, capabilities: &Capabilities, fabric: &str) -> Result<(), Failure> {
        let other = self.side.other();
        if capabilities.load_store && !self.one_host() {
            return Err(Failure::Arguments(format!(
                "--fabric {fabric}: the {} is on another host, where no memory can be shared; verbs is for that",
                other.name()
            )));
        }
        Ok(())
    }

    /// Gives the other side a value, and gets its own.
    pub(super) fn exchange<T: Serialize + for<'a> Deserialize<'a>>(
        &self,
        what: &str,
        value: &T,
        patience: Duration,
    ) -> Result<T, Failure> {
        let bytes = serde_json::to_vec(value).map_err(|error| self.garbled(what, &error))?;
        let gathered = self.gather(what, &bytes, Vec::new(), patience)?;
        serde_json::from_slice(&gathered.payload).map_err(|error| self.garbled(what, &error))
    }

    /// The same for parcels of the fabric.
    pub(super) fn exchange_parcels(&self, what: &str, parcels: [Parcel; 2]) -> Result<[Parcel; 2], Failure> {
        let mut descriptors = Vec::new();
        let parts = parcels.map(|parcel| {
            let count = parcel.descriptors.len();
            descriptors.extend(parcel.descriptors);
            (parcel.bytes, count)
        });
        let bytes = serde_json::to_vec(&Parcels(parts.into())).map_err(|error| self.garbled(what, &error))?;
        let gathered = self.gather(what, &bytes, descriptors, self.timeout)?;
        let Parcels(parts) =
            serde_json::from_slice(&gathered.payload).map_err(|error| self.garbled(what, &error))?;
        let mut descriptors = gathered.descriptors.into_iter();
        let parcels: Vec<Parcel> = parts
            .into_iter()
            .map(|(bytes, count)| Parcel {
                bytes,
                descriptors: descriptors.by_ref().take(count).collect(),
            })
            .collect();
        parcels
            .try_into()
            .map_err(|_| self.garbled(what, &"it is not two parcels"))
    }

    /// Both sides come here.
    pub(super) fn together(&self, what: &str) -> Result<(), Failure> {
        self.gather(what, &[], Vec::new(), self.timeout).map(drop)
    }

    fn gather(
        &self,
        what: &str,
        payload: &[u8],
        descriptors: Vec<std::os::fd::OwnedFd>,
        patience: Duration,
    ) -> Result<Gathered, Failure> {
        let other = self.side.other();
        let _notice = self.announces.then(|| {
            Notice::after_silence(format!(
                "{} is waiting for the {} to come to '{what}', at most {:.0} s",
                self.side.name(),
                other.name(),
                patience.as_secs_f64()
            ))
        });
        let all = self
            .membership
            .all_gather(what, payload, descriptors, Instant::now() + patience)
            .map_err(|error| self.failed(what, &error))?;
        let theirs = all.into_iter().nth(other.rank() as usize);
        theirs.ok_or_else(|| self.garbled(what, &"nothing came"))
    }

    fn failed(&self, what: &str, error: &BootstrapError) -> Failure {
        let here = self.side.name();
        Failure::Check(match error {
            BootstrapError::Departed { .. } => gone(&self.membership, self.side).map_or_else(
                || format!("{here}: {error}"),
                |sentence| format!("{sentence}, at '{what}'"),
            ),
            BootstrapError::Missing { waited, .. } => format!(
                "{here}: the {} did not come to '{what}' within {:.1} s",
                self.side.other().name(),
                waited.as_secs_f64()
            ),
            _ => format!("{here}: {error}"),
        })
    }

    fn garbled(&self, what: &str, error: &dyn std::fmt::Display) -> Failure {
        let (here, other) = (self.side.name(), self.side.other().name());
        Failure::Check(format!(
            "{here}: what the {other} sent for '{what}' cannot be read: {error}"
        ))
    }

    /// Compares the settings that both must share; where some differ both sides say which, with both values.
    pub(super) fn agree(&self, settings: &[Setting]) -> Result<(), Failure> {
        let theirs = self.exchange("comparing settings", &settings.to_vec(), self.timeout)?;
        match differences(self.side, settings, &theirs) {
            None => Ok(()),
            Some(sentence) => Err(Failure::Check(sentence)),
        }
    }
}

fn differences(side: Side, ours: &[Setting], theirs: &[Setting]) -> Option<String> {
    let (here, there) = (side.name(), side.other().name());
    let value = |settings: &[Setting], flag: &str| {
        let found = settings.iter().find(|setting| setting.flag == flag);
        found.map_or_else(|| "not known".into(), |setting| setting.value.clone())
    };
    let mut flags: Vec<&str> = ours
        .iter()
        .chain(theirs)
        .map(|setting| setting.flag.as_str())
        .collect();
    let mut seen = std::collections::HashSet::new();
    flags.retain(|flag| seen.insert(*flag));
    let different: Vec<String> = flags
        .into_iter()
        .map(|flag| (flag, value(ours, flag), value(theirs, flag)))
        .filter(|(_, our, their)| our != their)
        .map(|(flag, our, their)| format!("{flag} is {our} on the {here} and {their} on the {there}"))
        .collect();
    (!different.is_empty()).then(|| format!("{}; give both sides the same", different.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_the_flag_and_both_values() {
        let ours = [Setting::new("-s", 8), Setting::new("-n", 1000)];
        let theirs = [Setting::new("-s", 64), Setting::new("-n", 1000)];
        assert_eq!(differences(Side::Client, &ours, &ours), None);
        let said = differences(Side::Client, &ours, &theirs).unwrap();
        assert!(
            said.starts_with("-s is 8 on the client and 64 on the server"),
            "{said}"
        );
        assert!(!said.contains("-n"), "{said}");
        let said = differences(Side::Server, &ours[..1], &theirs).unwrap();
        assert!(
            said.contains("-n is not known on the server and 1000 on the client"),
            "{said}"
        );
    }
}
