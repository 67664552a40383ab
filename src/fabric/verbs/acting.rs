//! What an endpoint does about the device's own events: connections that an event puts an end to fail at once, with
//! the event as the explanation, whatever the timers of their queue pairs would say.

use std::time::Duration;

use sapwood_sys::verbs::bindings::{IBV_PORT_ACTIVE, IBV_WC_WR_FLUSH_ERR, ibv_gid};

use super::endpoint::VerbsEndpoint;
use super::error::VerbsError;
use super::events::DeviceEvent;
use super::gid::Gid;
use super::survey;
use super::ticket::Ticket;

/// How much later than the completions that it causes an event may come.
const LATE: Duration = Duration::from_millis(20);

impl VerbsEndpoint {
    #[cold]
    pub(super) fn act_on(&mut self, event: DeviceEvent) {
        let port = self.device.choice().port;
        let place = self.device.place();
        if let Some(number) = event.ended_queue_pair() {
            self.fail_where(format!("{place}: {event}"), |numbers| numbers.contains(&number));
        } else if event.ends_port(port) {
            self.fail_where(
                format!("{place}: {event}; `sapwood devices` shows its state"),
                |_| true,
            );
        } else if event == DeviceEvent::GidChange(port) {
            if let Some(now) = self.changed_gid() {
                let choice = self.device.choice();
                let what = format!(
                    "{place}: {event}; index {} was {} and is {now}, so nothing reaches these queue pairs any more: \
                     connect anew",
                    choice.gid.index, choice.gid.gid
                );
                self.fail_where(what, |_| true);
            }
        } else if event == DeviceEvent::LidChange(port) && self.device.choice().lid != 0 {
            self.fail_where(format!("{place}: {event}; connect anew"), |_| true);
        } else if event == DeviceEvent::CompletionQueueError(self.queue.raw() as usize) {
            self.fail_where(format!("{place}: {event}"), |_| true);
            self.break_down(event.to_string());
        }
    }

    /// Requests of a connection came back flushed, and nothing had failed that we know of: soft-RoCE flushes what it
    /// cannot send. What the device has to say of it may come later than the completions, so it is asked.
    #[cold]
    #[inline(never)]
    pub(super) fn ask_why(&mut self, count: i32) -> Result<(), VerbsError> {
        let unexplained = self.queue.taken(count)?.iter().any(|report| {
            let number = usize::from(Ticket::from_number(report.wr_id).connection);
            let connection = self.connections.get(number);
            report.status == IBV_WC_WR_FLUSH_ERR && connection.is_some_and(|one| one.failure.is_none())
        });
        if !unexplained {
            return Ok(());
        }
        self.listener.read_within(LATE)?;
        self.act_on_events();
        let port = self.device.choice().port;
        match survey::query_port(self.device.opened(), port) {
            Ok(found) if found.state == IBV_PORT_ACTIVE => self.act_on(DeviceEvent::GidChange(port)),
            Ok(_) => self.act_on(DeviceEvent::PortDown(port)),
            // The flush is told as it is.
            Err(error) => tracing::warn!(%error, "nothing is known about why requests were flushed"),
        }
        Ok(())
    }

    /// What is the matter with the port at this moment, for an explanation: its event may come after the completions
    /// that it causes.
    #[cold]
    pub(super) fn port_now(&self) -> String {
        let place = self.device.place();
        match survey::query_port(self.device.opened(), self.device.choice().port) {
            Ok(port) if port.state != IBV_PORT_ACTIVE => {
                format!(" The port of {place} is down now, not active: `sapwood devices` shows its state.")
            }
            Ok(_) => String::new(),
            Err(error) => format!(" And the port of {place} cannot be looked at: {error}"),
        }
    }

    /// Fails the connections whose queue pairs' numbers are chosen.
    fn fail_where(&mut self, what: String, chosen: impl Fn(&[u32]) -> bool) {
        for connection in &mut self.connections {
            let numbers: Vec<_> = connection
                .lanes
                .iter()
                .map(|lane| lane.address().number)
                .collect();
            if chosen(&numbers) {
                connection.failed_by_event(what.clone());
            }
        }
        self.tell();
    }

    /// The GID that stands in the place of ours, if it is another one.
    fn changed_gid(&self) -> Option<Gid> {
        let choice = self.device.choice();
        // SAFETY: numbers only.
        let mut gid: ibv_gid = unsafe { std::mem::zeroed() };
        // SAFETY: an open device, and a place for the answer.
        let result = unsafe {
            let index = choice.gid.index.cast_signed();
            (self.device.library().query_gid)(self.device.context(), choice.port, index, &mut gid)
        };
        if result != 0 {
            return Some(Gid::default());
        }
        // SAFETY: both arms of the union are 16 bytes.
        let now = Gid::from_bytes(unsafe { gid.raw });
        (now != choice.gid.gid).then_some(now)
    }
}
