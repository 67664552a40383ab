//! Every transition against the table, and every limit against a value beyond it.

use super::*;

const BOUNDS: Bounds = Bounds {
    ports: 1,
    link_layer: LinkLayer::Ethernet,
    active_mtu: Mtu::Bytes1024,
    partition_keys: 1,
    gid_table: 8,
    reads_started: 16,
    reads_answered: 16,
};

fn path() -> Path {
    Path {
        port: 1,
        gid: "::ffff:10.9.0.2".parse().unwrap(),
        lid: 0,
        global: true,
        gid_index: 1,
        hop_limit: 64,
        traffic_class: 0,
        flow_label: 0,
        service_level: 0,
    }
}

fn initial() -> Attributes {
    Attributes {
        access: Some(IBV_ACCESS_REMOTE_WRITE),
        partition_key_index: Some(0),
        port: Some(1),
        ..Attributes::default()
    }
}

fn receiving() -> Attributes {
    Attributes {
        path: Some(path()),
        path_mtu: Some(Mtu::Bytes1024),
        peer_number: Some(17),
        receive_sequence: Some(0xff_ffff),
        reads_answered: Some(16),
        receiver_timer: Some(12),
        ..Attributes::default()
    }
}

fn sending() -> Attributes {
    Attributes {
        timeout: Some(14),
        retry_count: Some(7),
        receiver_retry: Some(7),
        send_sequence: Some(5),
        reads_started: Some(16),
        ..Attributes::default()
    }
}

fn problems(attributes: Attributes, from: State, to: State) -> String {
    attributes.problems(from, to, &BOUNDS).join("; ")
}

#[test]
fn the_way_up_and_down_is_open() {
    use State::*;
    for (attributes, from, to) in [
        (initial(), Reset, Init),
        (receiving(), Init, ReadyToReceive),
        (sending(), ReadyToReceive, ReadyToSend),
        (Attributes::default(), ReadyToSend, Drained),
        (
            Attributes {
                path: Some(path()),
                ..Attributes::default()
            },
            Drained,
            Drained,
        ),
        (Attributes::default(), Drained, ReadyToSend),
        (Attributes::default(), ReadyToSend, Error),
        (Attributes::default(), Error, Reset),
    ] {
        assert_eq!(problems(attributes, from, to), "", "{from} to {to}");
    }
}

#[test]
fn only_the_transitions_of_the_table_exist() {
    use State::*;
    let exist = |from: State, to: State| {
        matches!(
            (from, to),
            (_, Reset | Error)
                | (Reset | Init, Init)
                | (Init, ReadyToReceive)
                | (ReadyToReceive | ReadyToSend | Drained, ReadyToSend)
                | (ReadyToSend | Drained, Drained)
        )
    };
    for from in State::ALL {
        for to in State::ALL {
            assert_eq!(transition(from, to).is_some(), exist(from, to), "{from} to {to}");
        }
    }
    assert_eq!(
        problems(sending(), Init, ReadyToSend),
        "there is no such transition"
    );
}

#[test]
fn each_missing_attribute_is_named() {
    use State::*;
    for (whole, from, to) in [
        (initial(), Reset, Init),
        (receiving(), Init, ReadyToReceive),
        (sending(), ReadyToReceive, ReadyToSend),
    ] {
        let (required, _) = transition(from, to).unwrap();
        assert_eq!(whole.mask(), required);
        let text = problems(Attributes::default(), from, to);
        for (bit, name) in NAMES {
            assert_eq!(text.contains(name), required & bit != 0, "{name}: {text}");
        }
    }
}

#[test]
fn a_path_is_not_changed_while_sending() {
    let moved = Attributes {
        path: Some(path()),
        ..Attributes::default()
    };
    assert_eq!(
        problems(moved, State::ReadyToSend, State::ReadyToSend),
        "it does not take path"
    );
}

#[test]
fn each_limit_is_kept() {
    use State::*;
    let receiving_with = |change: fn(&mut Attributes)| {
        let mut attributes = receiving();
        change(&mut attributes);
        problems(attributes, Init, ReadyToReceive)
    };
    let path_with = |change: fn(&mut Path)| {
        let mut path = path();
        change(&mut path);
        let mut attributes = receiving();
        attributes.path = Some(path);
        problems(attributes, Init, ReadyToReceive)
    };
    let sending_with = |change: fn(&mut Attributes)| {
        let mut attributes = sending();
        change(&mut attributes);
        problems(attributes, ReadyToReceive, ReadyToSend)
    };
    for (text, expected) in [
        (
            receiving_with(|a| a.path_mtu = Some(Mtu::Bytes2048)),
            "path MTU 2048 is not within 256 to 1024",
        ),
        (
            receiving_with(|a| a.peer_number = Some(1 << 24)),
            "peer's queue pair 16777216 is not",
        ),
        (
            receiving_with(|a| a.peer_number = Some(0)),
            "peer's queue pair 0 is not",
        ),
        (
            receiving_with(|a| a.receive_sequence = Some(1 << 24)),
            "receive sequence 16777216 is not",
        ),
        (
            receiving_with(|a| a.reads_answered = Some(17)),
            "reads answered 17 is not within 0 to 16",
        ),
        (
            receiving_with(|a| a.receiver_timer = Some(32)),
            "receiver timer 32 is not within 0 to 31",
        ),
        (
            receiving_with(|a| a.partition_key_index = Some(1)),
            "partition key index 1 is not within 0 to 0",
        ),
        (
            receiving_with(|a| a.access = Some(IBV_ACCESS_MW_BIND)),
            "access 0x10 is not a queue pair's",
        ),
        (
            path_with(|p| p.port = 2),
            "port of the path 2 is not within 1 to 1",
        ),
        (path_with(|p| p.gid_index = 8), "GID index 8 is not within 0 to 7"),
        (path_with(|p| p.hop_limit = 0), "hop limit 0 is not"),
        (path_with(|p| p.flow_label = 1 << 20), "flow label 1048576 is not"),
        (
            path_with(|p| p.service_level = 8),
            "service level 8 is not within 0 to 7",
        ),
        (path_with(|p| p.gid = Gid::default()), "the peer's GID is empty"),
        (path_with(|p| p.global = false), "needs a global route header"),
        (sending_with(|a| a.timeout = Some(32)), "timeout 32 is not"),
        (sending_with(|a| a.retry_count = Some(8)), "retry count 8 is not"),
        (
            sending_with(|a| a.receiver_retry = Some(8)),
            "receiver retry 8 is not",
        ),
        (
            sending_with(|a| a.reads_started = Some(17)),
            "reads started 17 is not",
        ),
        (
            sending_with(|a| a.send_sequence = Some(1 << 24)),
            "send sequence 16777216 is not",
        ),
    ] {
        assert!(text.contains(expected), "{expected}: {text:?}");
    }
}

#[test]
fn infiniband_goes_by_lid() {
    let bounds = Bounds {
        link_layer: LinkLayer::InfiniBand,
        ..BOUNDS
    };
    let to = |lid, global| {
        let mut attributes = receiving();
        attributes.path = Some(Path {
            lid,
            global,
            service_level: 15,
            ..path()
        });
        attributes
            .problems(State::Init, State::ReadyToReceive, &bounds)
            .join("; ")
    };
    assert_eq!(
        (to(7, false), to(7, true), to(0, true)),
        (String::new(), String::new(), String::new())
    );
    assert!(to(0, false).contains("LID 0 is not within 1 to 49151"));
    assert!(to(0xc000, false).contains("LID 49152"));
}

#[test]
fn everything_that_is_sent_is_listed() {
    let text = receiving().to_string();
    for part in [
        "path port 1 to GID ::ffff:10.9.0.2 from GID index 1",
        "path MTU 1024",
        "peer's queue pair 17",
        "receive sequence 0xffffff",
        "reads answered 16",
        "receiver timer 12",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(Attributes::default().to_string(), "nothing but the state");
}
