//! No task waits on a circle, for any number of chunks.
//!
//! Chunk `k` of a task follows chunk `k - 1` of itself, chunk `k - lag` of those it waits for chunk by chunk, and the
//! last chunk of those it waits for as a whole. A circle among chunks is one of two things:
//! - all its waits have lag 0: a circle of tasks over waits with lag 0 or `Whole` (which implies lag 0 at the last
//!   chunk);
//! - it goes back in chunks through lags, so it must come forward again, which only `Whole` does: a circle of tasks
//!   that holds a `Whole` wait. With enough chunks (one more than the sum of the lags) every such circle closes.
//!
//! A wait between two runs of blocks that are not the same does not keep to the number of a chunk: it is taken to be
//! `Whole` ([`coarsely`](super::part::coarsely)). Then a circle is found wherever there is one, however the runs are cut: along
//! the other waits, which are between runs that are cut alike, it goes back or stays as along the chunks of one block.
//!
//! So the search among tasks is exact over all numbers of chunks, but for those waits: credits that starve are circles of
//! the second kind.

use super::error::VerifyError;
use super::part::Part;
use crate::plan::lowered::Progress;

pub(super) fn check(part: &Part<'_>) -> Result<(), VerifyError> {
    // Waits at lag 0 and for the whole have no circle at all.
    let immediate = components(part, |progress| !matches!(progress, Progress::Chunk { lag: 1.. }));
    let all = components(part, |_| true);
    for (index, task) in part.tasks.iter().enumerate() {
        for &(target, progress) in &task.waits {
            let with = part.tasks[target as usize].at;
            let lagging = matches!(progress, Progress::Chunk { lag: 1.. });
            if !lagging && immediate[index] == immediate[target as usize] {
                return Err(VerifyError::Deadlock {
                    at: task.at,
                    with,
                    whole: false,
                });
            }
            if progress == Progress::Whole && all[index] == all[target as usize] {
                return Err(VerifyError::Deadlock {
                    at: task.at,
                    with,
                    whole: true,
                });
            }
        }
    }
    Ok(())
}

/// The strongly connected component of each task (Tarjan's algorithm, without recursion).
fn components(part: &Part<'_>, counts: impl Fn(Progress) -> bool) -> Vec<u32> {
    const UNSEEN: u32 = u32::MAX;
    let size = part.tasks.len();
    let mut order = vec![UNSEEN; size];
    let mut low = vec![0u32; size];
    let mut component = vec![UNSEEN; size];
    let mut open: Vec<u32> = Vec::new();
    let mut path: Vec<(u32, u32)> = Vec::new();
    let (mut next_order, mut next_component) = (0, 0);
    for start in 0..size as u32 {
        if order[start as usize] != UNSEEN {
            continue;
        }
        path.push((start, 0));
        while let Some(&mut (node, ref mut edge)) = path.last_mut() {
            let here = node as usize;
            if *edge == 0 {
                order[here] = next_order;
                low[here] = next_order;
                next_order += 1;
                open.push(node);
            }
            if let Some(&(target, progress)) = part.tasks[here].waits.get(*edge as usize) {
                *edge += 1;
                let there = target as usize;
                if !counts(progress) {
                    // `edge` is 0 again only for a node without waits, which is left at once.
                } else if order[there] == UNSEEN {
                    path.push((target, 0));
                } else if component[there] == UNSEEN {
                    low[here] = low[here].min(order[there]);
                }
                continue;
            }
            path.pop();
            if let Some(&(parent, _)) = path.last() {
                low[parent as usize] = low[parent as usize].min(low[here]);
            }
            if low[here] == order[here] {
                while let Some(member) = open.pop() {
                    component[member as usize] = next_component;
                    if member == node {
                        break;
                    }
                }
                next_component += 1;
            }
        }
    }
    component
}
