//! From a membership to ranks that reach each other: what each offers to all others is registered, handed round and
//! taken in. Everything here is collective.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::CommunicatorError;
use super::members::Members;
use crate::bootstrap::{BootstrapError, Departure, DepartureKind, Gathered};
use crate::engine::RemotePart;
use crate::fabric::select::{self, Choice};
use crate::fabric::{Access, Fabric, FabricError, Parcel, Registration, RemoteRegion};
use crate::memory::Region;

/// How long a death that others know of may take to show here.
const WITNESS: Duration = Duration::from_millis(150);

/// What a rank says of memory that it offers to all others; the descriptors travel beside it.
#[derive(Debug, Serialize, Deserialize)]
struct Offer {
    /// Bytes, from `offset` of the registered region.
    len: u64,
    offset: u64,
    /// What the ranks must agree on besides the length.
    kind: String,
    parcel: Vec<u8>,
    /// Why it has nothing to offer, if that is so: the others need not wait for it then.
    declined: Option<String>,
}

/// What every rank has given, by rank: a value, and descriptors.
type Given<T> = Vec<(T, Vec<OwnedFd>)>;

/// Which ranks have a device, where the fabric is chosen by that; nobody is asked where it is not. Collective.
pub(super) fn devices(
    choice: Choice,
    hosts: &[u32],
    members: &Members,
    timeout: Duration,
) -> Result<Vec<bool>, CommunicatorError> {
    if !select::depends_on_devices(choice, hosts) {
        return Ok(Vec::new());
    }
    let own = [u8::from(select::has_device())];
    let given = members.all_gather("asking who has an RDMA device", &own, Vec::new(), timeout)?;
    Ok(given.iter().map(|given| given.payload == [1]).collect())
}

/// How a rank meets the others, whatever it then reaches them by.
#[derive(Debug)]
pub(super) struct Meeting {
    pub(super) rank: u32,
    pub(super) members: Members,
    pub(super) fabric: Arc<dyn Fabric>,
    pub(super) timeout: Duration,
    /// How many windows all ranks have shared: the next one's number, the same on each.
    windows: u16,
}

/// Memory that all ranks have shared.
pub(super) struct Shared {
    /// The number of the window, the same on each rank.
    pub(super) id: u16,
    pub(super) registration: Arc<dyn Registration>,
    /// The others' regions, by rank, and where in them what they offer starts; none for this rank.
    pub(super) remote: Vec<Option<RemotePart>>,
}

impl Meeting {
    pub(super) fn new(rank: u32, members: Members, fabric: Arc<dyn Fabric>, timeout: Duration) -> Self {
        Self {
            rank,
            members,
            fabric,
            timeout,
            windows: 0,
        }
    }

    /// Offers the bytes `offset..offset + len` of a region to all ranks and takes in theirs. Collective.
    pub(super) fn share(
        &mut self,
        call: &'static str,
        (region, access): (&Region, Access),
        (offset, len): (usize, usize),
        kind: &str,
        import: impl FnMut(u32, Parcel) -> Result<Arc<dyn RemoteRegion>, FabricError>,
    ) -> Result<Shared, CommunicatorError> {
        let registered = self.fabric.register(region, access);
        let exported = registered.and_then(|registration| Ok((registration.export()?, registration)));
        let (parcel, registration) = match exported {
            Ok(exported) => exported,
            Err(error) => return Err(self.decline(call, error.into())),
        };
        let offer = Offer {
            len: len as u64,
            offset: offset as u64,
            kind: kind.to_owned(),
            parcel: parcel.bytes,
            declined: None,
        };
        let (id, given) = self.offer(call, &offer, parcel.descriptors)?;
        let declined = |(rank, (offer, _)): (u32, &(Offer, _))| Some((rank, offer.declined.clone()?));
        if let Some((peer, why)) = (0..).zip(&given).find_map(declined) {
            return Err(CommunicatorError::Declined {
                rank: self.rank,
                call,
                peer,
                why,
            });
        }
        // Before anything is taken in: where any two differ, every rank finds one that differs from it.
        let other = (0..).zip(&given).find_map(|(rank, (theirs, _))| {
            let differs = (theirs.len, theirs.kind.as_str()) != (len as u64, kind);
            differs.then(|| format!("rank {rank} has {} bytes of {}", theirs.len, theirs.kind))
        });
        if let Some(theirs) = other {
            return Err(CommunicatorError::Disagreement {
                rank: self.rank,
                call,
                what: format!("{theirs}, rank {} has {len} bytes of {kind}", self.rank),
            });
        }
        let taken = self.take_in(call, given, import);
        let remote = self.all_or_none(call, taken)?;
        Ok(Shared {
            id,
            registration,
            remote,
        })
    }

    /// Takes in what the others have offered.
    fn take_in(
        &self,
        call: &'static str,
        given: Given<Offer>,
        mut import: impl FnMut(u32, Parcel) -> Result<Arc<dyn RemoteRegion>, FabricError>,
    ) -> Result<Vec<Option<RemotePart>>, CommunicatorError> {
        let mut remote = Vec::with_capacity(given.len());
        for (rank, (theirs, descriptors)) in (0..).zip(given) {
            if rank == self.rank {
                remote.push(None);
                continue;
            }
            let parcel = Parcel {
                bytes: theirs.parcel,
                descriptors,
            };
            let region = import(rank, parcel).map_err(|error| self.because(call, error.into()))?;
            let inside = theirs
                .offset
                .checked_add(theirs.len)
                .is_some_and(|end| end <= region.len() as u64);
            if !inside {
                return Err(self.unusable(rank));
            }
            remote.push(Some((region, theirs.offset as usize)));
        }
        Ok(remote)
    }

    /// What this rank has made, if every rank has; else all of them fail, and know because of whom. Collective.
    pub(super) fn all_or_none<T>(
        &self,
        call: &'static str,
        made: Result<T, CommunicatorError>,
    ) -> Result<T, CommunicatorError> {
        let problem = made.as_ref().err().map(ToString::to_string);
        let problems = self.all_gather(call, &problem, Vec::new())?;
        let failed = (0..)
            .zip(problems)
            .find_map(|(rank, (why, _))| Some((rank, why?)));
        match (made, failed) {
            (Ok(_), Some((peer, why))) => Err(CommunicatorError::Declined {
                rank: self.rank,
                call,
                peer,
                why,
            }),
            (made, _) => made,
        }
    }

    /// Takes part in sharing memory without having any, so that all ranks hear of it. Collective. What to return.
    pub(super) fn decline(&mut self, call: &'static str, error: CommunicatorError) -> CommunicatorError {
        let offer = Offer {
            len: 0,
            offset: 0,
            kind: String::new(),
            parcel: Vec::new(),
            declined: Some(error.to_string()),
        };
        match self.offer(call, &offer, Vec::new()) {
            Ok(_) => error,
            Err(worse) => worse,
        }
    }

    /// What all ranks offer, and the window's number, which an offer that comes to nothing uses up, too.
    fn offer(
        &mut self,
        call: &'static str,
        offer: &Offer,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(u16, Given<Offer>), CommunicatorError> {
        let given = self.all_gather(call, offer, descriptors)?;
        let id = self.windows;
        self.windows = self.windows.wrapping_add(1);
        Ok((id, given))
    }

    /// Every rank's value and descriptors, by rank. Collective.
    pub(super) fn all_gather<T: Serialize + serde::de::DeserializeOwned>(
        &self,
        what: &str,
        value: &T,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Given<T>, CommunicatorError> {
        let bytes = serde_json::to_vec(value).expect("plain data");
        let given = self.members.all_gather(what, &bytes, descriptors, self.timeout);
        let given = given.map_err(|error| self.because(what, error.into()))?;
        let decode = |(rank, given): (u32, Gathered)| match serde_json::from_slice(&given.payload) {
            Ok(value) => Ok((value, given.descriptors)),
            Err(_) => Err(self.unusable(rank)),
        };
        (0..).zip(given).map(decode).collect()
    }

    /// What a failure comes from: where a rank has died, others give up because of it, and so do their processes end;
    /// it is the dead one who is named.
    pub(super) fn because(&self, step: &str, error: CommunicatorError) -> CommunicatorError {
        use BootstrapError::{Departed, Missing};
        let follows = match &error {
            CommunicatorError::Bootstrap(Departed { how, .. }) => {
                matches!(how, DepartureKind::GaveUp | DepartureKind::Left)
            }
            CommunicatorError::Bootstrap(Missing { .. }) | CommunicatorError::Fabric(_) => true,
            _ => false,
        };
        // Who has seen a process's connection close may have given up and ended before that process was quite dead.
        let until = Instant::now() + WITNESS;
        let mut death = None;
        while follows && death.is_none() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
            death = self.members.first_death();
        }
        match death {
            None => error,
            Some(Departure { rank, how, .. }) => {
                let step = step.to_owned();
                CommunicatorError::Bootstrap(Departed { rank, how, step })
            }
        }
    }

    pub(super) fn unusable(&self, peer: u32) -> CommunicatorError {
        let why = "it is malformed or gives too little reach; do all ranks run the same version?".into();
        FabricError::Parcel {
            rank: self.rank,
            peer,
            what: "connection set-up",
            why,
        }
        .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::{Job, Membership};
    use crate::fabric::shm::Shm;
    use crate::memory::HugePages;

    /// Memory of a peer that nobody looks at.
    #[derive(Debug)]
    struct Theirs(u32);

    impl RemoteRegion for Theirs {
        fn peer(&self) -> u32 {
            self.0
        }
        fn len(&self) -> usize {
            4096
        }
        fn mapped(&self) -> Option<std::ptr::NonNull<u8>> {
            None
        }
        fn as_any(&self) -> &dyn std::any::Any {
            self
        }
    }

    fn one_cannot_take_it_in(job: &Job) {
        let timeout = Duration::from_secs(60);
        let members = Members::new(Membership::join(job, Instant::now() + timeout).unwrap());
        let mut meeting = Meeting::new(job.rank, members, Arc::new(Shm::new().unwrap()), timeout);
        let region = Region::host(4096, HugePages::Never).unwrap();
        let mut share = |fails: bool| {
            let import = |peer, _| match fails && peer == 2 {
                false => Ok(Arc::new(Theirs(peer)) as Arc<dyn RemoteRegion>),
                true => Err(FabricError::Parcel {
                    rank: job.rank,
                    peer,
                    what: "a region",
                    why: "there is no room to map it".into(),
                }),
            };
            meeting.share("registering", (&region, Access::READ), (0, 4096), "float", import)
        };
        let error = share(job.rank == 1).err().expect("no rank has it").to_string();
        assert!(error.contains("no room to map it"), "{error}");
        if job.rank != 1 {
            assert!(error.contains("rank 1 could not take part"), "{error}");
        }
        // Nothing has changed but for the number, which is the same on all.
        assert_eq!(share(false).ok().map(|shared| shared.id), Some(1));
    }

    #[test]
    fn what_one_rank_cannot_take_in_no_rank_has() {
        let jobs = Job::local(3).unwrap();
        std::thread::scope(|scope| {
            for job in &jobs {
                scope.spawn(move || one_cannot_take_it_in(job));
            }
        });
    }
}
