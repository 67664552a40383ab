//! What an operation stands still for.

use super::{Blocked, Execution, On, Outside, Peer, route};
use crate::engine::message::link::Class;
use crate::engine::message::route::{Route, Source};
use crate::engine::{Call, Observers};
use crate::observe::Kind;

impl Execution {
    pub(super) fn note_progress(&mut self, call: &Call, observers: &Observers) {
        self.blocked = None;
        if let Some((task, chunk, peer)) = self.waiting.take() {
            observers
                .recorder
                .mark(Kind::WaitEnd, call.sequence as u32, task, chunk, peer, 0);
        }
    }

    pub(super) fn note_blocked(&mut self, call: &Call, route: &Route, outside: &mut Outside<'_>) {
        self.blocked = self.find_blocked(route, outside);
        if let (
            None,
            Some(Blocked {
                task, chunk, peer, ..
            }),
        ) = (self.waiting, self.blocked)
        {
            self.waiting = Some((task, chunk as u32, peer));
            outside.observers.counters.wait();
            let recorder = &outside.observers.recorder;
            recorder.mark(Kind::WaitBegin, call.sequence as u32, task, chunk as u32, peer, 0);
        }
    }

    /// Whom this operation waits for: another rank's doing before what only follows from it.
    fn find_blocked(&self, route: &Route, outside: &mut Outside<'_>) -> Option<Blocked> {
        let rank_of = |neighbour: u16| route.neighbours[usize::from(neighbour)];
        let mut posted = None;
        for &index in &route.order[self.first..] {
            let (index, stream) = (usize::from(index), &self.streams[usize::from(index)]);
            let outward = &route.tasks[index];
            let chunk = if outward.pushes.is_empty() {
                stream.done
            } else {
                stream.released
            };
            let blocked = |peer, on| Blocked {
                task: index as u16,
                chunk,
                peer,
                on,
            };
            if chunk < stream.chunks {
                match self.unmet(outward, &self.streams[index], chunk) {
                    Some(Source::Begun(neighbour)) => return Some(blocked(rank_of(neighbour), On::Begin)),
                    Some(Source::Inlet(inlet)) => {
                        let neighbour = route.inlets[usize::from(inlet)].neighbour;
                        return Some(blocked(rank_of(neighbour), On::Inlet(inlet)));
                    }
                    Some(Source::Own(_)) | None => {}
                }
            }
            let cursors = &self.cursors[stream.first_push..stream.first_push + outward.pushes.len()];
            for (push, cursor) in outward.pushes.iter().zip(cursors) {
                let peer = rank_of(push.neighbour);
                if cursor.posted < stream.released && !outside.link(peer).may_send(Class::Ordinary) {
                    posted.get_or_insert(blocked(peer, On::Room));
                } else if cursor.completed < cursor.posted {
                    posted.get_or_insert(blocked(peer, On::Completion));
                }
            }
            for (number, notice) in outward.notices.iter().enumerate() {
                if self.notices[stream.first_notice + number] < notice.due(stream.done, stream.chunks) {
                    posted.get_or_insert(blocked(rank_of(notice.neighbour), On::Room));
                }
            }
        }
        posted.or_else(|| {
            let of = |on, peer: u32| Blocked {
                task: 0,
                chunk: 0,
                peer,
                on,
            };
            let mut peers = self.peers.iter().zip(&route.neighbours);
            peers.find_map(|(peer, rank)| match peer {
                Peer { begun: false, .. } => Some(of(On::Begin, *rank)),
                Peer { told: false, .. } => Some(of(On::Room, *rank)),
                _ => None,
            })
        })
    }

    /// The first neighbour that has not begun.
    pub(in crate::engine::message) fn absent(&self, call: &Call) -> Option<u32> {
        let peers = self.peers.iter().zip(&route(call).neighbours);
        peers
            .into_iter()
            .find(|(peer, _)| !peer.begun)
            .map(|(_, rank)| *rank)
    }

    /// Whether a rank has begun, as far as this one knows.
    pub(in crate::engine::message) fn has_begun(&self, call: &Call, rank: u32) -> bool {
        route(call)
            .neighbour(rank)
            .is_some_and(|index| self.peers[index].begun)
    }

    /// So many chunks of an inlet have come.
    pub(in crate::engine::message) fn inlet(&self, inlet: u16) -> u64 {
        self.arrived[usize::from(inlet)].0
    }

    /// How many chunks a task has.
    pub(in crate::engine::message) fn chunks(&self, task: u16) -> u64 {
        self.streams[usize::from(task)].chunks
    }
}
