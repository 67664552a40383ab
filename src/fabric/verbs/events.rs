//! What a device says of its own accord: ports that go down, addresses that change, queue pairs that fail. Nobody
//! has a thread for it: whichever endpoint looks reads for all of them, hands each its share and wakes the others.
//!
//! The descriptor belongs to the open device, and so to every endpoint on it. An endpoint that sleeps has it among
//! those that it sleeps on ([`Listener::descriptor`]) and then calls [`Listener::read`]; one that spins looks at
//! [`Listener::take`], an atomic load when there is nothing, and calls `read`, a system call, once in many empty polls.

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use sapwood_sys::verbs::bindings::*;

use super::context::Context;
use super::device::Device;
use super::error::{Place, VerbError, VerbsError, last_errno};

/// What a device said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceEvent {
    /// A port carries nothing any more.
    PortDown(u8),
    /// A port carries packets again.
    PortActive(u8),
    /// Entries of a port's GID table changed: indexes may have moved.
    GidChange(u8),
    /// A port's number in its subnet changed.
    LidChange(u8),
    /// A port's table of partition keys changed.
    PartitionKeyChange(u8),
    /// Another subnet manager.
    SubnetManagerChange(u8),
    /// The subnet manager wants subscriptions anew; reliable connections go on.
    ClientReregister(u8),
    /// A queue pair, by its number, failed beyond what completions could say.
    QueuePairFatal(u32),
    /// A queue pair got a request that makes no sense; it is in the error state.
    QueuePairRequestError(u32),
    /// A queue pair got a request that its access flags forbid; it is in the error state.
    QueuePairAccessError(u32),
    /// The first packet came before the queue pair was told that it is connected.
    ConnectionEstablished(u32),
    /// A queue pair in the state SQD has nothing under way any more.
    SendQueueDrained(u32),
    /// A queue pair in the error state will take no more receives.
    LastReceive(u32),
    /// A queue pair went over to its alternative path.
    PathMigrated(u32),
    /// A queue pair could not go over to its alternative path.
    PathMigrationFailed(u32),
    /// A completion queue overran and is lost, with every queue pair on it; by its address in this process.
    CompletionQueueError(usize),
    /// The device is lost, with everything on it.
    DeviceFatal,
    /// Something that this release does not act upon, by its number.
    Other(u32),
}

impl DeviceEvent {
    /// # Safety
    /// The event was read and not yet acknowledged: until then what it points to cannot be destroyed.
    unsafe fn of(event: &ibv_async_event) -> Self {
        // SAFETY: for each kind of event the library fills the field of the union that is read for it.
        unsafe {
            let port = || u8::try_from(event.element.port_num).unwrap_or(0);
            let pair = || (*event.element.qp).qp_num;
            match event.event_type {
                IBV_EVENT_PORT_ERR => Self::PortDown(port()),
                IBV_EVENT_PORT_ACTIVE => Self::PortActive(port()),
                IBV_EVENT_GID_CHANGE => Self::GidChange(port()),
                IBV_EVENT_LID_CHANGE => Self::LidChange(port()),
                IBV_EVENT_PKEY_CHANGE => Self::PartitionKeyChange(port()),
                IBV_EVENT_SM_CHANGE => Self::SubnetManagerChange(port()),
                IBV_EVENT_CLIENT_REREGISTER => Self::ClientReregister(port()),
                IBV_EVENT_QP_FATAL => Self::QueuePairFatal(pair()),
                IBV_EVENT_QP_REQ_ERR => Self::QueuePairRequestError(pair()),
                IBV_EVENT_QP_ACCESS_ERR => Self::QueuePairAccessError(pair()),
                IBV_EVENT_COMM_EST => Self::ConnectionEstablished(pair()),
                IBV_EVENT_SQ_DRAINED => Self::SendQueueDrained(pair()),
                IBV_EVENT_QP_LAST_WQE_REACHED => Self::LastReceive(pair()),
                IBV_EVENT_PATH_MIG => Self::PathMigrated(pair()),
                IBV_EVENT_PATH_MIG_ERR => Self::PathMigrationFailed(pair()),
                IBV_EVENT_CQ_ERR => Self::CompletionQueueError(event.element.cq as usize),
                IBV_EVENT_DEVICE_FATAL => Self::DeviceFatal,
                other => Self::Other(other),
            }
        }
    }

    /// Whether nothing can be sent or received on the port until something is done about it.
    pub fn ends_port(self, port: u8) -> bool {
        self == Self::PortDown(port) || self == Self::DeviceFatal
    }

    /// The number of the queue pair that it puts an end to, if it does.
    pub fn ended_queue_pair(self) -> Option<u32> {
        match self {
            Self::QueuePairFatal(number)
            | Self::QueuePairRequestError(number)
            | Self::QueuePairAccessError(number) => Some(number),
            _ => None,
        }
    }
}

impl fmt::Display for DeviceEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortDown(port) => write!(f, "port {port} went down"),
            Self::PortActive(port) => write!(f, "port {port} is active again"),
            Self::GidChange(port) => write!(f, "the GIDs of port {port} changed"),
            Self::LidChange(port) => write!(f, "the LID of port {port} changed"),
            Self::PartitionKeyChange(port) => write!(f, "the partition keys of port {port} changed"),
            Self::SubnetManagerChange(port) => write!(f, "port {port} has another subnet manager"),
            Self::ClientReregister(port) => {
                write!(f, "the subnet manager of port {port} wants subscriptions anew")
            }
            Self::QueuePairFatal(number) => write!(f, "queue pair {number} failed"),
            Self::QueuePairRequestError(number) => write!(f, "queue pair {number} got an invalid request"),
            Self::QueuePairAccessError(number) => write!(f, "queue pair {number} got a forbidden request"),
            Self::ConnectionEstablished(number) => write!(f, "queue pair {number} heard its peer"),
            Self::SendQueueDrained(number) => write!(f, "queue pair {number} is drained"),
            Self::LastReceive(number) => write!(f, "queue pair {number} takes no more receives"),
            Self::PathMigrated(number) => write!(f, "queue pair {number} changed its path"),
            Self::PathMigrationFailed(number) => write!(f, "queue pair {number} could not change its path"),
            Self::CompletionQueueError(_) => f.write_str("a completion queue overran"),
            Self::DeviceFatal => f.write_str("the device failed"),
            Self::Other(code) => write!(f, "event {code}"),
        }
    }
}

/// Events that one endpoint has not yet looked at.
#[derive(Debug)]
struct Inbox {
    /// Whether there are any.
    filled: AtomicBool,
    events: Mutex<VecDeque<DeviceEvent>>,
    /// Ends the endpoint's sleep.
    waker: Waker,
}

/// As many as an endpoint may leave lying; a flapping port then costs the oldest.
const INBOX: usize = 256;

impl Inbox {
    fn deliver(&self, event: DeviceEvent) {
        let mut events = lock(&self.events);
        if events.len() == INBOX {
            events.pop_front();
        }
        events.push_back(event);
        self.filled.store(true, Ordering::Release);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is one push or one removal, so a panic elsewhere leaves the list whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The reading side of a device, and who is listening.
#[derive(Debug, Default)]
pub(super) struct Events {
    listeners: Mutex<Vec<Weak<Inbox>>>,
    /// Held while events are read, so that each listener gets them in order.
    reading: Mutex<()>,
}

impl Events {
    /// Makes reading never block.
    pub fn new(context: &Context) -> Result<Self, VerbsError> {
        let descriptor = context.async_descriptor();
        let set = rustix::fs::fcntl_getfl(descriptor)
            .and_then(|flags| rustix::fs::fcntl_setfl(descriptor, flags | OFlags::NONBLOCK));
        set.map_err(|errno| {
            Place::device(context.name()).failed(VerbError::GetAsyncEvent, errno.raw_os_error())
        })?;
        Ok(Self::default())
    }

    fn distribute(&self, event: DeviceEvent, reader: Option<&Arc<Inbox>>) {
        // Woken outside the lock: a waker may do anything.
        let mut asleep = Vec::new();
        lock(&self.listeners).retain(|listener| {
            let Some(inbox) = listener.upgrade() else {
                return false;
            };
            inbox.deliver(event);
            if !reader.is_some_and(|reader| Arc::ptr_eq(reader, &inbox)) {
                asleep.push(inbox);
            }
            true
        });
        asleep.iter().for_each(|inbox| inbox.waker.wake_by_ref());
    }
}

/// One endpoint's ear.
#[derive(Debug)]
pub(super) struct Listener {
    inbox: Arc<Inbox>,
    device: Arc<Device>,
}

impl Listener {
    /// Hears everything from now on; `waker` ends this endpoint's sleep when another one has read something for it.
    pub fn new(device: &Arc<Device>, waker: Waker) -> Self {
        let inbox = Arc::new(Inbox {
            filled: AtomicBool::new(false),
            events: Mutex::default(),
            waker,
        });
        lock(&device.events.listeners).push(Arc::downgrade(&inbox));
        Self {
            inbox,
            device: device.clone(),
        }
    }

    /// Readable when there is something to [`Listener::read`].
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.device.opened().async_descriptor()
    }

    /// Whether there is an event to take. One atomic load.
    #[inline(always)]
    pub fn has_some(&self) -> bool {
        self.inbox.filled.load(Ordering::Acquire)
    }

    /// The oldest event not yet taken.
    pub fn take(&self) -> Option<DeviceEvent> {
        if !self.has_some() {
            return None;
        }
        let mut events = lock(&self.inbox.events);
        let event = events.pop_front();
        self.inbox.filled.store(!events.is_empty(), Ordering::Release);
        event
    }

    /// As [`Listener::read`], and waits at most `patience` for something to read.
    ///
    /// # Errors
    /// As [`Listener::read`].
    pub fn read_within(&self, patience: Duration) -> Result<(), VerbsError> {
        let descriptor = self.descriptor();
        let mut readable = [PollFd::new(&descriptor, PollFlags::IN)];
        let patience = Timespec::try_from(patience).ok();
        // Whatever comes of it, the descriptor is read next, and that says what is wrong.
        let _ = poll(&mut readable, patience.as_ref());
        self.read()
    }

    /// Reads everything that the device has said, for all listeners. A system call; never blocks.
    ///
    /// # Errors
    /// The descriptor cannot be read: the device is gone.
    pub fn read(&self) -> Result<(), VerbsError> {
        let events = &self.device.events;
        // Somebody else is reading, and will deliver to this inbox.
        let Ok(_reading) = events.reading.try_lock() else {
            return Ok(());
        };
        while let Some(event) = next(self.device.opened())? {
            tracing::info!(device = self.device.name(), %event, "device event");
            if event == DeviceEvent::GidChange(self.device.choice().port) {
                self.device.find_gid_again();
            }
            events.distribute(event, Some(&self.inbox));
        }
        Ok(())
    }
}

/// One event, acknowledged.
fn next(context: &Context) -> Result<Option<DeviceEvent>, VerbsError> {
    // SAFETY: a number and a union of pointers and a number, for which zero is a value.
    let mut event: ibv_async_event = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: the context is open, and the event is writable.
        if unsafe { (context.library.get_async_event)(context.raw(), &mut event) } == 0 {
            // SAFETY: read just now; it is acknowledged after what it points to was looked at.
            let told = unsafe { DeviceEvent::of(&event) };
            // SAFETY: acknowledged once. Destroying what it points to waits for this.
            unsafe { (context.library.ack_async_event)(&mut event) };
            return Ok(Some(told));
        }
        match last_errno() {
            libc::EINTR => {}
            libc::EAGAIN => return Ok(None),
            errno => return Err(Place::device(context.name()).failed(VerbError::GetAsyncEvent, errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn inbox(count: &Arc<Count>) -> Arc<Inbox> {
        Arc::new(Inbox {
            filled: AtomicBool::new(false),
            events: Mutex::default(),
            waker: count.clone().into(),
        })
    }

    #[test]
    fn every_listener_gets_every_event_and_only_the_others_are_woken() {
        let (one, two) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let (reader, other) = (inbox(&one), inbox(&two));
        let events = Events::default();
        lock(&events.listeners).extend([Arc::downgrade(&reader), Arc::downgrade(&other)]);
        events.distribute(DeviceEvent::PortDown(1), Some(&reader));
        events.distribute(DeviceEvent::PortActive(1), Some(&reader));
        assert_eq!(
            (one.0.load(Ordering::Relaxed), two.0.load(Ordering::Relaxed)),
            (0, 2)
        );
        for inbox in [&reader, &other] {
            let events: Vec<_> = lock(&inbox.events).iter().copied().collect();
            assert_eq!(events, [DeviceEvent::PortDown(1), DeviceEvent::PortActive(1)]);
        }
        drop(other);
        events.distribute(DeviceEvent::DeviceFatal, Some(&reader));
        assert_eq!(lock(&events.listeners).len(), 1, "who is gone is forgotten");
    }

    #[test]
    fn an_inbox_that_nobody_reads_stays_small() {
        let inbox = inbox(&Arc::new(Count::default()));
        for _ in 0..INBOX {
            inbox.deliver(DeviceEvent::PortDown(1));
        }
        inbox.deliver(DeviceEvent::PortActive(1));
        let events = lock(&inbox.events);
        assert_eq!(
            (events.len(), events.back()),
            (INBOX, Some(&DeviceEvent::PortActive(1)))
        );
    }

    #[test]
    fn raw_events_become_typed_ones() {
        // SAFETY: numbers and pointers, for which zero is a value.
        let mut pair: ibv_qp = unsafe { std::mem::zeroed() };
        pair.qp_num = 77;
        let of_port = |event_type| ibv_async_event {
            element: ibv_async_event__bindgen_ty_1 { port_num: 2 },
            event_type,
        };
        let of_pair = ibv_async_event {
            element: ibv_async_event__bindgen_ty_1 { qp: &raw mut pair },
            event_type: IBV_EVENT_QP_ACCESS_ERR,
        };
        // SAFETY: ports in the events about ports, a live queue pair in the other.
        unsafe {
            assert_eq!(
                DeviceEvent::of(&of_port(IBV_EVENT_PORT_ERR)),
                DeviceEvent::PortDown(2)
            );
            assert_eq!(
                DeviceEvent::of(&of_port(IBV_EVENT_GID_CHANGE)),
                DeviceEvent::GidChange(2)
            );
            assert_eq!(DeviceEvent::of(&of_port(999)), DeviceEvent::Other(999));
            assert_eq!(DeviceEvent::of(&of_pair), DeviceEvent::QueuePairAccessError(77));
        }
        assert!(DeviceEvent::PortDown(2).ends_port(2) && !DeviceEvent::PortDown(1).ends_port(2));
        assert_eq!(DeviceEvent::QueuePairAccessError(77).ended_queue_pair(), Some(77));
    }
}
