//! The inventory as tables for people: ports, their GIDs, their counters. Decides nothing.

use sapwood::fabric::verbs::{Choice, DeviceReport, Inventory, PortReport, Transport};

use crate::table::{Align, Table};

/// Ports and GIDs; what `chosen` says is marked.
pub(super) fn devices(inventory: &Inventory, chosen: Option<&Choice>) -> String {
    use Align::{Left, Right};
    let mut ports = Table::new(&[
        Left, Left, Right, Left, Left, Right, Left, Right, Right, Left, Left,
    ]);
    ports.row([
        "", "device", "port", "state", "link", "GB/s", "speed", "MTU", "LID", "net", "firmware",
    ]);
    let mut gids = Table::new(&[Left, Left, Right, Right, Left, Left, Left, Left]);
    gids.row(["", "device", "port", "index", "type", "address", "GID", "net"]);
    let mut any_gid = false;
    for device in &inventory.devices {
        if device.ports.is_empty() {
            ports.row(["", device.name.as_str(), "-", "not opened"]);
        }
        for port in &device.ports {
            let here = chosen.filter(|choice| choice.device == device.name && choice.port == port.number);
            ports.row(port_row(device, port, here.is_some()));
            for gid in &port.gids {
                any_gid = true;
                let taken = here.is_some_and(|choice| choice.gid.index == gid.index);
                gids.row([
                    star(taken),
                    device.name.clone(),
                    port.number.to_string(),
                    gid.index.to_string(),
                    gid.kind.map_or_else(unknown, |kind| kind.to_string()),
                    gid.ipv4.map_or_else(unknown, |address| address.to_string()),
                    gid.gid.to_string(),
                    net(gid.net_device.as_ref(), gid.vlan),
                ]);
            }
        }
    }
    let mut text = ports.render(0);
    if any_gid {
        text.push('\n');
        text.push_str(&gids.render(0));
    }
    text
}

fn port_row(device: &DeviceReport, port: &PortReport, taken: bool) -> [String; 11] {
    let link = match device.transport {
        Transport::Iwarp => "iWARP".to_owned(),
        _ => port.link_layer.to_string(),
    };
    let speed = match (port.width, &port.speed) {
        (Some(width), Some(speed)) => format!("{width}x {speed}"),
        (None, Some(speed)) => speed.clone(),
        _ => unknown(),
    };
    let firmware = device.details.as_ref().map(|details| details.firmware.clone());
    [
        star(taken),
        device.name.clone(),
        port.number.to_string(),
        port.state.to_string(),
        link,
        port.rate_gb_per_s
            .map_or_else(unknown, |rate| format!("{rate:.2}")),
        speed,
        port.active_mtu.map_or_else(unknown, |mtu| mtu.to_string()),
        if port.lid == 0 {
            unknown()
        } else {
            port.lid.to_string()
        },
        net(port.net_device.as_ref(), None),
        firmware
            .filter(|firmware| !firmware.is_empty())
            .unwrap_or_else(unknown),
    ]
}

/// The counters that are not 0, and what could not be read.
pub(super) fn counters(inventory: &Inventory) -> String {
    let mut table = Table::new(&[Align::Left, Align::Right, Align::Left, Align::Right]);
    table.row(["device", "port", "counter", "value"]);
    let mut problems = String::new();
    for device in &inventory.devices {
        for port in &device.ports {
            for (name, value) in port.counters.iter().filter(|(_, value)| **value != 0) {
                table.row([
                    device.name.as_str(),
                    &port.number.to_string(),
                    name,
                    &value.to_string(),
                ]);
            }
            for problem in &port.problems {
                problems.push_str(&format!("{} port {}: {problem}\n", device.name, port.number));
            }
        }
    }
    format!("\n{}{problems}", table.render(0))
}

fn star(taken: bool) -> String {
    if taken { "*".into() } else { String::new() }
}

fn unknown() -> String {
    "-".into()
}

fn net(device: Option<&String>, vlan: Option<u16>) -> String {
    match (device, vlan) {
        (Some(device), Some(vlan)) => format!("{device} (VLAN {vlan})"),
        (Some(device), None) => device.clone(),
        (None, _) => unknown(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use sapwood::fabric::verbs::{Settings, choose};

    use super::*;

    /// As the library would give it.
    pub(in super::super) fn two_devices() -> Inventory {
        let port = |gid: &str, net: &str| {
            serde_json::json!({
                "number": 1, "state": "active", "physical_state": "link up", "link_layer": "ethernet",
                "active_mtu": 1024, "max_mtu": 4096, "lid": 0, "subnet_manager_lid": 0, "lid_mask_count": 0,
                "global_route_required": true, "width": 1, "speed": "SDR", "rate_gb_per_s": 0.25,
                "max_message": 1 << 30, "gid_table": 1024, "partition_key_table": 1, "net_device": net,
                "gids": [
                    {"index": 0, "gid": "fe80::1", "type": "RoCE v2", "ipv4": null, "net_device": net, "vlan": null},
                    {"index": 1, "gid": format!("::ffff:{gid}"), "type": "RoCE v2", "ipv4": gid,
                     "net_device": net, "vlan": 7}
                ],
                "counters": {"rcvd_pkts": 12, "sent_pkts": 0}, "problems": ["counters/x: gone"]
            })
        };
        let device = |name: &str, gid: &str, net: &str| {
            serde_json::json!({
                "name": name, "node_guid": "0:0", "transport": "infini_band", "error": null,
                "details": null, "ports": [port(gid, net)]
            })
        };
        serde_json::from_value(serde_json::json!({
            "missing_functions": [], "without_driver": [],
            "devices": [device("r0", "10.9.0.1", "v0"), device("r1", "10.9.0.2", "v1")]
        }))
        .expect("an inventory")
    }

    #[test]
    fn the_choice_is_marked_once_in_each_table() {
        let inventory = two_devices();
        let settings = Settings {
            devices: vec!["r1".into()],
            ..Settings::default()
        };
        let choice = choose(&inventory, &settings).unwrap();
        let text = devices(&inventory, Some(&choice));
        let marked: Vec<&str> = text.lines().filter(|line| line.starts_with('*')).collect();
        assert_eq!(marked.len(), 2, "{text}");
        assert!(marked.iter().all(|line| line.contains("r1")), "{text}");
        assert!(
            marked[1].contains("10.9.0.2") && marked[1].contains("v1 (VLAN 7)"),
            "{text}"
        );
        assert!(
            text.contains("ACTIVE") && text.contains("0.25") && text.contains("1x SDR"),
            "{text}"
        );
    }

    #[test]
    fn counters_that_are_0_are_left_out() {
        let text = counters(&two_devices());
        assert!(text.contains("rcvd_pkts") && text.contains("12"), "{text}");
        assert!(
            !text.contains("sent_pkts") && text.contains("counters/x: gone"),
            "{text}"
        );
    }

    #[test]
    fn no_device_is_a_head_without_rows() {
        let text = devices(&Inventory::default(), None);
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}
