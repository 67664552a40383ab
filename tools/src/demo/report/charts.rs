//! The charts of the demo's report. Only draws.

use std::ops::Range;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::demo::findings::{EpochBytes, Milliseconds, bytes};
use crate::report::chart::{Axes, BLUE, GREEN, INK, ROSE, draw, label, rounded, whole};

/// Cross-entropy by epoch, on a logarithmic scale.
pub fn loss(values: &[f64]) -> String {
    let logarithms: Vec<f64> = values.iter().map(|value| value.max(1e-9).log10()).collect();
    let low = logarithms.iter().copied().fold(f64::INFINITY, f64::min).min(-0.5);
    let high = logarithms
        .iter()
        .copied()
        .fold(f64::NEG_INFINITY, f64::max)
        .max(0.0);
    let axes = Axes {
        x: epochs(values.len()),
        y: low.floor()..high.max(low.floor() + 1.0) + 0.1,
        x_name: "epoch",
        y_name: "cross-entropy",
        x_label: &whole,
        y_label: &|power| {
            if power.fract() == 0.0 {
                rounded(10f64.powf(power))
            } else {
                String::new()
            }
        },
    };
    line(
        &axes,
        &logarithms,
        BLUE,
        &rounded(values.last().copied().unwrap_or(0.0)),
    )
}

/// Share of right answers by epoch, in percent.
pub fn accuracy(values: &[f64]) -> String {
    let percent: Vec<f64> = values.iter().map(|value| value * 100.0).collect();
    let lowest = percent.iter().copied().fold(100.0, f64::min);
    let axes = Axes {
        x: epochs(values.len()),
        y: ((lowest / 10.0 - 0.5).floor() * 10.0).max(0.0)..101.5,
        x_name: "epoch",
        y_name: "test images right (%)",
        x_label: &whole,
        y_label: &whole,
    };
    line(
        &axes,
        &percent,
        GREEN,
        &format!("{:.1} %", percent.last().copied().unwrap_or(0.0)),
    )
}

/// How many steps took how long. The last bar also holds what is beyond the axis.
pub fn step_times(times: &[f64], quantiles: Milliseconds) -> String {
    const BARS: usize = 36;
    let longest = times.iter().copied().fold(0.0, f64::max);
    let end = (quantiles.p99 * 1.15).min(longest * 1.02).max(1e-3);
    let mut counts = [0usize; BARS];
    for time in times {
        counts[((time / end * BARS as f64) as usize).min(BARS - 1)] += 1;
    }
    let most = counts.iter().copied().max().unwrap_or(1) as f64;
    let axes = Axes {
        x: 0.0..end,
        y: 0.0..most * 1.22,
        x_name: "milliseconds",
        y_name: "steps",
        x_label: &rounded,
        y_label: &whole,
    };
    draw(&axes, |chart| {
        let width = end / BARS as f64;
        chart.draw_series(counts.iter().enumerate().filter(|(_, count)| **count > 0).map(
            |(bar, &count)| {
                let left = bar as f64 * width;
                Rectangle::new(
                    [(left + width * 0.08, 0.0), (left + width * 0.92, count as f64)],
                    BLUE.filled(),
                )
            },
        ))?;
        // At different heights, the lower line first, so that close ones do not print over each other.
        for (name, value, color, left) in [
            ("p50", quantiles.p50, GREEN, quantiles.p50 > end * 0.35),
            ("p99", quantiles.p99, ROSE, quantiles.p99 > end * 0.65),
        ] {
            let top = most * if name == "p50" { 1.09 } else { 1.19 };
            chart.draw_series([PathElement::new(
                [(value, 0.0), (value, top)],
                color.stroke_width(2),
            )])?;
            let (anchor, shift) = if left { (HPos::Right, -5) } else { (HPos::Left, 5) };
            let style = label(&color).pos(Pos::new(anchor, VPos::Top));
            let text = format!("{name} {} ms", rounded(value));
            chart.draw_series([EmptyElement::at((value, top)) + Text::new(text, (shift, 0), style)])?;
        }
        Ok(())
    })
}

/// Bytes of an epoch by batch size, with what exact proportion to 1/batch would be.
pub fn epoch_bytes(counts: &[EpochBytes]) -> String {
    let most = counts.iter().map(|count| count.bytes).max().unwrap_or(0).max(1) as f64;
    let first = counts.first().copied();
    let axes = Axes {
        x: -0.6..counts.len() as f64 - 0.4,
        y: 0.0..most * 1.2,
        x_name: "images a step",
        y_name: "exchanged in an epoch",
        x_label: &|at| {
            let index = at.round();
            let named = (at - index).abs() < 1e-6 && index >= 0.0;
            counts
                .get(index as usize)
                .filter(|_| named)
                .map_or(String::new(), |count| count.batch.to_string())
        },
        y_label: &|value| bytes(value as u64).replace(".0 ", " "),
    };
    draw(&axes, |chart| {
        for (index, count) in counts.iter().enumerate() {
            let (at, height) = (index as f64, count.bytes as f64);
            chart.draw_series([Rectangle::new(
                [(at - 0.32, 0.0), (at + 0.32, height)],
                BLUE.filled(),
            )])?;
            let style = label(&INK).pos(Pos::new(HPos::Center, VPos::Bottom));
            let text = format!("{} in {} steps", bytes(count.bytes), count.steps);
            chart.draw_series([EmptyElement::at((at, height)) + Text::new(text, (0, -6), style)])?;
            if let Some(first) = first {
                let exact = first.bytes as f64 * first.batch as f64 / count.batch as f64;
                chart.draw_series([PathElement::new(
                    [(at - 0.42, exact), (at + 0.42, exact)],
                    ROSE.stroke_width(2),
                )])?;
            }
        }
        Ok(())
    })
}

fn epochs(count: usize) -> Range<f64> {
    // One epoch is a point, which still needs an axis.
    1.0..(count.max(2) as f64) + 0.02 * count as f64
}

fn line(axes: &Axes<'_>, values: &[f64], color: RGBColor, last: &str) -> String {
    let points: Vec<(f64, f64)> = values
        .iter()
        .enumerate()
        .map(|(index, &value)| (index as f64 + 1.0, value))
        .collect();
    draw(axes, |chart| {
        chart.draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?;
        let Some(&end) = points.last() else { return Ok(()) };
        let style = label(&color).pos(Pos::new(HPos::Right, VPos::Bottom));
        let above = if values.len() > 1 && end.1 < values[0] {
            -8
        } else {
            20
        };
        chart.draw_series([EmptyElement::at(end)
            + Circle::new((0, 0), 4, color.filled())
            + Text::new(last.to_owned(), (0, above), style)])?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charts_of_little_and_of_nothing_are_drawn() {
        let quantiles = Milliseconds { p50: 1.0, p99: 1.0 };
        for svg in [
            loss(&[]),
            loss(&[1.0]),
            accuracy(&[0.5]),
            accuracy(&[]),
            step_times(&[1.0], quantiles),
            step_times(&[], Milliseconds { p50: 0.0, p99: 0.0 }),
            epoch_bytes(&[]),
            epoch_bytes(&[EpochBytes {
                batch: 1,
                steps: 1,
                bytes: 0,
            }]),
        ] {
            assert!(
                svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"),
                "{svg}"
            );
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
