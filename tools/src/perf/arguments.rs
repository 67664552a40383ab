//! The flags of `sapwood perf`: perftest's, with its meanings and ranges. What they amount to is worked out in `setup`.

use std::path::PathBuf;
use std::time::Duration;

use super::provider::Choice;
use super::test::{AtomicKind, Test};
use crate::arguments::{parse_size, parse_timeout};

/// perftest's default.
pub(super) const PORT: u16 = 18515;
/// perftest's default, in the working folder.
pub(super) const JSON_FILE: &str = "perftest_out.json";

const EXAMPLE: &str = "\
Examples:
  sapwood perf write-lat -d r0 -s 8 -n 1000                 on the server: waits for the client
  sapwood perf write-lat -d r1 -s 8 -n 1000 10.9.0.1        on the client
  sapwood perf write-bw --local --fabric shm -a --json -    both sides on this host, 2 bytes to 8 MiB

Settings that both sides must share (test, -s, -n, -D, -q, -b, ...) are compared; where they differ both sides say so.
Exits with 0 if the test ran and what was checked was right, 1 if it broke off or data was wrong, 2 on bad arguments.";

/// Measures latency, bandwidth and message rate between two sides, with perftest's flags and columns
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE, allow_negative_numbers = true)]
pub struct PerfArguments {
    /// write-lat, write-bw, read-lat, read-bw, send-lat, send-bw, atomic-lat or atomic-bw
    #[arg(value_name = "TEST")]
    pub(super) test: Test,
    /// The server's name or address; without it this side is the server
    #[arg(value_name = "HOST", conflicts_with = "local")]
    pub(super) host: Option<String>,
    /// Play both sides: two processes on this host
    #[arg(long)]
    pub(super) local: bool,
    /// What carries the bytes: auto, shm, verbs or tcp
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub(super) fabric: Choice,
    /// A file with the secret that the two sides prove to know (needed where they are not one user's on one host)
    #[arg(long, value_name = "FILE")]
    pub(super) secret_file: Option<PathBuf>,
    /// Port on which the two sides meet
    #[arg(short = 'p', long, value_name = "PORT", default_value_t = PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) port: u16,
    /// How long to wait for the other side, and for a single message [default: 60, or SAPWOOD_TIMEOUT]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = parse_timeout)]
    pub(super) timeout: Option<Duration>,

    /// Device; with --local one for each side: r0,r1 [default: chosen, see 'sapwood devices']
    #[arg(
        short = 'd',
        long,
        value_name = "DEVICE",
        value_delimiter = ',',
        help_heading = "Device"
    )]
    pub(super) ib_dev: Vec<String>,
    /// Port of the device [default: the first active one]
    #[arg(short = 'i', long, value_name = "PORT", value_parser = clap::value_parser!(u8).range(1..), help_heading = "Device")]
    pub(super) ib_port: Option<u8>,
    /// GID index [default: chosen, see 'sapwood devices']
    #[arg(short = 'x', long, value_name = "INDEX", value_parser = clap::value_parser!(u8), help_heading = "Device")]
    pub(super) gid_index: Option<u8>,
    /// Path MTU: 256, 512, 1024, 2048 or 4096 [default: the smaller of both ports']
    #[arg(short = 'm', long, value_name = "BYTES", value_parser = parse_mtu, help_heading = "Device")]
    pub(super) mtu: Option<u32>,
    /// Service level
    #[arg(short = 'S', long, value_name = "SL", value_parser = clap::value_parser!(u8).range(0..=15), help_heading = "Device")]
    pub(super) sl: Option<u8>,
    /// Acknowledgement timeout: 4.096 us x 2^N [default: 14]
    #[arg(short = 'u', long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=31), help_heading = "Device")]
    pub(super) qp_timeout: Option<u8>,
    /// Traffic class of the packets
    #[arg(long, value_name = "CLASS", value_parser = clap::value_parser!(u8), help_heading = "Device")]
    pub(super) tclass: Option<u8>,
    /// Flow labels, given to the queue pairs in turn
    #[arg(long = "flow_label", value_name = "LABEL,...", value_delimiter = ',', value_parser = parse_flow_label, help_heading = "Device")]
    pub(super) flow_label: Vec<u32>,

    /// Bytes of a message [default: 2 for latency, 64K for bandwidth, 8 for atomics]
    #[arg(short = 's', long, value_name = "SIZE", value_parser = parse_message_size, conflicts_with = "all", help_heading = "Test")]
    pub(super) size: Option<usize>,
    /// All sizes from 2 bytes to 8 MiB
    #[arg(short = 'a', long, help_heading = "Test")]
    pub(super) all: bool,
    /// Messages for each queue pair, 5 or more [default: 1000, write-bw: 5000]
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(5..=1 << 32), help_heading = "Test")]
    pub(super) iters: Option<u64>,
    /// Run for a time instead of a number of messages; a quarter of it at each end is not counted
    #[arg(short = 'D', long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400), conflicts_with = "iters", help_heading = "Test")]
    pub(super) duration: Option<u32>,
    /// Queue pairs (bandwidth tests)
    #[arg(short = 'q', long = "qp", value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16_384), help_heading = "Test")]
    pub(super) queue_pairs: u32,
    /// Messages in flight for each queue pair [default: 128 for bandwidth, 1 for latency]
    #[arg(short = 't', long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=15_000), help_heading = "Test")]
    pub(super) tx_depth: Option<u32>,
    /// Receives posted ahead for each queue pair [default: 512]
    #[arg(short = 'r', long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=16_384), help_heading = "Test")]
    pub(super) rx_depth: Option<u32>,
    /// Messages posted at once (bandwidth tests)
    #[arg(short = 'l', long = "post_list", value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=15_000), help_heading = "Test")]
    pub(super) post_list: u32,
    /// A completion for every COUNT messages [default: 100; 1 above 8 KiB; with -l its size]
    #[arg(short = 'Q', long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1024), help_heading = "Test")]
    pub(super) cq_mod: Option<u32>,
    /// Messages up to this size are posted inline [default: what the device takes for latency, 0 for bandwidth]
    #[arg(short = 'I', long = "inline_size", value_name = "SIZE", value_parser = clap::value_parser!(u32).range(0..=1024), help_heading = "Test")]
    pub(super) inline_size: Option<u32>,
    /// Sleep until something completes instead of spinning
    #[arg(short = 'e', long, help_heading = "Test")]
    pub(super) events: bool,
    /// Both sides send (bandwidth tests); the figures are the sums
    #[arg(short = 'b', long, help_heading = "Test")]
    pub(super) bidirectional: bool,
    /// Write with an immediate, for which the target posts receives (write tests)
    #[arg(long = "write_with_imm", help_heading = "Test")]
    pub(super) write_with_imm: bool,
    /// Which atomic: FETCH_AND_ADD (the default) or CMP_AND_SWAP (atomic tests)
    #[arg(short = 'A', long = "atomic_type", value_name = "TYPE", help_heading = "Test")]
    pub(super) atomic_type: Option<AtomicKind>,
    /// Check random data at its destination, beside the timed messages
    #[arg(long = "data_validation", help_heading = "Test")]
    pub(super) data_validation: bool,

    /// Bandwidth in Gb/s (10^9 bits) instead of MiB/s (2^20 bytes)
    #[arg(long = "report_gbits", help_heading = "Output")]
    pub(super) report_gbits: bool,
    /// Also write the figures as JSON to perftest_out.json
    #[arg(long = "out_json", help_heading = "Output")]
    pub(super) out_json: bool,
    /// Also write the figures as JSON to this file
    #[arg(long = "out_json_file", value_name = "FILE", help_heading = "Output")]
    pub(super) out_json_file: Option<String>,
    /// The same under the name that all sub-commands have; '-' is standard output
    #[arg(long, value_name = "FILE", conflicts_with_all = ["out_json", "out_json_file"], help_heading = "Output")]
    pub(super) json: Option<String>,

    /// No warning about the processor's clock rate; there never is one
    #[arg(short = 'F', long = "CPU-freq", hide = true)]
    pub(super) cpu_freq: bool,
    /// Memory of a GPU.
    #[arg(long = "use_cuda", value_name = "N", hide = true)]
    pub(super) use_cuda: Option<String>,
    /// Memory of a GPU.
    #[arg(long = "use_cuda_dmabuf", hide = true)]
    pub(super) use_cuda_dmabuf: bool,
}

impl PerfArguments {
    /// Where the JSON document goes.
    pub(super) fn json_target(&self) -> Option<&str> {
        let named = self.json.as_deref().or(self.out_json_file.as_deref());
        named.or(self.out_json.then_some(JSON_FILE))
    }
}

fn parse_message_size(word: &str) -> Result<usize, String> {
    const LARGEST: usize = u32::MAX as usize / 2;
    match parse_size(word)? {
        size @ 1..=LARGEST => Ok(size),
        _ => Err(format!(
            "a message has 1 to {LARGEST} bytes, 8, 4K or 1M for example"
        )),
    }
}

fn parse_mtu(word: &str) -> Result<u32, String> {
    word.parse()
        .ok()
        .filter(|mtu| [256, 512, 1024, 2048, 4096].contains(mtu))
        .ok_or_else(|| "it is 256, 512, 1024, 2048 or 4096".into())
}

fn parse_flow_label(word: &str) -> Result<u32, String> {
    let number = match word.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => word.parse(),
    };
    number
        .ok()
        .filter(|label| *label < 1 << 20)
        .ok_or_else(|| "a flow label is a number below 1048576 (20 bits)".into())
}
