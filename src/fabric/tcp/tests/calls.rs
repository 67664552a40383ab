//! How a connection comes about: calls that are repeated, given up, or one of very many.

use std::net::TcpListener;

use super::*;

#[test]
fn words_of_an_earlier_connection_are_of_no_use() {
    let mut victim = Victim::new();
    victim.expect();
    // What somebody has recorded of a call that was given up later.
    let (mut first, welcome) = victim.call();
    let (session, words) = victim.words(welcome);
    let (mut second, _) = victim.call();
    second.write_all(&words).unwrap();
    assert!(victim.hangs_up_on(&mut second));
    // They are good where they belong.
    first.write_all(&words).unwrap();
    let mut rogue = Rogue {
        socket: first,
        session,
    };
    rogue.say(&send(), &[]);
    assert_eq!(victim.until(1)[0].status, Status::Success);
}

#[test]
fn a_peer_that_gave_up_its_call_can_call_again() {
    let mut victim = Victim::new();
    for _ in 0..3 {
        let rogue = victim.with_rogue(|_| ());
        // It is over before the victim looks.
        drop(rogue);
        for _ in 0..20 {
            victim.endpoint.ready().unwrap();
        }
        assert!(victim.endpoint.reachable(1));
    }
    let mut rogue = victim.with_rogue(|_| ());
    rogue.say(&send(), &[]);
    assert_eq!(victim.until(1)[0].status, Status::Success);
}

#[test]
fn a_newer_call_takes_the_place_of_one_that_has_proved_nothing() {
    let mut victim = Victim::new();
    let mut silent = victim.with_rogue(|_| ());
    for _ in 0..20 {
        victim.endpoint.ready().unwrap();
    }
    let mut rogue = victim.with_rogue(|_| ());
    assert!(victim.hangs_up_on(&mut silent.socket));
    rogue.say(&send(), &[]);
    assert_eq!(victim.until(1)[0].status, Status::Success);
}

/// More call at once than are listened to at a time, strangers among them.
#[test]
fn a_crowd_of_peers_gets_in() {
    const PEERS: Rank = 100;
    let fabric = Tcp::open(Settings::default()).unwrap();
    let mut endpoint = fabric.endpoint(0, 3).unwrap();
    let mut victims: Vec<ConnectionParcel> = Vec::new();
    for peer in 1..=PEERS {
        let told = ConnectionParcel::decode(&endpoint.prepare(peer).unwrap().bytes).unwrap();
        let mut parcel = told.clone();
        (parcel.ends.from, parcel.ends.to) = (peer, 0);
        parcel.secret = [9; SECRET];
        let (bytes, descriptors) = (parcel.encode(), Vec::new());
        endpoint.connect(peer, Parcel { bytes, descriptors }).unwrap();
        endpoint
            .post_receive(peer, Receive { id: 0, local: None })
            .unwrap();
        victims.push(told);
    }
    let _strangers: Vec<_> = (0..30)
        .map(|_| TcpStream::connect(address(&victims[0])).unwrap())
        .collect();
    let mut calls: Vec<_> = victims
        .iter()
        .map(|told| {
            let socket = TcpStream::connect(address(told)).unwrap();
            socket.set_nonblocking(true).unwrap();
            (socket, Vec::new(), false)
        })
        .collect();
    let mut came = Vec::with_capacity(PEERS as usize);
    let deadline = soon();
    while came.len() < PEERS as usize {
        assert!(Instant::now() < deadline, "only {}", came.len());
        endpoint.poll(&mut came).unwrap();
        for (at, (socket, heard, said)) in calls.iter_mut().enumerate() {
            let mut bytes = [0; Welcome::BYTES];
            match socket.read(&mut bytes) {
                Ok(0) => panic!("rank {} was hung up on", at + 1),
                Ok(count) => heard.extend_from_slice(&bytes[..count]),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
            }
            if heard.len() < Welcome::BYTES || *said {
                continue;
            }
            *said = true;
            let welcome = Welcome::decode(heard.first_chunk().unwrap()).unwrap();
            let (told, peer) = (&victims[at], at as Rank + 1);
            let pact = Pact::new((peer, &[9; SECRET]), (0, &told.secret), 3);
            let (listener, dialer) = (welcome.nonce, [6; NONCE]);
            let session = pact.session(&Nonces { listener, dialer });
            let words = Hello::encode([peer, 0], 3, told.token, dialer, &session);
            socket.write_all(&words).unwrap();
            let socket = socket.try_clone().unwrap();
            Rogue { socket, session }.say(&send(), &[]);
        }
    }
    assert!(came.iter().all(|one| one.status == Status::Success), "{came:?}");
}

/// Whoever listens at a peer's first address hears the caller out and hangs up.
#[test]
fn a_call_that_led_to_somebody_else_leaves_nothing_behind() {
    let mut victim = Victim::new();
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let stranger = elsewhere.local_addr().unwrap();
    let heard = std::thread::spawn(move || {
        let (mut socket, _) = elsewhere.accept().unwrap();
        let nonce = [1; NONCE];
        socket.write_all(&Welcome { nonce }.encode()).unwrap();
        let mut words = [0; Hello::BYTES];
        socket.read_exact(&mut words).unwrap();
        words
    });
    let fabric = Tcp::open(Settings::default()).unwrap();
    let mut peer = fabric.endpoint(1, 3).unwrap();
    let theirs = peer.prepare(0).unwrap();
    let mut told = victim.told.clone();
    told.addresses = vec![stranger, address(&victim.told)];
    told.by_loopback = false;
    let bytes = told.encode();
    let descriptors = Vec::new();
    // So that there is something that the stranger could be told.
    for id in 0..4 {
        peer.post_receive(0, Receive { id, local: None }).unwrap();
    }
    peer.connect(0, Parcel { bytes, descriptors }).unwrap();
    victim.endpoint.connect(1, theirs).unwrap();
    victim.post(9, victim.empty_send(Some(1)));
    let (mut came, mut went) = (Vec::with_capacity(8), Vec::with_capacity(8));
    let deadline = soon();
    while came.is_empty() || went.is_empty() {
        assert!(Instant::now() < deadline, "{came:?}, {went:?}");
        victim.endpoint.poll(&mut went).unwrap();
        peer.poll(&mut came).unwrap();
    }
    assert_eq!((came[0].status, came[0].immediate), (Status::Success, Some(1)));
    assert_eq!((went[0].status, went[0].id), (Status::Success, 9));
    assert!(Hello::decode(&heard.join().unwrap()).is_ok());
}

#[test]
fn requests_to_a_peer_that_never_calls_end_and_say_where_it_should_have() {
    let settings = Settings {
        call_patience: Duration::from_millis(50),
        ..Settings::default()
    };
    let fabric = Tcp::open(settings).unwrap();
    let mut victim = Victim::of(fabric);
    victim.expect();
    victim.post(9, victim.empty_send(None));
    let came = victim.until(1);
    assert_eq!((came[0].id, came[0].status), (9, Status::PeerUnreachable));
    let said = victim.endpoint.explain(&came[0]);
    let port = victim.told.addresses[0].to_string();
    assert!(
        said.contains(&port) && said.contains("rank 1") && said.contains("firewall"),
        "{said}"
    );
}
