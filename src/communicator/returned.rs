//! A communicator whose rank has come back after a death. The others' is past all that needs every rank: what is left
//! is what is above it: it lies in memory that has outlived the dead life, or is offered anew to who asks for it.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use super::building::Builder;
use super::connect::Meeting;
use super::members::Members;
use super::plans::Plans;
use super::shapes::{Shapes, Way, reach};
use super::{Communicator, CommunicatorError, Window};
use crate::bootstrap::{BootstrapError, DEFAULT_TIMEOUT, Membership};
use crate::engine::{Engine, MessageCore, SLOT_BYTES, WindowMap};
use crate::fabric::delayed::Delayed;
use crate::fabric::select::{self, Choice};
use crate::fabric::{Access, Fabric};
use crate::memory::{Buffer, Element, Mapping, Region};
use crate::plan::cost::Setting;

impl Builder {
    /// Of a rank that has come back. Waits for nobody.
    pub(super) fn come_back(self, membership: Membership) -> Result<Communicator, CommunicatorError> {
        let timeout = self.timeout_or(DEFAULT_TIMEOUT);
        let (rank, ranks) = (membership.rank(), membership.size());
        let (hosts, life, members) = (membership.hosts(), membership.life(), Members::new(membership));
        let fabric = self.fabric_again(
            (rank, members.membership().local_rank()),
            members.membership().fabric(),
            &hosts,
        )?;
        let generation = 0;
        let setting = Setting {
            reach: reach(false, ranks),
            slot_bytes: SLOT_BYTES,
            most_tasks: usize::from(u16::MAX),
            hosts,
        };
        // It is never asked to do anything: every call is refused before.
        let endpoint = fabric.endpoint(rank, generation)?;
        let names = (fabric.name(), fabric.capabilities().queue_depth);
        let core = MessageCore::new(ranks, generation, endpoint, names, Box::new(members.clone()));
        Ok(Communicator {
            id: Communicator::new_id(),
            rank,
            ranks,
            timeout: Cell::new(timeout),
            plans: Plans::new(None, setting, None),
            made_with: self,
            generation,
            life,
            backup_barriers: Cell::new(0),
            engine: Arc::new(Engine::Messages(core)),
            staging: None,
            mapped: RefCell::new(None),
            meeting: RefCell::new(Meeting::new(rank, members, fabric, timeout)),
            shapes: RefCell::new(Shapes::new(rank, ranks, Way::Messages)),
            bounce: RefCell::new(None),
            next: Cell::new(1),
            letters: RefCell::new(vec![[0; 2]; ranks as usize]),
            small_turn: Cell::new(0),
            recent: RefCell::default(),
            ahead: Cell::new((0, 0)),
            in_step: Cell::new(false),
        })
    }
}

impl Builder {
    /// The fabric that the others have chosen. Who can come back is on one machine with them, so that all have a device if
    /// one has.
    fn fabric_again(
        &self,
        (rank, local_rank): (u32, u32),
        choice: Choice,
        hosts: &[u32],
    ) -> Result<Arc<dyn Fabric>, CommunicatorError> {
        let fabric = match &self.fabric {
            Some(fabric) => fabric.clone(),
            None => {
                let devices = match select::depends_on_devices(choice, hosts) {
                    true => vec![select::has_device(); hosts.len()],
                    false => Vec::new(),
                };
                select::open(choice, hosts, &devices, rank, local_rank as usize)?.fabric
            }
        };
        Ok(match self.delay {
            Some(delay) => Arc::new(Delayed::new(fabric, delay)),
            None => fabric,
        })
    }
}

impl Communicator {
    /// Whether this rank has come back after a death (see `sapwood run --on-death restart`): it takes its place among
    /// backup workers again, and all that needs every rank is refused, as the others are past it. A program that began
    /// with a broadcast of weights, say, leaves that out then: the exchange's state is another rank's.
    pub fn has_returned(&self) -> bool {
        self.life > 0
    }

    /// In which of its lives this rank is; 0 is the first.
    pub(crate) fn life(&self) -> u64 {
        self.life
    }

    /// Refuses what needs every rank, where this one has come back.
    pub(super) fn first_life(&self) -> Result<(), CommunicatorError> {
        match self.life {
            0 => Ok(()),
            _ => Err(BootstrapError::Returned {
                rank: self.rank,
                step: "a call of all ranks".into(),
            }
            .into()),
        }
    }

    /// Whether ranks of this communicator may come back after a death; the same on all.
    pub(crate) fn allows_returns(&self) -> bool {
        self.meeting.borrow().members.membership().allows_returns()
    }

    /// The number of a set of backup workers, the same on all ranks if they are made in the same order.
    pub(crate) fn number_backup_barrier(&self) -> u32 {
        let number = self.backup_barriers.get();
        self.backup_barriers.set(number + 1);
        number
    }

    /// Hands descriptors of this rank's memory to all and takes in theirs, by rank. Collective.
    pub(crate) fn hand_round(
        &self,
        what: &str,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Vec<OwnedFd>, CommunicatorError> {
        self.settle()?;
        let given = self.meeting.borrow().all_gather(what, &(), descriptors)?;
        Ok(given
            .into_iter()
            .flat_map(|((), descriptors)| descriptors)
            .collect())
    }

    /// Keeps something for those who come back, as long as the answer lives.
    pub(crate) fn keep(
        &self,
        number: u32,
        what: Result<(String, Vec<OwnedFd>), String>,
    ) -> Result<Keepsake, CommunicatorError> {
        let members = self.meeting.borrow().members.clone();
        members.membership().keep(number, what)?;
        Ok(Keepsake { members, number })
    }

    /// What the others keep for this rank, which has come back.
    pub(crate) fn fetch(&self, number: u32) -> Result<(String, Vec<OwnedFd>), CommunicatorError> {
        let until = Instant::now() + self.timeout();
        let meeting = self.meeting.borrow();
        Ok(meeting.members.membership().fetch(number, until)?)
    }

    /// A window of `len` elements in these files, one of each rank; the own one is this rank's to write. No operation of
    /// the communicator can name it.
    pub(crate) fn taken_over<T: Element>(
        &self,
        files: &[&OwnedFd],
        len: usize,
    ) -> Result<Window<T>, CommunicatorError> {
        let bytes = len * size_of::<T>();
        let (mut bases, mut memory) = (
            Vec::with_capacity(files.len()),
            Vec::<Arc<dyn Any + Send + Sync>>::new(),
        );
        let mut own = None;
        for (rank, file) in (0..).zip(files) {
            if rank == self.rank {
                let region = Region::of_file(file, bytes)?;
                bases.push(region.base());
                own = Some(region);
            } else {
                let mapping = Mapping::of(file, bytes, true)?;
                bases.push(mapping.base());
                memory.push(Arc::new(mapping));
            }
        }
        let own = own.expect("a file of each rank");
        memory.push(Arc::new(own.clone()));
        // SAFETY: a fresh mapping of a file that only this rank writes, and whose earlier life has ended; it is all that
        // this process has of it.
        let buffer = unsafe { Buffer::over(own, 0, len) }?;
        // SAFETY: each base is that rank's memory of that many bytes, which `memory` keeps mapped.
        let map = unsafe { WindowMap::new(u16::MAX, self.rank, bases.into(), bytes, memory) };
        Ok(Window::new(buffer, map, u64::MAX))
    }

    /// A window that this rank alone has.
    pub(crate) fn unshared<T: Element>(&self, len: usize) -> Result<Window<T>, CommunicatorError> {
        let buffer = Buffer::allocate(len)?;
        let registration = self
            .meeting
            .borrow()
            .fabric
            .register(buffer.region(), Access::LOCAL)?;
        Ok(self.apart(buffer, registration))
    }
}

/// Something kept for those who come back.
pub(crate) struct Keepsake {
    members: Members,
    number: u32,
}

impl Drop for Keepsake {
    fn drop(&mut self) {
        self.members.membership().forget(self.number);
    }
}
