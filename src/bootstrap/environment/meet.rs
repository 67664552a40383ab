//! Where the ranks of another launcher's job meet, and which secret they know.

use std::os::fd::{BorrowedFd, RawFd};
use std::time::Instant;

use zeroize::Zeroizing;

use super::super::{BootstrapError, Job, Rendezvous, Secret, interface, pair, process_manager};
use super::own::{Own, SECRET_HINT};
use super::placement::{Meeting, Placement};
use super::variable::SECRET_FILE;
use super::variables::incomplete;

/// The job of a process whose place another launcher gives. What Sapwood's own variables say goes before what the
/// launcher does.
pub(super) fn job(own: Own, placement: Placement) -> Result<Job, BootstrapError> {
    let local_rank = own.local_rank(placement.size)?.or(placement.local_rank);
    let local_rank = local_rank.unwrap_or(placement.rank);
    let secret = own.secret()?;
    let meeting = match own.rendezvous.clone() {
        Some(rendezvous) => Told::At(rendezvous),
        None => told(&own, &placement)?,
    };
    let new = |rendezvous, secret| {
        let job = Job::new(placement.rank, placement.size, local_rank, rendezvous, secret)?;
        Ok::<_, BootstrapError>(own.complete(job))
    };
    let through = match placement.meeting {
        Meeting::KeyValue(descriptor) => Some(descriptor),
        _ => None,
    };
    let job = match (meeting, secret, through) {
        (Told::At(rendezvous), Some(secret), _) => new(rendezvous, secret)?,
        // At a Unix socket the kernel proves what else a secret does.
        (Told::At(rendezvous), None, _) if !rendezvous.is_network() => {
            new(rendezvous, pair::known_to_all()?)?
        }
        (Told::At(_), None, None) if placement.size > 1 => {
            return Err(incomplete(placement.names.rank, SECRET_FILE, SECRET_HINT));
        }
        (Told::At(rendezvous), None, None) => new(rendezvous, Secret::random()?)?,
        (Told::At(rendezvous), None, Some(descriptor)) => exchange(
            &own,
            &placement,
            descriptor,
            |own_secret| new(rendezvous.clone(), own_secret),
            None,
        )?,
        (Told::ByRank0, secret, Some(descriptor)) => {
            let address = interface::own_address(own.subnet.as_ref())?;
            let rendezvous = Rendezvous::network(&address.to_string(), 0)?;
            exchange(
                &own,
                &placement,
                descriptor,
                |secret| new(rendezvous.clone(), secret),
                secret,
            )?
        }
        (Told::ByRank0, _, None) => unreachable!("only a key-value store lets rank 0 tell"),
    };
    tracing::info!(
        rank = job.rank,
        size = job.size,
        local_rank = job.local_rank,
        launcher = placement.launcher.name(),
        rendezvous = %job.rendezvous,
        "the launcher's environment is understood"
    );
    Ok(job)
}

/// Whether this rank knows where to meet.
enum Told {
    At(Rendezvous),
    ByRank0,
}

fn told(own: &Own, placement: &Placement) -> Result<Told, BootstrapError> {
    Ok(Told::At(match &placement.meeting {
        Meeting::OneHost(name) => Rendezvous::Abstract(name.clone()),
        // Its own name may well mean an address of rank 0's host that no other host reaches: there it listens on all,
        // or on the one that was asked for.
        Meeting::Network { port, .. } if placement.rank == 0 => match &own.subnet {
            None => Rendezvous::network("::", *port)?,
            subnet => Rendezvous::network(&interface::own_address(subnet.as_ref())?.to_string(), *port)?,
        },
        Meeting::Network { host, port } => Rendezvous::network(host, *port)?,
        // Alone it meets nobody.
        Meeting::Unknown { .. } if placement.size == 1 => Rendezvous::random()?,
        Meeting::Unknown { missing, hint } => {
            return Err(incomplete(placement.names.rank, missing, hint));
        }
        Meeting::KeyValue(_) => return Ok(Told::ByRank0),
    }))
}

/// Rank 0 opens the rendezvous and tells all others where it is and, unless they have one, the secret.
fn exchange(
    own: &Own,
    placement: &Placement,
    descriptor: RawFd,
    new: impl Fn(Secret) -> Result<Job, BootstrapError>,
    shared: Option<Secret>,
) -> Result<Job, BootstrapError> {
    let deadline = Instant::now() + own.timeout;
    // SAFETY: the launcher has given this process the descriptor for its whole life, and it was open a moment ago;
    // whoever closes it all the same has the exchange fail, at worst by what another socket says.
    let connection = unsafe { BorrowedFd::borrow_raw(descriptor) };
    let name = format!("PMI_FD={descriptor}");
    let broadcast = |word| process_manager::broadcast(&connection, &name, placement.rank, word, deadline);
    if placement.rank == 0 {
        let mut job = new(shared.clone().map_or_else(Secret::random, Ok)?)?;
        job.open()?;
        let secret = match &shared {
            Some(_) => Zeroizing::new("-".to_owned()),
            None => job.secret.to_hexadecimal(),
        };
        let word = Zeroizing::new(format!("{},{}", job.rendezvous, *secret));
        broadcast(Some(&word))?;
        return Ok(job);
    }
    let told = Zeroizing::new(broadcast(None)?);
    let odd = || BootstrapError::ProcessManager {
        manager: name.clone(),
        problem: "passed on something that rank 0 cannot have said: do all ranks run the same version?"
            .into(),
    };
    let (rendezvous, secret) = told.rsplit_once(',').ok_or_else(odd)?;
    let secret = match (shared, secret) {
        (Some(shared), _) => shared,
        (None, "-") => return Err(incomplete(placement.names.rank, SECRET_FILE, SECRET_HINT)),
        (None, digits) => Secret::from_hexadecimal(digits).ok_or_else(odd)?,
    };
    let mut job = new(secret)?;
    job.rendezvous = rendezvous.parse().map_err(|_| odd())?;
    Ok(job)
}
