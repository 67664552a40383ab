//! Who comes to a port of a job without belonging to it: nobody is held up, and nobody is let in.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use sapwood::bootstrap::variable;

use crate::ranks::{Ranks, expect, free_port, soon};

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("strangers::garbage_holds_nobody_up", garbage_holds_nobody_up),
        Trial::test("strangers::silence_holds_nobody_up", silence_holds_nobody_up),
        Trial::test(
            "strangers::another_secret_is_refused_and_the_job_goes_on",
            another_secret_is_refused,
        ),
        Trial::test(
            "strangers::what_a_rank_said_cannot_be_said_again",
            what_a_rank_said_cannot_be_said_again,
        ),
        Trial::test(
            "strangers::what_is_changed_on_the_way_is_refused",
            what_is_changed_on_the_way_is_refused,
        ),
        Trial::test(
            "strangers::who_is_no_rank_0_is_not_believed",
            who_is_no_rank_0_is_not_believed,
        ),
        another_user(
            "strangers::a_flood_of_another_users_holds_nobody_beyond_the_deadline",
            a_flood_holds_nobody,
        ),
    ]
}

/// A test that needs a second user.
fn another_user(name: &'static str, test: fn() -> Result<(), Failed>) -> Trial {
    if rustix::process::geteuid().is_root() {
        return Trial::test(name, test);
    }
    Trial::test(format!("{name} (skipped: only root can be another user)"), test).with_ignored_flag(true)
}

/// There is always another connection of theirs to accept, and each is refused at once.
fn a_flood_holds_nobody() -> Result<(), Failed> {
    let mut ranks = Ranks::new(2);
    // Nobody else can reach this program where it was built.
    let place = tempfile::tempdir()?;
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755))?;
    let program = place.path().join("flood");
    std::fs::copy(std::env::current_exe()?, &program)?;
    let flood = || {
        let mut command = Command::new(&program);
        command.env(crate::ranks::ROLE, "flood");
        command.env(variable::RENDEZVOUS, &ranks.name).uid(65_534).spawn()
    };
    let mut floods = Vec::new();
    for _ in 0..4 {
        floods.push(flood()?);
    }
    ranks.start(0, "be missed");
    let said = ranks.finish(0);
    let mut on_time = true;
    for mut flood in floods {
        on_time &= flood.try_wait()?.is_none();
        flood.kill()?;
        flood.wait()?;
    }
    let said = said?;
    let named = said.starts_with("ERROR rank 1 of 2 did not join within 2");
    expect(named, format!("rank 0 said {said:?}"))?;
    expect(on_time, "the flood was over before rank 0 looked at its deadline")
}

fn connect(name: &str) -> TcpStream {
    let patience = soon();
    loop {
        match TcpStream::connect(name) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < patience, "the rendezvous never opened: {error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Everybody who belongs there comes in.
fn all_meet(mut ranks: Ranks, size: u32) -> Result<(), Failed> {
    for rank in 0..size {
        let said = ranks.finish(rank)?;
        expect(said.ends_with("0 1 2\n"), format!("rank {rank} said {said:?}"))?;
    }
    Ok(())
}

fn garbage_holds_nobody_up() -> Result<(), Failed> {
    let mut ranks = Ranks::at_port("127.0.0.1", 3);
    ranks.start(0, "exchange");
    let name = ranks.name.clone();
    let mut held = Vec::new();
    for round in 0..100u32 {
        // What a port scan does.
        drop(connect(&name));
        let bytes: Vec<u8> = (0..10_000u32)
            .map(|index| ((index ^ round.wrapping_mul(0x9e37)).wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        // Refused before it has said everything: the write may fail.
        let _ = connect(&name).write_all(&bytes);
        // A handshake that ends at each place that it can end at.
        let truncated = [&[48, 0, 0, 0][..], &bytes[..48]].concat();
        let _ = connect(&name).write_all(&truncated[..round as usize % 52]);
        let mut wrong_secret = connect(&name);
        wrong_secret.write_all(&truncated).unwrap();
        let mut answer = Vec::new();
        let _ = wrong_secret.read_to_end(&mut answer);
        expect(answer.is_empty(), "a stranger got an answer")?;
        let mut half = connect(&name);
        half.write_all(&truncated[..7]).unwrap();
        held.push(half);
    }
    ranks.start(1, "exchange");
    ranks.start(2, "exchange");
    all_meet(ranks, 3)
}

/// More connections than are let wait at once say one byte after the other, and never enough.
fn silence_holds_nobody_up() -> Result<(), Failed> {
    let mut ranks = Ranks::at_port("127.0.0.1", 3);
    ranks.start(0, "exchange");
    let name = ranks.name.clone();
    let held: Vec<TcpStream> = (0..150).map(|_| connect(&name)).collect();
    let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let slow = std::thread::spawn({
        let over = Arc::clone(&over);
        move || {
            for byte in [48, 0, 0, 0].into_iter().chain([7; 40]) {
                for mut stream in &held {
                    let _ = stream.write_all(&[byte]);
                }
                if over.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    });
    ranks.start(1, "exchange");
    ranks.start(2, "exchange");
    let met = all_meet(ranks, 3);
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    slow.join().unwrap();
    met
}

fn another_secret_is_refused() -> Result<(), Failed> {
    let mut ranks = Ranks::at_port("127.0.0.1", 3);
    ranks.start(0, "exchange");
    let other = Ranks::new(1);
    std::fs::write(other.folder.path().join("secret"), b"a secret of another job")?;
    let mut stranger = Command::new(std::env::current_exe()?);
    drop(connect(&ranks.name));
    let said = stranger
        .env(crate::ranks::ROLE, "exchange")
        .env(variable::RANK, "1")
        .env(variable::SIZE, "3")
        .env(variable::RENDEZVOUS, &ranks.name)
        .env(variable::SECRET_FILE, other.folder.path().join("secret"))
        .output()?;
    let said = String::from_utf8(said.stdout)?;
    expect(
        said.starts_with("ERROR rendezvous 127.0.0.1:") && said.contains("its job secret differs"),
        format!("the stranger said {said:?}"),
    )?;
    ranks.start(1, "exchange");
    ranks.start(2, "exchange");
    all_meet(ranks, 3)
}

/// Passes on what comes to a port of its own, changes the byte at a place of what the first client says, and remembers
/// all of that.
fn eavesdrop(to: String, change: Option<usize>) -> (u16, Arc<Mutex<Vec<u8>>>) {
    let port = free_port("127.0.0.1");
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let remember = Arc::clone(&heard);
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        drop(listener);
        let mut server = connect(&to);
        let (mut back, mut forth) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut back, &mut forth);
            let _ = forth.shutdown(Shutdown::Both);
        });
        let mut bytes = [0; 4096];
        while let Ok(length @ 1..) = client.read(&mut bytes) {
            let mut heard = remember.lock().unwrap();
            if let Some(place) = change.and_then(|place| place.checked_sub(heard.len()))
                && place < length
            {
                bytes[place] ^= 1;
            }
            heard.extend_from_slice(&bytes[..length]);
            if server.write_all(&bytes[..length]).is_err() {
                break;
            }
        }
        let _ = server.shutdown(Shutdown::Both);
    });
    (port, heard)
}

fn what_a_rank_said_cannot_be_said_again() -> Result<(), Failed> {
    let mut ranks = Ranks::at_port("127.0.0.1", 3);
    ranks.start(0, "exchange");
    let name = ranks.name.clone();
    let (port, heard) = eavesdrop(name.clone(), None);
    ranks.name = format!("127.0.0.1:{port}");
    ranks.start(1, "exchange");
    // A handshake is 52 bytes, and the hello follows.
    let patience = soon();
    while heard.lock().unwrap().len() < 150 {
        expect(Instant::now() < patience, "rank 1 never introduced itself")?;
        std::thread::sleep(Duration::from_millis(5));
    }
    let said = heard.lock().unwrap().clone();
    let mut replay = connect(&name);
    replay.write_all(&said)?;
    let mut answer = Vec::new();
    let _ = replay.read_to_end(&mut answer);
    // The first message can be said again; what answers it cannot be understood without the key that was thrown away,
    // and nothing comes after it.
    expect(
        answer.len() <= 52,
        format!("{} bytes were answered", answer.len()),
    )?;
    let mut again = connect(&name);
    again.write_all(&said[..52])?;
    again.write_all(&said[..52])?;
    let _ = again.read_to_end(&mut answer);
    expect(answer.len() <= 2 * 52, "a repeated handshake was answered")?;
    ranks.name = name;
    ranks.start(2, "exchange");
    all_meet(ranks, 3)
}

fn what_is_changed_on_the_way_is_refused() -> Result<(), Failed> {
    // In the handshake; in the length of the hello; in the hello.
    for place in [20, 52, 70] {
        let mut ranks = Ranks::at_port("127.0.0.1", 3);
        ranks.start(0, "exchange");
        let name = ranks.name.clone();
        let (port, _) = eavesdrop(name.clone(), Some(place));
        ranks.name = format!("127.0.0.1:{port}");
        ranks.start(1, "exchange");
        let said = ranks.finish(1)?;
        expect(said.starts_with("ERROR"), format!("rank 1 said {said:?}"))?;
        ranks.name = name;
        ranks.start(1, "exchange");
        ranks.start(2, "exchange");
        all_meet(ranks, 3)?;
    }
    Ok(())
}

fn who_is_no_rank_0_is_not_believed() -> Result<(), Failed> {
    let mut ranks = Ranks::at_port("127.0.0.1", 2);
    let listener = TcpListener::bind(&ranks.name)?;
    ranks.start(1, "exchange");
    let (mut stream, _) = listener.accept()?;
    stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    let said = ranks.finish(1)?;
    let told = said.starts_with("ERROR rendezvous") && said.contains("not the rendezvous of a Sapwood job");
    expect(told, format!("rank 1 said {said:?}"))
}
