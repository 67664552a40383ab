//! The parameters with which the cost model repeats what was measured best: least squares of relative errors, without
//! negative values. Outliers count less.
//!
//! A predicted time is piecewise linear in the parameters (sums and maxima of them), so that around any set of them it is
//! its gradient times them: each round takes the gradients, solves the linear problem, and goes half of the way. A weak
//! pull towards where it began settles what the measurements do not say.

use sapwood::plan::Reach;
use sapwood::plan::cost::{Class, Curve, Knot, Link, Own, Parameters, Setting, Tuning};

use super::probe::Measured;

const ROUNDS: usize = 8;
/// Measurements that are fitted to, at most, spread over all.
const MOST: usize = 160;
/// The pull towards the start, against a measurement's 1.
const PULL: f64 = 0.03;
/// From this relative error on a measurement counts less.
const OUTLIER: f64 = 0.25;
/// Bytes that a rank goes through, from one entry of a table to the next.
const KNOTS: [u64; 14] = [
    16 << 10,
    64 << 10,
    256 << 10,
    512 << 10,
    1 << 20,
    3 << 19,
    2 << 20,
    3 << 20,
    4 << 20,
    6 << 20,
    8 << 20,
    16 << 20,
    32 << 20,
    64 << 20,
];

/// Which numbers stand for which parameters: all in one list, curves as what each entry is above the one before.
struct Arrangement {
    cores: u32,
    classes: Vec<Class>,
    /// The time of the smallest size, in microseconds, and of one more byte, in nanoseconds: where to begin follows from
    /// them.
    shortest: f64,
    per_byte: f64,
}

impl Arrangement {
    fn new(setting: &Setting, cores: u32, measured: &[Measured]) -> Self {
        let hosts = &setting.hosts;
        let shared = |rank: usize| hosts.iter().filter(|host| **host == hosts[rank]).count() > 1;
        let mut classes = Vec::new();
        if !matches!(setting.reach, Reach::Message { .. }) {
            classes.push(Class::Memory);
        } else {
            if (0..hosts.len()).any(shared) {
                classes.push(Class::Host);
            }
            if hosts.iter().any(|host| *host != hosts[0]) {
                classes.push(Class::Network);
            }
        }
        let least = |bytes: usize| {
            let of_size = measured.iter().filter(|of| of.bytes == bytes);
            of_size.map(|of| of.time).fold(1e9, f64::min)
        };
        let sizes = || measured.iter().map(|of| of.bytes);
        let (small, large) = (sizes().min().unwrap_or(0), sizes().max().unwrap_or(0));
        // Of one size alone nobody knows what its bytes cost.
        let more = (least(large) - least(small)) * 1e3 / (large - small).max(1) as f64;
        Self {
            cores,
            classes,
            shortest: least(small).max(1e-3),
            per_byte: more.max(0.01),
        }
    }

    fn start(&self) -> Vec<f64> {
        let rising =
            |first: f64| std::iter::once(first).chain(std::iter::repeat_n(first / 4.0, KNOTS.len() - 1));
        // Some four latencies, and about as many accesses to each byte.
        let mut values = vec![self.per_byte / 4.0];
        values.extend(rising(self.per_byte / 4.0));
        for _ in &self.classes {
            values.extend([4.0, 16.0, 32.0].map(|part| self.shortest / part));
            values.extend(rising(self.per_byte / 4.0));
        }
        values
    }

    fn parameters(&self, values: &[f64]) -> Parameters {
        let mut rest = values.iter().copied();
        let mut next = || rest.next().unwrap_or(0.0);
        let curve = |next: &mut dyn FnMut() -> f64| {
            let mut gap = 0.0;
            let knots = KNOTS.map(|footprint| {
                gap += next();
                Knot::new(footprint, gap)
            });
            Curve::try_from(knots.to_vec()).expect("it rises")
        };
        let combine = next();
        let own = Own::new(combine, curve(&mut next));
        let mut links = [None, None, None];
        for class in &self.classes {
            let (latency, overhead, gap) = (next(), next(), next());
            links[*class as usize] = Some(Link::new(latency, overhead, gap, curve(&mut next)));
        }
        Parameters {
            cores: self.cores,
            own,
            links,
        }
    }
}

/// Finds the parameters. What they leave unexplained is not yet in the tuning.
pub(super) fn fit(setting: &Setting, cores: u32, measured: &[Measured]) -> Tuning {
    let arrangement = Arrangement::new(setting, cores, measured);
    let chosen = spread(measured);
    let model = |values: &[f64], of: &Measured| {
        let tuning = Tuning {
            parameters: arrangement.parameters(values),
            residuals: Vec::new(),
        };
        let prediction = tuning.model(setting, &of.candidate, of.bytes, of.in_place);
        prediction.ok().map(|prediction| prediction.time)
    };
    let start = arrangement.start();
    let mut values = start.clone();
    for _ in 0..ROUNDS {
        let mut rows = Vec::with_capacity(chosen.len() + start.len());
        for of in &chosen {
            let Some(now) = model(&values, of) else { continue };
            let slope = |index: usize| {
                let step = (values[index] * 0.02).max(start[index] * 1e-3);
                let mut more = values.clone();
                more[index] += step;
                (model(&more, of).unwrap_or(now) - now) / step
            };
            let gradient: Vec<f64> = (0..values.len()).map(slope).collect();
            let off = (now / of.time - 1.0).abs();
            let weight = (OUTLIER / off.max(OUTLIER)).sqrt() / of.time;
            rows.push((
                gradient.iter().map(|slope| slope * weight).collect::<Vec<_>>(),
                of.time * weight,
            ));
        }
        for (index, at) in start.iter().enumerate() {
            let mut row = vec![0.0; start.len()];
            row[index] = PULL / at;
            rows.push((row, PULL));
        }
        let better = least_squares(&rows, &values);
        for (value, better) in values.iter_mut().zip(better) {
            *value = (*value + better) / 2.0;
        }
    }
    Tuning {
        parameters: arrangement.parameters(&values),
        residuals: Vec::new(),
    }
}

/// As many as are fitted to, from all over the list: it is periodic, so that every so many-th would be alike.
fn spread(measured: &[Measured]) -> Vec<&Measured> {
    let count = measured.len();
    // The golden section: wherever one stops, what was taken lies evenly.
    let mut stride = (count as f64 * 0.618) as usize;
    while stride > 1 && !is_coprime(stride, count) {
        stride -= 1;
    }
    let position = |index| index * stride.max(1) % count;
    (0..count.min(MOST))
        .map(|index| &measured[position(index)])
        .collect()
}

fn is_coprime(a: usize, b: usize) -> bool {
    match b {
        0 => a == 1,
        _ => is_coprime(b, a % b),
    }
}

/// The values, none negative, that make `row · values` come nearest to each right side: one value after the other is put
/// where it is best, again and again.
fn least_squares(rows: &[(Vec<f64>, f64)], start: &[f64]) -> Vec<f64> {
    const SWEEPS: usize = 300;
    let mut values = start.to_vec();
    let dot = |row: &[f64], values: &[f64]| row.iter().zip(values).map(|(a, b)| a * b).sum::<f64>();
    let mut left: Vec<f64> = rows
        .iter()
        .map(|(row, right)| right - dot(row, &values))
        .collect();
    for _ in 0..SWEEPS {
        for index in 0..values.len() {
            let column = || rows.iter().map(|(row, _)| row[index]);
            let length = column().map(|entry| entry * entry).sum::<f64>();
            if length == 0.0 {
                continue;
            }
            let along = column().zip(&left).map(|(entry, left)| entry * left).sum::<f64>();
            let value = (values[index] + along / length).max(0.0);
            let change = value - values[index];
            left.iter_mut()
                .zip(column())
                .for_each(|(left, entry)| *left -= change * entry);
            values[index] = value;
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use sapwood::plan::cost::Candidate;
    use sapwood::plan::{Collective, builders};

    #[test]
    fn least_squares_are_least_and_not_negative() {
        let rows = [
            (vec![1.0, 0.0], 2.0),
            (vec![0.0, 1.0], -3.0),
            (vec![1.0, 1.0], 4.0),
        ];
        let found = least_squares(&rows, &[1.0, 1.0]);
        // With the second at 0 the first is best at the mean of 2 and 4.
        assert!((found[0] - 3.0).abs() < 1e-9 && found[1] == 0.0, "{found:?}");
    }

    /// Times that the model itself gives lead back to it.
    #[test]
    fn the_model_s_own_times_are_repeated() {
        let setting = Setting {
            hosts: vec![0; 4],
            reach: Reach::Message { slots: 8 },
            slot_bytes: 32 << 10,
            most_tasks: 1000,
        };
        let gaps = [(1 << 16, 0.2), (1 << 20, 0.5), (1 << 24, 0.9)].map(|(at, gap)| Knot::new(at, gap));
        let curve = Curve::try_from(gaps.to_vec()).unwrap();
        let tuning = Tuning {
            parameters: Parameters {
                cores: 4,
                own: Own::new(0.1, curve.clone()),
                links: [None, Some(Link::new(300.0, 5.0, 2.0, curve)), None],
            },
            residuals: Vec::new(),
        };
        let mut measured = Vec::new();
        for name in ["ring", "binomial-tree", "direct"] {
            for collective in [Collective::AllReduce, Collective::Broadcast { root: 0 }] {
                let plan = builders::build(name, collective, 4).unwrap();
                for bytes in [1 << 8, 1 << 14, 1 << 18, 1 << 22] {
                    let candidate = Candidate {
                        plan: plan.clone(),
                        chunk: 1.0,
                    };
                    let time = tuning.model(&setting, &candidate, bytes, false).unwrap().time;
                    measured.push(Measured {
                        candidate,
                        bytes,
                        in_place: false,
                        time,
                        rounds: vec![time],
                    });
                }
            }
        }
        let found = fit(&setting, 4, &measured);
        for of in &measured {
            let again = found
                .model(&setting, &of.candidate, of.bytes, false)
                .unwrap()
                .time;
            assert!(
                (again / of.time - 1.0).abs() < 0.15,
                "{}: {again} for {}",
                of.bytes,
                of.time
            );
        }
        let (found, truth) = (
            found.link(Class::Host).unwrap(),
            tuning.link(Class::Host).unwrap(),
        );
        assert!(
            (found.latency() / truth.latency() - 1.0).abs() < 0.3,
            "{found:?} for {truth:?}"
        );
    }
}
