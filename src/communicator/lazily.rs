//! Ranks that reach each other by messages: queue pairs are made when a shape is first used, and only to those with
//! whom it has a rank exchange messages.
//!
//! All ranks take part each time, whether or not they need a new queue pair themselves: that a shape is new is all
//! that every rank knows without asking.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::CommunicatorError;
use super::connect::Meeting;
use crate::engine::{Keys, MessageCore, SLOT_BYTES, WindowMap};
use crate::fabric::{Access, Parcel, Registration};
use crate::memory::{HugePages, Region};

/// Peers may write and nothing else.
const WRITE: Access = Access {
    remote_read: false,
    remote_write: true,
    remote_atomic: false,
};

/// Descriptors that are handed round at a time: a process may not have many more open.
const DESCRIPTORS: usize = 256;

/// Bytes of staging slots that a rank aims at, for operations under way at the same time. It takes fewer where the
/// slots of eight need less, and more where two need more.
const STAGING_BYTES: usize = 4 << 20;

/// What a rank says before it hands anything out.
#[derive(Debug, Serialize, Deserialize)]
struct Intent {
    /// What it connects for.
    shape: String,
    descriptors: usize,
    /// Why the plan cannot be run, if this rank has found that.
    unfit: Option<String>,
}

/// What a rank hands out; the descriptors are those of the staging slots, then those of each connection.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Gifts {
    /// Its staging slots, and how many descriptors they have.
    staging: Option<(Vec<u8>, usize)>,
    /// For whom, the parcel, and how many descriptors it has.
    connections: Vec<(u32, Vec<u8>, usize)>,
}

/// Connects this rank to those that a shape has it exchange messages with: its neighbours, and how many staging slots
/// they need here. Collective: all ranks come with the same shape, with nothing in progress.
pub(super) fn connect(
    meeting: &Meeting,
    core: &MessageCore,
    shape: &str,
    wanted: Result<(&[u32], u32), &CommunicatorError>,
) -> Result<(), CommunicatorError> {
    let brought = match wanted {
        Err(error) => Err(error.to_string()),
        // The others need not wait to hear of it.
        Ok(wanted) => bring(meeting, core, wanted).map_err(|error| error.to_string()),
    };
    let (brought, unfit) = match brought {
        Ok(brought) => (brought, None),
        Err(why) => (Brought::default(), Some(why)),
    };
    let Brought {
        gifts,
        descriptors,
        slots,
    } = brought;
    let intent = Intent {
        shape: shape.to_owned(),
        descriptors: descriptors.len(),
        unfit,
    };
    let intents = meeting.all_gather("connecting", &intent, Vec::new())?;
    let intents = intents.into_iter().map(|(intent, _)| intent).collect::<Vec<_>>();
    agree(meeting, shape, &intents)?;
    if let Some((registration, set)) = slots {
        core.replace_staging(registration, set);
    }
    let (mut gifts, mut descriptors) = (Some(gifts), Some(descriptors));
    let mut first = 0;
    while first < intents.len() {
        // As many givers at a time as have no more descriptors between them than can be held.
        let mut held = 0;
        let fits = |intent: &&Intent| {
            held += intent.descriptors;
            held <= DESCRIPTORS
        };
        let last = first + intents[first..].iter().take_while(fits).count().max(1);
        let my_turn = (first..last).contains(&(meeting.rank as usize));
        let (mine, mine_too) = match my_turn {
            true => (
                gifts.take().unwrap_or_default(),
                descriptors.take().unwrap_or_default(),
            ),
            false => Default::default(),
        };
        let given = meeting.all_gather("handing out queue pairs", &mine, mine_too)?;
        for (giver, (gifts, descriptors)) in (0..).zip(given).skip(first).take(last - first) {
            if giver != meeting.rank {
                let taken = take(meeting, core, giver, gifts, descriptors);
                taken.map_err(|error| meeting.because("connecting", error))?;
            }
        }
        first = last;
    }
    // A message to a queue pair that is not connected yet would have to be sent again, much later.
    meeting.all_gather("being connected", &(), Vec::new())?;
    Ok(())
}

/// What a rank has made.
#[derive(Default)]
struct Brought {
    gifts: Gifts,
    descriptors: Vec<OwnedFd>,
    /// Staging slots to take instead of the earlier ones, once all ranks agree, in sets of so many.
    slots: Option<(Arc<dyn Registration>, u32)>,
}

/// What this rank hands out so that it can exchange messages with these, and have so many staging slots.
fn bring(
    meeting: &Meeting,
    core: &MessageCore,
    (neighbours, slots): (&[u32], u32),
) -> Result<Brought, CommunicatorError> {
    let known = core.connections();
    let none = |peer: &&u32| known.binary_search(peer).is_err();
    let mut brought = Brought::default();
    let Brought {
        gifts,
        descriptors,
        slots: larger_slots,
    } = &mut brought;
    let new = neighbours.iter().filter(none).copied().collect::<Vec<_>>();
    let larger = slots > core.staging_slots();
    let set = core.staging_slots().max(slots);
    if set != 0 && (larger || !new.is_empty()) {
        let parcel = match larger {
            false => core.export_staging()?,
            true => {
                let registration = staging(meeting, set)?;
                let parcel = registration.export()?;
                *larger_slots = Some((registration, set));
                parcel
            }
        };
        gifts.staging = Some((parcel.bytes, parcel.descriptors.len()));
        descriptors.extend(parcel.descriptors);
    }
    if !new.is_empty() {
        let region = Region::host(new.len() * MessageCore::NOTES, HugePages::Never)?;
        let notes = meeting.fabric.register(&region, Access::LOCAL)?;
        for (index, peer) in new.into_iter().enumerate() {
            let parcel = core.prepare(peer, (notes.clone(), index * MessageCore::NOTES))?;
            gifts
                .connections
                .push((peer, parcel.bytes, parcel.descriptors.len()));
            descriptors.extend(parcel.descriptors);
        }
    }
    Ok(brought)
}

fn agree(meeting: &Meeting, shape: &str, intents: &[Intent]) -> Result<(), CommunicatorError> {
    for (rank, intent) in intents.iter().enumerate() {
        if intent.shape != shape {
            return Err(CommunicatorError::Disagreement {
                rank: meeting.rank,
                call: "connecting",
                what: format!(
                    "rank {rank} is about to run {}, rank {} {shape}",
                    intent.shape, meeting.rank
                ),
            });
        }
    }
    match intents
        .iter()
        .enumerate()
        .find_map(|(rank, intent)| Some((rank, intent.unfit.as_ref()?)))
    {
        None => Ok(()),
        Some((rank, why)) => Err(CommunicatorError::Unfit {
            rank: meeting.rank,
            plan: shape.to_owned(),
            why: format!("rank {rank} says: {why}"),
        }),
    }
}

/// New staging slots in sets of so many.
fn staging(meeting: &Meeting, set: u32) -> Result<Arc<dyn Registration>, CommunicatorError> {
    let bytes = set as usize * SLOT_BYTES;
    let sets = (STAGING_BYTES / bytes).clamp(2, 8);
    let region = Region::host(sets * bytes, HugePages::WhereAvailable)?;
    Ok(meeting.fabric.register(&region, WRITE)?)
}

/// Takes what another rank hands out and this one has a use for.
fn take(
    meeting: &Meeting,
    core: &MessageCore,
    giver: u32,
    gifts: Gifts,
    descriptors: Vec<OwnedFd>,
) -> Result<(), CommunicatorError> {
    // From another host come bytes alone; whether that is enough for a parcel, the fabric says.
    let elsewhere = descriptors.is_empty();
    let mut descriptors = descriptors.into_iter();
    let mut parcel = |bytes, count| {
        let descriptors = descriptors.by_ref().take(count).collect::<Vec<_>>();
        match elsewhere || descriptors.len() == count {
            true => Ok(Parcel { bytes, descriptors }),
            false => Err(meeting.unusable(giver)),
        }
    };
    let staging = gifts
        .staging
        .map(|(bytes, count)| parcel(bytes, count))
        .transpose()?;
    for (to, bytes, count) in gifts.connections {
        let parcel = parcel(bytes, count)?;
        if to == meeting.rank {
            core.connect(giver, parcel)?;
        }
    }
    if let Some(staging) = staging
        && core.connections().contains(&giver)
    {
        core.import_staging(giver, staging)?;
    }
    Ok(())
}

/// Offers the bytes `offset..offset + len` of a region to all ranks and takes in the keys of theirs. Collective.
pub(super) fn share(
    meeting: &mut Meeting,
    core: &MessageCore,
    call: &'static str,
    region: &Region,
    (offset, len): (usize, usize),
    kind: &str,
) -> Result<WindowMap, CommunicatorError> {
    let import = |rank, parcel| core.import(rank, parcel);
    let shared = meeting.share(call, (region, WRITE), (offset, len), kind, import)?;
    let keys = Keys {
        local: (shared.registration, offset),
        remote: shared.remote.into(),
    };
    Ok(WindowMap::by_keys(shared.id, keys, len))
}
