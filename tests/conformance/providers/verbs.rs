//! Verbs devices, where there are any. `SAPWOOD_VERBS_DEVICE` names them: with two (`r0,r1`), even ranks take one and
//! odd ranks the other, so that packets leave the device.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sapwood::fabric::verbs::{Settings, Verbs};
use sapwood::fabric::{Fabric, FabricError, Status};

use super::{Opening, Provider};

pub fn all() -> [Provider; 2] {
    [
        Provider {
            name: "verbs",
            open: |opening| open(opening, 1).unwrap_or_else(|error| panic!("{error}")),
            missing,
            last_words: LAST_WORDS,
        },
        Provider {
            name: "verbs-striped",
            open: |opening| open(opening, 4).unwrap_or_else(|error| panic!("{error}")),
            missing,
            last_words: LAST_WORDS,
        },
    ]
}

/// The kernel takes a dead process's registrations away before its queue pairs, which in between answer for it.
pub const LAST_WORDS: &[Status] = &[Status::PeerUnreachable, Status::RemoteAccess];

/// Looked for once: every case of both providers asks.
pub fn missing() -> Option<String> {
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    let look = || {
        let error = open(Opening::default(), 1).err()?;
        Some(format!(
            "{error} (a machine with soft-RoCE: tools/rig/run conformance)"
        ))
    };
    MISSING.get_or_init(look).clone()
}

fn open(opening: Opening, queue_pairs: usize) -> Result<Arc<dyn Fabric>, FabricError> {
    open_with(opening, |settings| settings.queue_pairs = queue_pairs)
}

/// With settings of the caller's.
pub fn open_with(
    opening: Opening,
    change: impl FnOnce(&mut Settings),
) -> Result<Arc<dyn Fabric>, FabricError> {
    let mut settings = Settings::from_environment()?;
    settings.local_rank = opening.rank as usize;
    change(&mut settings);
    if std::env::var_os("SAPWOOD_VERBS_TIMEOUT").is_none() {
        // Cases make many peers vanish; 67 ms for each of seven tries are soon over.
        settings.timeout = 14;
    }
    if let Some(patience) = opening.receiver_patience {
        // Six pauses of 31 ms (or, by the code for a longer one, of 82 ms).
        settings.receiver_retry = 6;
        settings.receiver_timer = if patience < Duration::from_millis(250) {
            23
        } else {
            26
        };
    }
    Ok(Arc::new(Verbs::open(&settings)?))
}
