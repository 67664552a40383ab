//! Messages from one rank to one other. The rest of the ranks hear nothing of them, and they keep no order with
//! collectives.

use std::ops::Range;

use super::pending::Started;
use super::request::Piece;
use super::running::Held;
use super::{Communicator, CommunicatorError, Pending, Window, lazily};
use crate::engine::{Engine, EngineError, Letter, Ticket, Way};
use crate::memory::{DataType, Element};

impl Communicator {
    /// Sends elements `range` of a window to rank `to`, whose next receive from this rank they are for: the n-th send
    /// meets the n-th receive, and both must give the same tag and type. Returns when that rank has them.
    ///
    /// ```
    /// use sapwood::{bootstrap::Job, communicator::Communicator};
    ///
    /// let jobs = Job::local(2)?;
    /// std::thread::scope(|scope| {
    ///     for job in &jobs {
    ///         scope.spawn(move || {
    ///             let communicator = Communicator::builder().join(job).unwrap();
    ///             let mut window = communicator.window::<f32>(8).unwrap();
    ///             if communicator.rank() == 0 {
    ///                 window.fill(0.5);
    ///                 communicator.send(&window, 0..3, 1, 7).unwrap();
    ///             } else {
    ///                 assert_eq!(communicator.receive(&mut window, 2..8, 0, 7).unwrap(), 3);
    ///                 assert_eq!(window[..], [0.0, 0.0, 0.5, 0.5, 0.5, 0.0, 0.0, 0.0]);
    ///             }
    ///         });
    ///     }
    /// });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A range that leaves the window, a rank that does not exist or (over messages) that this one is not connected to
    /// (see [`Communicator::connect`]). [`EngineError::Letter`] on both ranks where they do not want the same: the
    /// communicator can be used on. A rank that does not receive it by the deadline or is gone: the communicator is
    /// unusable afterwards, and the window in custody.
    pub fn send<T: Element>(
        &self,
        window: &Window<T>,
        range: Range<usize>,
        to: u32,
        tag: u32,
    ) -> Result<(), CommunicatorError> {
        let piece = self.read_piece(SEND, window, range)?;
        self.run_letter(Way::Send, piece, T::TYPE, to, tag).map(drop)
    }

    /// Receives into elements `range` of a window what rank `from` sends to this rank next; says how many elements
    /// that are. See [`Communicator::send`].
    ///
    /// # Errors
    /// As there; a message that is longer than the range is refused on both ranks.
    pub fn receive<T: Element>(
        &self,
        window: &mut Window<T>,
        range: Range<usize>,
        from: u32,
        tag: u32,
    ) -> Result<usize, CommunicatorError> {
        let piece = self.piece(RECEIVE, window, range)?;
        let bytes = self.run_letter(Way::Receive, piece, T::TYPE, from, tag)?;
        Ok(bytes / size_of::<T>())
    }

    /// Starts sending a whole window, which comes back when rank `to` has what is in it. See [`Communicator::send`].
    ///
    /// # Errors
    /// Wrong arguments, or an earlier failure.
    pub fn start_send<T: Element>(
        &self,
        window: Window<T>,
        to: u32,
        tag: u32,
    ) -> Result<Pending<T>, CommunicatorError> {
        let piece = self.read_piece(SEND, &window, 0..window.len())?;
        let letter = self.letter(Way::Send, piece, T::TYPE, to, tag)?;
        let ticket = self.post(letter)?;
        Ok(Started::new(self.engine().clone(), ticket, window))
    }

    /// Starts receiving into a window; [`Started::moved`] says how many bytes there were. See
    /// [`Communicator::receive`].
    ///
    /// # Errors
    /// Wrong arguments, or an earlier failure.
    pub fn start_receive<T: Element>(
        &self,
        mut window: Window<T>,
        from: u32,
        tag: u32,
    ) -> Result<Pending<T>, CommunicatorError> {
        let all = 0..window.len();
        let piece = self.piece(RECEIVE, &mut window, all)?;
        let letter = self.letter(Way::Receive, piece, T::TYPE, from, tag)?;
        let ticket = self.post(letter)?;
        Ok(Started::new(self.engine().clone(), ticket, window))
    }

    /// Connects this rank to others for messages, and them to it. Collective: every rank calls it, each with its own
    /// list, which may be empty. Needed over messages only, and there only to ranks that no collective has connected yet
    /// ([`Communicator::connections`] names those that are); up to 8 ranks all are from the start.
    ///
    /// # Errors
    /// A rank that does not exist; what the fabric refuses; a rank that does not come.
    pub fn connect(&self, peers: &[u32]) -> Result<(), CommunicatorError> {
        let wrong = peers.iter().find(|peer| **peer >= self.ranks);
        // Every rank hears of it, so that none waits for this one.
        let mine = serde_json::to_vec(&peers).expect("plain data");
        let lists = self.all_gather_bytes("connecting for messages", &mine)?;
        if let Some(wrong) = wrong {
            let what = format!(
                "rank {wrong} does not exist, the ranks are 0 to {}",
                self.ranks - 1
            );
            return Err(self.argument("connect", what));
        }
        let Engine::Messages(core) = &**self.engine() else {
            return Ok(());
        };
        let mut mutual = Vec::new();
        for (rank, bytes) in (0..).zip(&lists) {
            let theirs: Vec<u32> = serde_json::from_slice(bytes).unwrap_or_default();
            if let Some(wrong) = theirs.iter().find(|peer| **peer >= self.ranks) {
                let what = format!("rank {rank} wants to be connected to rank {wrong}, which does not exist");
                return Err(self.argument("connect", what));
            }
            if rank != self.rank && (theirs.contains(&self.rank) || peers.contains(&rank)) {
                mutual.push(rank);
            }
        }
        lazily::connect(
            &self.meeting.borrow(),
            core,
            "messages between two ranks",
            Ok((&mutual, 0)),
        )
    }

    /// What the engine is to move, still without a number.
    pub(super) fn letter(
        &self,
        way: Way,
        piece: Piece<'_>,
        data_type: DataType,
        peer: u32,
        tag: u32,
    ) -> Result<Letter, CommunicatorError> {
        let call = if way == Way::Send { SEND } else { RECEIVE };
        if peer >= self.ranks {
            let what = format!(
                "rank {peer} does not exist, the ranks are 0 to {}",
                self.ranks - 1
            );
            return Err(self.argument(call, what));
        }
        if let Engine::Messages(core) = &**self.engine()
            && peer != self.rank
            && !core.is_connected(peer)
        {
            let what = format!(
                "rank {} is not connected to rank {peer}: call Communicator::connect on all ranks, with these two in \
                 each other's list",
                self.rank
            );
            return Err(self.argument(call, what));
        }
        Ok(Letter {
            way,
            peer,
            number: 0,
            tag,
            data_type,
            extent: piece.extent(data_type.size()),
            bytes: piece.len * data_type.size(),
            timeout: self.timeout(),
        })
    }

    /// With the next number between the two ranks: to be posted at once.
    pub(super) fn numbered(&self, letter: Letter) -> Letter {
        let number = &mut self.letters.borrow_mut()[letter.peer as usize][letter.way as usize];
        *number += 1;
        Letter {
            number: *number,
            ..letter
        }
    }

    fn post(&self, letter: Letter) -> Result<Ticket, CommunicatorError> {
        let letter = self.numbered(letter);
        let ticket = Ticket::default();
        // SAFETY: the callers keep the memory until the ticket says that the message has ended; numbers are taken in
        // order.
        unsafe { self.engine().post(letter, ticket.clone()) }?;
        Ok(ticket)
    }

    fn run_letter(
        &self,
        way: Way,
        piece: Piece<'_>,
        data_type: DataType,
        peer: u32,
        tag: u32,
    ) -> Result<usize, CommunicatorError> {
        let letter = self.letter(way, piece, data_type, peer, tag)?;
        // A panic on the way takes the window into custody too.
        let held = Held([Some(piece.shared), None]);
        let ticket = self.post(letter)?;
        let outcome = self.engine().wait(&ticket);
        if matches!(outcome, Ok(()) | Err(EngineError::Letter { .. })) {
            std::mem::forget(held);
        }
        outcome?;
        Ok(ticket.moved())
    }
}

pub(super) const SEND: &str = "send";
pub(super) const RECEIVE: &str = "receive";
