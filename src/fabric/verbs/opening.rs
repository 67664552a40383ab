//! How a connection is made: queue pairs that take receives, a parcel to the peer, the peer's parcel, and the way to
//! the state in which everything may be posted.

use std::time::Instant;

use sapwood_sys::verbs::bindings::ibv_port_attr;

use super::connection::Connection;
use super::device::Device;
use super::ending::Owed;
use super::endpoint::{NO_CONNECTION, VerbsEndpoint};
use super::error::{VerbError, VerbsError, last_errno};
use super::explain::{Path, Side as End};
use super::in_flight::InFlight;
use super::inventory::LinkLayer;
use super::liveness::Liveness;
use super::lone::Lone;
use super::parcel::ConnectionParcel;
use super::probe::SPARE_REQUESTS;
use super::queue_pair::QueuePair;
use super::ticket::{Side, Ticket};
use crate::fabric::parcel::Ends;
use crate::fabric::state::{State, already_there};
use crate::fabric::{FabricError, Parcel, Patience, Rank};

/// Ranks that an endpoint finds connections for by index.
const MOST_RANKS: Rank = 1 << 20;

/// The largest message of the port, or what a length of 32 bits allows.
pub(super) fn largest_message(device: &Device) -> Result<usize, VerbsError> {
    // SAFETY: numbers only.
    let mut port: ibv_port_attr = unsafe { std::mem::zeroed() };
    // SAFETY: an open device, and a place for the answer.
    let errno = unsafe {
        device
            .library()
            .query_port(device.context(), device.choice().port, &mut port)
    };
    if errno != 0 {
        return Err(device
            .place()
            .failed(VerbError::QueryPort, if errno < 0 { last_errno() } else { errno }));
    }
    Ok((port.max_msg_sz as usize).clamp(4096, 1 << 30))
}

impl VerbsEndpoint {
    /// The local half of a connection, and what the peer needs for its own.
    pub(super) fn open(&mut self, peer: Rank) -> Result<Parcel, FabricError> {
        if self.find(peer).is_some() {
            return Err(already_there(self.rank, peer));
        }
        let index = u16::try_from(self.connections.len())
            .ok()
            .filter(|_| peer < MOST_RANKS);
        let Some(index) = index else {
            return Err(FabricError::System {
                fabric: super::NAME,
                what: format!("preparing a queue pair from rank {} to rank {peer}", self.rank),
                source: std::io::Error::other(format!(
                    "an endpoint has at most {} connections, to ranks below {MOST_RANKS}",
                    usize::from(u16::MAX) + 1
                )),
            });
        };
        let lanes = self.device.settings().queue_pairs.clamp(1, Ticket::LANES);
        let granted = *self.device.granted();
        let (send_depth, receive_depth) = (granted.send_depth as usize, granted.receive_depth as usize);
        let entries = lanes * (send_depth + receive_depth);
        let capacity = self.queue.reserve(entries)?;
        let made: Result<Box<[_]>, _> = (0..lanes)
            .map(|_| QueuePair::create(self.device.clone(), self.queue.raw(), peer))
            .collect();
        let lanes = made.inspect_err(|_| self.queue.release(entries))?;
        let bases = |side| {
            (0..lanes.len())
                .map(|lane| Ticket::base(side, lane as u8, index))
                .collect()
        };
        let depth = granted.depth();
        let inline_size = lanes.iter().map(QueuePair::inline_size).min().unwrap_or(0);
        let lone = Lone::new(&lanes, Ticket::base(Side::Request, 0, index), inline_size);
        let connection = Connection {
            peer,
            state: State::Prepared,
            requests: InFlight::with_capacity(send_depth),
            receives: InFlight::with_capacity(receive_depth),
            depth,
            request_bases: bases(Side::Request),
            receive_bases: bases(Side::Receive),
            largest_message: self.largest_message,
            inline_size,
            single: lanes.len() == 1,
            lanes,
            over_before: 0,
            striped_before: 0,
            silent: 0,
            longest_silence: depth / 4,
            scope: self.device.scope(),
            remote_scope: super::remote::scope(peer),
            request_base: Ticket::base(Side::Request, 0, index),
            remote: None,
            failure: None,
            owed: Owed::default(),
            fresh: false,
            liveness: Liveness::new(Instant::now()),
            lone,
        };
        let parcel = self.describe(&connection);
        self.connections.push(Box::new(connection));
        self.budget
            .set(capacity, self.connections.len() * SPARE_REQUESTS as usize);
        self.admit_lone(depth);
        if self.by_rank.len() <= peer as usize {
            self.by_rank.resize(peer as usize + 1, NO_CONNECTION);
        }
        self.by_rank[peer as usize] = u32::from(index);
        // Not at each wait: counting the cores reads files.
        self.patience = Patience::for_ranks(self.connections.len() + 1);
        // What a connection can have in flight at most, so that nothing allocates later.
        self.backlog
            .reserve(self.connections.len() * (send_depth + receive_depth));
        Ok(Parcel {
            bytes: parcel.encode(),
            descriptors: Vec::new(),
        })
    }

    pub(super) fn describe(&self, connection: &Connection) -> ConnectionParcel {
        let choice = self.device.choice();
        ConnectionParcel {
            ends: Ends {
                from: self.rank,
                to: connection.peer,
                generation: self.generation,
            },
            lid: choice.lid,
            gid: choice.gid.gid,
            mtu: self.device.mtu(),
            ethernet: choice.link_layer == LinkLayer::Ethernet,
            reads_answered: self.device.reads_answered(),
            reads_started: self.device.reads_started(),
            lanes: connection.lanes.iter().map(QueuePair::address).collect(),
        }
    }

    /// Connects the prepared half to the peer's.
    pub(super) fn join(&mut self, peer: Rank, parcel: &Parcel) -> Result<(), FabricError> {
        let at = self.need(peer, "connect")?;
        let rank = self.rank;
        self.connections[at].state.may_connect(rank, peer)?;
        let told = self
            .read(&self.connections[at], parcel)
            .map_err(|why| FabricError::Parcel {
                rank,
                peer,
                what: "a connection",
                why,
            })?;
        let connection = &mut self.connections[at];
        for (number, (lane, address)) in connection.lanes.iter_mut().zip(&told.lanes).enumerate() {
            if let Err(error) = lane.connect(&told.remote(*address), number) {
                connection.failed_by_verb(&error);
                return Err(error.into());
            }
        }
        connection.remote = Some(told);
        connection.state = State::Connected;
        connection.liveness = Liveness::new(Instant::now());
        Ok(())
    }

    /// What the peer told, if it is meant for this connection and fits it; else what is wrong.
    fn read(&self, connection: &Connection, parcel: &Parcel) -> Result<ConnectionParcel, String> {
        if !parcel.descriptors.is_empty() {
            return Err(format!(
                "it came with {} descriptors; those of verbs have none",
                parcel.descriptors.len()
            ));
        }
        let told = ConnectionParcel::decode(&parcel.bytes)?;
        let ours = self.describe(connection);
        told.ends.expect(connection.peer, self.rank, self.generation)?;
        if told.ethernet != ours.ethernet {
            let name = |ethernet| if ethernet { "Ethernet (RoCE)" } else { "InfiniBand" };
            return Err(format!(
                "its port is {}, ours ({}) is {}; choose ports of one kind with SAPWOOD_VERBS_DEVICE",
                name(told.ethernet),
                self.device.place(),
                name(ours.ethernet)
            ));
        }
        if told.lanes.len() != ours.lanes.len() {
            return Err(format!(
                "it has {} queue pairs for the connection and this rank has {}; set SAPWOOD_VERBS_QUEUE_PAIRS alike",
                told.lanes.len(),
                ours.lanes.len()
            ));
        }
        Ok(told)
    }

    /// What an explanation says about a connection.
    pub(super) fn path(&self, connection: &Connection) -> Path {
        let end = |parcel: &ConnectionParcel| End {
            rank: parcel.ends.from,
            gid: parcel.gid,
            lid: parcel.lid,
            mtu: parcel.mtu,
            numbers: parcel.lanes.iter().map(|lane| lane.number).collect(),
        };
        let (ours, settings) = (self.describe(connection), self.device.settings());
        Path {
            device: self.device.name().to_owned(),
            port: self.device.choice().port,
            ethernet: ours.ethernet,
            ours: end(&ours),
            theirs: connection.remote.as_ref().map(end),
            timeout: settings.timeout,
            retry_count: settings.retry_count,
            receiver_retry: settings.receiver_retry,
            receiver_timer: settings.receiver_timer,
        }
    }
}
