//! What people and programs get to see of a test: perftest's header block and columns, and the JSON document.

use std::fmt::Write;

use serde::Serialize;

use super::figures::{Bandwidth, Latency, Row};
use super::lane::Lane;
use super::provider::Facts;
use super::session::{Notification, Session};
use super::setup::{Length, Setup};
use super::test::Verb;

const RULE: &str =
    "---------------------------------------------------------------------------------------\n";

/// The heads of a table, each with the blanks before it. Figures end where their heads end.
type Heads = &'static [(usize, &'static str)];

const LATENCY: Heads = &[
    (1, "#bytes"),
    (1, "#iterations"),
    (4, "t_min[usec]"),
    (4, "t_max[usec]"),
    (2, "t_typical[usec]"),
    (4, "t_avg[usec]"),
    (4, "t_stdev[usec]"),
    (3, "99% percentile[usec]"),
    (3, "99.9% percentile[usec]"),
];
const LATENCY_OF_A_TIME: Heads = &[
    (1, "#bytes"),
    (8, "#iterations"),
    (7, "t_avg[usec]"),
    (4, "tps average"),
];
const MEBIBYTES: Heads = &[
    (1, "#bytes"),
    (5, "#iterations"),
    (4, "BW peak[MiB/sec]"),
    (4, "BW average[MiB/sec]"),
    (3, "MsgRate[Mpps]"),
];
const GIGABITS: Heads = &[
    (1, "#bytes"),
    (5, "#iterations"),
    (4, "BW peak[Gb/sec]"),
    (4, "BW average[Gb/sec]"),
    (3, "MsgRate[Mpps]"),
];

fn heads(setup: &Setup) -> Heads {
    match (setup.test.is_latency(), setup.length, setup.gbits) {
        (true, Length::Iterations(_), _) => LATENCY,
        (true, Length::Time(_), _) => LATENCY_OF_A_TIME,
        (false, _, false) => MEBIBYTES,
        (false, _, true) => GIGABITS,
    }
}

/// What the server says before anybody has come.
pub(super) fn waiting(place: &str) -> String {
    let sentence = format!("* Waiting for client to connect {place} *");
    let stars = "*".repeat(sentence.chars().count());
    format!("\n{stars}\n{sentence}\n{stars}\n")
}

/// The block above the table.
pub(super) fn header(session: &Session, facts: &Facts, fabric: &str, clock: f64) -> String {
    let setup = &session.setup;
    let unknown = || "-".to_owned();
    let on = |on: bool| if on { "ON" } else { "OFF" };
    let mut text = String::from(RULE);
    let _ = writeln!(text, "                    {} Test", title(setup));
    let mut pair = |left: (&str, String), right: (&str, String)| {
        let _ = writeln!(
            text,
            " {:<16}: {:<12}\t{:<15}: {}",
            left.0, left.1, right.0, right.1
        );
    };
    let device = facts.device.clone().unwrap_or_else(unknown);
    pair(("Fabric", fabric.to_owned()), ("Device", device));
    pair(
        ("Number of qps", setup.queue_pairs.to_string()),
        ("Transport type", facts.transport.clone().unwrap_or_else(unknown)),
    );
    pair(("Connection type", "RC".into()), ("Using SRQ", "OFF".into()));
    pair(
        ("Events", on(setup.events).into()),
        ("Data validation", on(setup.validate).into()),
    );
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, " {name:<16}: {value}");
    };
    if session.initiates() {
        line("TX depth", setup.tx_depth.to_string());
    }
    if setup.post_list > 1 {
        line("Post List", setup.post_list.to_string());
    }
    if setup.has_receives() && session.is_target() {
        line("RX depth", setup.rx_depth.to_string());
    }
    if !setup.test.is_latency() {
        let moderation = setup.moderation(setup.sizes[0]);
        line("CQ Moderation", moderation.to_string());
    }
    line("Mtu", facts.mtu.map_or_else(unknown, |mtu| format!("{mtu}[B]")));
    line("Link type", facts.link.clone().unwrap_or_else(unknown));
    if let Some(port) = facts.port {
        line("Port", port.to_string());
    }
    if let Some(index) = facts.gid_index {
        line("GID index", index.to_string());
    }
    if let Some(size) = facts.inline {
        line("Max inline data", format!("{size}[B]"));
    }
    match session.notification {
        Notification::Memory => line("Noticed by", "the last byte in memory".into()),
        Notification::Receive if setup.test.verb == Verb::Write => {
            line("Noticed by", "an immediate (write-with-immediate)".into());
        }
        Notification::Receive | Notification::None => {}
    }
    line("Clock cost", format!("{clock:.3}[usec]"));
    text.push_str(RULE);
    let addresses: Vec<[String; 2]> = session.lanes.iter().filter_map(Lane::addresses).collect();
    for (end, name) in ["local", "remote"].into_iter().enumerate() {
        for addresses in &addresses {
            let _ = writeln!(text, " {name} address: {}", addresses[end]);
        }
    }
    if !addresses.is_empty() {
        text.push_str(RULE);
    }
    text.push_str(&line_of_heads(heads(setup)));
    text
}

/// The line below the table.
pub(super) fn footer(rows: &[Row]) -> String {
    let mut text = String::from(RULE);
    let checked = rows.iter().map(Row::checked);
    let sums = checked.filter_map(|checked| checked.validated_bytes.zip(checked.wrong_bytes));
    if let Some((bytes, wrong)) = sums.reduce(|one, two| (one.0 + two.0, one.1 + two.1)) {
        let verdict = if wrong == 0 {
            "all right".into()
        } else {
            format!("{wrong} WRONG")
        };
        let _ = writeln!(text, " Data validation : {bytes} bytes, {verdict}");
    }
    text
}

fn title(setup: &Setup) -> String {
    let verb = match setup.test.verb {
        Verb::Write if setup.with_immediate => "RDMA_Write_imm".into(),
        Verb::Write => "RDMA_Write".into(),
        Verb::Read => "RDMA_Read".into(),
        Verb::Send => "Send".into(),
        Verb::Atomic => format!("Atomic {}", setup.atomic.name()),
    };
    match setup.test.is_latency() {
        true => format!("{verb} Latency"),
        false => {
            let directions = if setup.bidirectional { "Bidirectional " } else { "" };
            let list = if setup.post_list > 1 { "Post List " } else { "" };
            format!("{verb} {directions}{list}BW")
        }
    }
}

fn line_of_heads(heads: Heads) -> String {
    let mut line = String::new();
    for (blanks, head) in heads {
        line.extend(std::iter::repeat_n(' ', *blanks));
        line.push_str(head);
    }
    line.push('\n');
    line
}

/// One row of the table.
pub(super) fn line(setup: &Setup, row: &Row) -> String {
    let figure = |value: Option<f64>| value.map_or_else(|| "-".into(), |value| format!("{value:.2}"));
    let cells = match row {
        Row::Latency(Latency {
            tps_average: Some(tps),
            size,
            iterations,
            t_avg,
            ..
        }) => {
            vec![
                size.to_string(),
                iterations.to_string(),
                figure(*t_avg),
                figure(Some(*tps)),
            ]
        }
        Row::Latency(row) => vec![
            row.size.to_string(),
            row.iterations.to_string(),
            figure(row.t_min),
            figure(row.t_max),
            figure(row.t_typical),
            figure(row.t_avg),
            figure(row.t_stdev),
            figure(row.percentile_99),
            figure(row.percentile_99_9),
        ],
        Row::Bandwidth(Bandwidth {
            size,
            iterations,
            peak,
            average,
            rate,
            ..
        }) => {
            // As in perftest: small bandwidths in gigabits would lose all their digits.
            let digits = if setup.gbits && *average < 0.1 { 6 } else { 2 };
            let bandwidth = |value: f64| format!("{value:.digits$}");
            vec![
                size.to_string(),
                iterations.to_string(),
                peak.map_or_else(|| "-".into(), bandwidth),
                bandwidth(*average),
                format!("{rate:.6}"),
            ]
        }
    };
    let mut line = String::new();
    let mut end = 0;
    for ((blanks, head), cell) in heads(setup).iter().zip(cells) {
        end += blanks + head.len();
        let room = end.saturating_sub(line.len() + 1);
        let _ = write!(line, " {cell:>room$}");
    }
    line.push('\n');
    line
}

/// The document for programs.
#[derive(Debug, Serialize)]
pub(super) struct Document {
    test_info: TestInfo,
    results: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct TestInfo {
    test: &'static str,
    fabric: String,
    device: Option<String>,
    side: &'static str,
    port: Option<u8>,
    gid_index: Option<u32>,
    gid: Option<String>,
    mtu: Option<u32>,
    transport: Option<String>,
    link: Option<String>,
    inline: Option<u32>,
    queue_pairs: usize,
    tx_depth: usize,
    rx_depth: Option<usize>,
    cq_moderation: Option<usize>,
    post_list: usize,
    bidirectional: bool,
    write_with_imm: bool,
    events: bool,
    atomic_type: Option<&'static str>,
    data_validation: bool,
    duration_s: Option<u64>,
    /// Of latencies; `null` in bandwidth tests.
    latency_unit: Option<&'static str>,
    /// Of `BW_peak` and `BW_average`; `null` in latency tests.
    bandwidth_unit: Option<&'static str>,
    /// How the target of a latency test learns of a message: by looking at memory, by a receive, or not at all.
    noticed_by: Option<&'static str>,
    /// What reading the clock costs, in microseconds: a part of every latency.
    clock_cost: f64,
}

impl Document {
    pub(super) fn new(session: &Session, facts: &Facts, fabric: &str, clock: f64, results: Vec<Row>) -> Self {
        let setup = &session.setup;
        let latency = setup.test.is_latency();
        let test_info = TestInfo {
            test: setup.test.name(),
            fabric: fabric.into(),
            device: facts.device.clone(),
            side: session.side().name(),
            port: facts.port,
            gid_index: facts.gid_index,
            gid: facts.gid.clone(),
            mtu: facts.mtu,
            transport: facts.transport.clone(),
            link: facts.link.clone(),
            inline: facts.inline,
            queue_pairs: setup.queue_pairs,
            tx_depth: setup.tx_depth,
            rx_depth: setup.has_receives().then_some(setup.rx_depth),
            cq_moderation: (!latency).then(|| setup.moderation(setup.sizes[0])),
            post_list: setup.post_list,
            bidirectional: setup.bidirectional,
            write_with_imm: setup.with_immediate,
            events: setup.events,
            atomic_type: (setup.test.verb == Verb::Atomic).then(|| setup.atomic.name()),
            data_validation: setup.validate,
            duration_s: match setup.length {
                Length::Time(time) => Some(time.as_secs()),
                Length::Iterations(_) => None,
            },
            latency_unit: latency.then_some("usec"),
            bandwidth_unit: (!latency).then_some(if setup.gbits { "Gb/sec" } else { "MiB/sec" }),
            noticed_by: match session.notification {
                Notification::Memory => Some("memory"),
                Notification::Receive => Some("receive"),
                Notification::None => None,
            },
            clock_cost: clock,
        };
        Self { test_info, results }
    }
}

#[cfg(test)]
mod tests {
    use super::super::figures::Checked;
    use super::*;

    #[test]
    fn heads_are_perftest_s() {
        assert_eq!(
            line_of_heads(LATENCY).trim_end(),
            " #bytes #iterations    t_min[usec]    t_max[usec]  t_typical[usec]    t_avg[usec]    t_stdev[usec]   \
             99% percentile[usec]   99.9% percentile[usec]"
        );
        assert_eq!(
            line_of_heads(MEBIBYTES).trim_end(),
            " #bytes     #iterations    BW peak[MiB/sec]    BW average[MiB/sec]   MsgRate[Mpps]"
        );
    }

    #[test]
    fn figures_end_where_their_heads_end() {
        let setup = Setup::for_tests("write-bw");
        let row = Row::Bandwidth(Bandwidth {
            size: 8_388_608,
            iterations: 5000,
            peak: None,
            average: 12345.678,
            rate: 0.001543,
            checked: Checked {
                validated_bytes: Some(10),
                wrong_bytes: Some(0),
            },
        });
        let (heads, figures) = (line_of_heads(MEBIBYTES), line(&setup, &row));
        let ends = |line: &str, part: &str| line.find(part).map(|at| at + part.len());
        for (head, figure) in [
            ("#iterations", "5000"),
            ("peak[MiB/sec]", "-"),
            ("average[MiB/sec]", "12345.68"),
            ("[Mpps]", "0.001543"),
        ] {
            assert_eq!(ends(&heads, head), ends(&figures, figure), "{heads}{figures}");
        }
        assert!(footer(&[row.clone(), row]).contains("20 bytes, all right"));
    }

    #[test]
    fn a_figure_too_wide_for_its_column_pushes_the_next() {
        let setup = Setup::for_tests("write-bw --report_gbits");
        let row = Row::Bandwidth(Bandwidth {
            size: 123_456_789_012,
            iterations: 5,
            peak: Some(0.01),
            average: 0.009,
            rate: 1.0,
            checked: Checked::default(),
        });
        let line = line(&setup, &row);
        assert_eq!(
            line.split_whitespace().collect::<Vec<_>>(),
            ["123456789012", "5", "0.010000", "0.009000", "1.000000"]
        );
    }
}
