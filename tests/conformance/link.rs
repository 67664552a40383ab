//! The channel beside the fabric on which ranks exchange parcels: a socket that carries descriptors. The same for
//! threads and for processes.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair, sockopt,
};
use sapwood::fabric::Parcel;

/// One end of a channel to one peer.
pub struct Link(OwnedFd);

impl Link {
    pub fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .expect("a socket pair")
    }

    pub fn new(socket: OwnedFd, patience: Duration) -> Self {
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(patience)).expect("a time-out");
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(patience)).expect("a time-out");
        Self(socket)
    }

    pub fn give(&self, parcel: &Parcel) -> Result<(), String> {
        let descriptors: Vec<_> = parcel.descriptors.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err("too many descriptors in one parcel".into());
        }
        // A leading byte, so that an empty parcel is not taken for the end of the channel.
        let bytes = [IoSlice::new(&[1]), IoSlice::new(&parcel.bytes)];
        sendmsg(&self.0, &bytes, &mut ancillary, SendFlags::NOSIGNAL)
            .map(drop)
            .map_err(|error| format!("sending to a rank beside the fabric: {error}"))
    }

    pub fn take(&self) -> Result<Parcel, String> {
        let mut bytes = vec![0; 64 << 10];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let got = loop {
            let flags = RecvFlags::CMSG_CLOEXEC;
            match recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(format!("waiting for a rank beside the fabric: {error}")),
                Ok(got) => break got,
            }
        };
        if got.bytes == 0 {
            return Err("a rank ended early".into());
        }
        let descriptors = ancillary
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            })
            .flatten()
            .collect();
        let bytes = bytes[1..got.bytes].to_vec();
        Ok(Parcel { bytes, descriptors })
    }
}
