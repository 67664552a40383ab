//! Every crate that a build or a test of the workspace pulls in may be embedded under its own terms: each licence
//! expression must be satisfied by licences from a short list of permissive ones.

use std::process::Command;

use serde_json::Value;
use spdx::{Expression, LicenseReq, ParseMode};

/// Permissive licences that ask for no more than their notice. (No copyleft, not even per file.)
const ALLOWED: [&str; 7] = [
    "MIT",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
];

/// Whether one can take all that the expression demands from the list.
fn permitted(expression: &str) -> Result<bool, spdx::ParseError> {
    // Lax: older crates write `MIT/Apache-2.0`.
    let expression = Expression::parse_mode(expression, ParseMode::LAX)?;
    let allowed = |required: &LicenseReq| {
        // An exception only adds permissions, but which ones is for a person to read: it is not assumed.
        required.addition.is_none() && required.license.id().is_some_and(|id| ALLOWED.contains(&id.name))
    };
    Ok(expression.evaluate(allowed))
}

/// Runs cargo on this workspace; panics with its message if it fails.
fn cargo(arguments: &[&str]) -> String {
    let done = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo has started this test, so it can be started");
    assert!(
        done.status.success(),
        "cargo {arguments:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    String::from_utf8(done.stdout).expect("cargo writes UTF-8")
}

#[test]
fn every_crate_has_a_permissive_licence() {
    let version = cargo(&["-vV"]);
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .expect("cargo names its host");
    // Crates for other systems are not downloaded, nor are they part of anything that is built here.
    let metadata = cargo(&[
        "metadata",
        "--locked",
        "--format-version",
        "1",
        "--filter-platform",
        host,
    ]);
    let metadata: Value = serde_json::from_str(&metadata).expect("cargo metadata is JSON");
    let used = |id: &Value| {
        let nodes = metadata["resolve"]["nodes"].as_array().expect("a resolved graph");
        nodes.iter().any(|node| node["id"] == *id)
    };
    let packages: Vec<_> = metadata["packages"]
        .as_array()
        .expect("packages")
        .iter()
        .filter(|package| used(&package["id"]))
        .collect();
    assert!(
        packages.len() > 50,
        "{} packages: the graph has not been read",
        packages.len()
    );

    let mut refused = Vec::new();
    for package in packages {
        let name = format!("{} {}", package["name"], package["version"]);
        match package["license"].as_str() {
            None => refused.push(format!("{name} states no licence expression")),
            Some(expression) => match permitted(expression) {
                Ok(true) => {}
                Ok(false) => refused.push(format!("{name} is under {expression}")),
                Err(error) => refused.push(format!("{name} has a malformed licence: {error}")),
            },
        }
    }
    assert!(
        refused.is_empty(),
        "not satisfied by {}:\n{}",
        ALLOWED.join(", "),
        refused.join("\n")
    );
}

#[test]
fn or_needs_one_side_and_and_needs_both() {
    for (expression, expected) in [
        ("MIT", true),
        ("MIT/Apache-2.0", true),
        ("GPL-3.0-only", false),
        ("MIT OR GPL-2.0-only", true),
        ("MIT AND GPL-2.0-only", false),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("(MIT OR Apache-2.0) AND LGPL-2.1-or-later", false),
        ("Apache-2.0 WITH LLVM-exception", false),
        ("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT", true),
        ("MPL-2.0", false),
    ] {
        assert_eq!(permitted(expression).unwrap(), expected, "{expression}");
    }
    assert!(permitted("whatever you like").is_err());
}
