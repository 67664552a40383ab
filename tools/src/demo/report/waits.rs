//! The report's sections on the run that waits for all: who waited for whom, and the plan it went by. Only shows.

use crate::demo::findings::Findings;
use crate::demo::workers;
use crate::report::{card, escape, inline, wide};

/// The plan's drawing, if there is one, beside the table of waits, if that is small.
pub fn sections(findings: &Findings) -> String {
    let picture = workers::picture(&findings.plan, findings.workers as u32);
    if findings.workers < 2 {
        return String::new();
    }
    let beside = picture.is_some() && findings.workers <= 5;
    let section = if beside { card } else { wide };
    let waits = section(
        "Waiting, whole run",
        "Milliseconds a step, on average, that an exchange waited for another rank. The training thread may have been \
         computing meanwhile, and a rank that waits lets others wait.",
        &waiting(findings),
    );
    let picture = picture.map_or(String::new(), |picture| {
        let title = format!("The plan: {}", escape(&findings.plan));
        let picture = format!("<div class=\"picture\">{}</div>", inline(&picture));
        section(
            &title,
            "How gradients are reduced on their way up, and handed back on the way down.",
            &picture,
        )
    });
    waits + &picture
}

/// Rows wait, columns are waited for; the darker, the longer.
fn waiting(findings: &Findings) -> String {
    let ranks = findings.workers;
    let per_step = |waited: f64| waited / findings.steps.max(1) as f64;
    let most = findings
        .waited_ms
        .iter()
        .flatten()
        .copied()
        .map(per_step)
        .fold(1e-9, f64::max);
    let head: String = (0..ranks).map(|rank| format!("<th>rank {rank}</th>")).collect();
    let rows: String = (0..ranks)
        .map(|rank| {
            let cells: String = (0..ranks)
                .map(|peer| match per_step(findings.waited_ms[rank][peer]) {
                    _ if peer == rank => "<td></td>".to_owned(),
                    wait => format!(
                        "<td style=\"background:rgba(196,69,54,{:.2})\">{}</td>",
                        0.55 * wait / most,
                        format_args!("{wait:.2}")
                    ),
                })
                .collect();
            format!("<tr><th>rank {rank} waited for</th>{cells}</tr>")
        })
        .collect();
    format!("<div class=\"scroll\"><table class=\"matrix\"><tr><th></th>{head}</tr>{rows}</table></div>")
}
