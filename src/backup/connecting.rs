//! A barrier whose workers reach each other over queue pairs: its memory, and where others ask for pairs to it.

use std::sync::Arc;
use std::time::Instant;

use super::answering::Answering;
use super::lines::Lines;
use super::memory::Places;
use super::protocol::{Members, Shape};
use super::remote::Remote;
use crate::communicator::{Communicator, CommunicatorError, Window};
use crate::fabric::{Access, Patience, Registration};
use crate::memory::{Buffer, Element};

type Registrations = (Arc<dyn Registration>, Arc<dyn Registration>);

/// Collective; but where this rank has come back after a death: its memory is new, and nobody is waited for.
pub(super) fn remote<T: Element>(
    communicator: &Communicator,
    number: u32,
    places: Places,
    shape: &Shape,
) -> Result<(Remote, Window<T>), CommunicatorError> {
    let (rank, workers, timeout) = (communicator.rank(), communicator.size(), communicator.timeout());
    let until = Instant::now() + timeout;
    let fabric = (communicator.one_sided(), communicator.generation());
    let prepared = || -> Result<(Buffer<T>, Registrations), CommunicatorError> {
        let words = Buffer::<u64>::allocate(places.words())?;
        let data = Buffer::<T>::allocate(places.data_bytes() / size_of::<T>())?;
        let words = fabric.0.register(words.region(), Access::ALL)?;
        let registered = fabric.0.register(data.region(), Access::READ)?;
        Ok((data, (words, registered)))
    };
    let prepared = prepared().map(|(data, memory)| {
        let mut answering = Answering::new((rank, workers), fabric.clone(), memory.clone());
        let answer: crate::bootstrap::Answer = Box::new(move |from, said| answering.answer(from, said));
        ((data, memory), answer)
    });
    let ((data, (words, vectors)), (switchboard, caller)) = communicator.switchboard(number, prepared)?;
    let me = (rank as u16, communicator.life(), shape.workers());
    let lines = Lines::new(me, fabric, caller, (&*words, &*vectors), timeout)?;
    let window = communicator.apart(data, vectors.clone());
    let mut remote = Remote {
        places,
        me: rank as u16,
        workers: shape.workers(),
        _switchboard: switchboard,
        lines,
        words,
        data: vectors,
        liveness: communicator.liveness(),
        domain: communicator.one_sided().capabilities().atomic_domain,
        patience: Patience::for_ranks(workers as usize),
        lost: Members::default(),
    };
    if !communicator.has_returned() {
        remote.connect_to_homes(shape.workers() - shape.members(), until)?;
    }
    Ok((remote, window))
}
