//! The dialogue with a process manager of the test's own, which serves several ranks.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use super::*;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

type Store = Arc<Mutex<HashMap<String, String>>>;

/// Serves one rank as Hydra does, until it says that it has finished; gives what it has asked for.
fn serve(server: UnixStream, store: &Store, all: &Barrier) -> Vec<String> {
    let mut asked = Vec::new();
    let mut reader = BufReader::new(server.try_clone().unwrap());
    let mut writer = server;
    let mut line = String::new();
    while reader.read_line(&mut line).unwrap_or(0) > 0 {
        let words: HashMap<_, _> = line
            .split_ascii_whitespace()
            .filter_map(|word| word.split_once('='))
            .collect();
        let answer = match words["cmd"] {
            "init" => "cmd=response_to_init pmi_version=1 pmi_subversion=1 rc=0".to_owned(),
            "get_maxes" => "cmd=maxes kvsname_max=256 keylen_max=64 vallen_max=1024".to_owned(),
            "get_my_kvsname" => "cmd=my_kvsname kvsname=kvs_1_0_2_host".to_owned(),
            "put" => {
                assert_eq!(words["kvsname"], "kvs_1_0_2_host");
                let pair = (words["key"].to_owned(), words["value"].to_owned());
                store.lock().unwrap().extend([pair]);
                "cmd=put_result rc=0 msg=success".to_owned()
            }
            "barrier_in" => {
                all.wait();
                "cmd=barrier_out".to_owned()
            }
            "get" => match store.lock().unwrap().get(words["key"]) {
                Some(value) => format!("cmd=get_result rc=0 msg=success value={value}"),
                None => "cmd=get_result rc=-1 msg=key_not_found value=unknown".to_owned(),
            },
            "finalize" => "cmd=finalize_ack".to_owned(),
            other => panic!("nobody asks for {other:?}"),
        };
        asked.push(words["cmd"].to_owned());
        // In two pieces: an answer may come as it likes.
        let (first, second) = answer.split_at(answer.len() / 2);
        writer.write_all(first.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(1));
        writer.write_all(format!("{second}\n").as_bytes()).unwrap();
        line.clear();
        if asked.last().is_some_and(|last| last == "finalize") {
            break;
        }
    }
    asked
}

#[test]
fn rank_0s_word_comes_to_all() {
    let (store, all) = (Store::default(), Barrier::new(4));
    std::thread::scope(|scope| {
        let ranks: Vec<_> = (0..4)
            .map(|rank| {
                let (client, server) = UnixStream::pair().unwrap();
                let (store, all) = (&store, &all);
                let served = scope.spawn(move || serve(server, store, all));
                let word = (rank == 0).then_some("127.0.0.1:4000,00ff");
                let told = scope.spawn(move || broadcast(&client, "PMI_FD=6", rank, word, soon()));
                (told, served)
            })
            .collect();
        for (rank, (told, served)) in ranks.into_iter().enumerate() {
            assert_eq!(told.join().unwrap().unwrap(), "127.0.0.1:4000,00ff");
            let last = if rank == 0 { "put" } else { "get" };
            let asked = served.join().unwrap();
            assert!(asked.contains(&last.to_owned()), "rank {rank} asked {asked:?}");
        }
    });
}

/// What a rank says to a process manager that answers like this and then hangs up, or waits.
fn answered(answers: &str, hangs_up: bool) -> String {
    let (client, mut server) = UnixStream::pair().unwrap();
    server.write_all(answers.as_bytes()).unwrap();
    let deadline = if hangs_up {
        drop(server.shutdown(std::net::Shutdown::Write));
        soon()
    } else {
        Instant::now() + Duration::from_millis(50)
    };
    let error = broadcast(&client, "PMI_FD=6", 1, None, deadline).unwrap_err();
    assert!(matches!(error, BootstrapError::ProcessManager { .. }), "{error}");
    error.to_string()
}

#[test]
fn what_goes_wrong_is_said() {
    const INIT: &str = "cmd=response_to_init pmi_version=1 pmi_subversion=1 rc=0\n";
    const MAXES: &str = "cmd=maxes kvsname_max=256 keylen_max=64 vallen_max=1024\n";
    const NAME: &str = "cmd=my_kvsname kvsname=k\n";
    for (answers, hangs_up, said) in [
        (String::new(), true, "one client in a process's life"),
        (String::new(), false, "has not answered \"init\""),
        ("cmd=response_to_init rc=-1\n".into(), true, "refuses \"init\""),
        ("cmd=finalize_ack\n".into(), true, "refuses \"init\""),
        (
            format!("{INIT}{MAXES}cmd=my_kvsname\n"),
            true,
            "named no key-value store",
        ),
        (format!("{INIT}{MAXES}{NAME}"), false, "not all ranks have come"),
        (
            format!("{INIT}{MAXES}{NAME}cmd=barrier_out\ncmd=get_result rc=-1\n"),
            true,
            "refuses \"get\"",
        ),
        ("\u{fffd}".repeat(40_000), true, "more than 65536 bytes"),
    ] {
        let text = answered(&answers, hangs_up);
        assert!(text.contains(said) && text.contains("PMI_FD=6"), "{text}");
    }
}

#[test]
fn a_word_that_does_not_fit_is_refused() {
    let (client, mut server) = UnixStream::pair().unwrap();
    server
        .write_all(b"cmd=response_to_init rc=0\ncmd=maxes vallen_max=8\ncmd=my_kvsname kvsname=k\n")
        .unwrap();
    let error = broadcast(&client, "PMI_FD=6", 0, Some("12345678"), soon()).unwrap_err();
    assert!(
        error.to_string().contains("at most 7 bytes, and 8 are needed"),
        "{error}"
    );
}
