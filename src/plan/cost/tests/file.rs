//! The file: what is written is read again, what cannot be is refused with its line, and nothing makes the reader panic.

use proptest::prelude::*;

use super::super::{Point, Residual, Shape, Tuning, TuningError};
use super::parameters;
use crate::plan::Collective;

const SHAPE: Shape<'_> = Shape {
    collective: Collective::Reduce { root: 0 },
    ranks: 4,
    hosts: 1,
    shared: true,
    plan: "k-ary-tree:3",
    in_place: true,
    chunk: 1.0,
};

fn tuning() -> Tuning {
    let points = vec![
        Point::new(4096, 2.0),
        Point::new(1024, 1.0),
        Point::new(4096, 3.0),
    ];
    Tuning {
        parameters: parameters(),
        residuals: vec![Residual::new(&SHAPE, points)],
    }
}

#[test]
fn what_is_written_is_read_again() {
    let text = tuning().to_text();
    assert_eq!(Tuning::parse(&text, "here"), Ok(tuning()), "{text}");
    let none = Tuning {
        residuals: Vec::new(),
        ..tuning()
    };
    assert_eq!(none.to_text().parse(), Ok(none));
}

#[test]
fn residuals_lie_on_straight_lines() {
    let tuning = tuning();
    let at = |bytes| {
        tuning.residual(
            &Shape {
                collective: Collective::Reduce { root: 3 },
                ..SHAPE
            },
            bytes,
        )
    };
    assert_eq!(
        [at(0), at(1024), at(2560), at(1 << 30)],
        [Some(1.0), Some(1.0), Some(2.0), Some(3.0)]
    );
    // What is known of the built-in chunk stands for others; another plan, or more ranks, are not known.
    assert_eq!(tuning.residual(&Shape { chunk: 0.25, ..SHAPE }, 0), Some(1.0));
    assert_eq!(
        tuning.residual(
            &Shape {
                plan: "ring",
                ..SHAPE
            },
            0
        ),
        None
    );
    assert_eq!(tuning.residual(&Shape { ranks: 5, ..SHAPE }, 0), None);
}

fn refused(text: &str) -> (usize, String) {
    match Tuning::parse(text, "tuning file t.toml") {
        Err(error @ TuningError::Malformed { line, .. }) => (line, error.to_string()),
        other => panic!("{other:?} for {text}"),
    }
}

/// One change to a good file each: what must stand in the error, and that it names the line.
#[test]
fn errors_name_line_field_and_what_was_expected() {
    let good = tuning().to_text();
    for (from, to, said) in [
        ("version = 1", "version = 2", "version 1 is needed"),
        ("cores = 8", "cores = 0", "1 to 65536 cores"),
        ("cores = 8", "cores = \"many\"", "expected u32"),
        ("latency = 10.0", "latency = -1.0", "a number from 0"),
        ("latency = 10.0", "latency = nan", "a number from 0"),
        ("latency = 10.0", "latency = inf", "a number from 0"),
        ("latency = 10.0", "latencies = 10.0", "unknown field"),
        (
            "collective = \"reduce\"",
            "collective = \"reduction\"",
            "all-reduce, reduce",
        ),
        ("plan = \"k-ary-tree:3\"", "plan = \"tree\"", "the plans are"),
        ("factor = 3.0", "factor = 0.0", "a factor from 0.001 to 1000"),
    ] {
        assert!(good.contains(from), "{from} in {good}");
        let bad = good.replacen(from, to, 1);
        let (line, message) = refused(&bad);
        assert!(
            message.starts_with("tuning file t.toml, line ") && !message.contains('\n'),
            "{message}"
        );
        assert!(message.contains(said), "{message}");
        let named = bad.lines().nth(line - 1).unwrap();
        assert!(named.contains(to) || named.starts_with('['), "{message}: {named}");
    }
    assert!(refused("version = 1\n").1.contains("missing field"));
    assert_eq!(refused("version = 1\ncores = = 2\n").0, 2);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Tuning::read("/nowhere/tuning.toml".as_ref())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("/nowhere/tuning.toml") && error.contains("sapwood tune"),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC*") {
        let _ = Tuning::parse(&text, "");
    }

    /// Pieces of a good file replaced by anything. What is accepted is written and read again as the same.
    #[test]
    fn a_damaged_file_is_read_or_refused(at: prop::sample::Index, len in 0usize..30, with in "[\\PC\n]{0,20}") {
        let good = tuning().to_text();
        let start = at.index(good.len());
        let end = (start + len).min(good.len());
        let damaged = format!("{}{with}{}", &good[..start], &good[end..]);
        if let Ok(read) = Tuning::parse(&damaged, "") {
            prop_assert_eq!(Tuning::parse(&read.to_text(), ""), Ok(read));
        }
    }
}
