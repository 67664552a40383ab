//! What the numbers in a port's attributes mean (InfiniBand specification, PortInfo). Tables only.

use sapwood_sys::verbs::bindings::*;

use super::inventory::{LinkLayer, PortState};

pub(super) fn layer(code: u8) -> LinkLayer {
    match code {
        // 0 is unspecified: drivers of the time before RoCE leave it open, and those are InfiniBand.
        0 | 1 => LinkLayer::InfiniBand,
        2 => LinkLayer::Ethernet,
        _ => LinkLayer::Unknown,
    }
}

pub(super) fn state(code: ibv_port_state) -> PortState {
    match code {
        IBV_PORT_DOWN => PortState::Down,
        IBV_PORT_INIT => PortState::Initialising,
        IBV_PORT_ARMED => PortState::Armed,
        IBV_PORT_ACTIVE | IBV_PORT_ACTIVE_DEFER => PortState::Active,
        _ => PortState::Unknown,
    }
}

pub(super) fn physical_state(code: u8) -> &'static str {
    match code {
        1 => "sleep",
        2 => "polling",
        3 => "disabled",
        4 => "training",
        5 => "link up",
        6 => "error recovery",
        7 => "test",
        _ => "unknown",
    }
}

/// Lanes.
pub(super) fn lanes(code: u8) -> Option<u8> {
    match code {
        1 => Some(1),
        2 => Some(4),
        4 => Some(8),
        8 => Some(12),
        16 => Some(2),
        _ => None,
    }
}

/// Name, and data of one lane in Gbit/s on InfiniBand (the line code taken off) and on Ethernet (which names speeds
/// by their data).
fn lane(code: u8) -> Option<(&'static str, f64, f64)> {
    Some(match code {
        1 => ("SDR", 2.0, 2.5),
        2 => ("DDR", 4.0, 5.0),
        4 => ("QDR", 8.0, 10.0),
        8 => ("FDR10", 10.0, 10.0),
        16 => ("FDR", 13.64, 14.0),
        32 => ("EDR", 25.0, 25.0),
        64 => ("HDR", 50.0, 50.0),
        128 => ("NDR", 100.0, 100.0),
        _ => return None,
    })
}

pub(super) fn speed(code: u8) -> Option<&'static str> {
    lane(code).map(|(name, ..)| name)
}

/// Bytes of data per second and direction, in units of 10^9.
pub(super) fn rate(speed: u8, width: u8, layer: LinkLayer) -> Option<f64> {
    let (_, infiniband, ethernet) = lane(speed)?;
    let gigabits = if layer == LinkLayer::Ethernet {
        ethernet
    } else {
        infiniband
    };
    Some(gigabits * f64::from(lanes(width)?) / 8.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_the_data_sheets() {
        for (speed, width, layer, expected) in [
            (32, 2, LinkLayer::InfiniBand, 12.5),
            (64, 2, LinkLayer::InfiniBand, 25.0),
            (128, 2, LinkLayer::Ethernet, 50.0),
            (4, 1, LinkLayer::Ethernet, 1.25),
            (4, 2, LinkLayer::InfiniBand, 4.0),
        ] {
            assert_eq!(rate(speed, width, layer), Some(expected));
        }
        assert_eq!(
            (rate(0, 2, LinkLayer::Ethernet), rate(32, 3, LinkLayer::Ethernet)),
            (None, None)
        );
    }
}
