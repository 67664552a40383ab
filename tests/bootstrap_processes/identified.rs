//! Processes that no launcher has told: they meet by an id that one of them made and passed on by its own way.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};
use sapwood::bootstrap::UniqueId;
use sapwood::communicator::Communicator;
use sapwood::engine::reduce::Operation;

use crate::ranks::{ROLE, expect};

const SIZE: u32 = 4;

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("processes_meet_by_a_unique_id_on_one_host", || {
            meet(UniqueId::on_one_host()?)
        }),
        Trial::test("processes_meet_by_a_unique_id_over_the_network", || {
            meet(UniqueId::at("127.0.0.1")?)
        }),
        Trial::test("a_changed_unique_id_is_refused", a_changed_id_is_refused),
    ]
}

/// This process is rank 0; the others get the id through their standard input, and their ranks as the role's last word.
fn meet(id: UniqueId) -> Result<(), Failed> {
    let program = std::env::current_exe()?;
    let mut others = Vec::new();
    for rank in 1..SIZE {
        let mut child = Command::new(&program)
            .env(ROLE, format!("identified {rank}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        child.stdin.take().expect("piped").write_all(&id.to_bytes())?;
        others.push(child);
    }
    let sum = take_part(&id, 0);
    expect(sum == 10, format!("rank 0 has {sum}"))?;
    for (rank, child) in (1..).zip(others) {
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        expect(
            output.status.success() && said == "10\n",
            format!("rank {rank} said {said:?}"),
        )?;
    }
    Ok(())
}

/// Sums every rank's number, from 1.
fn take_part(id: &UniqueId, rank: u32) -> u32 {
    let communicator = Communicator::from_unique_id(id, rank, SIZE).expect("all come");
    let mut number = [rank + 1];
    communicator
        .all_reduce_slice(&mut number, Operation::Sum)
        .expect("all take part");
    communicator.finalize().expect("all come to the end");
    number[0]
}

/// What such a rank does.
pub fn play(rank: &str) {
    let mut bytes = [0; UniqueId::BYTES];
    std::io::stdin().read_exact(&mut bytes).expect("an id");
    let id = UniqueId::from_bytes(&bytes).expect("the id that was made");
    println!("{}", take_part(&id, rank.parse().expect("a rank")));
}

fn a_changed_id_is_refused() -> Result<(), Failed> {
    let bytes = UniqueId::on_one_host()?.to_bytes();
    for at in [0, 7] {
        let mut changed = bytes;
        changed[at] ^= 0x40;
        let refused = UniqueId::from_bytes(&changed)
            .err()
            .map(|error| error.to_string());
        expect(
            refused.is_some(),
            format!("byte {at} was changed and the id taken"),
        )?;
    }
    Ok(())
}
