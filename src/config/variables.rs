//! What an operator may set: the table of all variables, and the texts that are written from it.

use super::auth::{AUTH_PUBLIC_KEY, AUTH_SECRET};
use super::debug::{CAPTURE_DIR, DEBUG_TOKEN, KEYLOG_DIR, METRICS_ADDR, METRICS_TOKEN};
use super::door;

/// A variable as the operator sees it.
#[derive(Debug)]
pub struct Variable {
    /// Its name in the environment.
    pub name: &'static str,
    /// What an unset or empty one means; empty or in words where there is no single value.
    pub default: &'static str,
    /// Which values there are.
    pub accepted: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

/// All variables, by what they are about.
pub const GROUPS: &[(&str, &[Variable])] = &[
    ("Network", &[PORT, ICE_UDP_MUX_PORT, ICE_BIND_IP, ICE_ADVERTISE_IP, ICE_LOOPBACK]),
    ("Front door", door::VARIABLES),
    (
        "STUN and TURN",
        &[
            STUN_SERVERS,
            ICE_DISCOVER,
            ICE_ADVERTISE_PRIVATE,
            TURN_SERVERS,
            TURN_USERNAME,
            TURN_PASSWORD,
            TURN_SECRET,
        ],
    ),
    ("Authorization", &[AUTH_SECRET, AUTH_PUBLIC_KEY]),
    (
        "Capacity",
        &[WORKERS, WORKER_CPUS, ROOM_SPAN_AT, MAX_CONNECTIONS, AUDIO_SLOTS, RESUME_WINDOW, DRAIN_TIMEOUT],
    ),
    (
        "Machine",
        &[
            IO_BACKEND,
            BATCH_WAIT_US,
            EGRESS_TICK_MS,
            OVERLOAD_TICK_MS,
            GSO_PAD_MAX,
            BUSY_POLL_US,
            WORKER_SCHEDULING,
        ],
    ),
    ("Log", &[LOG_LEVEL, LOG_FORMAT, LOG_FILE]),
    ("Debug", &[METRICS_ADDR, METRICS_TOKEN, DEBUG_TOKEN, CAPTURE_DIR, KEYLOG_DIR]),
];

pub(super) const PORT: Variable = Variable {
    name: "PORT",
    default: "5005",
    accepted: "0 to 65535; 0 lets the kernel choose",
    meaning: "TCP port of HTTP and WebSocket.",
};
pub(super) const ICE_UDP_MUX_PORT: Variable = Variable {
    name: "ICE_UDP_MUX_PORT",
    default: "3478",
    accepted: "0 to 65535, or a range such as 3478-3485; 0 lets the kernel choose",
    meaning: "UDP port of all media. With a range every worker has a port of its own, the first worker the first.",
};
pub(super) const ICE_BIND_IP: Variable = Variable {
    name: "ICE_BIND_IP",
    default: "0.0.0.0,::",
    accepted: "an address of this machine, or one of IPv4 and one of IPv6 with a comma between",
    meaning: "Where media comes in and leaves from. 0.0.0.0 and :: are all addresses of their family; one that is \
              given alone switches the other family off. A single address costs less CPU than all of them.",
};
pub(super) const ICE_ADVERTISE_IP: Variable = Variable {
    name: "ICE_ADVERTISE_IP",
    default: "",
    accepted: "up to 8 addresses with commas between, each optionally with a port: 203.0.113.5, 203.0.113.5:13478, \
               [2001:db8::5]:13478",
    meaning: "Addresses that clients reach this machine by, where they are not its own (NAT, containers). They \
              replace the machine's. With a range of ports a port given here is the first worker's.",
};
pub(super) const ICE_LOOPBACK: Variable = Variable {
    name: "ICE_LOOPBACK",
    default: "false",
    accepted: "true or false",
    meaning: "Offers loopback addresses too, for clients on this machine.",
};
pub(super) const STUN_SERVERS: Variable = Variable {
    name: "STUN_SERVERS",
    default: "",
    accepted: "up to 8 with commas between, as stun:HOST, stun:HOST:PORT or stuns:HOST",
    meaning: "STUN servers that clients are told to use. Unset: none, so that no third party learns who talks \
              here; clients reach this server without.",
};
pub(super) const ICE_DISCOVER: Variable = Variable {
    name: "ICE_DISCOVER",
    default: "false",
    accepted: "true or false; true needs a stun: server in STUN_SERVERS",
    meaning: "Asks the STUN servers at the start, from the media port, by which address this machine is seen, and \
              offers that one; for machines behind a NAT that forwards the media port. Takes at most 3 s, and goes \
              on without where nobody answers. Not asked where ICE_ADVERTISE_IP says it.",
};
pub(super) const ICE_ADVERTISE_PRIVATE: Variable = Variable {
    name: "ICE_ADVERTISE_PRIVATE",
    default: "false",
    accepted: "true or false",
    meaning: "Offers the machine's private addresses beside the one that ICE_DISCOVER found, for clients on the \
              same network. Without, they stay unknown.",
};
pub(super) const TURN_SERVERS: Variable = Variable {
    name: "TURN_SERVERS",
    default: "",
    accepted: "up to 8 with commas between, as turn:HOST, turn:HOST:PORT?transport=tcp or \
               turns:HOST:443?transport=tcp; needs TURN_SECRET, or TURN_USERNAME and TURN_PASSWORD",
    meaning: "TURN servers that clients may use where their network lets nothing else through.",
};
pub(super) const TURN_USERNAME: Variable = Variable {
    name: "TURN_USERNAME",
    default: "",
    accepted: "up to 256 bytes without control characters",
    meaning: "The name at the TURN servers that all clients share. Not used with TURN_SECRET.",
};
pub(super) const TURN_PASSWORD: Variable = Variable {
    name: "TURN_PASSWORD",
    default: "",
    accepted: "up to 256 bytes without control characters",
    meaning: "Its password. Every client is told it, so that anybody who was here once can use the TURN servers: \
              TURN_SECRET is better. Not used with TURN_SECRET.",
};
pub(super) const TURN_SECRET: Variable = Variable {
    name: "TURN_SECRET",
    default: "",
    accepted: "16 to 256 bytes without control characters",
    meaning: "The secret that the TURN servers check with (static-auth-secret of coturn). Each client gets a \
              credential of its own, good for 12 hours and renewed in time.",
};
pub(super) const WORKERS: Variable = Variable {
    name: "WORKERS",
    default: "the CPUs this process may use, less one, or as many as WORKER_CPUS names",
    accepted: "1 to 64",
    meaning: "Media threads, each on a CPU of its own. At least 1, and no more than ICE_UDP_MUX_PORT has ports \
              where that is a range.",
};
pub(super) const ROOM_SPAN_AT: Variable = Variable {
    name: "ROOM_SPAN_AT",
    default: "250",
    accepted: "1 to 100000",
    meaning: "Members of a room on one worker before it takes another worker, too. A worker that is busy for three \
              quarters of the time takes no more either, where another has clearly less to do.",
};
pub(super) const WORKER_CPUS: Variable = Variable {
    name: "WORKER_CPUS",
    default: "",
    accepted: "up to 64 CPUs that this process may use, each once, such as 2-5,8; at least as many as WORKERS",
    meaning: "The CPUs of the workers, the first worker the first; control has the others. Unset: cores of the network \
              card's NUMA node first, one worker a core while there are cores, never the first CPU.",
};
pub(super) const MAX_CONNECTIONS: Variable = Variable {
    name: "MAX_CONNECTIONS",
    default: "1000",
    accepted: "1 to 100000",
    meaning: "Clients at a time; then who has begun no media for 30 s makes room for the next, or the next is told that \
              the server is full.",
};
pub(super) const AUDIO_SLOTS: Variable = Variable {
    name: "AUDIO_SLOTS",
    default: "32",
    accepted: "1 to 256",
    meaning: "Most voices that one client receives at a time; beyond that the loudest are heard.",
};
pub(super) const RESUME_WINDOW: Variable = Variable {
    name: "RESUME_WINDOW",
    default: "15s",
    accepted: "0s to 10m, such as 500ms, 15s or 2m",
    meaning: "How long a client that lost its WebSocket may take up where it was.",
};
pub(super) const DRAIN_TIMEOUT: Variable = Variable {
    name: "DRAIN_TIMEOUT",
    default: "0s",
    accepted: "0s to 24h, such as 30s, 10m or 2h",
    meaning: "How long calls may go on after a SIGTERM. Nobody new is let in meanwhile, /ready says so, and the \
              server ends with the last call. A second SIGTERM ends it at once, 0s the first.",
};
pub(super) const IO_BACKEND: Variable = Variable {
    name: "IO_BACKEND",
    default: "auto",
    accepted: "auto, uring or mmsg",
    meaning: "How workers wait and receive: uring by io_uring, mmsg by epoll and recvmmsg; both send by sendmmsg. \
              auto takes the ring where the kernel grants one, and else says why it does without.",
};
pub(super) const BATCH_WAIT_US: Variable = Variable {
    name: "BATCH_WAIT_US",
    default: "0",
    accepted: "0 to 10000",
    meaning: "Microseconds that a worker waits for more datagrams before it handles the first: fewer wake-ups, \
              more delay.",
};
pub(super) const EGRESS_TICK_MS: Variable = Variable {
    name: "EGRESS_TICK_MS",
    default: "0",
    accepted: "0 to 20",
    meaning: "Milliseconds that a room's packets wait for those of its other voices, so that they reach a listener in \
              one send: the more voices, the less CPU per packet, for as much delay. Its worker sleeps meanwhile.",
};
pub(super) const OVERLOAD_TICK_MS: Variable = Variable {
    name: "OVERLOAD_TICK_MS",
    default: "5",
    accepted: "0 to 20",
    meaning: "The same for a worker that has no CPU time left: they would wait without it, too, and in the end be \
              lost. 0 leaves it at that.",
};
pub(super) const GSO_PAD_MAX: Variable = Variable {
    name: "GSO_PAD_MAX",
    default: "64",
    accepted: "0 to 255",
    meaning: "A packet that could leave in one send with a longer one is filled up by RTP padding when that takes fewer \
              bytes. 0 pads nothing.",
};
pub(super) const BUSY_POLL_US: Variable = Variable {
    name: "BUSY_POLL_US",
    default: "0",
    accepted: "0 to 1000",
    meaning: "Microseconds that a worker's wait looks into the network card's queue by itself before it sleeps: less \
              delay, for a CPU that rests less. For bare metal with a CPU for each worker; 0 never looks.",
};
pub(super) const WORKER_SCHEDULING: Variable = Variable {
    name: "WORKER_SCHEDULING",
    default: "nice",
    accepted: "nice or fifo",
    meaning: "How workers get their CPU where others want it too: nice asks for priority among ordinary threads (nice \
              -10), fifo to run before all of those (SCHED_FIFO, priority 1).",
};
pub(super) const LOG_LEVEL: Variable = Variable {
    name: "LOG_LEVEL",
    default: "info",
    accepted: "debug, info, warn or error",
    meaning: "The least that is logged.",
};

pub(super) const LOG_FORMAT: Variable = Variable {
    name: "LOG_FORMAT",
    default: "human",
    accepted: "human or json",
    meaning: "How a line of the log looks: for people, or one JSON object a line for whatever collects them.",
};
pub(super) const LOG_FILE: Variable = Variable {
    name: "LOG_FILE",
    default: "",
    accepted: "a path such as sfu.log, in a folder that is there",
    meaning: "A file that the log is appended to, besides standard error. To rotate it, copy and truncate.",
};

/// Variables whose values are shown to nobody.
pub(super) const HIDDEN: &[&str] =
    &[TURN_PASSWORD.name, TURN_SECRET.name, AUTH_SECRET.name, METRICS_TOKEN.name, DEBUG_TOKEN.name];

impl PartialEq for Variable {
    fn eq(&self, other: &Variable) -> bool {
        self.name == other.name
    }
}

impl Eq for Variable {}

/// What `--help` says of the environment.
pub fn help() -> String {
    let mut text = "Settings come from the environment, or from .env in the working directory:\n".to_owned();
    for (title, variables) in GROUPS {
        text += &format!("\n{title}:\n");
        for variable in *variables {
            text += &format!("  {}\n", variable.name);
            for line in explanation(variable, 90) {
                text += &format!("          {line}\n");
            }
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// What `env.example` holds: every variable, commented out, at its default.
pub fn example() -> String {
    let mut text =
        "# Copy to .env. What is unset or empty has its default; the environment wins over this file. A value with spaces,\n\
         # double quotes, $, # or \\ stands between single quotes: there it is what it is, elsewhere $NAME is replaced.\n"
            .to_owned();
    for (title, variables) in GROUPS {
        text += &format!("\n\n# {title}\n");
        for variable in *variables {
            text.push('\n');
            for line in explanation(variable, 98) {
                text += &format!("# {line}\n");
            }
            let value = if variable.default.contains(' ') { "" } else { variable.default };
            text += &format!("#{}={value}\n", variable.name);
        }
    }
    text
}

/// Meaning, values and default in lines of at most `width` bytes.
fn explanation(variable: &Variable, width: usize) -> Vec<String> {
    let default = if variable.default.is_empty() { "none" } else { variable.default };
    let mut lines = wrapped(variable.meaning, width);
    lines.extend(wrapped(&format!("Accepted: {}. Default: {default}.", variable.accepted), width));
    lines
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + 1 + word.len() <= width => *line += &format!(" {word}"),
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
