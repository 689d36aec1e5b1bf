//! Puts the house together and takes it down again.
//!
//! Control is one thread: HTTP, sessions, DTLS handshakes and this room's tasks. Each worker is a thread of its
//! own, with its ring or without. They exchange values over bounded queues and wake each other by eventfd.

mod backlog;
mod batch_wait;
mod captures;
mod discover;
mod handshakes;
mod house;
mod inspector;
mod io;
mod key_log;
mod log_queue;
pub mod logging;
mod media_thread;
pub mod self_check;
mod overload;
mod placement;
mod private_folder;
mod refused;
mod renewal;
mod supervision;
mod topology;
mod workers;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

use self::captures::Captures;
use self::handshakes::Handshakes;
use self::house::House;
use self::inspector::Inspector;
pub use self::io::Io;
use self::key_log::KeyLog;
use self::renewal::Renewal;
use self::supervision::Supervisor;
use self::workers::Fleet;
use crate::auth::Verifier;
use crate::config::Config;
use crate::dtls::endpoint::Acceptor;
use crate::dtls::identity::Identity;
use crate::http::{self, App, Debug, Policy, Tls};
use crate::ice::credentials::Secret;
use crate::ids::WorkerId;
use crate::net::interfaces;
use crate::net::socket::{self, BindError, WorkerSockets};
use crate::signalling::{CLOSE_DRAINING, IceServers, Settings, Signalling};
use crate::srtp::path::CryptoPath;
use crate::time::Now;

/// How long sessions have to take their Close frame, and workers to say goodbye.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Between two looks whether the last participant has left.
const DRAIN_POLL: Duration = Duration::from_millis(100);

/// How long clients have to answer their Close frame after that.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a media port may be another's at the start: of a server that was killed, the kernel gives the ports back
/// when it has ended its rings, which is a moment after its process is gone.
const PORT_TIMEOUT: Duration = Duration::from_secs(2);
const PORT_POLL: Duration = Duration::from_millis(50);

const GOODBYE_POLL: Duration = Duration::from_millis(5);

/// Connections to the front door that wait for it, at most: as many as the kernel has any wait by itself
/// (`net.core.somaxconn`).
const LISTEN_BACKLOG: i32 = 4_096;

/// A server that runs.
pub struct Server {
    renewal: Option<Renewal>,
    signalling: Signalling,
    fleet: Fleet,
    supervisor: Supervisor,
}

impl Server {
    /// Binds the ports, starts the workers and opens the door. Runs on control's thread, inside a
    /// [`tokio::task::LocalSet`] ([`Io::block_on`]). With `tls` the door speaks nothing else. Every thread that the process
    /// has by then is kept off the workers' CPUs.
    ///
    /// # Errors
    /// What keeps it from starting, in words for an operator.
    pub async fn start(config: &Config, tls: Option<Tls>, io: &Io) -> Result<Server> {
        let now = Now::read().instant;
        let secret = Secret::random();
        let identity = Identity::generate().context("cannot make a DTLS certificate")?;
        let fingerprint = identity.fingerprint();

        let listener = listen(config.port).await?;
        let metrics_listener = match config.metrics_addr {
            Some(address) => Some(listen_for_metrics(address).await?),
            None => None,
        };
        let last = WorkerId(config.workers - 1);
        let range = config.ice_udp_mux_port.of(WorkerId(0))..=config.ice_udp_mux_port.of(last);
        let sockets =
            bind_media(range, config.workers.into(), &config.ice_bind_ip).await.map_err(|error| {
                let is_ip = matches!(error, BindError::NoSuchAddress(_));
                anyhow::Error::new(error).context(if is_ip { "ICE_BIND_IP" } else { "ICE_UDP_MUX_PORT" })
            })?;
        let candidates = candidates(config, &sockets, &seen(config, &sockets).await?)?;
        let worker_ports: Vec<u16> = sockets.iter().map(WorkerSockets::port).collect();
        let ports: BTreeSet<u16> = worker_ports.iter().copied().collect();
        let buffers = sockets.iter().map(WorkerSockets::buffer_lens).min_by_key(|lens| lens.receive);

        let key_log = KeyLog::start(config.keylog_dir.clone())?;
        let (fleet, news) = Fleet::start(config, io, sockets, &secret)?;
        let supervisor = Supervisor::start().context("cannot start the supervisor's thread")?;
        let workers = fleet.workers();
        let handshakes = Handshakes::new(Acceptor::new(identity), workers.clone(), key_log);
        let settings = Settings {
            audio_slots: config.audio_slots,
            max_connections: config.max_connections,
            room_span_at: config.room_span_at,
            resume_window: config.resume_window,
            secret,
            fingerprint,
            candidates: candidates.clone(),
            ice_servers: IceServers::new(config, |_| Now::read().ntp.unix_seconds().into()),
            verifier: config
                .auth
                .as_ref()
                .map(|auth| Verifier::new(auth, |_| Now::read().ntp.unix_seconds().into())),
        };
        let signalling = Signalling::new(now, settings, workers.clone(), handshakes.clone());
        let house = House::new(now, workers.clone(), signalling.clone(), handshakes.clone());
        let captures = Captures::new(config.capture_dir.clone())?;
        let inspector = Inspector::new(workers, signalling.clone(), house.clone(), worker_ports, captures);
        supervision::essential("the sessions' clock", keep_time(signalling.clone()));
        let news = news.pass_on(signalling.clone(), handshakes, house.clone(), inspector.clone());
        supervision::essential("the workers' news", news);
        let limits = http::Limits::default();
        // All come back at once after a restart.
        let requests_max = limits.requests_max.max(config.max_connections);
        let limits = http::Limits {
            websockets_max: 2 * config.max_connections,
            requests_max,
            handshakes: http::Limits::handshakes_for(requests_max),
            ..limits
        };
        let port = listener.local_addr().context("the TCP socket has no address")?.port();
        let tls = tls.map(Rc::new);
        let renewal = config.door.tls.as_ref().zip(tls.clone());
        let renewal = renewal.map(|(files, tls)| Renewal::begin(files, tls)).transpose();
        let renewal = renewal.context("no thread for TLS_CERT")?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let policy = policy(config, tls.clone());
        let app = App::with_policy(signalling.clone(), house.clone(), limits, policy);
        app.open_debug(Debug::new(config.debug_token.clone(), inspector));
        let metrics = match metrics_listener {
            Some((listener, address)) => {
                let serve = http::serve_metrics(listener, Rc::clone(&app));
                supervision::essential("the metrics' door", async { match serve.await {} });
                Some(format!("http://{address}/metrics"))
            }
            None => None,
        };
        let serve = http::serve(listener, app);
        supervision::essential("the front door", async { match serve.await {} });

        logging::flush(); // What was said until now stands before it.
        println!("gryt-sfu {}", env!("CARGO_PKG_VERSION"));
        println!("  backend:   {io}");
        println!("  crypto:    {}", CryptoPath::best());
        println!("  workers:   {}", fleet.placement());
        println!("  listening: {scheme} {}", SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
        let bound: Vec<_> = config.ice_bind_ip.iter().filter(|ip| !ip.is_unspecified()).collect();
        let on = if bound.is_empty() { "" } else { " on " };
        println!("  media:     udp {}{on}{}", join(ports), join(bound.iter()));
        metrics.iter().for_each(|url| println!("  metrics:   {url}"));
        println!("  addresses: {}", join(candidates.iter().flat_map(|list| list.iter())));
        if config.auth.is_none() {
            println!(
                "  warning:   open: anyone may join any room under any name, and take anyone's place; AUTH_SECRET or \
                 AUTH_PUBLIC_KEY ends that"
            );
        }
        if let Some(warning) = tls.as_deref().and_then(renewal::warning) {
            println!("  warning:   {warning}");
        }
        for advice in self_check::advice(config, io, buffers, fleet.refused()) {
            println!("  warning:   {advice}");
        }
        println!("  demo page: {scheme}://localhost:{port}/");
        supervisor.report_ready(house);
        Ok(Server { renewal, signalling, fleet, supervisor })
    }

    /// Reads the certificate anew, changed or not, for connections from then on; a bad one changes nothing.
    pub fn reload(&self) {
        match &self.renewal {
            Some(renewal) => renewal.ask(),
            None => tracing::info!("SIGHUP reads TLS_CERT and TLS_KEY anew; without TLS it does nothing"),
        }
    }

    /// Lets nobody new in, tells everybody, and returns when the last participant has left or `timeout` is over.
    pub async fn drain(&self, timeout: Duration) {
        self.supervisor.report_stopping();
        let now = Now::read().instant;
        self.signalling.drain(now, timeout);
        while self.signalling.counts().participants > 0 && Now::read().instant < now + timeout {
            tokio::time::sleep(DRAIN_POLL).await; // Minutes long: nobody minds the last tenth of a second.
        }
    }

    /// Closes every session with 1001, lets the workers say goodbye, and returns when they have.
    pub async fn stop(self) {
        self.signalling.close_all(Now::read().instant, CLOSE_DRAINING, "server is going down");
        self.fleet.stop(STOP_TIMEOUT).await;
        // Who answered its Close frame is gone; the others do not read, or have nothing to say. No more than they may a
        // supervisor that does not read hold up the end.
        let deadline = Now::read().instant + GOODBYE_TIMEOUT;
        let is_awaited = || self.signalling.counts().connections > 0 || self.supervisor.has_untaken();
        while is_awaited() && Now::read().instant < deadline {
            tokio::time::sleep(GOODBYE_POLL).await;
        }
    }
}

fn policy(config: &Config, tls: Option<Rc<Tls>>) -> Policy {
    let door = &config.door;
    Policy {
        metrics_are_apart: config.metrics_addr.is_some(),
        metrics_token: config.metrics_token.clone(),
        origins: door.cors_origins.clone(),
        trusted_proxies: door.trusted_proxies.clone(),
        rate: door.is_rate_limited.then_some(door.rate),
        tls,
    }
}

fn join<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(" ")
}

/// One socket for both families where the machine has both.
async fn listen(port: u16) -> Result<TcpListener> {
    let of_both = || -> std::io::Result<TcpListener> {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
        socket.set_only_v6(false)?; // Whatever net.ipv6.bindv6only says.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
        socket.listen(LISTEN_BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    let listener = match of_both() {
        Ok(listener) => Ok(listener),
        // Without IPv6.
        Err(error) if error.kind() != ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
        }
        Err(error) => Err(error),
    };
    listener.with_context(|| format!("cannot listen on TCP port {port} (PORT)"))
}

/// The workers' sockets. A server that is just ending may still have the port.
async fn bind_media(
    ports: RangeInclusive<u16>,
    worker_count: usize,
    ips: &[IpAddr],
) -> Result<Vec<WorkerSockets>, BindError> {
    let first_tried = Now::read().instant;
    let mut has_said = false;
    loop {
        match socket::bind(ports.clone(), worker_count, ips) {
            Err(error @ BindError::PortInUse(_)) if first_tried.elapsed() < PORT_TIMEOUT => {
                if !std::mem::replace(&mut has_said, true) {
                    tracing::info!("{error}: waiting for it");
                }
                tokio::time::sleep(PORT_POLL).await;
            }
            result => return result,
        }
    }
}

/// The port of `/metrics` alone, and where it is.
async fn listen_for_metrics(address: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("cannot listen on TCP {address} (METRICS_ADDR)"))?;
    let address = listener.local_addr().context("the metrics' socket has no address")?;
    Ok((listener, address))
}

/// Where STUN servers see each worker, if they are to be asked.
async fn seen(config: &Config, sockets: &[WorkerSockets]) -> Result<Vec<Vec<SocketAddr>>> {
    if !config.ice_discover || !config.ice_advertise_ip.is_empty() {
        return Ok(vec![Vec::new(); sockets.len()]);
    }
    discover::discover(&config.stun_servers, sockets).await.context("ICE_DISCOVER")
}

/// Where each worker can be reached: exactly ICE_ADVERTISE_IP if given, else where it is `seen` and what the
/// machine's interfaces have.
fn candidates(
    config: &Config,
    sockets: &[WorkerSockets],
    seen: &[Vec<SocketAddr>],
) -> Result<Vec<Rc<[SocketAddr]>>> {
    let ports = config.ice_udp_mux_port;
    let found = interfaces::addresses(config.ice_loopback).context("cannot list the network interfaces")?;
    let of_worker = |(index, sockets): (usize, &WorkerSockets)| -> Rc<[SocketAddr]> {
        let worker = WorkerId(index as u8);
        if config.ice_advertise_ip.is_empty() {
            let offered = |bound: IpAddr| -> Vec<IpAddr> {
                if !bound.is_unspecified() {
                    return vec![bound];
                }
                found.iter().copied().filter(|ip| ip.is_ipv4() == bound.is_ipv4()).collect()
            };
            let own = sockets.ips().flat_map(offered).map(|ip| SocketAddr::new(ip, sockets.port()));
            discover::beside(&seen[index], own, config.ice_advertise_private).into()
        } else {
            let given = config.ice_advertise_ip.iter();
            given.map(|advertised| advertised.of(ports, worker, sockets.port())).collect()
        }
    };
    let candidates: Vec<_> = sockets.iter().enumerate().map(of_worker).collect();
    if candidates.iter().any(|list| list.is_empty()) {
        bail!("no address to offer to clients: set ICE_ADVERTISE_IP");
    }
    Ok(candidates)
}

/// Calls signalling when something is due.
async fn keep_time(signalling: Signalling) {
    loop {
        let due = signalling.next_timeout();
        let sleep = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => {
                signalling.handle_timeout(Now::read().instant);
                // What is due at once again (members by the hundred to be told, or lost) lets others have their turn.
                tokio::task::yield_now().await;
            }
            () = signalling.rearmed() => {}
        }
    }
}
