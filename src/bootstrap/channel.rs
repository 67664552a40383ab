//! An encrypted connection between rank 0 and another rank that carries messages and never blocks; on one host it
//! carries descriptors with them.
//!
//! On the wire a record is its length in 4 bytes and a Noise message. A record's descriptors go with its first
//! byte, so they have arrived when its last byte has.

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use super::inherit::Unshared;
use super::message::{self, Assembler, BODY_LIMIT, DESCRIPTORS_LIMIT, HEADER_BYTES, Kind, Message};
use super::{noise, tcp};

const ANCILLARY_BYTES: usize = rustix::cmsg_space!(ScmRights(DESCRIPTORS_LIMIT));
/// Bytes that one `receive` takes at most before others get their turn.
const RECEIVE_AT_ONCE: usize = 1 << 20;

/// A message on its way out. Bodies and descriptors are shared between the connections that carry the same.
struct Outgoing {
    kind: Kind,
    body: Arc<Vec<u8>>,
    body_at: usize,
    descriptors: Arc<Vec<OwnedFd>>,
    descriptors_at: usize,
}

/// One end of an authenticated connection.
pub(super) struct Channel {
    /// Kept from forked children: the connection's end is what tells of this process's.
    _unshared: Unshared,
    network: bool,
    socket: Arc<OwnedFd>,
    noise: snow::TransportState,
    incoming: Vec<u8>,
    arrived: VecDeque<OwnedFd>,
    assembler: Assembler,
    messages: VecDeque<Message>,
    outgoing: VecDeque<Outgoing>,
    /// The sealed record that is being written, and how much of it has been.
    sealed: Vec<u8>,
    sealed_at: usize,
    /// How many of the front message's descriptors go with the record that is being written.
    sealed_descriptors: usize,
    /// The kernel has too many descriptors in flight; it cannot be polled for.
    starved: bool,
    closed: bool,
    out_of_reach: bool,
}

impl Channel {
    /// Takes messages of at most `limit` bytes.
    pub(super) fn new(socket: impl Into<Arc<OwnedFd>>, noise: snow::TransportState, limit: usize) -> Self {
        let socket = socket.into();
        Self {
            _unshared: Unshared::new(&socket),
            network: false,
            socket,
            noise,
            incoming: Vec::new(),
            arrived: VecDeque::new(),
            assembler: Assembler::new(limit),
            messages: VecDeque::new(),
            outgoing: VecDeque::new(),
            sealed: Vec::new(),
            sealed_at: 0,
            sealed_descriptors: 0,
            starved: false,
            closed: false,
            out_of_reach: false,
        }
    }

    /// Over a connection that crosses hosts: it carries no descriptors.
    pub(super) fn over_network(mut self) -> Self {
        self.network = true;
        self
    }

    pub(super) fn set_limit(&mut self, limit: usize) {
        self.assembler.set_limit(limit);
    }

    pub(super) fn socket(&self) -> &Arc<OwnedFd> {
        &self.socket
    }

    /// The other end has hung up and everything it sent has been taken.
    pub(super) fn is_closed(&self) -> bool {
        self.closed && self.messages.is_empty()
    }

    /// The other end has hung up; messages of it may still be there.
    pub(super) fn has_hung_up(&self) -> bool {
        self.closed
    }

    /// It is closed because the other end's host has fallen silent, not because anybody closed it.
    pub(super) fn is_out_of_reach(&self) -> bool {
        self.out_of_reach
    }

    /// Closes it if the other end's host has fallen silent while something is on its way there; says whether
    /// something is.
    pub(super) fn look_after_delivery(&mut self) -> bool {
        let delivery = if self.network && !self.closed {
            tcp::delivery(&*self.socket)
        } else {
            tcp::Delivery::Done
        };
        if delivery == tcp::Delivery::CutOff {
            (self.closed, self.out_of_reach) = (true, true);
        }
        delivery == tcp::Delivery::Pending
    }

    /// Everything queued has been handed to the kernel, or never can be.
    pub(super) fn is_flushed(&self) -> bool {
        self.closed || self.outgoing.is_empty()
    }

    /// What to poll the socket for; nothing if it is closed.
    pub(super) fn interest(&self) -> PollFlags {
        match (self.closed, self.outgoing.is_empty() || self.starved) {
            (true, _) => PollFlags::empty(),
            (false, true) => PollFlags::IN,
            (false, false) => PollFlags::IN | PollFlags::OUT,
        }
    }

    /// Polling cannot tell when this channel can go on: it should be tried again soon.
    pub(super) fn is_starved(&self) -> bool {
        self.starved && !self.closed
    }

    /// The oldest message that has arrived.
    pub(super) fn next_message(&mut self) -> Option<Message> {
        self.messages.pop_front()
    }

    /// Puts a message at the end of the queue; [`Self::flush`] sends it.
    pub(super) fn queue(&mut self, kind: Kind, body: Arc<Vec<u8>>, descriptors: Arc<Vec<OwnedFd>>) {
        self.outgoing.push_back(Outgoing {
            kind,
            body,
            body_at: 0,
            descriptors,
            descriptors_at: 0,
        });
    }

    /// Queues a message without descriptors.
    pub(super) fn queue_body(&mut self, kind: Kind, body: Vec<u8>) {
        self.queue(kind, Arc::new(body), Arc::default());
    }

    /// Sends what the kernel takes now.
    pub(super) fn flush(&mut self) -> Result<(), String> {
        self.starved = false;
        while !self.closed && (self.sealed_at < self.sealed.len() || self.seal_next()?) {
            match self.send_some() {
                Ok(sent) => {
                    self.sealed_at += sent;
                    // The first byte takes the descriptors along.
                    if let Some(front) = self.outgoing.front_mut() {
                        front.descriptors_at += std::mem::take(&mut self.sealed_descriptors);
                    }
                    self.retire();
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(Errno::TOOMANYREFS) => {
                    self.starved = true;
                    break;
                }
                Err(Errno::PIPE | Errno::CONNRESET) => {
                    // What the other end sent before may still be there to read: it is `receive` that closes.
                    self.outgoing.clear();
                    self.sealed.clear();
                    self.sealed_at = 0;
                    break;
                }
                Err(error) if tcp::is_out_of_reach(error) => {
                    (self.closed, self.out_of_reach) = (true, true);
                }
                Err(error) => return Err(format!("cannot be written to ({error})")),
            }
        }
        Ok(())
    }

    /// Seals the front message's next record; false if there is no message.
    fn seal_next(&mut self) -> Result<bool, String> {
        let Some(front) = self.outgoing.front() else {
            return Ok(false);
        };
        if self.network && !front.descriptors.is_empty() {
            return Err("cannot be given descriptors: they mean something on one host only".into());
        }
        let body = &front.body[front.body_at..];
        let body = &body[..body.len().min(BODY_LIMIT)];
        let descriptors = (front.descriptors.len() - front.descriptors_at).min(DESCRIPTORS_LIMIT);
        let last = front.body_at + body.len() == front.body.len()
            && front.descriptors_at + descriptors == front.descriptors.len();
        let mut record = Vec::with_capacity(HEADER_BYTES + body.len());
        record.extend_from_slice(&message::record_header(front.kind, last, descriptors));
        record.extend_from_slice(body);
        self.sealed.resize(4 + record.len() + noise::TAG_BYTES, 0);
        let length = self
            .noise
            .write_message(&record, &mut self.sealed[4..])
            .map_err(|error| format!("cannot be written to: encryption failed ({error})"))?;
        self.sealed[..4].copy_from_slice(&(length as u32).to_le_bytes());
        self.sealed.truncate(4 + length);
        self.sealed_at = 0;
        self.sealed_descriptors = descriptors;
        let taken = body.len();
        if let Some(front) = self.outgoing.front_mut() {
            front.body_at += taken;
        }
        Ok(true)
    }

    fn send_some(&self) -> Result<usize, Errno> {
        let bytes = [IoSlice::new(&self.sealed[self.sealed_at..])];
        let mut space = [MaybeUninit::uninit(); ANCILLARY_BYTES];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let borrowed: Vec<BorrowedFd<'_>> = match self.outgoing.front() {
            Some(front) if self.sealed_at == 0 => front.descriptors[front.descriptors_at..]
                [..self.sealed_descriptors]
                .iter()
                .map(AsFd::as_fd)
                .collect(),
            _ => Vec::new(),
        };
        if !borrowed.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)) {
            return Err(Errno::NOBUFS);
        }
        rustix::net::sendmsg(
            &*self.socket,
            &bytes,
            &mut ancillary,
            SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
        )
    }

    /// Drops the front message when its last record is out, and with it the hold on its body and descriptors.
    fn retire(&mut self) {
        let finished = self.sealed_at == self.sealed.len()
            && self.outgoing.front().is_some_and(|front| {
                front.body_at == front.body.len() && front.descriptors_at == front.descriptors.len()
            });
        if finished {
            self.outgoing.pop_front();
        }
        if self.outgoing.is_empty() {
            self.sealed = Vec::new();
            self.sealed_at = 0;
        }
    }

    /// Takes what has arrived. The error says what the other end did wrong.
    pub(super) fn receive(&mut self) -> Result<(), String> {
        let mut taken = 0;
        while !self.closed && taken < RECEIVE_AT_ONCE {
            let mut bytes = [0; 64 * 1024];
            let mut space = [MaybeUninit::uninit(); ANCILLARY_BYTES];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let received = rustix::net::recvmsg(
                &*self.socket,
                &mut [IoSliceMut::new(&mut bytes)],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
            );
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    self.arrived.extend(descriptors);
                }
            }
            match received {
                Ok(received) if received.flags.contains(ReturnFlags::CTRUNC) => {
                    return Err(
                        "sent descriptors that this process has no room for (raise the limit on open files: \
                                ulimit -n)"
                            .into(),
                    );
                }
                Ok(received) if received.bytes == 0 => self.closed = true,
                Ok(received) => {
                    taken += received.bytes;
                    self.incoming.extend_from_slice(&bytes[..received.bytes]);
                    self.open_records()?;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(Errno::CONNRESET | Errno::PIPE) => self.closed = true,
                Err(error) if tcp::is_out_of_reach(error) => {
                    (self.closed, self.out_of_reach) = (true, true);
                }
                Err(error) => return Err(format!("cannot be read from ({error})")),
            }
        }
        Ok(())
    }

    fn open_records(&mut self) -> Result<(), String> {
        let mut at = 0;
        while let Some(length) = self.incoming[at..].first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            if !(noise::TAG_BYTES + HEADER_BYTES..=noise::MESSAGE_LIMIT).contains(&length) {
                return Err(format!("sent a record of {length} bytes, which no record has"));
            }
            let Some(sealed) = self.incoming.get(at + 4..at + 4 + length) else {
                break;
            };
            let mut record = vec![0; length];
            let opened = self
                .noise
                .read_message(sealed, &mut record)
                .map_err(|_| "sent a record that was not encrypted for this connection".to_owned())?;
            at += 4 + length;
            self.messages
                .extend(self.assembler.push(&record[..opened], &mut self.arrived)?);
        }
        self.incoming.drain(..at);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
