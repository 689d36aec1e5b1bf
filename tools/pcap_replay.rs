//! `sfu-replay`: looks into captures of voice calls and replays them through the server's core.

#[path = "replay/capture.rs"]
mod capture;
#[path = "replay/explain.rs"]
mod explain;
#[path = "replay/judge.rs"]
mod judge;
#[path = "replay/keys.rs"]
mod keys;
#[path = "replay/link.rs"]
mod link;
#[path = "replay/live.rs"]
mod live;
#[path = "replay/offline.rs"]
mod offline;
#[path = "../tests/sim/mod.rs"]
mod sim;
#[path = "replay/streams.rs"]
mod streams;
#[path = "replay/train.rs"]
mod train;
#[path = "../tests/support/mod.rs"]
mod support;

use std::fs::File;
use std::io::{self, BufReader, BufWriter, IsTerminal, Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use capture::Capture;
use clap::{Parser, ValueEnum};
use explain::{Content, Explainer};
use gryt_sfu::time::Now;
use judge::Judge;
use link::{Datagram, Skips};
use live::Live;
use offline::{Outcome, Replay, Settings};
use streams::{Filter, Inspection};
use train::Trains;

/// Looks into a capture of voice calls, or replays it through the server's core.
///
/// Without --inspect, --explain or --live the RTP of the capture goes through the worker core as fast as it can: each stream
/// is a publisher, and each packet is forwarded to every receiver. Prints packets a second, nanoseconds a packet, and
/// what was dropped and why; the same capture always gives the same output (see the digest).
///
/// Reads pcap and pcapng: Ethernet, VLAN, Linux cooked (v1, v2), loopback and raw IP; UDP over IPv4 and IPv6.
#[derive(Parser)]
#[command(name = "sfu-replay", version, after_help = EXAMPLES)]
struct Arguments {
    /// A pcap or pcapng file, or - for standard input.
    capture: PathBuf,
    /// Lists the streams: SSRC, payload types, packets, loss, jitter, reordering.
    #[arg(long, conflicts_with = "explain")]
    inspect: bool,
    /// Says of each packet what the server would do with it.
    #[arg(long)]
    explain: bool,
    /// Joins a room of this live server, a member for each stream, and speaks what the capture says (its payloads
    /// have to be decrypted Opus to be heard as voices).
    #[arg(long, value_name = "URL", conflicts_with_all = ["explain", "inspect"])]
    live: Option<String>,
    /// The room to join.
    #[arg(long, default_value = "replay", requires = "live")]
    room: String,
    /// Times the capture's own speed.
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR", requires = "live")]
    speed: f64,
    /// The capture's RTP and RTCP are decrypted: --explain looks inside.
    #[arg(long, requires = "explain")]
    decrypted: bool,
    /// Keys that the server wrote (KEYLOG_DIR): --explain opens the capture with them and lets the server's core say what
    /// becomes of each packet. Everybody in the capture is taken to be in one room.
    #[arg(long, value_name = "FILE_OR_FOLDER", requires = "explain", conflicts_with = "decrypted")]
    keys: Option<PathBuf>,
    /// Takes the user of this transport to be muted; may be given several times.
    #[arg(long, value_name = "TRANSPORT", requires = "keys")]
    muted: Vec<u64>,
    /// Receivers that each packet goes to.
    #[arg(
        long,
        default_value_t = 10,
        value_name = "COUNT",
        value_parser = clap::value_parser!(u16).range(1..=10_000),
        conflicts_with_all = ["inspect", "explain", "live"],
    )]
    receivers: u16,
    /// What leaves: as it came, or sealed for each receiver (AES-128-GCM).
    #[arg(
        long,
        value_enum,
        default_value_t = Sealing::Plaintext,
        conflicts_with_all = ["inspect", "explain", "live"],
    )]
    egress: Sealing,
    /// Replays the capture so many times, each time to a new room.
    #[arg(
        long,
        default_value_t = 1,
        value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..),
        conflicts_with_all = ["inspect", "explain", "live"],
    )]
    repeat: u32,
    /// Id of the audio level extension in the capture.
    #[arg(
        long,
        default_value_t = 1,
        value_name = "ID",
        value_parser = clap::value_parser!(u8).range(1..),
        conflicts_with = "inspect",
    )]
    audio_level_id: u8,
    /// Only these SSRCs, decimal or 0x…; may be given several times.
    #[arg(long, value_name = "SSRC", value_parser = parse_ssrc)]
    ssrc: Vec<u32>,
    /// Only these payload types.
    #[arg(long, value_name = "PT", value_parser = clap::value_parser!(u8).range(..128))]
    payload_type: Vec<u8>,
    /// Only datagrams from or to these UDP ports.
    #[arg(long)]
    port: Vec<u16>,
    /// Only datagrams from or to these addresses.
    #[arg(long, value_name = "ADDRESS")]
    host: Vec<IpAddr>,
    /// RTP clock of the streams, for the jitter that --inspect tells.
    #[arg(
        long,
        default_value_t = 48_000,
        value_name = "HZ",
        value_parser = clap::value_parser!(u32).range(1..),
        requires = "inspect",
    )]
    clock_rate: u32,
}

const EXAMPLES: &str = "Examples:
  sfu-replay --inspect call.pcapng
  sfu-replay --explain --port 3478 call.pcap | less
  sfu-replay --explain --keys /var/lib/gryt-sfu call.pcap | grep -v receivers
  sfu-replay --receivers 100 --egress sealed --ssrc 0x1234abcd call.pcap
  sfu-replay --live ws://127.0.0.1:5005/ --room hall --speed 2 call.pcap
  tcpdump -i any -w - udp port 3478 | sfu-replay --explain -

Exit status: 0; 1 when the capture cannot be read to its end (what came before is reported); 2 for a wrong option.";

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sealing {
    Plaintext,
    Sealed,
}

fn parse_ssrc(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "an SSRC is a number below 2^32, decimal or 0x…".into())
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads our output has seen enough.
        Err(error)
            if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) =>
        {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("sfu-replay: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let filter = Filter {
        ssrcs: arguments.ssrc.clone(),
        payload_types: arguments.payload_type.clone(),
        ports: arguments.port.clone(),
        hosts: arguments.host.clone(),
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let mut skips = Skips::default();
    let read = if arguments.explain {
        let content = match &arguments.keys {
            Some(path) => {
                let settings = judge::Settings {
                    muted: arguments.muted.clone(),
                    audio_level_id: arguments.audio_level_id,
                };
                Content::Keys(Box::new(Judge::new(keys::read(path)?, settings)))
            }
            None if arguments.decrypted => Content::Plaintext,
            None => Content::Sealed,
        };
        let mut explainer = Explainer::new(content, &filter);
        walk(&arguments.capture, &mut skips, |time, Datagram { source, destination, payload }| {
            explainer.take(time, (source, destination), payload, &mut out)?;
            Ok(())
        })
    } else if arguments.inspect {
        let mut inspection = Inspection::new(arguments.clock_rate, Now::read().instant);
        let read = walk(&arguments.capture, &mut skips, |time, Datagram { source, destination, payload }| {
            inspection.take(time, (source, destination), payload, &filter);
            Ok(())
        });
        inspection.print(&skips, &mut out)?;
        out.flush()?;
        return read;
    } else if let Some(url) = &arguments.live {
        let mut live = Live::new(live::Settings {
            server: live::server_of(url)?,
            room: arguments.room.clone(),
            speed: arguments.speed,
            audio_level_id: arguments.audio_level_id,
        })?;
        let read = walk(&arguments.capture, &mut skips, |time, Datagram { source, destination, payload }| {
            live.take(time, (source, destination), payload, &filter)
        });
        live.finish(&mut out)?;
        read
    } else {
        replay(arguments, &filter, &mut skips, &mut out)
    };
    out.flush()?;
    // Else what is missing would seem never to have been said.
    skips.print(&mut io::stderr().lock())?;
    read?;
    ensure!(skips.datagrams > 0, "the capture holds no UDP datagram");
    Ok(())
}

fn replay(arguments: &Arguments, filter: &Filter, skips: &mut Skips, out: &mut impl Write) -> Result<()> {
    let settings = Settings {
        receivers: arguments.receivers,
        is_sealed: arguments.egress == Sealing::Sealed,
        audio_level_id: arguments.audio_level_id,
    };
    if arguments.repeat > 1 && arguments.capture.as_os_str() == "-" {
        bail!("standard input can be read once only: --repeat needs a file");
    }
    let mut elapsed = Duration::ZERO;
    let mut first: Option<Outcome> = None;
    let mut read = Ok(());
    for _ in 0..arguments.repeat {
        let mut replay = Replay::new(settings);
        *skips = Skips::default(); // Of one replay are those of each.
        read = walk(&arguments.capture, skips, |time, Datagram { source, destination, payload }| {
            replay.take(time, (source, destination), payload, filter);
            Ok(())
        });
        let outcome = replay.finish();
        elapsed += replay.elapsed;
        if *first.get_or_insert_with(|| outcome.clone()) != outcome {
            bail!("two replays of one capture differ: {first:?} and {outcome:?}");
        }
        if read.is_err() {
            break;
        }
    }
    if cfg!(debug_assertions) {
        writeln!(out, "(a debug build: times mean nothing)")?;
    }
    if let Some(outcome) = first {
        let repeats = if read.is_ok() { arguments.repeat } else { 1 };
        offline::print(&outcome, &settings, repeats, elapsed, out)?;
        if outcome.packets == 0 && skips.datagrams > 0 && read.is_ok() {
            bail!("the capture holds no RTP that the filters let pass; --inspect says what it holds");
        }
    }
    read
}

/// Lends every datagram of a capture to `take`, those of a train one by one, with a sign of progress on long files.
fn walk(
    path: &Path,
    skips: &mut Skips,
    mut take: impl FnMut(Duration, Datagram<'_>) -> Result<()>,
) -> Result<()> {
    let (input, total): (Box<dyn Read>, u64) = if path.as_os_str() == "-" {
        (Box::new(io::stdin().lock()), 0)
    } else {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let len = file.metadata().map_or(0, |metadata| metadata.len());
        (Box::new(file), len)
    };
    let name = || path.display().to_string();
    let mut capture = Capture::open(BufReader::with_capacity(1 << 18, input)).with_context(name)?;
    let (mut progress, mut trains) = (Progress::new(total), Trains::default());
    let result = loop {
        progress.show(capture.position());
        match capture.next() {
            Ok(Some(captured)) => match link::datagram(captured.link, captured.bytes) {
                Ok(datagram) if datagram.payload.is_empty() => {
                    skips.datagrams += 1;
                    take(captured.time, datagram)?;
                }
                Ok(datagram) => {
                    for payload in datagram.payload.chunks(trains.part_len(&datagram)) {
                        skips.datagrams += 1;
                        take(captured.time, Datagram { payload, ..datagram })?;
                    }
                }
                Err(reason) => skips.skip(reason),
            },
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    progress.clear();
    result.with_context(name)
}

/// How much has been read of a long file; to a person only.
struct Progress {
    total: u64,
    next: u64,
    step: u64,
}

/// Files that take no time need no bar.
const PROGRESS_FROM: u64 = 16 << 20;
const BAR_LEN: usize = 40;

impl Progress {
    fn new(total: u64) -> Progress {
        let is_shown = total >= PROGRESS_FROM && io::stderr().is_terminal();
        let step = total / 200;
        Progress { total, next: if is_shown { 0 } else { u64::MAX }, step }
    }

    fn show(&mut self, position: u64) {
        if position < self.next {
            return;
        }
        self.next = position + self.step;
        let done = (position * BAR_LEN as u64 / self.total.max(1)) as usize;
        let bar: String = (0..BAR_LEN).map(|at| if at < done { '#' } else { '.' }).collect();
        eprint!("\r[{bar}] {:>3} % of {} MB", position * 100 / self.total.max(1), self.total >> 20);
    }

    fn clear(&self) {
        if self.next != u64::MAX {
            eprint!("\r\x1b[K");
        }
    }
}
