//! This module's own parts on two real devices, without the endpoint: what was chosen and opened, registrations,
//! the way up of a queue pair, and what the device says of its own accord. Run in the rig: `tools/rig/run device`.

use std::ptr::null_mut;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use sapwood_sys::verbs::bindings::*;
use sapwood_sys::verbs::{poll_cq, post_send};

use super::attributes::{Attributes, State};
use super::device::Device;
use super::events::{DeviceEvent, Listener};
use super::registration::VerbsRegistration;
use super::transition::Remote;
use super::*;
use crate::memory::HugePages;

fn open(device: &str) -> Arc<Device> {
    let settings = Settings {
        devices: vec![device.into()],
        ..Settings::default()
    };
    Verbs::open(&settings)
        .unwrap_or_else(|error| panic!("{error}"))
        .device
}

/// A queue pair with a completion queue of its own, torn down in order.
struct Pair {
    raw: *mut ibv_qp,
    queue: *mut ibv_cq,
    device: Arc<Device>,
    sequence: u32,
}

impl Pair {
    fn new(device: &Arc<Device>, sequence: u32) -> Self {
        let library = device.library();
        // SAFETY: the device is open; no channel is given.
        let queue = unsafe { (library.create_cq)(device.context(), 16, null_mut(), null_mut(), 0) };
        assert!(!queue.is_null());
        let mut wanted = ibv_qp_init_attr {
            qp_context: null_mut(),
            send_cq: queue,
            recv_cq: queue,
            srq: null_mut(),
            cap: device.granted().capacities(),
            qp_type: IBV_QPT_RC,
            sq_sig_all: 0,
        };
        // SAFETY: domain and queue are live and of one device.
        let raw = unsafe { (library.create_qp)(device.domain(), &mut wanted) };
        assert!(!raw.is_null());
        Self {
            raw,
            queue,
            device: device.clone(),
            sequence,
        }
    }

    fn remote(&self) -> Remote {
        let choice = self.device.choice();
        Remote {
            gid: choice.gid.gid,
            lid: choice.lid,
            // SAFETY: the queue pair is live.
            number: unsafe { (*self.raw).qp_num },
            sequence: self.sequence,
            mtu: self.device.mtu(),
            reads_answered: self.device.reads_answered(),
            reads_started: self.device.reads_started(),
        }
    }

    fn modify(&self, from: State, to: State, attributes: &Attributes) -> Result<(), VerbsError> {
        // SAFETY: the queue pair is live and of this device.
        unsafe { self.device.modify(self.raw, from, to, attributes, 7) }
    }

    fn connect(&self, remote: &Remote) {
        let device = &self.device;
        let path = device.path_to(remote, 0);
        let steps = [
            (State::Reset, State::Init, device.initial()),
            (State::Init, State::ReadyToReceive, device.receiving(remote, path)),
            (
                State::ReadyToReceive,
                State::ReadyToSend,
                device.sending(remote, self.sequence),
            ),
        ];
        for (from, to, attributes) in steps {
            self.modify(from, to, &attributes)
                .unwrap_or_else(|error| panic!("{error}"));
        }
    }

    /// Posts one request and waits for its completion's status.
    fn run(&self, request: &mut ibv_send_wr) -> ibv_wc_status {
        request.send_flags = IBV_SEND_SIGNALED;
        let mut bad = null_mut();
        // SAFETY: the queue pair is live, and the request's memory is registered and held by the caller.
        assert_eq!(unsafe { post_send(self.raw, request, &mut bad) }, 0);
        // SAFETY: numbers, for which zero is a value.
        let mut completion: ibv_wc = unsafe { std::mem::zeroed() };
        let deadline = Instant::now() + Duration::from_secs(20);
        // SAFETY: the queue is live and the completion writable.
        while unsafe { poll_cq(self.queue, 1, &mut completion) } == 0 {
            assert!(Instant::now() < deadline, "no completion within 20 s");
            std::thread::yield_now();
        }
        completion.status
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // SAFETY: both are live, and given up once, the pair before its queue.
        unsafe {
            assert_eq!((self.device.library().destroy_qp)(self.raw), 0);
            assert_eq!((self.device.library().destroy_cq)(self.queue), 0);
        }
    }
}

fn connected() -> (Pair, Pair) {
    let (one, two) = (Pair::new(&open("r0"), 0xabcdef), Pair::new(&open("r1"), 0xffffff));
    one.connect(&two.remote());
    two.connect(&one.remote());
    (one, two)
}

fn register(device: &Arc<Device>, len: usize, access: Access) -> Arc<VerbsRegistration> {
    let region = Region::host(len, HugePages::Never).expect("memory");
    VerbsRegistration::of(device, &region, access).unwrap_or_else(|error| panic!("{error}"))
}

fn contents(registration: &VerbsRegistration) -> Vec<u8> {
    let region = registration.region();
    // SAFETY: host memory of this length; nothing is under way when a test looks.
    unsafe { std::slice::from_raw_parts(region.base().as_ptr(), region.len()) }.to_vec()
}

fn fill(registration: &VerbsRegistration, byte: u8) {
    let region = registration.region();
    // SAFETY: host memory of this length; nothing is under way when a test writes.
    unsafe { region.base().write_bytes(byte, region.len()) };
}

fn write(from: &VerbsRegistration, entry: &mut ibv_sge, to: &VerbsRegistration) -> ibv_send_wr {
    *entry = ibv_sge {
        addr: from.address(),
        length: u32::try_from(from.len()).unwrap(),
        lkey: from.local_key(),
    };
    // SAFETY: numbers and pointers, for which zero is a value.
    let mut request: ibv_send_wr = unsafe { std::mem::zeroed() };
    request.sg_list = entry;
    request.num_sge = 1;
    request.opcode = IBV_WR_RDMA_WRITE;
    request.wr.rdma.remote_addr = to.address();
    request.wr.rdma.rkey = to.remote_key();
    request
}

#[test]
#[ignore = "needs two verbs devices, r0 and r1: tools/rig/run device"]
fn a_write_goes_over_queue_pairs_brought_up_by_the_table() {
    let (one, two) = connected();
    let from = register(&one.device, 10_000, Access::LOCAL);
    let to = register(&two.device, 10_000, Access::ALL);
    fill(&from, 0x5a);
    // SAFETY: numbers, for which zero is a value.
    let mut entry: ibv_sge = unsafe { std::mem::zeroed() };
    assert_eq!(one.run(&mut write(&from, &mut entry, &to)), IBV_WC_SUCCESS);
    assert!(contents(&to).iter().all(|byte| *byte == 0x5a));
}

#[test]
#[ignore = "needs two verbs devices, r0 and r1: tools/rig/run device"]
fn a_key_is_worthless_after_the_last_handle_is_gone() {
    let (one, two) = connected();
    let from = register(&one.device, 64, Access::LOCAL);
    let to = register(&two.device, 64, Access::ALL);
    // SAFETY: numbers, for which zero is a value.
    let mut entry: ibv_sge = unsafe { std::mem::zeroed() };
    let mut request = write(&from, &mut entry, &to);
    drop(to);
    assert_eq!(one.run(&mut request), IBV_WC_REM_ACCESS_ERR);
}

#[test]
#[ignore = "needs two verbs devices, r0 and r1: tools/rig/run device"]
fn a_region_that_peers_may_only_read_is_not_written() {
    let (one, two) = connected();
    let from = register(&one.device, 64, Access::LOCAL);
    let to = register(&two.device, 64, Access::READ);
    fill(&from, 1);
    // SAFETY: numbers, for which zero is a value.
    let mut entry: ibv_sge = unsafe { std::mem::zeroed() };
    assert_eq!(one.run(&mut write(&from, &mut entry, &to)), IBV_WC_REM_ACCESS_ERR);
    assert!(contents(&to).iter().all(|byte| *byte == 0));
}

#[test]
#[ignore = "needs two verbs devices, r0 and r1: tools/rig/run device"]
fn a_live_queue_pair_takes_another_path_by_way_of_the_drained_state() {
    let (one, two) = connected();
    let listener = Listener::new(&one.device, Waker::noop().clone());
    let drained = Attributes::default();
    let notify = Attributes {
        notify_drained: Some(true),
        ..drained
    };
    one.modify(State::ReadyToSend, State::Drained, &notify).unwrap();
    hear(&listener, DeviceEvent::SendQueueDrained(one.remote().number));
    let moved = Attributes {
        path: Some(one.device.path_to(&two.remote(), 0x12345)),
        ..drained
    };
    one.modify(State::Drained, State::Drained, &moved).unwrap();
    one.modify(State::Drained, State::ReadyToSend, &drained).unwrap();
    let (from, to) = (
        register(&one.device, 64, Access::LOCAL),
        register(&two.device, 64, Access::ALL),
    );
    // SAFETY: numbers, for which zero is a value.
    let mut entry: ibv_sge = unsafe { std::mem::zeroed() };
    assert_eq!(one.run(&mut write(&from, &mut entry, &to)), IBV_WC_SUCCESS);
    one.modify(State::ReadyToSend, State::Error, &drained).unwrap();
    one.modify(State::Error, State::Reset, &drained).unwrap();
}

#[test]
#[ignore = "needs two verbs devices, r0 and r1: tools/rig/run device"]
fn what_the_driver_refuses_lists_what_was_sent() {
    let device = open("r0");
    let pair = Pair::new(&device, 1);
    // The table is kept for a pair in INIT; this one is still in RESET, which only the driver knows.
    let remote = pair.remote();
    let attributes = device.receiving(&remote, device.path_to(&remote, 0));
    let error = pair
        .modify(State::Init, State::ReadyToReceive, &attributes)
        .unwrap_err();
    let text = error.to_string();
    for part in [
        "device r0 port 1, queue pair to rank 7",
        "ibv_modify_qp to RTR",
        "path MTU 4096",
        "Invalid argument",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(matches!(
        error,
        VerbsError::Verb(VerbError::ModifyToReadyToReceive(_))
    ));
}

#[test]
#[ignore = "needs two verbs devices, r0 and r1: tools/rig/run device"]
fn one_registration_serves_who_asks_for_the_same_rights() {
    let device = open("r0");
    let region = Region::host(4096, HugePages::Never).unwrap();
    let of = |access| VerbsRegistration::of(&device, &region, access).unwrap();
    let (one, two, other) = (of(Access::ALL), of(Access::ALL), of(Access::READ));
    assert!(Arc::ptr_eq(&one, &two));
    assert!(!Arc::ptr_eq(&one, &other) && one.remote_key() != other.remote_key());
    assert_eq!(device.registrations.len(), 2);
    drop((one, two));
    assert_eq!(device.registrations.len(), 1);
    drop(other);
    assert_eq!((device.registrations.len(), Arc::strong_count(&device)), (0, 1));
}

fn ip(arguments: &[&str]) {
    let status = std::process::Command::new("ip")
        .args(arguments)
        .status()
        .expect("ip runs");
    assert!(status.success(), "ip {arguments:?}");
}

/// Sleeps until the device has something to say, and reads it.
fn hear(listener: &Listener, awaited: DeviceEvent) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        while let Some(event) = listener.take() {
            if event == awaited {
                return;
            }
        }
        let left = deadline.checked_duration_since(Instant::now());
        let left = left.unwrap_or_else(|| panic!("no event {awaited:?} within 20 s"));
        let mut descriptors = [PollFd::from_borrowed_fd(listener.descriptor(), PollFlags::IN)];
        poll(&mut descriptors, Some(&left.try_into().unwrap())).expect("poll");
        listener.read().unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
#[ignore = "makes a fault: takes interface v0 of device r0 down and up; tools/rig/run device"]
fn a_port_that_goes_down_is_heard_by_every_listener_and_refused_at_the_next_open() {
    let device = open("r0");
    let (one, two) = (
        Listener::new(&device, Waker::noop().clone()),
        Listener::new(&device, Waker::noop().clone()),
    );
    one.read().unwrap();
    assert_eq!(one.take(), None, "nothing has happened yet");
    ip(&["link", "set", "v0", "down"]);
    hear(&one, DeviceEvent::PortDown(1));
    hear(&two, DeviceEvent::PortDown(1));
    let settings = Settings {
        devices: vec!["r0".into()],
        ..Settings::default()
    };
    let refused = Verbs::open(&settings).map(|_| ()).unwrap_err().to_string();
    ip(&["link", "set", "v0", "up"]);
    hear(&two, DeviceEvent::PortActive(1));
    for part in ["device r0 port 1 is DOWN", "ip link set v0 up"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
}

#[test]
#[ignore = "makes a fault: changes the addresses of interface v0 of device r0; tools/rig/run device"]
fn a_gid_that_moves_in_its_table_is_found_again() {
    let (one, two) = (Pair::new(&open("r0"), 1), Pair::new(&open("r1"), 2));
    let listener = Listener::new(&one.device, Waker::noop().clone());
    let before = one.device.gid_index();
    ip(&["addr", "del", "10.9.0.1/24", "dev", "v0"]);
    ip(&["addr", "add", "10.8.0.1/24", "dev", "v0"]);
    ip(&["addr", "add", "10.9.0.1/24", "dev", "v0"]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while one.device.gid_index() == before {
        assert!(
            Instant::now() < deadline,
            "after 20 s the GID is still thought to be at index {before}"
        );
        hear(&listener, DeviceEvent::GidChange(1));
    }
    one.connect(&two.remote());
    two.connect(&one.remote());
    let (from, to) = (
        register(&one.device, 64, Access::LOCAL),
        register(&two.device, 64, Access::ALL),
    );
    // SAFETY: numbers, for which zero is a value.
    let mut entry: ibv_sge = unsafe { std::mem::zeroed() };
    let status = one.run(&mut write(&from, &mut entry, &to));
    ip(&["addr", "del", "10.8.0.1/24", "dev", "v0"]);
    assert_eq!(status, IBV_WC_SUCCESS);
}
