//! From a rendezvous to a membership: how rank 0 and the others end up with the same table, on one host and over the
//! network.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::attempt::Attempt;
use super::channel::Channel;
use super::control::Control;
use super::liveness::{Liveness, Processes};
use super::lives::Lives;
use super::meanwhile::Meanwhile;
use super::membership::Meeting;
use super::message::{self, Peer};
use super::near::Near;
use super::one_host::OneHost;
use super::progress::Watch;
use super::reception::{Arrived, Reception};
use super::roll::Presence;
use super::star::Star;
use super::{BootstrapError, Job, hub, noise};

/// The table, by rank, what connects this rank to the others, and the job's salt.
pub(super) type Joined = (Vec<Peer>, Meeting, u128);

/// Meets the others.
pub(super) fn join(job: &Job, deadline: Instant, watch: &mut Watch<'_>) -> Result<Joined, BootstrapError> {
    let network = job.rendezvous.is_network() && job.size > 1;
    match (job.rank, network) {
        (0, false) => {
            let arrived = Reception::open(job, deadline)?.receive_all(watch)?;
            Ok(root_on_one_host(job, arrived))
        }
        (0, true) => {
            let arrived = Reception::open(job, deadline)?.receive_all(watch)?;
            let channel = start_hub(job, arrived.channels)?;
            on_network(job, channel, arrived.peers, arrived.salt, deadline)
        }
        (_, false) => leaf_on_one_host(job, deadline, watch),
        (_, true) => {
            let mut attempt = Attempt::new(job, deadline, watch);
            let mut channel = attempt.enter()?;
            let (table, _) = attempt.take_table(&mut channel, None)?;
            on_network(job, channel, table.peers, table.salt, deadline)
        }
    }
}

fn root_on_one_host(job: &Job, arrived: Arrived) -> Joined {
    let connections = (1..)
        .zip(&arrived.channels)
        .map(|(rank, channel)| (rank, Arc::clone(channel.socket())))
        .collect();
    let liveness = Liveness {
        rank: 0,
        roll: arrived.roll,
        peers: arrived.peers.clone(),
        processes: Processes {
            pids: arrived.pids,
            descriptors: arrived.pidfds,
        },
        connections,
        lives: Lives::new(job, 0),
        meanwhile: Meanwhile::default(),
    };
    let one_host = OneHost::new(liveness, Control::Root(arrived.channels));
    (arrived.peers, Meeting::OneHost(Box::new(one_host)), arrived.salt)
}

fn leaf_on_one_host(job: &Job, deadline: Instant, watch: &mut Watch<'_>) -> Result<Joined, BootstrapError> {
    let mut attempt = Attempt::new(job, deadline, watch);
    let mut channel = attempt.enter()?;
    let roll = attempt.take_roll()?;
    let (table, descriptors) = attempt
        .take_table(&mut channel, Some(&roll))
        .inspect_err(|_| roll.mark(job.rank, Presence::GaveUp))?;
    let liveness = Liveness {
        rank: job.rank,
        roll,
        peers: table.peers.clone(),
        processes: Processes {
            pids: table.watched,
            descriptors: Arc::new(descriptors),
        },
        connections: vec![(0, Arc::clone(channel.socket()))],
        lives: Lives::new(job, 0),
        meanwhile: Meanwhile::default(),
    };
    let one_host = OneHost::new(liveness, Control::Leaf(Box::new(channel)));
    Ok((table.peers, Meeting::OneHost(Box::new(one_host)), table.salt))
}

/// Hands rank 0's connections to the hub, and gives it one of its own.
fn start_hub(job: &Job, channels: Vec<Channel>) -> Result<Channel, BootstrapError> {
    let (own, hubs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        None,
    )
    .map_err(BootstrapError::system("connecting rank 0 to its own thread"))?;
    let (left, right) = noise::both_ends(&job.secret)?;
    let channel = |socket: OwnedFd, noise| Channel::new(socket, noise, message::MESSAGE_LIMIT);
    let to_rank_0 = channel(hubs, right);
    hub::start(std::iter::once(to_rank_0).chain(channels).collect())?;
    Ok(channel(own, left))
}

/// Everybody has the table: meets the ranks of this host, and waits until all have met theirs, so that a join that
/// succeeds has succeeded everywhere.
fn on_network(
    job: &Job,
    channel: Channel,
    peers: Vec<Peer>,
    salt: u128,
    deadline: Instant,
) -> Result<Joined, BootstrapError> {
    let mut star = Star::new(job.rank, job.size, channel);
    // Whoever is gone, or has given up, ends the wait for the others of this host.
    let mut still = || star.still_joining();
    let mut watch = Watch {
        tell: &mut |_| {},
        still: Some(&mut still),
    };
    let near = Near::meet(job, &peers, salt, deadline, &mut watch);
    let met = near.and_then(|near| {
        star.set_near(near);
        star.assemble(deadline)
    });
    match met {
        Ok(()) => Ok((peers, Meeting::Network(Box::new(star)), salt)),
        Err(error) => {
            star.give_up(&error);
            star.leave(false);
            Err(error)
        }
    }
}
