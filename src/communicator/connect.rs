//! From a membership to ranks that see each other's boards: registration, exchange of what was registered,
//! connection. Everything here is collective and happens once.

use std::any::Any;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::CommunicatorError;
use super::members::Members;
use crate::bootstrap::Gathered;
use crate::engine::{Board, Group, Layout, SMALL_BYTES, WindowMap};
use crate::fabric::{Access, Endpoint, Fabric, Parcel, Patience, Registration, RemoteRegion};
use crate::memory::{HugePages, Region};

/// What a rank says of memory that it offers to all others; the descriptors travel beside it.
#[derive(Debug, Serialize, Deserialize)]
struct Offer {
    /// Bytes, from `offset` of the registered region.
    len: u64,
    offset: u64,
    /// What the ranks must agree on besides the length.
    kind: String,
    parcel: Vec<u8>,
}

/// How a rank reaches the others' memory.
pub(super) struct Links {
    pub(super) rank: u32,
    pub(super) members: Members,
    pub(super) fabric: Arc<dyn Fabric>,
    pub(super) endpoint: Box<dyn Endpoint>,
    pub(super) timeout: Duration,
    /// How many windows all ranks have shared: the next one's number, the same on each.
    pub(super) windows: u16,
}

impl Links {
    /// Connects a queue pair to every rank, and to itself.
    pub(super) fn connect(&mut self, ranks: u32) -> Result<(), CommunicatorError> {
        let mine = (0..ranks)
            .map(|peer| self.endpoint.prepare(peer))
            .collect::<Result<Vec<_>, _>>()?;
        let mut mine = mine.into_iter().map(Some).collect::<Vec<_>>();
        // One round for each rank, in which it hands out what it has for each other: so nobody holds more than one
        // rank's descriptors at a time.
        for giver in 0..ranks {
            let (mut payload, mut descriptors, mut counts) = (Vec::new(), Vec::new(), Vec::new());
            if giver == self.rank {
                for parcel in mine
                    .iter_mut()
                    .map(|parcel| parcel.take().expect("each is given once"))
                {
                    counts.push(parcel.descriptors.len());
                    payload.push(parcel.bytes);
                    descriptors.extend(parcel.descriptors);
                }
            }
            let bytes = encode(&(payload, counts));
            let given = self
                .members
                .all_gather("connecting", &bytes, descriptors, self.timeout)?;
            let mut given = given.into_iter().nth(giver as usize).expect("one for each rank");
            let (payload, counts): (Vec<Vec<u8>>, Vec<usize>) = self.decode(giver, &given.payload)?;
            let me = self.rank as usize;
            let before = counts.iter().take(me).sum::<usize>();
            let own = counts.get(me).copied().unwrap_or(0);
            let (Some(bytes), true) = (
                payload.into_iter().nth(me),
                before + own <= given.descriptors.len(),
            ) else {
                return Err(self.unusable(giver));
            };
            let descriptors = given.descriptors.drain(before..before + own).collect();
            self.endpoint.connect(giver, Parcel { bytes, descriptors })?;
        }
        Ok(())
    }

    /// Offers the bytes `offset..offset + len` of a region to all ranks and takes in theirs. Collective.
    pub(super) fn share(
        &mut self,
        call: &'static str,
        region: &Region,
        (offset, len): (usize, usize),
        kind: &str,
    ) -> Result<WindowMap, CommunicatorError> {
        let registration = self.fabric.register(region, Access::READ)?;
        let parcel = registration.export()?;
        let offer = Offer {
            len: len as u64,
            offset: offset as u64,
            kind: kind.to_owned(),
            parcel: parcel.bytes,
        };
        let given = self
            .members
            .all_gather(call, &encode(&offer), parcel.descriptors, self.timeout)?;
        let id = self.windows;
        self.windows = self.windows.wrapping_add(1);
        let mut memory: Vec<Arc<dyn Any + Send + Sync>> = vec![Arc::new(Held {
            _registration: registration,
        })];
        let mut bases = Vec::with_capacity(given.len());
        for (
            rank,
            Gathered {
                payload, descriptors, ..
            },
        ) in given.into_iter().enumerate()
        {
            let rank = rank as u32;
            let theirs: Offer = self.decode(rank, &payload)?;
            if (theirs.len, theirs.kind.as_str()) != (len as u64, kind) {
                return Err(CommunicatorError::Disagreement {
                    rank: self.rank,
                    call,
                    what: format!(
                        "rank {rank} has {} bytes of {}, rank {} has {len} bytes of {kind}",
                        theirs.len, theirs.kind, self.rank
                    ),
                });
            }
            if rank == self.rank {
                // SAFETY: the caller's range lies in its region.
                bases.push(unsafe { region.base().add(offset) });
                continue;
            }
            let parcel = Parcel {
                bytes: theirs.parcel,
                descriptors,
            };
            let remote = self.endpoint.import(rank, parcel)?;
            let inside = theirs
                .offset
                .checked_add(theirs.len)
                .is_some_and(|end| end <= remote.len() as u64);
            let (Some(base), true) = (remote.mapped(), inside) else {
                return Err(self.unusable(rank));
            };
            // SAFETY: just checked against the length of what is mapped there.
            bases.push(unsafe { base.add(theirs.offset as usize) });
            memory.push(Arc::new(Imported { _remote: remote }));
        }
        // SAFETY: each base is that rank's memory of `len` bytes; `memory` keeps all of it.
        Ok(unsafe { WindowMap::new(id, bases.into(), len, memory) })
    }

    /// The boards and bells of all ranks.
    pub(super) fn group(&mut self, ranks: u32) -> Result<(Group, Layout), CommunicatorError> {
        let layout = Layout::new(ranks, SMALL_BYTES);
        let region = Region::host(layout.bytes(), HugePages::Never)?;
        let map = Arc::new(self.share("sharing boards", &region, (0, layout.bytes()), "board")?);
        let boards = map.bases().iter().map(|base: &NonNull<u8>| {
            let memory: Arc<dyn Any + Send + Sync> = map.clone();
            // SAFETY: `share` has checked that there are this many bytes; regions start on a page as zeroes; only
            // the owner writes there, and the map keeps them.
            unsafe { Board::new(*base, layout, memory) }
        });
        let boards = boards.collect();
        let bells = (0..ranks)
            .map(|rank| self.endpoint.doorbell(rank))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| self.unusable(self.rank))?;
        let patience = Patience::for_ranks(ranks as usize);
        Ok((
            Group::new(
                self.rank,
                boards,
                bells.into(),
                patience,
                Box::new(self.members.clone()),
            ),
            layout,
        ))
    }

    fn decode<T: serde::de::DeserializeOwned>(
        &self,
        peer: u32,
        bytes: &[u8],
    ) -> Result<T, CommunicatorError> {
        serde_json::from_slice(bytes).map_err(|_| self.unusable(peer))
    }

    fn unusable(&self, peer: u32) -> CommunicatorError {
        let why = "it is malformed or gives no load/store reach; do all ranks run the same version?".into();
        crate::fabric::FabricError::Parcel {
            rank: self.rank,
            peer,
            what: "connection set-up",
            why,
        }
        .into()
    }
}

// The engine keeps these alive without knowing what they are.
struct Held {
    _registration: Arc<dyn Registration>,
}
struct Imported {
    _remote: Arc<dyn RemoteRegion>,
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data")
}
