//! The accept loop. It never ends: an error of `accept` is the fault of one connection or a passing
//! shortage, and a server that stops listening over either is down for everybody.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, spawn_local, yield_now};
use tokio::time::{sleep, timeout};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::routes::{metrics_alone, route};
use super::{App, Service, Tls, debug};
use crate::crowd::Crowd;
use crate::throttle::throttled;

/// Pause after `accept` failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Largest request header, in bytes. A browser sends less than 1 KiB here.
const HEADER_LEN_MAX: usize = 16 * 1024;

/// Most header fields of a request.
const HEADER_COUNT_MAX: usize = 64;

/// Serves everybody who connects, for ever. Must run inside a `LocalSet` or the like.
pub async fn serve<S: Service>(listener: TcpListener, app: Rc<App<S>>) -> Infallible {
    accept(listener, app, Door::Front).await
}

/// Serves `/metrics` and nothing else to everybody who connects, without TLS, for ever. Must run inside a
/// `LocalSet` or the like.
pub async fn serve_metrics<S: Service>(listener: TcpListener, app: Rc<App<S>>) -> Infallible {
    accept(listener, app, Door::Metrics).await
}

/// Which port a connection came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    /// Everybody's.
    Front,
    /// The one of `/metrics` alone.
    Metrics,
}

async fn accept<S: Service>(listener: TcpListener, app: Rc<App<S>>, door: Door) -> Infallible {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => admit(stream, remote, &app, door),
            Err(error) => {
                app.count(|counters| counters.accept_errors += 1);
                if is_about_one_connection(&error) {
                    continue;
                }
                throttled!(warn, %error, "cannot accept connections for now");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The peer went before we took its connection: the next one may be fine.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// Serves the connection. If there are too many that are no WebSocket, one gives way: of the address that has the
/// most, the one that has been so for the longest. A handshake or a page is done in no time, so it is most likely idle
/// or worse, and one stranger cannot keep others out, however fast he connects. He can keep out those who share his
/// address, as all behind one proxy do, and with ever more addresses everybody: then it is the oldest that gives way.
fn admit<S: Service>(stream: TcpStream, remote: SocketAddr, app: &Rc<App<S>>, door: Door) {
    app.count(|counters| counters.connections_accepted += 1);
    // Offers and answers are single small writes that somebody waits for.
    let _ = stream.set_nodelay(true);
    let open = OpenRequest::new(app, remote.ip(), door);
    let id = open.id.get();
    let connection = Rc::clone(app);
    let task = spawn_local(async move {
        match connection.policy.tls.as_ref().filter(|_| door == Door::Front) {
            None => answer_requests(stream, remote, connection, door).await,
            Some(tls) => {
                let handshake = shake_hands(&open, tls, stream);
                let outcome = timeout(connection.limits.header_timeout, handshake).await;
                match outcome {
                    Ok(Ok(stream)) => answer_requests(stream, remote, connection, door).await,
                    Ok(Err(error)) => refuse(&connection, remote, &error.to_string()),
                    Err(_) => refuse(&connection, remote, "too slow"),
                }
            }
        }
        drop(open);
    });
    let requests_max = match door {
        Door::Front => app.limits.requests_max,
        Door::Metrics => app.limits.scrapes_max,
    };
    let mut requests = open_requests(app, door).borrow_mut();
    if requests.len() >= requests_max
        && let Some(other) = requests.make_room(remote.ip())
    {
        other.abort();
        app.count(|counters| counters.connections_evicted += 1);
    }
    requests.push(remote.ip(), id, task.abort_handle());
}

/// Of this door alone: who comes in numbers by the one takes no room at the other.
fn open_requests<S>(app: &App<S>, door: Door) -> &RefCell<Crowd<AbortHandle>> {
    match door {
        Door::Front => &app.requests,
        Door::Metrics => &app.scrapes,
    }
}

/// TLS with a peer, once its hello is there and it is its turn: what follows takes a signature.
async fn shake_hands<S: Service>(
    open: &OpenRequest<S>,
    tls: &Tls,
    stream: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    let OpenRequest { app, from, .. } = open;
    let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    // This machine has a line of its own: among strangers its health check would be over before its turn.
    let is_here =
        [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()].contains(&from.to_canonical());
    let pace = if is_here { &app.handshakes_here } else { &app.handshakes };
    if timeout(app.limits.header_timeout / 2, pace.turn(*from)).await.is_err() {
        return Err(io::Error::other("no turn in time: more come than control can take"));
    }
    open.renew();
    hello.into_stream(tls.config()).await
}

/// No TLS with this peer: plain http, an old version, a certificate that it does not trust.
fn refuse<S: Service>(app: &App<S>, peer: SocketAddr, fault: &str) {
    app.count(|counters| counters.tls_failed += 1);
    tracing::debug!(%peer, fault, "no TLS handshake");
    throttled!(info, fault, "a connection came to no TLS");
}

async fn answer_requests<S: Service>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    remote: SocketAddr,
    app: Rc<App<S>>,
    door: Door,
) {
    let limits = app.limits.clone();
    let service = service_fn(move |request| {
        let app = Rc::clone(&app);
        async move {
            // However many come at once over one connection: others have their turns between them.
            yield_now().await;
            if door == Door::Metrics {
                return Ok(metrics_alone(&app, &request));
            }
            Ok::<_, Infallible>(match debug::answer(&app, &request, remote).await {
                Some(response) => response,
                None => route(&app, request, remote),
            })
        }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new()) // Without it no time-out below works.
        .header_read_timeout(limits.header_timeout)
        .max_header_size(HEADER_LEN_MAX)
        .max_headers(HEADER_COUNT_MAX);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service).with_upgrades());

    // Ends early when the connection becomes a WebSocket, which then lives on its own.
    if timeout(limits.request_lifetime, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(limits.header_timeout, connection).await;
    }
}

/// A connection that is no WebSocket (yet): counted and listed until dropped.
struct OpenRequest<S: Service> {
    app: Rc<App<S>>,
    id: Cell<u64>,
    from: IpAddr,
    door: Door,
}

impl<S: Service> OpenRequest<S> {
    fn new(app: &Rc<App<S>>, from: IpAddr, door: Door) -> OpenRequest<S> {
        app.count(|counters| counters.requests_open += 1);
        OpenRequest { id: Cell::new(app.next_request_id()), app: Rc::clone(app), from, door }
    }

    /// From now on it is the youngest: who comes in numbers, and waits, ends nobody whom it is the turn of.
    fn renew(&self) {
        let mut requests = open_requests(&self.app, self.door).borrow_mut();
        if let Some(end) = requests.remove(self.from, self.id.get()) {
            self.id.set(self.app.next_request_id());
            requests.push(self.from, self.id.get(), end);
        }
    }
}

impl<S: Service> Drop for OpenRequest<S> {
    fn drop(&mut self) {
        self.app.count(|counters| counters.requests_open -= 1);
        open_requests(&self.app, self.door).borrow_mut().remove(self.from, self.id.get());
    }
}
