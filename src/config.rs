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
mod limits;
mod media_address;
mod origin;
mod token_flags;
mod variables;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use self::auth::AUTH_PUBLIC_KEY;
pub use self::auth::{Auth, KeyFault, KeyKind, PublicKey, read_key_file};
pub use self::cpu_list::CpuList;
use self::debug::{CAPTURE_DIR, DEBUG_TOKEN, KEYLOG_DIR, METRICS_ADDR, METRICS_TOKEN};
pub use self::door::{Door, Rate, TlsFiles, TrustedProxies};
pub use self::hidden::Hidden;
pub use self::ice_url::{IceUrl, Scheme, Transport};
pub use self::limits::Limits;
pub use self::media_address::{Advertised, UdpPorts};
pub use self::origin::Origin;
pub use self::token_flags::{Order, TokenFlags};
use self::variables::{
    AUDIO_SLOTS, BATCH_WAIT_US, BUSY_POLL_US, DRAIN_TIMEOUT, EGRESS_TICK_MS, GSO_PAD_MAX, HIDDEN,
    ICE_ADVERTISE_IP, ICE_ADVERTISE_PRIVATE, ICE_BIND_IP, ICE_DISCOVER, ICE_LOOPBACK, ICE_UDP_MUX_PORT,
    IO_BACKEND, LOG_FILE, LOG_FORMAT, LOG_LEVEL, MAX_CONNECTIONS, OVERLOAD_TICK_MS, PORT, RESUME_WINDOW,
    ROOM_SPAN_AT, STUN_SERVERS, TURN_PASSWORD, TURN_SECRET, TURN_SERVERS, TURN_USERNAME, WORKER_CPUS,
    WORKER_SCHEDULING, WORKERS,
};
pub use self::variables::{GROUPS, Variable, example, help};
use crate::ids::{WORKER_COUNT_MAX, WorkerId};

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
    /// Addresses of this machine that media comes to and leaves from, one of a family at most, IPv4 first; wildcards
    /// among them, and by default.
    pub ice_bind_ip: Vec<IpAddr>,
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
    /// The same for an overloaded worker, if longer.
    pub overload_tick: Duration,
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
    /// A value in some other encoding.
    #[error("{0} is not accepted: it is not UTF-8")]
    NoText(&'static str),
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

impl Config {
    /// From the process's environment, and `.env` in the working directory for what is not there.
    /// `cpu_count`: the CPUs that this process may use.
    ///
    /// # Errors
    /// The first value that is none.
    pub fn load(cpu_count: usize) -> Result<Config, Error> {
        let file = read_file(Path::new(".env"))?;
        for variable in GROUPS.iter().flat_map(|(_, variables)| *variables) {
            // With other characters in place of what is none, a secret would be another one, and nobody would know.
            if std::env::var_os(variable.name).is_some_and(|value| value.to_str().is_none()) {
                return Err(Error::NoText(variable.name));
            }
        }
        Config::parse(cpu_count, |name| {
            let value = std::env::var(name).ok();
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
        let ice_bind_ip = source.with(&ICE_BIND_IP, bound)?;
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
            ice_bind_ip,
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
            overload_tick: source.with(&OVERLOAD_TICK_MS, |text| {
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
        let bound: Vec<_> = self.ice_bind_ip.iter().map(IpAddr::to_string).collect();
        let urls = |urls: &[IceUrl]| urls.iter().map(IceUrl::to_string).collect::<Vec<_>>().join(",");
        let secret =
            |hidden: &Option<Hidden>| hidden.as_ref().map(Hidden::reveal).unwrap_or_default().to_owned();
        let path =
            |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        let [auth_secret, auth_public_key] = auth::values(self.auth.as_ref());
        let mut values = vec![
            (PORT.name, self.port.to_string()),
            (ICE_UDP_MUX_PORT.name, self.ice_udp_mux_port.to_string()),
            (ICE_BIND_IP.name, bound.join(",")),
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
            (OVERLOAD_TICK_MS.name, self.overload_tick.as_millis().to_string()),
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
        Ok(lines) => lines.collect::<Result<_, _>>().map_err(|error| Error::of_file(path, error)),
        Err(error) if error.not_found() => Ok(HashMap::new()),
        Err(error) => Err(Error::of_file(path, error)),
    }
}

impl Error {
    /// Says which line it is, and never what is in it: that may be a secret, or the rest of one.
    fn of_file(path: &Path, error: dotenvy::Error) -> Error {
        let dotenvy::Error::LineParse(part, _) = error else { return Error::File(error.to_string()) };
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let at = text.lines().position(|line| {
            !part.trim().is_empty() && !line.trim_start().starts_with('#') && line.contains(part.trim())
        });
        let line = at.map_or("a line".to_owned(), |at| format!("line {}", at + 1));
        Error::File(format!(
            "{line} is no NAME=value; a value with spaces, double quotes, $, # or \\ stands between single quotes"
        ))
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

/// Addresses that a socket can be bound to, one of a family at most.
fn bound(text: &str) -> Option<Vec<IpAddr>> {
    let mut list: Vec<IpAddr> = Vec::new();
    for item in text.split(',') {
        let ip = item.trim().parse::<IpAddr>().ok()?.to_canonical();
        let is_own = match ip {
            IpAddr::V4(ip) => !ip.is_multicast() && !ip.is_broadcast(),
            // A link-local one means nothing without its interface.
            IpAddr::V6(ip) => !ip.is_multicast() && !ip.is_unicast_link_local(),
        };
        if !is_own || list.iter().any(|other| other.is_ipv4() == ip.is_ipv4()) {
            return None;
        }
        list.push(ip);
    }
    list.sort_by_key(IpAddr::is_ipv6);
    Some(list)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_may_be_absent_but_not_wrong() {
        let path = std::env::temp_dir().join(format!("sfu-env-{}", std::process::id()));
        assert_eq!(read_file(&path), Ok(HashMap::new()));
        std::fs::write(&path, "# comment\nPORT=5006\nexport LOG_LEVEL='warn' # quieter\n").unwrap();
        let read = read_file(&path).unwrap();
        for line in ["LOG LEVEL", "TURN_SECRET=two words", "=two words"] {
            std::fs::write(&path, format!("PORT=5006\n{line}\n")).unwrap();
            let wrong = read_file(&path).unwrap_err().to_string();
            assert!(
                wrong.starts_with(".env: line 2 is no NAME=value") && !wrong.contains("words"),
                "{wrong}"
            );
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!((read["PORT"].as_str(), read["LOG_LEVEL"].as_str(), read.len()), ("5006", "warn", 2));
    }
}
