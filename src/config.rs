//! How a server is set up ([`Config`], from the environment and `.env`) and the bounds of the house
//! ([`Limits`]).
//!
//! Values are parsed once, into types that cannot be wrong. One table, [`GROUPS`], says what there is: the
//! help text, `env.example` and the error messages are written from it.

mod auth;
mod cpu_list;
mod debug;
mod door;
mod hidden;
mod ice_url;
mod origin;
mod token_flags;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use self::auth::{AUTH_PUBLIC_KEY, AUTH_SECRET};
pub use self::auth::{Auth, KeyFault, KeyKind, PublicKey, read_key_file};
pub use self::cpu_list::CpuList;
use self::debug::{CAPTURE_DIR, DEBUG_TOKEN, KEYLOG_DIR, METRICS_ADDR, METRICS_TOKEN};
pub use self::door::{Door, Rate, TlsFiles, TrustedProxies};
pub use self::hidden::Hidden;
pub use self::ice_url::{IceUrl, Scheme, Transport};
pub use self::origin::Origin;
pub use self::token_flags::{Order, TokenFlags};
use crate::ids::{WORKER_COUNT_MAX, WorkerId};

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
    ("Network", &[PORT, ICE_UDP_MUX_PORT, ICE_ADVERTISE_IP, ICE_LOOPBACK]),
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
    ("Machine", &[IO_BACKEND, BATCH_WAIT_US, EGRESS_TICK_MS, GSO_PAD_MAX, BUSY_POLL_US, WORKER_SCHEDULING]),
    ("Log", &[LOG_LEVEL, LOG_FORMAT, LOG_FILE]),
    ("Debug", &[METRICS_ADDR, METRICS_TOKEN, DEBUG_TOKEN, CAPTURE_DIR, KEYLOG_DIR]),
];

const PORT: Variable = Variable {
    name: "PORT",
    default: "5005",
    accepted: "0 to 65535; 0 lets the kernel choose",
    meaning: "TCP port of HTTP and WebSocket.",
};
const ICE_UDP_MUX_PORT: Variable = Variable {
    name: "ICE_UDP_MUX_PORT",
    default: "3478",
    accepted: "0 to 65535, or a range such as 3478-3485; 0 lets the kernel choose",
    meaning: "UDP port of all media. With a range every worker has a port of its own, the first worker the first.",
};
const ICE_ADVERTISE_IP: Variable = Variable {
    name: "ICE_ADVERTISE_IP",
    default: "",
    accepted: "up to 8 addresses with commas between, each optionally with a port: 203.0.113.5, 203.0.113.5:13478, \
               [2001:db8::5]:13478",
    meaning: "Addresses that clients reach this machine by, where they are not its own (NAT, containers). They \
              replace the machine's. With a range of ports a port given here is the first worker's.",
};
const ICE_LOOPBACK: Variable = Variable {
    name: "ICE_LOOPBACK",
    default: "false",
    accepted: "true or false",
    meaning: "Offers loopback addresses too, for clients on this machine.",
};
const STUN_SERVERS: Variable = Variable {
    name: "STUN_SERVERS",
    default: "",
    accepted: "up to 8 with commas between, as stun:HOST, stun:HOST:PORT or stuns:HOST",
    meaning: "STUN servers that clients are told to use. Unset: none, so that no third party learns who talks \
              here; clients reach this server without.",
};
const ICE_DISCOVER: Variable = Variable {
    name: "ICE_DISCOVER",
    default: "false",
    accepted: "true or false; true needs a stun: server in STUN_SERVERS",
    meaning: "Asks the STUN servers at the start, from the media port, by which address this machine is seen, and \
              offers that one; for machines behind a NAT that forwards the media port. Takes at most 3 s, and goes \
              on without where nobody answers. Not asked where ICE_ADVERTISE_IP says it.",
};
const ICE_ADVERTISE_PRIVATE: Variable = Variable {
    name: "ICE_ADVERTISE_PRIVATE",
    default: "false",
    accepted: "true or false",
    meaning: "Offers the machine's private addresses beside the one that ICE_DISCOVER found, for clients on the \
              same network. Without, they stay unknown.",
};
const TURN_SERVERS: Variable = Variable {
    name: "TURN_SERVERS",
    default: "",
    accepted: "up to 8 with commas between, as turn:HOST, turn:HOST:PORT?transport=tcp or \
               turns:HOST:443?transport=tcp; needs TURN_SECRET, or TURN_USERNAME and TURN_PASSWORD",
    meaning: "TURN servers that clients may use where their network lets nothing else through.",
};
const TURN_USERNAME: Variable = Variable {
    name: "TURN_USERNAME",
    default: "",
    accepted: "up to 256 bytes without control characters",
    meaning: "The name at the TURN servers that all clients share. Not used with TURN_SECRET.",
};
const TURN_PASSWORD: Variable = Variable {
    name: "TURN_PASSWORD",
    default: "",
    accepted: "up to 256 bytes without control characters",
    meaning: "Its password. Every client is told it, so that anybody who was here once can use the TURN servers: \
              TURN_SECRET is better. Not used with TURN_SECRET.",
};
const TURN_SECRET: Variable = Variable {
    name: "TURN_SECRET",
    default: "",
    accepted: "16 to 256 bytes without control characters",
    meaning: "The secret that the TURN servers check with (static-auth-secret of coturn). Each client gets a \
              credential of its own, good for 12 hours and renewed in time.",
};
const WORKERS: Variable = Variable {
    name: "WORKERS",
    default: "the CPUs this process may use, less one, or as many as WORKER_CPUS names",
    accepted: "1 to 64",
    meaning: "Media threads, each on a CPU of its own. At least 1, and no more than ICE_UDP_MUX_PORT has ports \
              where that is a range.",
};
const ROOM_SPAN_AT: Variable = Variable {
    name: "ROOM_SPAN_AT",
    default: "250",
    accepted: "1 to 100000",
    meaning: "Members of a room on one worker before it takes another worker, too. A worker that is busy for three \
              quarters of the time takes no more either, where another has clearly less to do.",
};
const WORKER_CPUS: Variable = Variable {
    name: "WORKER_CPUS",
    default: "",
    accepted: "up to 64 CPUs that this process may use, each once, such as 2-5,8; at least as many as WORKERS",
    meaning: "The CPUs of the workers, the first worker the first; control has the others. Unset: cores of the network \
              card's NUMA node first, one worker a core while there are cores, never the first CPU.",
};
const MAX_CONNECTIONS: Variable = Variable {
    name: "MAX_CONNECTIONS",
    default: "1000",
    accepted: "1 to 100000",
    meaning: "Clients at a time; the next is told that the server is full.",
};
const AUDIO_SLOTS: Variable = Variable {
    name: "AUDIO_SLOTS",
    default: "32",
    accepted: "1 to 256",
    meaning: "Most voices that one client receives at a time; beyond that the loudest are heard.",
};
const RESUME_WINDOW: Variable = Variable {
    name: "RESUME_WINDOW",
    default: "15s",
    accepted: "0s to 10m, such as 500ms, 15s or 2m",
    meaning: "How long a client that lost its WebSocket may take up where it was.",
};
const DRAIN_TIMEOUT: Variable = Variable {
    name: "DRAIN_TIMEOUT",
    default: "0s",
    accepted: "0s to 24h, such as 30s, 10m or 2h",
    meaning: "How long calls may go on after a SIGTERM. Nobody new is let in meanwhile, /ready says so, and the \
              server ends with the last call. A second SIGTERM ends it at once, 0s the first.",
};
const IO_BACKEND: Variable = Variable {
    name: "IO_BACKEND",
    default: "auto",
    accepted: "auto, uring or mmsg",
    meaning: "How workers wait and receive: uring by io_uring, mmsg by epoll and recvmmsg; both send by sendmmsg. \
              auto takes the ring where the kernel grants one, and else says why it does without.",
};
const BATCH_WAIT_US: Variable = Variable {
    name: "BATCH_WAIT_US",
    default: "0",
    accepted: "0 to 10000",
    meaning: "Microseconds that a worker waits for more datagrams before it handles the first: fewer wake-ups, \
              more delay.",
};
const EGRESS_TICK_MS: Variable = Variable {
    name: "EGRESS_TICK_MS",
    default: "0",
    accepted: "0 to 20",
    meaning: "Milliseconds that a room's packets wait for those of its other voices, so that they reach a listener in \
              one send: the more voices, the less CPU per packet, for as much delay. The worker wakes four times in \
              it.",
};
const GSO_PAD_MAX: Variable = Variable {
    name: "GSO_PAD_MAX",
    default: "64",
    accepted: "0 to 255",
    meaning: "A packet that could leave in one send with a longer one is filled up by RTP padding when that takes fewer \
              bytes. 0 pads nothing.",
};
const BUSY_POLL_US: Variable = Variable {
    name: "BUSY_POLL_US",
    default: "0",
    accepted: "0 to 1000",
    meaning: "Microseconds that a worker's wait looks into the network card's queue by itself before it sleeps: less \
              delay, for a CPU that rests less. For bare metal with a CPU for each worker; 0 never looks.",
};
const WORKER_SCHEDULING: Variable = Variable {
    name: "WORKER_SCHEDULING",
    default: "nice",
    accepted: "nice or fifo",
    meaning: "How workers get their CPU where others want it too: nice asks for priority among ordinary threads (nice \
              -10), fifo to run before all of those (SCHED_FIFO, priority 1).",
};
const LOG_LEVEL: Variable = Variable {
    name: "LOG_LEVEL",
    default: "info",
    accepted: "debug, info, warn or error",
    meaning: "The least that is logged.",
};

const LOG_FORMAT: Variable = Variable {
    name: "LOG_FORMAT",
    default: "human",
    accepted: "human or json",
    meaning: "How a line of the log looks: for people, or one JSON object a line for whatever collects them.",
};
const LOG_FILE: Variable = Variable {
    name: "LOG_FILE",
    default: "",
    accepted: "a path such as sfu.log, in a folder that is there",
    meaning: "A file that the log is appended to, besides standard error. To rotate it, copy and truncate.",
};

/// Variables whose values are shown to nobody.
const HIDDEN: &[&str] =
    &[TURN_PASSWORD.name, TURN_SECRET.name, AUTH_SECRET.name, METRICS_TOKEN.name, DEBUG_TOKEN.name];

/// What the command line takes; everything else is in the environment.
#[derive(clap::Parser, Debug)]
#[command(name = "sfu", version, about = "A selective forwarding unit for voice rooms.", after_help = help(), args_conflicts_with_subcommands = true)]
pub struct Flags {
    /// Say which settings would be used, and stop
    #[arg(long)]
    pub check: bool,
    /// Ask the server on this machine's PORT whether it is alive, and exit with 0 or 1
    #[arg(long, conflicts_with = "check")]
    pub health: bool,
    /// Something else than running the server
    #[command(subcommand)]
    pub order: Option<Order>,
}

/// How a server is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// TCP port of HTTP and WebSocket; 0: the kernel chooses.
    pub port: u16,
    /// Ports of media.
    pub ice_udp_mux_port: UdpPorts,
    /// Addresses to offer instead of the machine's own; empty: the machine's own.
    pub ice_advertise_ip: Vec<Advertised>,
    /// Offer loopback addresses too.
    pub ice_loopback: bool,
    /// Who is let in at the front door, and how.
    pub door: Door,
    /// STUN servers, for clients and for [`Config::ice_discover`].
    pub stun_servers: Vec<IceUrl>,
    /// Ask them for our address; there is one to ask over UDP.
    pub ice_discover: bool,
    /// Offer private addresses beside the one that was found.
    pub ice_advertise_private: bool,
    /// TURN servers for clients; with a secret, or with a name and a password.
    pub turn_servers: Vec<IceUrl>,
    /// Name at the TURN servers.
    pub turn_username: Option<String>,
    /// Password at the TURN servers.
    pub turn_password: Option<Hidden>,
    /// Secret that the TURN servers share with us.
    pub turn_secret: Option<Hidden>,
    /// Who vouches for those who join; `None`: nobody, anyone may.
    pub auth: Option<Auth>,
    /// Media threads, 1 to [`WORKER_COUNT_MAX`].
    pub workers: u8,
    /// Members of a room on one worker before it takes another, 1 to [`Limits::CONNECTION_COUNT_MAX`].
    pub room_span_at: usize,
    /// Their CPUs, at least as many; empty: to be chosen.
    pub worker_cpus: CpuList,
    /// Clients at a time, 1 to [`Limits::CONNECTION_COUNT_MAX`].
    pub max_connections: usize,
    /// Voices towards one client, 1 to [`Limits::AUDIO_SLOT_COUNT_MAX`].
    pub audio_slots: u16,
    /// How long a client may resume.
    pub resume_window: Duration,
    /// How long calls may go on once the server is told to end.
    pub drain_timeout: Duration,
    /// How media passes between kernel and workers.
    pub io_backend: IoBackend,
    /// How long a worker waits for a batch.
    pub batch_wait: Duration,
    /// How long a room's packets wait for others.
    pub egress_tick: Duration,
    /// A packet is padded to the length of its run when that takes fewer bytes; 0: never.
    pub gso_pad_max: u8,
    /// How long a worker's wait looks into the card's queue before it sleeps; zero: not at all.
    pub busy_poll: Duration,
    /// How workers get their CPU.
    pub worker_scheduling: Scheduling,
    /// The least that is logged.
    pub log_level: LogLevel,
    /// How a line of the log looks.
    pub log_format: LogFormat,
    /// Where the log goes besides standard error.
    pub log_file: Option<PathBuf>,
    /// Where `/metrics` is served instead of [`Config::port`].
    pub metrics_addr: Option<SocketAddr>,
    /// What has to be shown to read `/metrics`.
    pub metrics_token: Option<Hidden>,
    /// What opens `/debug` from anywhere.
    pub debug_token: Option<Hidden>,
    /// Where captures go; there is a token then.
    pub capture_dir: Option<PathBuf>,
    /// Where keys go; there is a token then.
    pub keylog_dir: Option<PathBuf>,
}

/// Why the start ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A value that is none.
    #[error("{}={value:?} is not accepted; accepted: {}", .variable.name, .variable.accepted)]
    Value {
        /// Which variable.
        variable: &'static Variable,
        /// What it says.
        value: String,
    },
    /// A range that does not give every worker a port.
    #[error(
        "ICE_UDP_MUX_PORT=\"{ports}\" is not accepted with WORKERS=\"{workers}\"; accepted: one port, or a range with a \
         port for every worker"
    )]
    PortsShort {
        /// The range.
        ports: UdpPorts,
        /// The workers.
        workers: u8,
    },
    /// Fewer CPUs than workers.
    #[error(
        "WORKER_CPUS=\"{cpus}\" is not accepted with WORKERS=\"{workers}\"; accepted: a CPU for every worker"
    )]
    CpusShort {
        /// The CPUs.
        cpus: CpuList,
        /// The workers.
        workers: u8,
    },
    /// CPUs that this machine, or whoever started the process, does not give it.
    #[error(
        "WORKER_CPUS=\"{cpus}\" is not accepted; accepted: CPUs that this process may use, which are {allowed}"
    )]
    CpusForbidden {
        /// Those that were asked for.
        cpus: CpuList,
        /// Those that there are.
        allowed: CpuList,
    },
    /// An advertised port from which the workers' ports would run past 65535.
    #[error(
        "ICE_ADVERTISE_IP=\"{0}\" is not accepted; accepted: a port that leaves room for one more per worker"
    )]
    AdvertisedPort(Advertised),
    /// A relay that no browser could use: it refuses the whole list of servers for one without a credential.
    #[error("TURN_SERVERS is not accepted alone; it needs TURN_SECRET, or TURN_USERNAME and TURN_PASSWORD")]
    TurnUnsigned,
    /// Nobody to ask for our address.
    #[error("ICE_DISCOVER=\"true\" is not accepted alone; it needs a stun: server in STUN_SERVERS")]
    NobodyToAsk,
    /// Two variables that mean something together only.
    #[error("{0} is not accepted alone; it needs {1}")]
    Half(&'static str, &'static str),
    /// Two ways to sign tokens.
    #[error("AUTH_SECRET and AUTH_PUBLIC_KEY are not accepted together; accepted: one of them, or neither")]
    AuthTwice,
    /// A public key that is none.
    #[error("AUTH_PUBLIC_KEY={place:?} is not accepted: {fault}; accepted: {}", AUTH_PUBLIC_KEY.accepted)]
    PublicKey {
        /// The file; dots for a key that was given as text.
        place: String,
        /// What is wrong with it.
        fault: KeyFault,
    },
    /// `.env` is there and cannot be read.
    #[error(".env: {0}")]
    File(String),
}

impl PartialEq for Variable {
    fn eq(&self, other: &Variable) -> bool {
        self.name == other.name
    }
}

impl Eq for Variable {}

impl Config {
    /// From the process's environment, and `.env` in the working directory for what is not there.
    /// `cpu_count`: the CPUs that this process may use.
    ///
    /// # Errors
    /// The first value that is none.
    pub fn load(cpu_count: usize) -> Result<Config, Error> {
        let file = read_file(Path::new(".env"))?;
        Config::parse(cpu_count, |name| {
            let value = std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
            value.filter(|value| !value.is_empty()).or_else(|| file.get(name).cloned())
        })
    }

    /// From anywhere. What is unset or empty has its default.
    ///
    /// # Errors
    /// The first value that is none.
    pub fn parse(cpu_count: usize, variable: impl Fn(&str) -> Option<String>) -> Result<Config, Error> {
        let source = Source(&|name| variable(name).filter(|value| !value.is_empty()));
        let ice_udp_mux_port: UdpPorts = source.value(&ICE_UDP_MUX_PORT)?;
        let worker_cpus = source.given(&WORKER_CPUS, worker_cpus)?.unwrap_or_default();
        let workers = match source.given(&WORKERS, |text| number(text, 1..=WORKER_COUNT_MAX as u8))? {
            Some(workers) => workers,
            None if !worker_cpus.as_slice().is_empty() => worker_cpus.as_slice().len() as u8,
            None => cpu_count
                .saturating_sub(1)
                .min(ice_udp_mux_port.worker_count_max())
                .clamp(1, WORKER_COUNT_MAX) as u8,
        };
        if usize::from(workers) > ice_udp_mux_port.worker_count_max() {
            return Err(Error::PortsShort { ports: ice_udp_mux_port, workers });
        }
        if (1..usize::from(workers)).contains(&worker_cpus.as_slice().len()) {
            return Err(Error::CpusShort { cpus: worker_cpus, workers });
        }
        let ice_advertise_ip = source.given(&ICE_ADVERTISE_IP, advertised)?.unwrap_or_default();
        let last = WorkerId(workers - 1);
        let crowded = |advertised: &&Advertised| {
            let port = advertised.port.unwrap_or_default();
            port.checked_add(ice_udp_mux_port.offset(last)).is_none()
        };
        if let Some(advertised) = ice_advertise_ip.iter().find(crowded) {
            return Err(Error::AdvertisedPort(*advertised));
        }
        let stun_servers = source.given(&STUN_SERVERS, |text| ice_urls(text, true))?.unwrap_or_default();
        let ice_discover = source.with(&ICE_DISCOVER, boolean)?;
        if ice_discover && !stun_servers.iter().any(|url| url.scheme() == Scheme::Stun) {
            return Err(Error::NobodyToAsk);
        }
        let turn_servers = source.given(&TURN_SERVERS, |text| ice_urls(text, false))?.unwrap_or_default();
        let turn_username = source.given(&TURN_USERNAME, |text| plain(text, 1).map(str::to_owned))?;
        let turn_password = source.hidden(&TURN_PASSWORD, 1)?;
        let turn_secret = source.hidden(&TURN_SECRET, Limits::TURN_SECRET_LEN_MIN)?;
        let is_signed = turn_secret.is_some() || (turn_username.is_some() && turn_password.is_some());
        if !turn_servers.is_empty() && !is_signed {
            return Err(Error::TurnUnsigned);
        }
        let debug_token = debug::token(&source, &DEBUG_TOKEN)?;
        let capture_dir = debug::folder(&source, &CAPTURE_DIR, debug_token.is_some())?;
        let keylog_dir = debug::folder(&source, &KEYLOG_DIR, debug_token.is_some())?;
        Ok(Config {
            port: source.value(&PORT)?,
            ice_udp_mux_port,
            ice_advertise_ip,
            ice_loopback: source.with(&ICE_LOOPBACK, boolean)?,
            door: Door::parse(&source)?,
            stun_servers,
            ice_discover,
            ice_advertise_private: source.with(&ICE_ADVERTISE_PRIVATE, boolean)?,
            turn_servers,
            turn_username,
            turn_password,
            turn_secret,
            auth: auth::parse(&source)?,
            workers,
            room_span_at: source
                .with(&ROOM_SPAN_AT, |text| number(text, 1..=Limits::CONNECTION_COUNT_MAX))?,
            worker_cpus,
            max_connections: source
                .with(&MAX_CONNECTIONS, |text| number(text, 1..=Limits::CONNECTION_COUNT_MAX))?,
            audio_slots: source.with(&AUDIO_SLOTS, |text| number(text, 1..=Limits::AUDIO_SLOT_COUNT_MAX))?,
            resume_window: source.with(&RESUME_WINDOW, |text| {
                duration(text).filter(|window| *window <= Limits::RESUME_WINDOW_MAX)
            })?,
            drain_timeout: source.with(&DRAIN_TIMEOUT, |text| {
                duration(text).filter(|timeout| *timeout <= Limits::DRAIN_TIMEOUT_MAX)
            })?,
            io_backend: source.value(&IO_BACKEND)?,
            batch_wait: source.with(&BATCH_WAIT_US, |text| {
                number(text, 0..=Limits::BATCH_WAIT_MAX.as_micros() as u64).map(Duration::from_micros)
            })?,
            egress_tick: source.with(&EGRESS_TICK_MS, |text| {
                number(text, 0..=Limits::EGRESS_TICK_MAX.as_millis() as u64).map(Duration::from_millis)
            })?,
            gso_pad_max: source.with(&GSO_PAD_MAX, |text| number(text, 0..=u8::MAX))?,
            busy_poll: source.with(&BUSY_POLL_US, |text| {
                number(text, 0..=Limits::BUSY_POLL_MAX.as_micros() as u64).map(Duration::from_micros)
            })?,
            worker_scheduling: source.value(&WORKER_SCHEDULING)?,
            log_level: source.value(&LOG_LEVEL)?,
            log_format: source.value(&LOG_FORMAT)?,
            log_file: source.given(&LOG_FILE, |text| Some(PathBuf::from(text)))?,
            metrics_addr: debug::metrics_addr(&source)?,
            metrics_token: debug::token(&source, &METRICS_TOKEN)?,
            debug_token,
            capture_dir,
            keylog_dir,
        })
    }

    /// Whether WORKER_CPUS names CPUs of `allowed` only, which are those that this process may use.
    ///
    /// # Errors
    /// When it does not.
    pub fn check_cpus(&self, allowed: &[usize]) -> Result<(), Error> {
        let is_allowed = |cpu: &usize| allowed.contains(cpu);
        if self.worker_cpus.as_slice().iter().all(is_allowed) {
            return Ok(());
        }
        Err(Error::CpusForbidden { cpus: self.worker_cpus.clone(), allowed: allowed.into() })
    }

    /// As [`Config::values`], with dots in place of secrets.
    pub fn shown_values(&self) -> Vec<(&'static str, String)> {
        let mut values = self.values();
        for (name, value) in &mut values {
            if HIDDEN.contains(name) && !value.is_empty() {
                *value = "…".to_owned();
            }
        }
        values
    }

    /// Each variable with its value, as [`Config::parse`] takes them. Secrets are among them.
    pub fn values(&self) -> Vec<(&'static str, String)> {
        let advertised: Vec<_> = self.ice_advertise_ip.iter().map(Advertised::to_string).collect();
        let urls = |urls: &[IceUrl]| urls.iter().map(IceUrl::to_string).collect::<Vec<_>>().join(",");
        let secret =
            |hidden: &Option<Hidden>| hidden.as_ref().map(Hidden::reveal).unwrap_or_default().to_owned();
        let path =
            |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        let [auth_secret, auth_public_key] = auth::values(self.auth.as_ref());
        let mut values = vec![
            (PORT.name, self.port.to_string()),
            (ICE_UDP_MUX_PORT.name, self.ice_udp_mux_port.to_string()),
            (ICE_ADVERTISE_IP.name, advertised.join(",")),
            (ICE_LOOPBACK.name, self.ice_loopback.to_string()),
        ];
        values.extend(self.door.values());
        values.extend([
            (STUN_SERVERS.name, urls(&self.stun_servers)),
            (ICE_DISCOVER.name, self.ice_discover.to_string()),
            (ICE_ADVERTISE_PRIVATE.name, self.ice_advertise_private.to_string()),
            (TURN_SERVERS.name, urls(&self.turn_servers)),
            (TURN_USERNAME.name, self.turn_username.clone().unwrap_or_default()),
            (TURN_PASSWORD.name, secret(&self.turn_password)),
            (TURN_SECRET.name, secret(&self.turn_secret)),
            auth_secret,
            auth_public_key,
            (WORKERS.name, self.workers.to_string()),
            (WORKER_CPUS.name, self.worker_cpus.to_string()),
            (ROOM_SPAN_AT.name, self.room_span_at.to_string()),
            (MAX_CONNECTIONS.name, self.max_connections.to_string()),
            (AUDIO_SLOTS.name, self.audio_slots.to_string()),
            (RESUME_WINDOW.name, format!("{}ms", self.resume_window.as_millis())),
            (DRAIN_TIMEOUT.name, format!("{}ms", self.drain_timeout.as_millis())),
            (IO_BACKEND.name, self.io_backend.to_string()),
            (BATCH_WAIT_US.name, self.batch_wait.as_micros().to_string()),
            (EGRESS_TICK_MS.name, self.egress_tick.as_millis().to_string()),
            (GSO_PAD_MAX.name, self.gso_pad_max.to_string()),
            (BUSY_POLL_US.name, self.busy_poll.as_micros().to_string()),
            (WORKER_SCHEDULING.name, self.worker_scheduling.to_string()),
            (LOG_LEVEL.name, self.log_level.to_string()),
            (LOG_FORMAT.name, self.log_format.to_string()),
            (LOG_FILE.name, path(&self.log_file)),
            (METRICS_ADDR.name, self.metrics_addr.map(|address| address.to_string()).unwrap_or_default()),
            (METRICS_TOKEN.name, secret(&self.metrics_token)),
            (DEBUG_TOKEN.name, secret(&self.debug_token)),
            (CAPTURE_DIR.name, path(&self.capture_dir)),
            (KEYLOG_DIR.name, path(&self.keylog_dir)),
        ]);
        values
    }
}

impl fmt::Display for Config {
    /// One `NAME=value` a line, without the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shown_values().iter().try_for_each(|(name, value)| writeln!(f, "{name}={value}"))
    }
}

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
        "# Copy to .env. What is unset or empty has its default; the environment wins over this file.\n"
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

/// Where values come from, none of them empty.
struct Source<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Source<'_> {
    /// A variable's value if it is set.
    fn given<T>(
        &self,
        variable: &'static Variable,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = (self.0)(variable.name) else { return Ok(None) };
        parse(value.trim()).map(Some).ok_or(Error::Value { variable, value })
    }

    /// A variable's value or its default.
    fn with<T>(&self, variable: &'static Variable, parse: impl Fn(&str) -> Option<T>) -> Result<T, Error> {
        let value = (self.0)(variable.name).unwrap_or_else(|| variable.default.to_owned());
        parse(value.trim()).ok_or(Error::Value { variable, value })
    }

    /// A secret if it is set, of at least `len_min` bytes. What is wrong with one is said without it.
    fn hidden(&self, variable: &'static Variable, len_min: usize) -> Result<Option<Hidden>, Error> {
        let hidden = self.given(variable, |text| plain(text, len_min).map(Hidden::new));
        hidden.map_err(|_| Error::Value { variable, value: "…".to_owned() })
    }

    fn value<T: FromStr>(&self, variable: &'static Variable) -> Result<T, Error> {
        self.with(variable, |text| text.parse().ok())
    }
}

fn read_file(path: &Path) -> Result<HashMap<String, String>, Error> {
    match dotenvy::from_path_iter(path) {
        Ok(lines) => lines.collect::<Result<_, _>>().map_err(|error| Error::File(error.to_string())),
        Err(error) if error.not_found() => Ok(HashMap::new()),
        Err(error) => Err(Error::File(error.to_string())),
    }
}

fn number<T: FromStr + PartialOrd>(text: &str, range: std::ops::RangeInclusive<T>) -> Option<T> {
    text.parse().ok().filter(|number| range.contains(number))
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// A whole number and its unit.
fn duration(text: &str) -> Option<Duration> {
    let (count, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let count: u64 = count.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(count)),
        "s" => Some(Duration::from_secs(count)),
        "m" => count.checked_mul(60).map(Duration::from_secs),
        "h" => count.checked_mul(60 * 60).map(Duration::from_secs),
        _ => None,
    }
}

/// A text of `len_min` to [`Limits::TURN_TEXT_LEN_MAX`] bytes without control characters.
fn plain(text: &str, len_min: usize) -> Option<&str> {
    let is_plain =
        (len_min..=Limits::TURN_TEXT_LEN_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
    is_plain.then_some(text)
}

fn ice_urls(text: &str, are_stun: bool) -> Option<Vec<IceUrl>> {
    let mut list: Vec<IceUrl> = Vec::new();
    for item in text.split(',') {
        let url: IceUrl = item.trim().parse().ok().filter(|url: &IceUrl| url.is_stun() == are_stun)?;
        if !list.contains(&url) {
            list.push(url);
        }
    }
    (list.len() <= Limits::ICE_URL_COUNT_MAX).then_some(list)
}

fn advertised(text: &str) -> Option<Vec<Advertised>> {
    let mut list: Vec<Advertised> = Vec::new();
    for item in text.split(',') {
        let item = item.trim().parse().ok()?;
        if !list.contains(&item) {
            list.push(item);
        }
    }
    (list.len() <= Limits::ADVERTISED_COUNT_MAX).then_some(list)
}

fn worker_cpus(text: &str) -> Option<CpuList> {
    text.parse().ok().filter(|cpus: &CpuList| cpus.as_slice().len() <= WORKER_COUNT_MAX)
}

/// UDP ports of media: one that all workers share, or one for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpPorts {
    first: u16,
    /// Of the range; `None` for one shared port.
    last: Option<u16>,
}

impl UdpPorts {
    /// One port for all workers; 0: the kernel chooses.
    pub const fn shared(port: u16) -> UdpPorts {
        UdpPorts { first: port, last: None }
    }

    /// Whether all workers bind the same port.
    pub const fn is_shared(self) -> bool {
        self.last.is_none()
    }

    /// The port that a worker binds; 0: the kernel chooses. A worker beyond the range has the last one;
    /// there is none in a [`Config`].
    pub fn of(self, worker: WorkerId) -> u16 {
        self.first.saturating_add(self.offset(worker)).min(self.last.unwrap_or(self.first))
    }

    fn offset(self, worker: WorkerId) -> u16 {
        if self.is_shared() { 0 } else { worker.0.into() }
    }

    fn worker_count_max(self) -> usize {
        self.last.map_or(WORKER_COUNT_MAX, |last| usize::from(last - self.first) + 1)
    }
}

impl FromStr for UdpPorts {
    type Err = ();

    fn from_str(text: &str) -> Result<UdpPorts, ()> {
        let port = |text: &str| text.trim().parse::<u16>().map_err(|_| ());
        match text.split_once('-') {
            None => Ok(UdpPorts::shared(port(text)?)),
            Some((first, last)) => {
                let (first, last) = (port(first)?, port(last)?);
                if 0 < first && first <= last { Ok(UdpPorts { first, last: Some(last) }) } else { Err(()) }
            }
        }
    }
}

impl fmt::Display for UdpPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.last {
            None => write!(f, "{}", self.first),
            Some(last) => write!(f, "{}-{last}", self.first),
        }
    }
}

/// An address that clients are told; a unicast one, never an IPv4-mapped IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertised {
    ip: IpAddr,
    port: Option<u16>,
}

impl Advertised {
    /// The address.
    pub const fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Where clients reach a worker that is bound to `bound_port`: there, unless a port was given. Given a
    /// range, the port given is the first worker's and the others' follow.
    pub fn of(&self, ports: UdpPorts, worker: WorkerId, bound_port: u16) -> SocketAddr {
        let port = self.port.map_or(bound_port, |port| port.saturating_add(ports.offset(worker)));
        SocketAddr::new(self.ip, port)
    }
}

impl FromStr for Advertised {
    type Err = ();

    fn from_str(text: &str) -> Result<Advertised, ()> {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        let (ip, port) = if let Ok(ip) = text.parse::<IpAddr>() {
            (ip, None)
        } else if let Some(Ok(ip)) = bare.map(str::parse) {
            (IpAddr::V6(ip), None)
        } else {
            let address: SocketAddr = text.parse().map_err(|_| ())?;
            (address.ip(), Some(address.port()))
        };
        let ip = ip.to_canonical();
        let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
        if ip.is_unspecified() || ip.is_multicast() || is_broadcast || port == Some(0) {
            return Err(());
        }
        Ok(Advertised { ip, port })
    }
}

impl fmt::Display for Advertised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            None => self.ip.fmt(f),
            Some(port) => SocketAddr::new(self.ip, port).fmt(f),
        }
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$word_doc])* $variant,)* }

        impl FromStr for $name {
            type Err = ();

            fn from_str(text: &str) -> Result<$name, ()> {
                match text.to_ascii_lowercase().as_str() {
                    $($word => Ok($name::$variant),)*
                    _ => Err(()),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($name::$variant => $word,)* })
            }
        }
    };
}

words! {
    /// How media passes between kernel and workers.
    IoBackend {
        /// io_uring where the kernel grants it, else without.
        Auto = "auto",
        /// io_uring, or no start.
        Uring = "uring",
        /// `recvmmsg` and `sendmmsg`; no ring is even tried.
        Mmsg = "mmsg",
    }
}

words! {
    /// How workers get their CPU where others want it too.
    Scheduling {
        /// Before others, but in turns with them.
        Nice = "nice",
        /// Before all that is not realtime.
        Fifo = "fifo",
    }
}

words! {
    /// The least that is logged.
    LogLevel {
        /// Decisions and peers' faults.
        Debug = "debug",
        /// What an operator wants to know.
        Info = "info",
        /// What an operator should look at.
        Warn = "warn",
        /// What does not work.
        Error = "error",
    }
}

words! {
    /// How a line of the log looks.
    LogFormat {
        /// For people.
        Human = "human",
        /// One JSON object a line.
        Json = "json",
    }
}

/// The bounds that several rooms share or that an operator can meet. A room's own stand in the room.
#[derive(Debug)]
pub enum Limits {}

impl Limits {
    /// Clients of one process.
    pub const CONNECTION_COUNT_MAX: usize = 100_000;
    /// Voices towards one client.
    pub const AUDIO_SLOT_COUNT_MAX: u16 = 256;
    /// Addresses advertised: each is a candidate in every SDP.
    pub const ADVERTISED_COUNT_MAX: usize = 8;
    /// Sites whose pages may come in.
    pub const ORIGIN_COUNT_MAX: usize = 32;
    /// Proxies and networks of them: each is compared with, request by request.
    pub const TRUSTED_PROXY_COUNT_MAX: usize = 64;
    /// Requests of one client in a window.
    pub const RATE_REQUESTS_MAX: u32 = 1_000_000;
    /// Longest window of a rate.
    pub const RATE_WINDOW_MAX: Duration = Duration::from_secs(24 * 60 * 60);
    /// Bytes of a file with certificates or a key.
    pub const PEM_LEN_MAX: u64 = 1024 * 1024;
    /// STUN servers, and TURN servers: browsers ask each of them at every start.
    pub const ICE_URL_COUNT_MAX: usize = 8;
    /// Bytes of a name, password or secret for TURN servers. RFC 8489 §14.3 allows a name less than 509, of
    /// which our own take some for the time.
    pub const TURN_TEXT_LEN_MAX: usize = 256;
    /// Bytes of a TURN secret: a shorter one can be guessed from a credential.
    pub const TURN_SECRET_LEN_MIN: usize = 16;
    /// Bytes of the secret that tokens are signed with: no shorter than what HS256 puts out (RFC 7518 §3.2).
    pub const AUTH_SECRET_LEN_MIN: usize = 32;
    /// Bytes of a file with a key.
    pub const KEY_FILE_LEN_MAX: u64 = 16 * 1024;
    /// Longest life of a token that we make: a year.
    pub const TOKEN_TTL_MAX: Duration = Duration::from_secs(8760 * 60 * 60);
    /// Longest time in which a client can resume.
    pub const RESUME_WINDOW_MAX: Duration = Duration::from_secs(600);
    /// Longest time in which calls may end by themselves.
    pub const DRAIN_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
    /// Longest wait of a room's packets for each other: one voice packet's time.
    pub const EGRESS_TICK_MAX: Duration = Duration::from_millis(20);
    /// Longest wait for a batch: half a voice packet's 20 ms.
    pub const BATCH_WAIT_MAX: Duration = Duration::from_millis(10);
    /// Longest look into a card's queue: more is a CPU that never rests.
    pub const BUSY_POLL_MAX: Duration = Duration::from_millis(1);
    /// Longest `offer` or `answer`, in bytes, fragments counted together.
    pub const SDP_MESSAGE_LEN_MAX: usize = 256 * 1024;
    /// Longest message of any other kind.
    pub const MESSAGE_LEN_MAX: usize = 16 * 1024;
    /// What one m-line of ours takes in an SDP, at most.
    pub const SDP_MEDIA_LEN_MAX: usize = 1000;
    /// From the upgrade to `join`.
    pub const JOIN_DEADLINE: Duration = Duration::from_secs(10);

    /// Length of a queue whose messages carry state and are never dropped: for every connection the
    /// last order and the one that takes it back.
    pub const fn state_queue_len(max_connections: usize) -> usize {
        max_connections * 2
    }
}

// A full set of slots, and as many m-lines of the client's own, fits the messages that carry it.
const _: () = assert!(
    Limits::AUDIO_SLOT_COUNT_MAX as usize * Limits::SDP_MEDIA_LEN_MAX
        <= Limits::SDP_MESSAGE_LEN_MAX - 6 * 1024
);
const _: () = assert!(Limits::MESSAGE_LEN_MAX <= Limits::SDP_MESSAGE_LEN_MAX);
const _: () = assert!(Limits::state_queue_len(Limits::CONNECTION_COUNT_MAX) <= u32::MAX as usize);
const _: () = assert!(WORKER_COUNT_MAX <= u8::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_may_be_absent_but_not_wrong() {
        let path = std::env::temp_dir().join(format!("sfu-env-{}", std::process::id()));
        assert_eq!(read_file(&path), Ok(HashMap::new()));
        std::fs::write(&path, "# comment\nPORT=5006\nexport LOG_LEVEL='warn' # quieter\n").unwrap();
        let read = read_file(&path).unwrap();
        std::fs::write(&path, "PORT=5006\nLOG LEVEL\n").unwrap();
        let wrong = read_file(&path).unwrap_err().to_string();
        std::fs::remove_file(&path).unwrap();
        assert_eq!((read["PORT"].as_str(), read["LOG_LEVEL"].as_str(), read.len()), ("5006", "warn", 2));
        assert!(wrong.starts_with(".env: ") && wrong.contains("LOG LEVEL"), "{wrong}");
    }
}
