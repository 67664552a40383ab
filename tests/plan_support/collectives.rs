//! All collectives, for tests that want one of each.

use sapwood::plan::Collective;

/// How many kinds there are.
pub const KINDS: u8 = 9;

/// The collective of this kind, from 0.
pub fn collective(kind: u8, root: u32) -> Collective {
    match kind {
        0 => Collective::AllReduce,
        1 => Collective::Reduce { root },
        2 => Collective::Broadcast { root },
        3 => Collective::Barrier,
        4 => Collective::ReduceScatter,
        5 => Collective::AllGather,
        6 => Collective::Gather { root },
        7 => Collective::Scatter { root },
        _ => Collective::AllToAll,
    }
}

/// One of each kind.
#[allow(dead_code, reason = "not every test that shares this file wants them all")]
pub fn all(root: u32) -> impl Iterator<Item = Collective> {
    (0..KINDS).map(move |kind| collective(kind, root))
}
