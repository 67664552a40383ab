//! Who was being waited for, read off the events. Errors at a deadline are made from this.

use super::event::{Event, Kind};

/// A wait that began and did not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenWait {
    /// The rank that was waited for.
    pub peer: u32,
    /// The collective's sequence number.
    pub operation: u32,
    /// The task of this rank that waited.
    pub task: u16,
    /// The chunk that could not be done.
    pub chunk: u32,
    /// When the wait began, in ticks.
    pub since: u64,
}

/// The waits among `events` (oldest first) that did not end, oldest first. A wait ends with its `WaitEnd` or with
/// the `End` of its operation.
pub(super) fn open_waits(events: &[Event]) -> Vec<OpenWait> {
    let mut open: Vec<OpenWait> = Vec::new();
    for event in events {
        let same = |wait: &OpenWait| {
            (wait.operation, wait.task, wait.chunk, wait.peer)
                == (event.operation, event.task, event.chunk, event.peer)
        };
        match event.kind {
            Kind::WaitBegin => {
                open.retain(|wait| !same(wait));
                open.push(OpenWait {
                    peer: event.peer,
                    operation: event.operation,
                    task: event.task,
                    chunk: event.chunk,
                    since: event.ticks,
                });
            }
            Kind::WaitEnd => open.retain(|wait| !same(wait)),
            Kind::End => open.retain(|wait| wait.operation != event.operation),
            _ => {}
        }
    }
    open
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(ticks: u64, kind: Kind, operation: u32, task: u16, peer: u32) -> Event {
        Event {
            ticks,
            kind,
            operation,
            task,
            chunk: 4,
            peer,
            bytes: 0,
        }
    }

    #[test]
    fn only_waits_that_did_not_end_are_open() {
        let events = [
            event(1, Kind::WaitBegin, 7, 0, 3),
            event(2, Kind::WaitBegin, 7, 1, 5),
            event(3, Kind::WaitEnd, 7, 0, 3),
            event(4, Kind::WaitBegin, 7, 0, 6),
            event(5, Kind::Error, 7, 0, 6),
        ];
        let open = open_waits(&events);
        assert_eq!(
            open.iter()
                .map(|wait| (wait.peer, wait.since))
                .collect::<Vec<_>>(),
            [(5, 2), (6, 4)]
        );
        assert_eq!((open[0].operation, open[0].task, open[0].chunk), (7, 1, 4));
    }

    #[test]
    fn the_end_of_an_operation_ends_its_waits_and_no_others() {
        let events = [
            event(1, Kind::WaitBegin, 7, 0, 3),
            event(2, Kind::WaitBegin, 8, 0, 3),
            event(3, Kind::End, 7, 0, 0),
        ];
        assert_eq!(
            open_waits(&events)
                .iter()
                .map(|wait| wait.operation)
                .collect::<Vec<_>>(),
            [8]
        );
    }

    #[test]
    fn the_end_of_a_wait_whose_beginning_was_lost_is_harmless() {
        assert_eq!(open_waits(&[event(3, Kind::WaitEnd, 7, 0, 3)]), []);
    }
}
