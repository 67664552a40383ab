//! A region registered with both fabrics, a peer's region over one of them, and requests as that one understands them.

use std::any::Any;
use std::ptr::NonNull;
use std::sync::Arc;

use super::Side;
use super::parcel::{Kind, Part, compose};
use crate::fabric::{
    Access, Fabric, FabricError, Operation, Parcel, Rank, Receive, Registration, RemoteRegion, RemoteSlice,
    Request, Slice,
};
use crate::memory::Region;

/// With each fabric, or why not.
#[derive(Debug)]
pub(super) struct MixedRegistration {
    region: Region,
    near: Result<Arc<dyn Registration>, String>,
    far: Result<Arc<dyn Registration>, String>,
}

impl MixedRegistration {
    pub fn new(
        region: &Region,
        access: Access,
        near: &dyn Fabric,
        far: &dyn Fabric,
    ) -> Result<Self, FabricError> {
        // A kind of memory may be beyond one of them for good; everything else is worth an error now.
        let tolerated = |outcome| match outcome {
            Err(error @ FabricError::MemoryKind { .. }) => Ok(Err(error)),
            other => other.map(Ok),
        };
        let near = tolerated(near.register(region, access))?;
        let far = tolerated(far.register(region, access))?;
        match (near, far) {
            (Err(error), Err(_)) => Err(error),
            (near, far) => Ok(Self {
                region: region.clone(),
                near: near.map_err(|error: FabricError| error.to_string()),
                far: far.map_err(|error: FabricError| error.to_string()),
            }),
        }
    }

    fn side(&self, side: Side) -> Option<&Arc<dyn Registration>> {
        match side {
            Side::Near => self.near.as_ref().ok(),
            Side::Far => self.far.as_ref().ok(),
        }
    }
}

impl Registration for MixedRegistration {
    fn region(&self) -> &Region {
        &self.region
    }

    fn export(&self) -> Result<Parcel, FabricError> {
        let part = |registration: &Result<Arc<dyn Registration>, String>| match registration {
            Ok(registration) => registration.export().map(Part::Own),
            Err(why) => Ok(Part::Missing(why.clone())),
        };
        Ok(compose(Kind::Region, part(&self.near)?, part(&self.far)?))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A peer's region as the fabric to that peer has it, without what that fabric has and the other has not.
#[derive(Debug)]
pub(super) struct MixedRemote {
    pub side: Side,
    pub inner: Arc<dyn RemoteRegion>,
}

impl RemoteRegion for MixedRemote {
    fn peer(&self) -> Rank {
        self.inner.peer()
    }

    fn len(&self) -> usize {
        self.inner.len()
    }

    fn mapped(&self) -> Option<NonNull<u8>> {
        None
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The slice as the fabric of `side` has it. One that is not registered there stays as it is: the fabric does not know
/// it and ends the request with a protection error, in its turn.
fn local(slice: &Slice, side: Side) -> Slice {
    let mixed = slice.registration.as_any().downcast_ref::<MixedRegistration>();
    let inner = mixed.and_then(|mixed| mixed.side(side));
    Slice {
        registration: inner.unwrap_or(&slice.registration).clone(),
        ..*slice
    }
}

fn remote(slice: &RemoteSlice, side: Side) -> RemoteSlice {
    let mixed = slice.region.as_any().downcast_ref::<MixedRemote>();
    let inner = mixed.filter(|mixed| mixed.side == side).map(|mixed| &mixed.inner);
    RemoteSlice {
        region: inner.unwrap_or(&slice.region).clone(),
        ..*slice
    }
}

/// The request as the fabric of `side` understands it. Costs two counts of references.
#[inline]
pub(super) fn request(request: &Request, side: Side) -> Request {
    let operation = match &request.operation {
        Operation::Write {
            local: from,
            remote: to,
            immediate,
        } => Operation::Write {
            local: local(from, side),
            remote: remote(to, side),
            immediate: *immediate,
        },
        Operation::Read {
            local: to,
            remote: from,
        } => Operation::Read {
            local: local(to, side),
            remote: remote(from, side),
        },
        Operation::FetchAdd {
            local: earlier,
            remote: word,
            add,
        } => Operation::FetchAdd {
            local: local(earlier, side),
            remote: remote(word, side),
            add: *add,
        },
        Operation::CompareSwap {
            local: earlier,
            remote: word,
            expected,
            desired,
        } => Operation::CompareSwap {
            local: local(earlier, side),
            remote: remote(word, side),
            expected: *expected,
            desired: *desired,
        },
        Operation::Send {
            local: from,
            immediate,
        } => Operation::Send {
            local: local(from, side),
            immediate: *immediate,
        },
    };
    Request {
        id: request.id,
        operation,
        signaled: request.signaled,
    }
}

/// As [`request`].
pub(super) fn receive(receive: &Receive, side: Side) -> Receive {
    Receive {
        id: receive.id,
        local: receive.local.as_ref().map(|slice| local(slice, side)),
    }
}
