//! Our end: an endpoint of the verbs fabric, connected to a queue pair that is not Sapwood's.

use std::io::{BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use sapwood::fabric::verbs::{ForeignQueuePair, ForeignRegion, Gid, Settings, Verbs};
use sapwood::fabric::{Access, Completion, Endpoint, Fabric, Registration, RemoteRegion, Slice, Status};
use sapwood::memory::{HugePages, Region};

use crate::words::{gid, gid_text, hear, number, numbers, say};
use crate::{Outcome, PATIENCE, operations};

/// The ranks that the two play.
const OWN: u32 = 0;
pub const PEER: u32 = 1;
const GENERATION: u32 = 7;

/// Bytes of our registration.
pub const LENGTH: usize = 8 << 20;

/// Theirs, as a process of its own that a pipe leads to.
struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(device: &str, index: &str) -> Outcome<Self> {
        let own = std::env::current_exe().map_err(|error| format!("finding this program: {error}"))?;
        let mut child = Command::new(own)
            .args(["theirs", device, index])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("starting theirs: {error}"))?;
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let input = child.stdin.take();
        Ok(Self { child, input, output })
    }

    fn tell(&mut self, line: &str) -> Outcome<()> {
        say(self.input.as_mut().expect("open until the end"), line)
    }

    /// The words of the next line, which begins with `kind`. Theirs gives every wait a deadline and then ends.
    fn expect(&mut self, kind: &str) -> Outcome<Vec<String>> {
        let line =
            hear(&mut self.output)?.ok_or_else(|| format!("theirs ended where '{kind}' was to come"))?;
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        match words[0] == kind {
            true => Ok(words[1..].to_vec()),
            false => Err(format!("'{kind}' was to come from theirs, '{line}' came")),
        }
    }

    fn end(mut self) -> Outcome<()> {
        drop(self.input.take());
        let status = self
            .child
            .wait()
            .map_err(|error| format!("waiting for theirs: {error}"))?;
        match status.success() {
            true => Ok(()),
            false => Err(format!("theirs ended with {status}")),
        }
    }
}

/// Both ends, connected.
pub struct Ours {
    pub endpoint: Box<dyn Endpoint>,
    pub registration: Arc<dyn Registration>,
    pub remote: Arc<dyn RemoteRegion>,
    theirs: Process,
    completions: Vec<Completion>,
}

pub fn run(our_device: &str, their_device: &str, index: &str) -> Outcome<()> {
    let mut theirs = Process::start(their_device, index)?;
    let settings = Settings {
        devices: vec![our_device.to_owned()],
        gid_index: Some(number(index)?),
        ..Settings::default()
    };
    let fabric = Verbs::open(&settings).map_err(|error| error.to_string())?;
    println!("ours: {}", fabric.choice());
    let mut endpoint = fabric
        .endpoint(OWN, GENERATION)
        .map_err(|error| error.to_string())?;
    let parcel = endpoint.prepare(PEER).map_err(|error| error.to_string())?;
    let own = ForeignQueuePair::of(&parcel).map_err(|error| error.to_string())?;
    let [own] = own[..] else {
        return Err(format!(
            "{} queue pairs were made where one was asked for",
            own.len()
        ));
    };
    theirs.tell(&format!(
        "pair {} {} {} {}",
        own.number,
        own.first_packet,
        own.lid,
        gid_text(own.gid.bytes())
    ))?;

    let words = theirs.expect("pair")?;
    let [pair, lid, address] = &words[..] else {
        return Err(format!("{words:?} is no queue pair"));
    };
    let peer = ForeignQueuePair {
        number: number(pair)?,
        first_packet: 0,
        lid: number(lid)?,
        gid: Gid::from_bytes(gid(address)?),
        // As its builder has it by default.
        reads_answered: 1,
        reads_started: 1,
        ..own
    };
    endpoint
        .connect(PEER, peer.parcel(PEER, OWN, GENERATION))
        .map_err(|error| error.to_string())?;
    let words = theirs.expect("memory")?;
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let [address, len, key] = numbers(&words)?;
    let region = ForeignRegion {
        address,
        len,
        key: u32::try_from(key).map_err(|error| error.to_string())?,
        access: Access::ALL,
    };
    let remote = endpoint
        .import(PEER, region.parcel())
        .map_err(|error| error.to_string())?;
    let memory = Region::host(LENGTH, HugePages::Never).map_err(|error| error.to_string())?;
    let registration = fabric
        .register(&memory, Access::ALL)
        .map_err(|error| error.to_string())?;
    println!(
        "theirs: queue pair {} of {their_device}, {len} bytes under key {key:#x}",
        peer.number
    );

    let mut ours = Ours {
        endpoint,
        registration,
        remote,
        theirs,
        completions: Vec::with_capacity(256),
    };
    operations::sends(&mut ours)?;
    operations::writes(&mut ours)?;
    operations::reads(&mut ours)?;
    operations::atomics(&mut ours)?;
    operations::forbidden(&mut ours)?;
    ours.theirs.end()?;
    println!("ibverbs-peer: all passed");
    std::io::stdout().flush().map_err(|error| error.to_string())
}

impl Ours {
    /// Has theirs do something, and gives the words of its answer.
    pub fn ask(&mut self, line: &str, answer: &str) -> Outcome<Vec<String>> {
        self.theirs.tell(line)?;
        self.theirs.expect(answer)
    }

    /// Has theirs begin something whose answer is fetched later.
    pub fn begin(&mut self, line: &str) -> Outcome<()> {
        self.theirs.tell(line)
    }

    /// The answer to what was begun.
    pub fn answer(&mut self, answer: &str) -> Outcome<Vec<String>> {
        self.theirs.expect(answer)
    }

    /// Bytes of our registration.
    pub fn slice(&self, offset: usize, len: usize) -> Slice {
        Slice {
            registration: self.registration.clone(),
            offset,
            len,
        }
    }

    /// Fills our bytes.
    pub fn fill(&mut self, offset: usize, len: usize, byte: impl Fn(usize) -> u8) {
        assert!(offset + len <= LENGTH);
        let base = self.registration.region().base().as_ptr();
        for at in 0..len {
            // SAFETY: inside the region, and no operation on it is in flight when this is called.
            unsafe { base.add(offset + at).write_volatile(byte(at)) };
        }
    }

    /// Whether our bytes are as they should be.
    pub fn compare(&self, offset: usize, len: usize, byte: impl Fn(usize) -> u8) -> Outcome<()> {
        assert!(offset + len <= LENGTH);
        let base = self.registration.region().base().as_ptr();
        for at in 0..len {
            // SAFETY: as in `fill`.
            let is = unsafe { base.add(offset + at).read_volatile() };
            if is != byte(at) {
                return Err(format!("byte {at} of {len} is {is}, not {}", byte(at)));
            }
        }
        Ok(())
    }

    /// Waits for so many completions, which must be successes.
    pub fn completions(&mut self, count: usize, what: &str) -> Outcome<Vec<Completion>> {
        let all = self.any_completions(count, what)?;
        match all.iter().find(|one| one.status != Status::Success) {
            None => Ok(all),
            Some(one) => Err(format!("{what}: {}", self.endpoint.explain(one))),
        }
    }

    /// Waits for so many completions.
    pub fn any_completions(&mut self, count: usize, what: &str) -> Outcome<Vec<Completion>> {
        let deadline = Instant::now() + PATIENCE;
        self.completions.clear();
        while self.completions.len() < count {
            let polled = self
                .endpoint
                .poll(&mut self.completions)
                .map_err(|error| error.to_string())?;
            if polled == 0 && !self.endpoint.wait(deadline).map_err(|error| error.to_string())? {
                let came = self.completions.len();
                return Err(format!(
                    "{what}: {came} of {count} completions came in {} s",
                    PATIENCE.as_secs()
                ));
            }
        }
        Ok(self.completions.clone())
    }
}
