//! Sapwood's own variables: what they make of a process, and what is refused.

use super::super::{Rendezvous, Secret};
use super::*;
use crate::fabric::select::Choice;
use proptest::prelude::*;
use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

pub(super) fn good() -> (OwnedFd, HashMap<&'static str, String>) {
    let descriptor = Secret::random().unwrap().to_descriptor().unwrap();
    let secret_path = format!("/dev/fd/{}", descriptor.as_raw_fd());
    let pairs = [
        (variable::RANK, "3".into()),
        (variable::SIZE, "8".into()),
        (variable::RENDEZVOUS, "@meet".into()),
        (variable::SECRET_FILE, secret_path),
    ];
    (descriptor, pairs.into())
}

pub(super) fn read(variables: &HashMap<&'static str, String>) -> Result<Option<Job>, BootstrapError> {
    Job::from_variables(|name| variables.get(name).map(OsString::from))
}

#[test]
fn no_launcher_no_job() {
    assert!(read(&HashMap::new()).unwrap().is_none());
    assert!(read(&[(variable::TIMEOUT, "5".into())].into()).unwrap().is_none());
}

#[test]
fn a_whole_description_is_understood() {
    let (_descriptor, mut variables) = good();
    variables.insert(variable::LOCAL_RANK, "1".into());
    variables.insert(variable::TIMEOUT, "2.5".into());
    variables.insert(variable::FABRIC, "verbs".into());
    variables.insert(variable::HOST, "left".into());
    let job = read(&variables).unwrap().unwrap();
    assert_eq!((job.rank, job.size, job.local_rank), (3, 8, 1));
    assert_eq!(job.rendezvous, Rendezvous::Abstract("meet".into()));
    assert_eq!(job.timeout, Duration::from_millis(2500));
    assert_eq!((job.fabric, job.host.as_deref()), (Choice::Verbs, Some("left")));
}

#[test]
fn every_refusal_names_variable_value_and_what_would_be_right() {
    for (name, value, right) in [
        (variable::RANK, "8", "from 0 to 7"),
        (variable::RANK, "-1", "from 0 to 7"),
        (variable::FABRIC, "carrier-pigeon", "choose auto, shm"),
        (variable::HOST, "", "printable"),
        (variable::RANK, "+1", "from 0 to 7"),
        (variable::RANK, "three", "from 0 to 7"),
        (variable::SIZE, "0", "1 to 4096"),
        (variable::SIZE, "4097", "1 to 4096"),
        (variable::SIZE, "99999999999", "1 to 4096"),
        (variable::LOCAL_RANK, "9", "from 0 to 7"),
        (variable::RENDEZVOUS, "meet", "@NAME"),
        (variable::RENDEZVOUS, "node:port", "HOST:PORT"),
        (variable::RENDEZVOUS, "node:0", "1 to 65535"),
        (variable::TIMEOUT, "0", "seconds above 0"),
        (variable::TIMEOUT, "NaN", "seconds above 0"),
        (variable::TIMEOUT, "1e300", "seconds above 0"),
        (variable::SECRET_FILE, "/nonexistent", "cannot be opened"),
    ] {
        let (_descriptor, mut variables) = good();
        variables.insert(name, value.into());
        let error = read(&variables).unwrap_err().to_string();
        assert!(
            error.contains(name) && error.contains(value) && error.contains(right),
            "{error}"
        );
    }
}

#[test]
fn half_a_description_names_the_missing_half() {
    for name in [
        variable::RANK,
        variable::SIZE,
        variable::RENDEZVOUS,
        variable::SECRET_FILE,
    ] {
        let (_descriptor, mut variables) = good();
        variables.remove(name);
        let error = read(&variables).unwrap_err().to_string();
        assert!(error.contains(&format!("{name} is not")), "{error}");
    }
}

proptest! {
    #[test]
    fn nothing_in_the_environment_panics(values in prop::collection::vec(prop::option::of(".{0,40}"), 8)) {
        let names = [variable::RANK, variable::SIZE, variable::LOCAL_RANK, variable::RENDEZVOUS,
            variable::SECRET_FILE, variable::TIMEOUT, variable::FABRIC, variable::HOST];
        let variables: HashMap<_, _> =
            names.into_iter().zip(values).filter_map(|(name, value)| Some((name, value?))).collect();
        let _ = read(&variables);
    }
}
