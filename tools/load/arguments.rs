//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::speech::{MuteCycle, SYNTHETIC_LEN_MAX, SYNTHETIC_LEN_MIN};
use super::{bare, fan_out};

const EXAMPLES: &str = "\
Every client is a real one: WebSocket, offer and answer, ICE, DTLS and SRTP. Point it at any server that speaks the
protocol of README.

Examples:
  sfu-load ws://localhost:5005/                        1 room, 2 speakers, 10 listeners, 30 s
  sfu-load ws://localhost:5005/ --rooms 20 --dtx       20 rooms of people who talk in turns
  sfu-load ws://localhost:5005/ --light --listeners 500 --pid $(pidof sfu) --report load.html
  sfu-load ws://localhost:5005/ --join-rate 200 --churn 600        a storm, then coming and going
  sfu-load wss://sfu.example/ --ca authority.pem       over TLS
  sfu-load ws://localhost:8188/ --janus --light        the same voices through Janus, to put beside it
  sfu-load ws://localhost:5005/ --max-loss 0.5 --max-p99 50 --json load.json       in CI

Exit status:
  0  all went well
  1  a threshold is broken (--max-loss, --max-p99, --max-failures), or nothing was heard at all
  2  bad usage, or there is no server to measure

Loss is counted from gaps in the RTP sequence numbers of each line, plus what a speaker sent after the last packet heard.
Latency is from the speaker's hand to the moment at which the kernel had the listener's datagram. Ctrl-C ends the
run early, with the report.";

/// Joins rooms of a voice server as many WebRTC clients at a time, and measures what they hear.
#[derive(Parser)]
#[command(name = "sfu-load", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
#[command(subcommand_negates_reqs = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) load: Load,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// The bare fan-out itself, which prints its address
    FanOut {
        /// Where it listens
        #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS", value_parser = fan_out::address)]
        bind: std::net::SocketAddrV4,
    },
    /// Members without any protocol, for a bare fan-out: what it costs the kernel to carry what they say
    Bare(bare::Settings),
}

#[derive(Parser)]
pub(crate) struct Load {
    /// The server: ws://HOST:PORT/, or wss:// where it speaks TLS
    #[arg(value_name = "URL", required = true)]
    pub(crate) url: Option<String>,
    /// Trusts the certificates in this PEM file, and no others: a private authority's, or the server's own. Without, those
    /// that this machine trusts
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub(crate) ca: Option<PathBuf>,
    /// Takes whatever certificate the server shows
    #[arg(long)]
    pub(crate) insecure: bool,

    /// Rooms
    #[arg(long, help_heading = "Who", default_value_t = 1, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) rooms: u32,
    /// Speakers in each room; they hear each other, too
    #[arg(long, help_heading = "Who", default_value_t = 2, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub(crate) speakers: u32,
    /// Listeners in each room, who only listen
    #[arg(long, help_heading = "Who", default_value_t = 10, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub(crate) listeners: u32,
    /// Name of the rooms and of everybody in them: NAME, or NAME-1, NAME-2…
    #[arg(long, help_heading = "Who", default_value = "load", value_name = "NAME", value_parser = name)]
    pub(crate) room: String,

    /// Measures for so long after everybody has joined
    #[arg(long, help_heading = "When", default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) seconds: u32,
    /// Joins a second until all have joined
    #[arg(long, help_heading = "When", default_value_t = 25, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) join_rate: u32,
    /// Joins that may be under way at once; more wait for these
    #[arg(long, help_heading = "When", default_value_t = 1_000, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) joins_at_once: u32,
    /// Members a minute, chosen by chance, that leave and join again
    #[arg(long, help_heading = "When", default_value_t = 0, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(0..=60_000))]
    pub(crate) churn: u32,
    /// A member that is not connected after so long has failed
    #[arg(long, help_heading = "When", default_value_t = 20, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) join_timeout: u32,

    #[command(flatten)]
    pub(crate) voice: Voice,
    /// Talks in spurts and pauses as in a conversation, with discontinuous transmission in the pauses
    #[arg(long, help_heading = "What is said")]
    pub(crate) dtx: bool,
    /// Each speaker is unmuted and muted by turns, as in 20/5: seconds of each
    #[arg(long, help_heading = "What is said", value_name = "OPEN/MUTED", value_parser = mute_cycle)]
    pub(crate) mute: Option<MuteCycle>,
    /// Seed of everything left to chance
    #[arg(long, help_heading = "What is said", default_value_t = 1, value_name = "NUMBER")]
    pub(crate) seed: u64,

    /// Decrypts one packet in 100 and counts the others by their clear headers: far more listeners on one core.
    /// What they report to the server knows of the decrypted ones only: its /debug shows some 99 % lost
    #[arg(long, help_heading = "How")]
    pub(crate) light: bool,
    /// Of so many listeners one goes on hearing: the kernel keeps voices from the others, more of whom fit on one core
    #[arg(long, help_heading = "How", default_value_t = 1, value_name = "COUNT", requires = "light", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) hear_every: u32,
    /// Speakers are sent nothing: they are deafened, so that each voice goes to the listeners alone
    #[arg(long, help_heading = "How", conflicts_with = "janus")]
    pub(crate) deaf_speakers: bool,
    /// Threads that listeners are spread over, and as many that speakers are, which come first on their CPU
    #[arg(long, help_heading = "How", default_value_t = 1, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) threads: u32,
    /// Threads of speakers run whenever they can, before all that is not realtime (SCHED_FIFO): voices come when they
    /// are due, not in bursts. For CPUs that no server is on
    #[arg(long, help_heading = "How")]
    pub(crate) realtime: bool,
    /// Voices that the server sends to one client at most (its AUDIO_SLOTS): beyond, unheard speakers are no loss
    #[arg(long, help_heading = "How", default_value_t = 32, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) slots: u32,
    /// The server is Janus, at its WebSocket with its video-room plugin: speakers publish, listeners subscribe to all
    /// of them, and nobody comes back
    #[arg(long, help_heading = "How", conflicts_with = "churn")]
    pub(crate) janus: bool,
    /// Process of the server, on this machine: its CPU time and memory are measured
    #[arg(long, help_heading = "How", value_name = "PID")]
    pub(crate) pid: Option<u32>,

    /// Writes the results as JSON
    #[arg(long, help_heading = "Results", value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Writes a page with plots, in one file
    #[arg(long, help_heading = "Results", value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,
    /// More loss than this breaks the run
    #[arg(long, help_heading = "Results", value_name = "PERCENT", value_parser = percent)]
    pub(crate) max_loss: Option<f64>,
    /// A greater 99th percentile of latency breaks the run
    #[arg(long, help_heading = "Results", value_name = "MS", value_parser = milliseconds)]
    pub(crate) max_p99: Option<f64>,
    /// More joins that failed or connections that were lost than this break the run
    #[arg(long, help_heading = "Results", default_value_t = 0, value_name = "COUNT")]
    pub(crate) max_failures: u64,
}

/// What is said.
#[derive(Args)]
pub(crate) struct Voice {
    /// Speaks what this Ogg/Opus file says, round and round; else a made-up voice of 20 ms packets
    #[arg(long, help_heading = "What is said", value_name = "FILE.opus")]
    pub(crate) input: Option<PathBuf>,
    /// Length of the made-up voice's payloads
    #[arg(long, help_heading = "What is said", default_value_t = 120, value_name = "BYTES", conflicts_with = "input", value_parser = payload_len)]
    pub(crate) payload: usize,
}

fn number(text: &str, most: f64, what: &str) -> Result<f64, String> {
    let number: Option<f64> = text.parse().ok();
    number.filter(|number| (0.0..=most).contains(number)).ok_or(format!("{what} from 0 to {most}"))
}

fn percent(text: &str) -> Result<f64, String> {
    number(text, 100.0, "a percentage")
}

fn milliseconds(text: &str) -> Result<f64, String> {
    number(text, 3_600_000.0, "milliseconds")
}

fn payload_len(text: &str) -> Result<usize, String> {
    let range = SYNTHETIC_LEN_MIN..=SYNTHETIC_LEN_MAX;
    let len = text.parse().ok().filter(|len| range.contains(len));
    len.ok_or(format!("bytes from {SYNTHETIC_LEN_MIN} to {SYNTHETIC_LEN_MAX}"))
}

fn name(text: &str) -> Result<String, String> {
    let is_name = (1..=100).contains(&text.len()) && !text.chars().any(char::is_control);
    if is_name { Ok(text.to_owned()) } else { Err("1 to 100 bytes without control characters".into()) }
}

fn mute_cycle(text: &str) -> Result<MuteCycle, String> {
    let seconds = |text: &str| text.parse().ok().filter(|seconds| (1..=3_600).contains(seconds));
    let (open, muted) = text.split_once('/').ok_or("as in 20/5")?;
    let (Some(open), Some(muted)) = (seconds(open), seconds(muted)) else {
        return Err("seconds from 1 to 3600, as in 20/5".into());
    };
    Ok(MuteCycle { open: Duration::from_secs(open), muted: Duration::from_secs(muted) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
        let parse =
            |line: &str| Arguments::try_parse_from(line.split(' ')).map_err(|error| error.to_string());
        assert!(parse("sfu-load").is_err());
        let plain = parse("sfu-load ws://localhost:5005/").unwrap();
        assert_eq!(plain.load.url.as_deref(), Some("ws://localhost:5005/"));
        let bare = parse("sfu-load bare 127.0.0.1:1 --pid 1 --json x").unwrap().command;
        assert!(matches!(bare, Some(Command::Bare(_))));
        for line in [
            "--mute 20",
            "--mute 0/5",
            "--max-loss 101",
            "--max-p99 NaN",
            "--payload 25",
            "--rooms 0",
            "--speakers -1",
        ] {
            assert!(parse(&format!("sfu-load ws://x {line}")).is_err(), "{line}");
        }
        let mute = parse("sfu-load ws://x --mute 20/5").unwrap().load.mute.unwrap();
        assert_eq!((mute.open.as_secs(), mute.muted.as_secs()), (20, 5));
    }
}
