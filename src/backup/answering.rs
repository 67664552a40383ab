//! The other halves of queue pairs that other workers ask for, made by a thread of this worker's that sleeps otherwise.
//!
//! Nothing is ever posted on these: they are there so that others' reads and atomic operations reach this worker's memory.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::bootstrap::Said;
use crate::fabric::{Endpoint, Fabric, FabricError, Parcel, Rank, Registration};

/// What a worker that has asked needs to reach this one's memory.
pub(super) struct Answer {
    pub pair: Parcel,
    pub words: Parcel,
    pub data: Parcel,
}

/// Bytes of the three, and how many of the descriptors are each one's.
#[derive(Serialize, Deserialize)]
struct Encoded {
    bytes: [Vec<u8>; 3],
    descriptors: [usize; 3],
}

impl Answer {
    fn encode(self) -> Said {
        let parts = [self.pair, self.words, self.data];
        let descriptors = parts.each_ref().map(|part| part.descriptors.len());
        let bytes = parts.each_ref().map(|part| part.bytes.clone());
        Said {
            bytes: serde_json::to_vec(&Encoded { bytes, descriptors }).expect("plain data"),
            descriptors: parts.into_iter().flat_map(|part| part.descriptors).collect(),
        }
    }

    pub fn decode(said: Said) -> Result<Self, String> {
        let encoded = serde_json::from_slice::<Encoded>(&said.bytes);
        let Encoded { bytes, descriptors } = encoded.map_err(|error| error.to_string())?;
        let total = descriptors
            .iter()
            .try_fold(0usize, |sum, count| sum.checked_add(*count));
        if total != Some(said.descriptors.len()) {
            return Err(format!(
                "{} descriptors came, and {descriptors:?} were to come",
                said.descriptors.len()
            ));
        }
        let mut all = said.descriptors.into_iter();
        let mut take = |count: usize| all.by_ref().take(count).collect::<Vec<OwnedFd>>();
        let [pair, words, data] = bytes;
        let [pairs, of_words, of_data] = descriptors.map(&mut take);
        let parcel = |bytes, descriptors| Parcel { bytes, descriptors };
        Ok(Self {
            pair: parcel(pair, pairs),
            words: parcel(words, of_words),
            data: parcel(data, of_data),
        })
    }
}

/// See the module.
pub(super) struct Answering {
    rank: Rank,
    fabric: Arc<dyn Fabric>,
    generation: u32,
    words: Arc<dyn Registration>,
    data: Arc<dyn Registration>,
    /// At most one pair with each worker on each.
    endpoints: Vec<Option<Box<dyn Endpoint>>>,
    /// By worker: how many pairs it has asked for. The newest is on the endpoint before that number.
    asked: Vec<usize>,
}

impl Answering {
    pub fn new(
        (rank, workers): (Rank, u32),
        (fabric, generation): (Arc<dyn Fabric>, u32),
        (words, data): (Arc<dyn Registration>, Arc<dyn Registration>),
    ) -> Self {
        Self {
            rank,
            fabric,
            generation,
            words,
            data,
            endpoints: Vec::new(),
            asked: vec![0; workers as usize],
        }
    }

    /// Makes the other half of a pair. Who asks again has no use for the one before.
    pub fn answer(&mut self, from: Rank, said: Said) -> Result<Said, String> {
        let half = Parcel {
            bytes: said.bytes,
            descriptors: said.descriptors,
        };
        let answer = self.connect(from, half).map_err(|error| error.to_string())?;
        Ok(answer.encode())
    }

    fn connect(&mut self, from: Rank, half: Parcel) -> Result<Answer, FabricError> {
        let at = self.asked[from as usize];
        self.asked[from as usize] += 1;
        if let Some(before) = at.checked_sub(1) {
            if let Some(endpoint) = &mut self.endpoints[before] {
                endpoint.disconnect(from);
            }
            if !self.asked.contains(&at) {
                self.endpoints[before] = None;
            }
        }
        if self.endpoints.len() <= at {
            self.endpoints.resize_with(at + 1, || None);
        }
        let endpoint = match &mut self.endpoints[at] {
            Some(endpoint) => endpoint,
            none => none.insert(self.fabric.endpoint(self.rank, self.generation)?),
        };
        let pair = endpoint.prepare(from)?;
        endpoint.connect(from, half)?;
        Ok(Answer {
            pair,
            words: self.words.export()?,
            data: self.data.export()?,
        })
    }
}
