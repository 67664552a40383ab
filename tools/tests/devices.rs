//! `sapwood devices` where there is most likely none. With devices: tools/rig/run perf.

mod support;

use serde_json::Value;
use support::{refused, run, sapwood, text};

#[test]
fn the_document_and_the_table_agree() {
    let output = run(&mut sapwood(&["devices", "--counters", "--json", "-"]));
    let said = text(&output.stderr);
    let document: Value = serde_json::from_slice(&output.stdout).expect("a document whatever is there");
    let devices = document["devices"].as_array().expect("a list");
    for device in devices {
        assert!(said.contains(device["name"].as_str().unwrap()), "{said}");
    }
    if output.status.success() {
        assert!(
            said.contains("device") && said.contains("GID") != devices.is_empty(),
            "{said}"
        );
        assert_ne!(
            document["default"].is_null(),
            document["error"].is_null(),
            "one of them: {document}"
        );
    } else {
        assert_eq!(output.status.code(), Some(1), "{said}");
    }
    if document["default"].is_null() {
        let error = document["error"].as_str().expect("a sentence");
        assert!(said.contains(error), "{said}");
    }
}

#[test]
fn an_environment_that_makes_no_sense_is_refused() {
    refused(
        sapwood(&["devices"]).env("SAPWOOD_VERBS_MTU", "1500"),
        &["SAPWOOD_VERBS_MTU", "1500"],
    );
    refused(&mut sapwood(&["devices", "--counter"]), &["--counter"]);
}

#[test]
fn help_says_what_the_status_means() {
    let help = text(&run(&mut sapwood(&["devices", "--help"])).stdout);
    assert!(
        help.contains("sapwood devices --counters") && help.contains("Exits with 0"),
        "{help}"
    );
}
