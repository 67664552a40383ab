//! From parameters to choices: what the model leaves unexplained is put beside it, and what is then chosen is measured once
//! more; where its chunks are not what was promised, that is put there, too.

use sapwood::communicator::CommunicatorError;
use sapwood::plan::Collective;
use sapwood::plan::cost::{Candidate, Chosen, Point, Residual, Setting, Shape, Tuning};

use super::probe::{Measured, Probes, Row};

/// What came of it.
pub(super) struct Settled {
    pub(super) tuning: Tuning,
    pub(super) choices: Vec<Choice>,
}

/// What is chosen from a size on, beside what was measured there.
pub(super) struct Choice {
    pub(super) collective: Collective,
    pub(super) bytes: usize,
    pub(super) chosen: Chosen,
    /// Out of place, in microseconds, as everything here; none if it never was.
    pub(super) measured: Option<f64>,
    /// The plan that was measured to be the fastest at this size, with the built-in size of a chunk.
    pub(super) best: String,
    pub(super) best_measured: f64,
}

/// How often what is chosen after the last measurements is measured, until nothing new is.
const ROUNDS: usize = 4;

/// What was measured last of a choice, out of place.
fn latest(measured: &[Measured], collective: Collective, bytes: usize, chosen: &Chosen) -> Option<f64> {
    let same = |of: &&Measured| {
        let candidate = &of.candidate;
        let case = (candidate.plan.collective(), of.bytes, of.in_place) == (collective, bytes, false);
        case && candidate.plan.name() == chosen.plan && candidate.chunk == chosen.chunk
    };
    measured.iter().rev().find(same).map(|of| of.time)
}

/// By how much the model with these parameters was off, by shape.
pub(super) fn residuals(tuning: &Tuning, setting: &Setting, measured: &[Measured]) -> Vec<Residual> {
    let shape = |of: &Measured| {
        (
            of.candidate.plan.collective().index(),
            of.candidate.plan.name().to_owned(),
            of.in_place,
            of.candidate.chunk,
        )
    };
    let mut sorted: Vec<&Measured> = measured.iter().collect();
    sorted.sort_by(|a, b| shape(a).partial_cmp(&shape(b)).expect("no chunk is not a number"));
    let groups = sorted.chunk_by(|a, b| shape(a) == shape(b));
    let of_group = |group: &[&Measured]| {
        let point = |of: &&Measured| {
            let model = tuning.model(setting, &of.candidate, of.bytes, of.in_place).ok()?;
            // More decimals than these are noise, and make files longer.
            let factor = (of.time / model.time * 1e4).round() / 1e4;
            Some(Point::new(of.bytes as u64, factor))
        };
        let points: Vec<Point> = group.iter().filter_map(point).collect();
        let candidate = &group[0].candidate;
        let shape = Shape {
            in_place: group[0].in_place,
            ..setting.shape(&candidate.plan, candidate.chunk)
        };
        (!points.is_empty()).then(|| Residual::new(&shape, points))
    };
    groups.filter_map(of_group).collect()
}

/// Every plan that can do each collective, at each size. Collective.
pub(super) fn measure(
    probes: &mut Probes<'_>,
    collectives: &[Collective],
    sizes: &[usize],
) -> Result<Vec<Measured>, CommunicatorError> {
    let row = |collective| {
        let candidates = probes.candidates(collective);
        sizes.iter().map(move |&size| Row {
            candidates: candidates.clone(),
            size,
        })
    };
    let rows: Vec<Row> = collectives.iter().copied().flat_map(row).collect();
    Ok(probes.rows(&rows)?.concat())
}

/// `fitted` is rank 0's. Collective; the choices are the same on every rank.
pub(super) fn settle(
    probes: &mut Probes<'_>,
    fitted: Option<Tuning>,
    collectives: &[Collective],
    sizes: &[usize],
    measured: &[Measured],
) -> Result<Settled, CommunicatorError> {
    let setting = probes.setting().clone();
    let with_residuals = fitted.map(|mut tuning| {
        tuning.residuals = residuals(&tuning, &setting, measured);
        tuning
    });
    let mut tuning = agree(probes, with_residuals)?;
    let mut more = measured.to_vec();
    // Choices are made for classes of sizes, which begin at powers of two.
    let classes = || sizes.chunk_by(|a, b| a.ilog2() == b.ilog2());
    let every = || {
        let of_class = |class| collectives.iter().map(move |collective| (*collective, class));
        classes().flat_map(of_class)
    };
    for _ in 0..ROUNDS {
        let mut rows = Vec::new();
        for (collective, class) in every() {
            let bytes = bytes_of(class[0], collective, &setting);
            let Some(chosen) = tuning.choose(&setting, collective, bytes) else {
                continue;
            };
            let is_known = latest(&more, collective, bytes, &chosen).is_some();
            if let (false, Some(candidate)) =
                (is_known, probes.candidate(&chosen.plan, collective, chosen.chunk))
            {
                let built_in = Candidate {
                    chunk: 1.0,
                    ..candidate.clone()
                };
                rows.extend(class.iter().map(|&size| Row {
                    candidates: vec![built_in.clone(), candidate.clone()],
                    size,
                }));
            }
        }
        if rows.is_empty() {
            break;
        }
        more.extend(probes.rows(&rows)?.into_iter().flatten());
        tuning.residuals = residuals(&tuning, &setting, &more);
    }
    // Every rank has measured the same, since all have the slowest one's figures.
    let choices = every().filter_map(|(collective, class)| {
        let bytes = bytes_of(class[0], collective, &setting);
        let chosen = tuning.choose(&setting, collective, bytes)?;
        let here = || {
            let of = |of: &&Measured| of.candidate.plan.collective() == collective && of.bytes == bytes;
            more.iter().filter(of).filter(|of| !of.in_place)
        };
        let best = here()
            .filter(|of| of.candidate.chunk == 1.0)
            .min_by(|a, b| a.time.total_cmp(&b.time))?;
        Some(Choice {
            collective,
            bytes,
            measured: latest(&more, collective, bytes, &chosen),
            best: best.candidate.plan.name().to_owned(),
            best_measured: best.time,
            chosen,
        })
    });
    let mut choices: Vec<Choice> = choices.collect();
    choices.sort_by_key(|choice| collectives.iter().position(|of| *of == choice.collective));
    Ok(Settled { tuning, choices })
}

/// Rank 0's tuning on every rank. Collective.
fn agree(probes: &Probes<'_>, tuning: Option<Tuning>) -> Result<Tuning, CommunicatorError> {
    let text = tuning.map(|tuning| tuning.to_text()).unwrap_or_default();
    let given = probes
        .base()
        .all_gather_bytes("agreeing on what was fitted", text.as_bytes())?;
    Ok(Tuning::parse(
        &String::from_utf8_lossy(&given[0]),
        "what rank 0 has fitted",
    )?)
}

/// The bytes that are measured where a size is asked for: parts have the same number of elements.
pub(super) fn bytes_of(size: usize, collective: Collective, setting: &Setting) -> usize {
    let (ranks, element) = (setting.hosts.len(), size_of::<f32>());
    match collective.has_parts() {
        true => (size / element / ranks).max(1) * ranks * element,
        false => (size / element).max(1) * element,
    }
}
