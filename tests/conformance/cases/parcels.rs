//! What comes out of band is checked: damage, another kind, another pair of ranks, another generation.

use sapwood::fabric::{Access, FabricError, Parcel};

use super::Case;
use crate::line::{at, part, write};
use crate::member::{Member, Random};

pub const CASES: &[Case] = &[
    Case {
        modes: super::THREADS,
        ..Case::new("damaged parcels are refused", damaged)
    },
    Case {
        modes: super::THREADS,
        ..Case::new("a parcel for somebody else is refused", misdirected)
    },
    Case {
        ranks: 1,
        modes: super::THREADS,
        ..Case::new("what gives no rights is not exported", local_only)
    },
];

fn copy(parcel: &Parcel, bytes: Vec<u8>) -> Parcel {
    let descriptors = parcel
        .descriptors
        .iter()
        .map(|one| one.try_clone().expect("a duplicate"))
        .collect();
    Parcel { bytes, descriptors }
}

fn damaged(member: &mut Member) {
    let mut line = member.connect();
    if member.rank == 1 {
        let memory = member.memory(4096, Access::ALL);
        member.offer(0, &memory);
        let mut other = member.fabric.endpoint(1, 99).expect("an endpoint");
        member.give_parcel(0, &other.prepare(0).expect("prepare"));
        member.take(0);
        return;
    }
    let region = member.take_parcel(1);
    let connection = member.take_parcel(1);
    let mut endpoint = member.fabric.endpoint(0, 99).expect("an endpoint");
    endpoint.prepare(1).expect("prepare");
    let mut random = Random(1);
    for round in 0..600 {
        let original = if round % 2 == 0 { &region } else { &connection };
        let mut bytes = original.bytes.clone();
        match round % 6 / 2 {
            0 => bytes.truncate(random.below(bytes.len())),
            1 => {
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
            }
            _ => {
                bytes.resize(random.below(200), 0);
                random.fill(&mut bytes);
            }
        }
        let forged = copy(original, bytes);
        let error = if round % 2 == 0 {
            line.endpoint.import(1, forged).err()
        } else {
            endpoint.connect(1, forged).err()
        };
        let error = error.unwrap_or_else(|| panic!("round {round}: a damaged parcel was taken"));
        assert!(
            matches!(error, FabricError::Parcel { rank: 0, peer: 1, .. }),
            "round {round}: {error}"
        );
    }
    // One kind for the other.
    assert!(
        line.endpoint
            .import(1, copy(&connection, connection.bytes.clone()))
            .is_err()
    );
    assert!(endpoint.connect(1, copy(&region, region.bytes.clone())).is_err());
    // After all that, the real ones still serve.
    endpoint.connect(1, connection).expect("connect");
    let theirs = line.endpoint.import(1, region).expect("import");
    let ours = member.memory(64, Access::LOCAL);
    line.perform(1, write(1, part(&ours, 0, 64), at(&theirs, 0)));
    member.give(1, b"done");
}

fn misdirected(member: &mut Member) {
    let peer = 1 - member.rank;
    let prepare = |rank, to, generation| {
        let mut endpoint = member.fabric.endpoint(rank, generation).expect("an endpoint");
        let parcel = endpoint.prepare(to).expect("prepare");
        (endpoint, parcel)
    };
    let (mut endpoint, good) = prepare(member.rank, peer, 7);
    let wrong = [
        prepare(member.rank, peer, 8),
        prepare(member.rank, 5, 7),
        prepare(6, peer, 7),
    ];
    for (_, parcel) in &wrong {
        member.give_parcel(peer, parcel);
    }
    member.give_parcel(peer, &good);
    for number in 0..wrong.len() {
        let parcel = member.take_parcel(peer);
        let error = endpoint
            .connect(peer, parcel)
            .expect_err("a parcel for somebody else");
        assert!(matches!(error, FabricError::Parcel { .. }), "{number}: {error}");
    }
    let parcel = member.take_parcel(peer);
    endpoint.connect(peer, parcel).expect("connect");
    member.barrier();
}

fn local_only(member: &mut Member) {
    assert!(member.memory(64, Access::LOCAL).export().is_err());
    assert!(member.memory(64, Access::READ).export().is_ok());
}
