//! Networks that nobody here has, and what is chosen on them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn gid(index: u32, kind: GidType, address: &str) -> GidReport {
    let address: std::net::IpAddr = address.parse().expect("an address");
    GidReport {
        net_device: Some("eth0".into()),
        ..GidReport::new(index, address.into(), Some(kind))
    }
}

fn v1(index: u32, address: &str) -> GidReport {
    gid(index, GidType::RoceV1, address)
}

fn v2(index: u32, address: &str) -> GidReport {
    gid(index, GidType::RoceV2, address)
}

fn tagged(vlan: u16, gid: GidReport) -> GidReport {
    GidReport {
        net_device: Some(format!("eth0.{vlan}")),
        vlan: Some(vlan),
        ..gid
    }
}

fn ethernet(number: u8, rate: f64, gids: Vec<GidReport>) -> PortReport {
    PortReport {
        number,
        state: PortState::Active,
        physical_state: "link up".into(),
        link_layer: LinkLayer::Ethernet,
        active_mtu: Some(Mtu::Bytes4096),
        max_mtu: Some(Mtu::Bytes4096),
        lid: 0,
        subnet_manager_lid: 0,
        lid_mask_count: 0,
        global_route_required: true,
        width: Some(1),
        speed: None,
        rate_gb_per_s: Some(rate),
        max_message: 1 << 31,
        gid_table: 16,
        partition_key_table: 1,
        net_device: Some("eth0".into()),
        gids,
        counters: BTreeMap::new(),
        problems: Vec::new(),
    }
}

fn infiniband(number: u8, rate: f64, lid: u16) -> PortReport {
    let gids = vec![gid(0, GidType::InfiniBand, "fe80::e41d:2d03:0:1")];
    PortReport {
        link_layer: LinkLayer::InfiniBand,
        lid,
        global_route_required: false,
        net_device: None,
        ..ethernet(number, rate, gids)
    }
}

fn device(name: &str, ports: Vec<PortReport>) -> DeviceReport {
    DeviceReport {
        name: name.into(),
        node_guid: String::new(),
        transport: Transport::InfiniBand,
        error: None,
        details: None,
        ports,
    }
}

fn machine(devices: Vec<DeviceReport>) -> Inventory {
    Inventory {
        devices,
        ..Inventory::default()
    }
}

/// As in the rig: the table of each begins with the link-local address.
fn soft_pair() -> Inventory {
    let port = |address| ethernet(1, 0.3125, vec![v2(0, "fe80::1"), v2(1, address)]);
    machine(vec![
        device("r0", vec![port("10.9.0.1")]),
        device("r1", vec![port("10.9.0.2")]),
    ])
}

fn with(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = Settings::default();
    change(&mut settings);
    settings
}

#[track_caller]
fn chosen(inventory: &Inventory, settings: &Settings) -> (String, u8, u32) {
    let choice = choose(inventory, settings).unwrap_or_else(|error| panic!("{error}"));
    (choice.device, choice.port, choice.gid.index)
}

#[track_caller]
fn refused(inventory: &Inventory, settings: &Settings) -> String {
    match choose(inventory, settings) {
        Ok(choice) => panic!("{choice}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn ranks_are_spread_over_equal_devices() {
    let rank = |local_rank| with(|s| s.local_rank = local_rank);
    assert_eq!(chosen(&soft_pair(), &rank(0)), ("r0".into(), 1, 1));
    assert_eq!(chosen(&soft_pair(), &rank(1)), ("r1".into(), 1, 1));
    assert_eq!(chosen(&soft_pair(), &rank(2)), ("r0".into(), 1, 1));
    let text = choose(&soft_pair(), &rank(1)).unwrap().to_string();
    for part in [
        "device r1 port 1 (Ethernet, MTU 4096, 0.3125 GB/s)",
        "GID 1: 10.9.0.2 RoCE v2 on eth0",
        "number 2 of 2 equally good ports",
        "a routable address",
        "not r0 port 1 (as good, for other ranks)",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_list_of_devices_is_taken_in_turn_by_local_rank() {
    let rank = |local_rank| {
        with(|s| {
            s.devices = vec!["r1".into(), "r0:1".into()];
            s.local_rank = local_rank;
        })
    };
    assert_eq!(chosen(&soft_pair(), &rank(0)).0, "r1");
    assert_eq!(chosen(&soft_pair(), &rank(1)).0, "r0");
    assert_eq!(chosen(&soft_pair(), &rank(4)).0, "r1");
}

#[test]
fn the_routable_untagged_ipv4_entry_of_a_mixed_table_is_taken() {
    let table = [
        v1(0, "fe80::1"),
        v2(1, "fe80::1"),
        tagged(7, v2(2, "10.7.0.1")),
        v1(3, "10.9.0.1"),
        v2(4, "fd00:9::1"),
        v2(5, "10.9.0.1"),
        v2(6, "10.9.0.200"),
    ];
    let from = |kept: &[u32]| {
        let gids = table.iter().filter(|gid| kept.contains(&gid.index)).cloned();
        machine(vec![device("m0", vec![ethernet(1, 12.5, gids.collect())])])
    };
    let index = |kept: &[u32]| chosen(&from(kept), &Settings::default()).2;
    assert_eq!(index(&[0, 1, 2, 3, 4, 5, 6]), 5);
    assert_eq!(
        index(&[0, 1, 2, 3, 4]),
        4,
        "IPv6 without a VLAN before IPv4 on one"
    );
    assert_eq!(
        index(&[0, 1, 2, 3]),
        2,
        "a VLAN's address before one that crosses no router"
    );
    assert_eq!(index(&[0, 1, 3]), 1, "RoCE v2 before v1");
    assert_eq!(index(&[0, 3]), 3, "v1 where there is nothing else");
    let text = choose(&from(&[0, 1]), &Settings::default()).unwrap().reason;
    assert!(text.contains("no better address than one of this link"), "{text}");
    let text = choose(&from(&[0]), &Settings::default()).unwrap().reason;
    assert!(text.contains("no RoCE v2 address"), "{text}");
}

#[test]
fn a_subnet_selects_and_a_wrong_one_lists_the_table() {
    let gids = vec![v2(0, "fe80::1"), v2(1, "10.9.0.1"), tagged(7, v2(2, "10.7.0.1"))];
    let machine = machine(vec![device("m0", vec![ethernet(1, 12.5, gids)])]);
    let subnet = |text: &str| with(|s| s.subnet = Some(text.parse().unwrap()));
    assert_eq!(chosen(&machine, &subnet("10.7.0.0/16")).2, 2);
    assert_eq!(chosen(&machine, &subnet("fe80::/10")).2, 0);
    let text = refused(&machine, &subnet("192.168.0.0/16"));
    for part in [
        "192.168.0.0/16",
        "SAPWOOD_VERBS_SUBNET",
        "1: 10.9.0.1 RoCE v2",
        "10.7.0.1 RoCE v2 on eth0.7 (VLAN 7)",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_gid_index_is_obeyed_and_a_wrong_one_lists_the_table() {
    let index = |index| {
        with(|s| {
            s.gid_index = Some(index);
            s.devices = vec!["r0".into()];
        })
    };
    assert_eq!(chosen(&soft_pair(), &index(0)).2, 0);
    let text = refused(&soft_pair(), &index(9));
    for part in [
        "device r0 port 1 has no GID at index 9",
        "SAPWOOD_VERBS_GID_INDEX",
        "1: 10.9.0.1",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_port_that_is_down_is_passed_over_or_named() {
    let mut pair = soft_pair();
    pair.devices[0].ports[0].state = PortState::Down;
    pair.devices[0].ports[0].physical_state = "disabled".into();
    let choice = choose(&pair, &Settings::default()).unwrap();
    assert_eq!(choice.device, "r1");
    assert!(choice.passed_over[0].contains("r0 port 1 is DOWN"), "{choice}");
    let text = refused(&pair, &with(|s| s.devices = vec!["r0".into()]));
    for part in [
        "device r0 port 1 is DOWN (physical state: disabled)",
        "ip link set eth0 up",
        "NO-CARRIER",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    pair.devices[1].ports[0].state = PortState::Down;
    let text = refused(&pair, &Settings::default());
    assert!(text.contains("r0 port 1") && text.contains("r1 port 1"), "{text}");
}

#[test]
fn infiniband_needs_a_subnet_manager_and_goes_by_lid() {
    let mut host = machine(vec![device("mlx5_0", vec![infiniband(1, 25.0, 17)])]);
    let choice = choose(&host, &Settings::default()).unwrap();
    assert_eq!(
        (choice.lid, choice.gid.index, choice.global_route),
        (17, 0, false)
    );
    assert!(choice.reason.contains("by LID"), "{choice}");
    host.devices[0].ports[0].state = PortState::Initialising;
    assert!(refused(&host, &Settings::default()).contains("opensm"));
    host.devices[0].ports[0].state = PortState::Down;
    assert!(refused(&host, &Settings::default()).contains("cable"));
    // Virtual ports may have no LID of their own.
    host.devices[0].ports[0] = infiniband(1, 25.0, 0);
    assert!(choose(&host, &Settings::default()).unwrap().global_route);
    assert!(refused(&host, &with(|s| s.subnet = Some("10.0.0.0/8".parse().unwrap()))).contains("10.0.0.0/8"));
}

#[test]
fn the_faster_port_is_taken_if_packets_travel_as_far() {
    let address = || vec![v2(1, "10.0.0.1")];
    let host = machine(vec![
        device("management", vec![ethernet(1, 3.125, address())]),
        device("compute", vec![infiniband(1, 25.0, 4), infiniband(2, 50.0, 5)]),
    ]);
    assert_eq!(chosen(&host, &Settings::default()), ("compute".into(), 2, 0));
    let port_one = with(|s| s.port = Some(1));
    assert_eq!(chosen(&host, &port_one), ("compute".into(), 1, 0));
    let host = machine(vec![
        device("unaddressed", vec![ethernet(1, 50.0, vec![v2(0, "fe80::1")])]),
        device("addressed", vec![ethernet(1, 12.5, address())]),
    ]);
    let choice = choose(&host, &Settings::default()).unwrap();
    assert_eq!(choice.device, "addressed");
    assert!(
        choice
            .to_string()
            .contains("unaddressed port 1 (its addresses do not travel as far)"),
        "{choice}"
    );
}

#[test]
fn names_and_ports_that_do_not_exist_are_answered_with_those_that_do() {
    let text = refused(&soft_pair(), &with(|s| s.devices = vec!["mlx5_0".into()]));
    assert!(
        text.contains("no RDMA device \"mlx5_0\"; there is r0; r1"),
        "{text}"
    );
    let text = refused(&soft_pair(), &with(|s| s.devices = vec!["r0:3".into()]));
    assert!(text.contains("r0 has no port 3; it has ports 1 to 1"), "{text}");
}

#[test]
fn devices_that_cannot_be_used_say_why() {
    let mut host = soft_pair();
    host.devices[0].transport = Transport::Iwarp;
    host.devices[1].error = Some("no permission to open /dev/infiniband/uverbs1".into());
    let text = refused(&host, &Settings::default());
    assert!(
        text.contains("r0 speaks iWARP") && text.contains("uverbs1"),
        "{text}"
    );
}

#[test]
fn a_machine_without_devices_is_told_how_to_get_one() {
    let text = refused(&machine(vec![]), &Settings::default());
    assert!(text.contains("modprobe rdma_rxe"), "{text}");
    let host = Inventory {
        without_driver: vec!["mlx5_0".into()],
        ..Inventory::default()
    };
    let text = refused(&host, &Settings::default());
    assert!(
        text.contains("mlx5_0") && text.contains("ibverbs-providers"),
        "{text}"
    );
}

fn any_gid() -> impl Strategy<Value = GidReport> {
    let address = prop_oneof![
        Just("::"),
        Just("fe80::1"),
        Just("169.254.1.1"),
        Just("10.0.0.1"),
        Just("10.1.0.1"),
        Just("fd00::1"),
        Just("127.0.0.1"),
    ];
    let kind = prop_oneof![
        Just(None),
        Just(Some(GidType::RoceV1)),
        Just(Some(GidType::RoceV2))
    ];
    (address, kind, prop_oneof![Just(None), Just(Some(7u16))]).prop_map(|(address, kind, vlan)| GidReport {
        kind,
        vlan,
        ..v2(0, address)
    })
}

fn any_port() -> impl Strategy<Value = PortReport> {
    let state = prop_oneof![
        3 => Just(PortState::Active),
        1 => Just(PortState::Down),
        1 => Just(PortState::Initialising),
    ];
    let rate = prop_oneof![Just(None), Just(Some(12.5)), Just(Some(25.0))];
    (
        state,
        rate,
        any::<bool>(),
        0u16..3,
        proptest::collection::vec(any_gid(), 0..6),
    )
        .prop_map(|(state, rate_gb_per_s, ib, lid, mut gids)| {
            for (index, gid) in (0..).zip(&mut gids) {
                gid.index = index;
            }
            let port = if ib {
                infiniband(1, 0.0, lid)
            } else {
                ethernet(1, 0.0, gids)
            };
            PortReport {
                state,
                rate_gb_per_s,
                ..port
            }
        })
}

fn any_machine() -> impl Strategy<Value = Inventory> {
    let ports = proptest::collection::vec(any_port(), 1..3);
    proptest::collection::vec(ports, 0..4).prop_map(|devices| {
        let devices = devices.into_iter().enumerate().map(|(number, mut ports)| {
            for (number, port) in (1..).zip(&mut ports) {
                port.number = number;
            }
            device(&format!("d{number}"), ports)
        });
        machine(devices.collect())
    })
}

proptest! {
    #[test]
    fn what_is_chosen_works_and_can_be_asked_for(inventory in any_machine(), local_rank in 0usize..9) {
        let settings = with(|s| s.local_rank = local_rank);
        match choose(&inventory, &settings) {
            Ok(choice) => {
                let device = inventory.devices.iter().find(|device| device.name == choice.device).unwrap();
                let port = device.port(choice.port).unwrap();
                prop_assert_eq!(port.state, PortState::Active);
                prop_assert!(port.gids.contains(&choice.gid));
                if choice.link_layer == LinkLayer::Ethernet {
                    prop_assert!(choice.gid.gid.scope() > Scope::Nowhere && choice.global_route);
                    let usable = port.gids.iter().filter(|gid| gid.gid.scope() > Scope::Nowhere);
                    let best = usable.map(order).max();
                    prop_assert!(best == Some(order(&choice.gid)));
                }
                let again = with(|s| {
                    s.devices = vec![format!("{}:{}", choice.device, choice.port)];
                    s.gid_index = Some(choice.gid.index);
                });
                let again = choose(&inventory, &again).unwrap();
                prop_assert_eq!((again.device, again.port, again.gid), (choice.device, choice.port, choice.gid));
            }
            Err(error) => {
                for port in inventory.devices.iter().flat_map(|device| &device.ports) {
                    let alive = port.state == PortState::Active;
                    let addressed = port.gids.iter().any(|gid| gid.gid.scope() > Scope::Nowhere);
                    prop_assert!(!(alive && addressed), "{}", error);
                }
            }
        }
    }

    #[test]
    fn the_order_of_the_table_does_not_matter(inventory in any_machine()) {
        let mut reversed = inventory.clone();
        for port in reversed.devices.iter_mut().flat_map(|device| &mut device.ports) {
            port.gids.reverse();
        }
        let one = choose(&inventory, &Settings::default()).map(|choice| (choice.device, choice.port, choice.gid));
        let two = choose(&reversed, &Settings::default()).map(|choice| (choice.device, choice.port, choice.gid));
        prop_assert_eq!(one.ok(), two.ok());
    }
}
