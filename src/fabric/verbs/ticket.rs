//! The `wr_id`s of work requests: which queue pair of which connection, and which entry of its in-flight table.

/// Which of a connection's two tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Request,
    Receive,
}

/// What a completion says that it is of: a `wr_id`, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    pub side: Side,
    /// Which queue pair of the connection.
    pub lane: u8,
    /// Which connection of the endpoint.
    pub connection: u16,
    /// The low [`Ticket::SEQUENCE_BITS`] of the entry's number.
    pub sequence: u64,
}

impl Ticket {
    pub const SEQUENCE_BITS: u32 = 41;
    pub const SEQUENCE_MASK: u64 = (1 << Self::SEQUENCE_BITS) - 1;
    const CONNECTION_AT: u32 = Self::SEQUENCE_BITS;
    const LANE_AT: u32 = Self::CONNECTION_AT + 16;
    const SIDE_AT: u32 = Self::LANE_AT + 6;
    /// Queue pairs of one connection that a ticket can tell apart.
    pub const LANES: usize = 64;

    /// As a `wr_id` for this side, queue pair and connection, to which the sequence number is still to be added.
    pub const fn base(side: Side, lane: u8, connection: u16) -> u64 {
        let side = match side {
            Side::Request => 0,
            Side::Receive => 1,
        };
        side << Self::SIDE_AT | (lane as u64) << Self::LANE_AT | (connection as u64) << Self::CONNECTION_AT
    }

    /// The `wr_id` of an entry.
    #[inline(always)]
    pub const fn number(base: u64, sequence: u64) -> u64 {
        base | (sequence & Self::SEQUENCE_MASK)
    }

    /// The connection of a `wr_id`, if it is of a request on queue pair 0; else a number that no connection has.
    #[inline(always)]
    pub const fn connection_of(number: u64) -> usize {
        (number >> Self::CONNECTION_AT) as usize
    }

    /// Takes a `wr_id` apart. Any number gives a ticket; whether it is one of ours, the table says.
    #[inline(always)]
    pub const fn from_number(number: u64) -> Self {
        Self {
            side: if number >> Self::SIDE_AT == 0 {
                Side::Request
            } else {
                Side::Receive
            },
            lane: (number >> Self::LANE_AT & 63) as u8,
            connection: (number >> Self::CONNECTION_AT) as u16,
            sequence: number & Self::SEQUENCE_MASK,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_keep_their_parts() {
        for side in [Side::Request, Side::Receive] {
            for (lane, connection, sequence) in
                [(0, 0, 0), (63, u16::MAX, Ticket::SEQUENCE_MASK), (5, 77, 1 << 30)]
            {
                let number = Ticket::number(Ticket::base(side, lane, connection), sequence);
                let ticket = Ticket {
                    side,
                    lane,
                    connection,
                    sequence,
                };
                assert_eq!(Ticket::from_number(number), ticket);
            }
        }
    }
}
