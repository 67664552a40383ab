//! `sapwood perf` with real processes, over shared memory: every test, the columns, the document, server and client.
//! What goes wrong is in `perf_faults`. No time is judged. Over a device: tools/rig/run perf.

mod support;

use serde_json::Value;
use support::sides::{port, side};
use support::{finish, run, sapwood, text};

const TESTS: [&str; 8] = [
    "write-lat",
    "write-bw",
    "read-lat",
    "read-bw",
    "send-lat",
    "send-bw",
    "atomic-lat",
    "atomic-bw",
];
const LATENCIES: [&str; 7] = [
    "t_min",
    "t_max",
    "t_typical",
    "t_avg",
    "t_stdev",
    "percentile_99",
    "percentile_99.9",
];

/// Both sides over shared memory; the document, and what people saw.
fn local(test: &str, arguments: &[&str]) -> (Value, String) {
    let common = ["perf", test, "--local", "--fabric", "shm", "--json", "-"];
    let output = run(&mut sapwood(&[&common[..], arguments].concat()));
    let said = text(&output.stderr);
    assert!(output.status.success(), "{test} {arguments:?}: {said}");
    let document = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&output.stdout)));
    (document, said)
}

#[test]
fn every_test_runs_and_its_data_is_right() {
    for test in TESTS {
        let (document, said) = local(test, &["-n", "40", "--data_validation"]);
        let row = &document["results"][0];
        assert_eq!(document["test_info"]["test"], test);
        assert_eq!(document["test_info"]["fabric"], "shm");
        assert_eq!(document["test_info"]["device"], Value::Null);
        assert_eq!(
            (&row["n_iterations"], &row["wrong_bytes"]),
            (&40.into(), &0.into()),
            "{row}"
        );
        assert!(row["validated_bytes"].as_u64() > Some(0), "{row}");
        let names: &[&str] = if test.ends_with("lat") {
            &LATENCIES
        } else {
            &["BW_peak", "BW_average", "MsgRate"]
        };
        for name in names {
            assert!(row[*name].as_f64() >= Some(0.0), "{test}, {name}: {row}");
        }
        if test.ends_with("lat") {
            let of = |name: &str| row[name].as_f64().unwrap();
            assert!(
                of("t_min") <= of("t_typical") && of("t_typical") <= of("percentile_99"),
                "{row}"
            );
            assert!(
                of("percentile_99.9") <= of("t_max") && of("t_avg") <= of("t_max"),
                "{row}"
            );
        }
        assert!(
            said.contains("Data validation : ") && said.contains("all right"),
            "{said}"
        );
    }
}

#[test]
fn figures_stand_under_their_heads_in_both_kinds_of_table() {
    for (test, heads) in [
        (
            "send-lat",
            " #bytes #iterations    t_min[usec]    t_max[usec]  t_typical[usec]    t_avg[usec]    t_stdev[usec]   99% percentile[usec]   99.9% percentile[usec]",
        ),
        (
            "send-bw",
            " #bytes     #iterations    BW peak[MiB/sec]    BW average[MiB/sec]   MsgRate[Mpps]",
        ),
    ] {
        let (_, said) = local(test, &["-n", "10", "-s", "64"]);
        let lines: Vec<&str> = said.lines().collect();
        let at = lines
            .iter()
            .position(|line| *line == heads)
            .unwrap_or_else(|| panic!("{said}"));
        let row = lines[at + 1];
        assert_eq!(row.len(), heads.len(), "{heads}\n{row}");
        for (end, _) in heads.match_indices(']') {
            assert_ne!(row.as_bytes()[end], b' ', "a figure ends here:\n{heads}\n{row}");
        }
        assert!(lines[at + 2].starts_with("----"), "{said}");
        assert!(
            said.contains(" TX depth        : ") && said.contains(" Number of qps   : 1"),
            "{said}"
        );
    }
}

#[test]
fn a_sweep_keeps_every_size() {
    let (document, said) = local("write-bw", &["-a", "-n", "5"]);
    let sizes: Vec<u64> = document["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["MsgSize"].as_u64().unwrap())
        .collect();
    assert_eq!(sizes, (1..=23).map(|power| 1 << power).collect::<Vec<u64>>());
    assert_eq!(
        said.lines()
            .filter(|line| line.trim_start().starts_with("8388608 "))
            .count(),
        1,
        "{said}"
    );
}

#[test]
fn both_directions_queue_pairs_lists_and_immediates() {
    for (test, arguments) in [
        ("write-bw", &["-b", "-q", "3"][..]),
        ("read-bw", &["-b", "-s", "4K"]),
        ("send-bw", &["-b", "-l", "8", "-q", "2"]),
        ("atomic-bw", &["-b", "-A", "CMP_AND_SWAP"]),
        ("write-bw", &["--write_with_imm", "-b", "-s", "64", "-r", "16"]),
        ("write-bw", &["-Q", "1", "-t", "1"]),
        ("send-bw", &["-e", "-q", "2"]),
    ] {
        let (document, said) = local(test, &[arguments, &["-n", "80", "--data_validation"]].concat());
        let row = &document["results"][0];
        assert_eq!(row["wrong_bytes"], 0, "{test} {arguments:?}: {said}");
        let queue_pairs = document["test_info"]["queue_pairs"].as_u64().unwrap();
        assert_eq!(
            row["n_iterations"],
            80 * queue_pairs,
            "{test} {arguments:?}: {row}"
        );
    }
    for arguments in [&["--write_with_imm"][..], &["--write_with_imm", "-e"]] {
        let (document, said) = local(
            "write-lat",
            &[arguments, &["-n", "50", "--data_validation"]].concat(),
        );
        assert_eq!(document["test_info"]["noticed_by"], "receive");
        assert!(said.contains("an immediate"), "{said}");
    }
}

#[test]
fn a_time_instead_of_a_number() {
    let (document, said) = local("write-lat", &["-D", "1"]);
    let row = &document["results"][0];
    assert!(
        row["tps_average"].as_f64() > Some(0.0) && row["t_max"].is_null(),
        "{row}"
    );
    assert!(
        said.contains(" #bytes        #iterations       t_avg[usec]    tps average"),
        "{said}"
    );
    for (test, arguments) in [
        ("send-bw", &["-b"][..]),
        ("write-bw", &["--write_with_imm", "-l", "4"]),
    ] {
        let arguments = [arguments, &["-D", "1", "--report_gbits", "--data_validation"]].concat();
        let (document, said) = local(test, &arguments);
        let row = &document["results"][0];
        assert!(
            row["BW_peak"].is_null() && row["BW_average"].as_f64() > Some(0.0),
            "{row}"
        );
        assert_eq!(
            (&document["test_info"]["bandwidth_unit"], &row["wrong_bytes"]),
            (&"Gb/sec".into(), &0.into())
        );
        assert!(said.contains("BW average[Gb/sec]"), "{said}");
    }
}

#[test]
fn what_a_fabric_has_no_use_for_is_said_and_the_rest_is_ignored_quietly() {
    let (document, said) = local(
        "write-bw",
        &["-n", "10", "-S", "3", "-u", "10", "-F", "-r", "9999"],
    );
    assert!(said.contains("the shm fabric has no use for -S, -u"), "{said}");
    assert!(!said.contains("-F"), "{said}");
    assert_eq!(document["results"][0]["n_iterations"], 10);
}

#[test]
fn the_document_goes_where_perftest_puts_it() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, file) in [
        (&["--out_json"][..], "perftest_out.json"),
        (&["--out_json", "--out_json_file", "named.json"], "named.json"),
    ] {
        let common = ["perf", "read-lat", "--local", "--fabric", "shm", "-n", "5"];
        let output = run(sapwood(&[&common[..], arguments].concat()).current_dir(folder.path()));
        assert!(output.status.success(), "{}", text(&output.stderr));
        let written = std::fs::read(folder.path().join(file)).unwrap();
        let document: Value = serde_json::from_slice(&written).unwrap();
        assert_eq!(document["results"][0]["MsgSize"], 2);
        assert!(text(&output.stdout).contains("RDMA_Read Latency Test"));
    }
}

#[test]
fn help_has_an_example_and_only_what_is_built() {
    let help = text(&run(&mut sapwood(&["perf", "--help"])).stdout);
    assert!(
        help.contains("sapwood perf write-lat -d r0") && help.contains("--write_with_imm"),
        "{help}"
    );
    assert!(!help.contains("cuda"), "{help}");
    assert!(text(&run(&mut sapwood(&["--help"])).stdout).contains("perf"));
}

#[test]
fn a_server_and_its_client_both_print_what_perftest_s_do() {
    for (test, server_has_figures) in [
        ("write-lat", true),
        ("read-lat", false),
        ("write-bw", true),
        ("send-bw", true),
    ] {
        let port = port();
        let server = side(&[test, "-n", "20", "-p", &port]).spawn().expect("it starts");
        let client = run(&mut side(&[test, "-n", "20", "-p", &port, "localhost"]));
        let server = finish(server);
        for (output, figures) in [(&server, server_has_figures), (&client, true)] {
            let said = text(&output.stdout);
            assert!(output.status.success(), "{test}: {}", text(&output.stderr));
            let rows = said
                .lines()
                .skip_while(|line| !line.starts_with(" #bytes"))
                .skip(1);
            assert_eq!(
                rows.filter(|line| line.starts_with("  ")).count(),
                usize::from(figures),
                "{test}: {said}"
            );
        }
        assert!(
            text(&server.stdout).contains("Waiting for client to connect"),
            "{test}"
        );
    }
}
