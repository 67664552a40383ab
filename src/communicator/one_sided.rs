//! For what is above, which makes queue pairs of its own for one-sided operations on memory that ranks offer each other: what
//! carries them, and how ranks ask each other for them.

use std::sync::Arc;

use super::{Communicator, CommunicatorError, Window};
use crate::bootstrap::{Answer, Caller, Place, Switchboard};
use crate::engine::{Engine, Keys, Liveness, WindowMap};
use crate::fabric::{AtomicDomain, Fabric, Patience, Registration};
use crate::memory::{Buffer, Element};

impl Communicator {
    /// What one-sided operations on memory of any rank go over: everything in this module. Where host-mates are reached by
    /// other means than other hosts, that is the network for them, too, so that each word has one atomic domain.
    pub(crate) fn one_sided(&self) -> Arc<dyn Fabric> {
        let fabric = &self.meeting.borrow().fabric;
        fabric.by_one_means().unwrap_or_else(|| fabric.clone())
    }

    /// Whether one-sided operations of all ranks on one word are atomic to each other, and are done whatever the word's owner
    /// does.
    pub(crate) fn has_one_sided_words(&self) -> bool {
        let fabric = self.one_sided();
        let capabilities = fabric.capabilities();
        capabilities.atomic_domain != AtomicDomain::None && capabilities.progress_while_stopped
    }

    /// Opens the place where this rank is called while it does other things, with what it has prepared for that; and the
    /// way to the others'. Collective, so that all are open then, and none are if a rank has nothing prepared; but where this
    /// rank has come back after a death.
    pub(crate) fn switchboard<T>(
        &self,
        number: u32,
        prepared: Result<(T, Answer), CommunicatorError>,
    ) -> Result<(T, (Switchboard, Caller)), CommunicatorError> {
        let meeting = self.meeting.borrow();
        let membership = meeting.members.membership();
        let opened = prepared.and_then(|(own, answer)| Ok((own, membership.answer_calls(number, answer)?)));
        if self.has_returned() {
            let (own, switchboard) = opened?;
            return Ok((own, (switchboard, membership.caller(number, &[]))));
        }
        drop(meeting);
        self.settle()?;
        let meeting = self.meeting.borrow();
        let call = "opening the places where ranks ask each other for queue pairs";
        let (own, switchboard) = meeting.all_or_none(call, opened)?;
        let given = meeting.all_gather(call, &switchboard.place(), Vec::new())?;
        let places = given.into_iter().map(|(place, _)| place).collect::<Vec<Place>>();
        let caller = meeting.members.membership().caller(number, &places);
        Ok((own, (switchboard, caller)))
    }

    /// A window that no operation of this communicator can name: others reach it by what was [offered](Self::offer) alone.
    pub(crate) fn apart<T: Element>(&self, buffer: Buffer<T>, own: Arc<dyn Registration>) -> Window<T> {
        let len = buffer.len() * size_of::<T>();
        let keys = Keys {
            local: (own, buffer.offset()),
            remote: Box::new([]),
        };
        Window::new(buffer, WindowMap::by_keys(u16::MAX, keys, len), u64::MAX)
    }

    /// How this rank waits for others.
    pub(crate) fn patience(&self) -> Patience {
        match &**self.engine() {
            Engine::Boards(core) => core.group().patience(),
            Engine::Messages(_) => Patience::for_ranks(self.ranks as usize),
        }
    }

    /// Who is still there.
    pub(crate) fn liveness(&self) -> Box<dyn Liveness> {
        Box::new(self.meeting.borrow().members.clone())
    }
}
