//! A front door with an echo behind it, and a raw TCP client that can misbehave.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its share")]

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use gryt_sfu::http::{App, Limits, Policy, Service, Session, Status, serve};
use gryt_sfu::metrics::exposition::Snapshot;
use gryt_sfu::signalling::{Inlet, Outbound, Outbox, Waiting};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::LocalSet;
use tokio::time::timeout;

/// No step of a test takes longer.
pub const STEP_MAX: Duration = Duration::from_secs(10);

/// What happened to the sessions, in order.
pub type Log = Rc<RefCell<Vec<String>>>;

/// What `news` makes it say.
pub const NEWS_COUNT: usize = 30;

/// Sends every message back, and takes one that begins with `answer` for one it asked for; `close` makes it close with 1000, `flood` makes it fill its queue, `news` makes it say
/// things that may wait a little, `slow news` an hour, and `hot news` not at all.
pub struct Echo {
    pub log: Log,
    has_strangers: Rc<Cell<bool>>,
}

pub struct EchoSession {
    inlet: RefCell<Option<Inlet>>,
    log: Log,
    closed: Cell<bool>,
    is_member: Cell<bool>,
    answers: Cell<u64>,
}

impl Service for Echo {
    type Session = EchoSession;

    fn connect(&self, _now: Instant, _remote: SocketAddr) -> (EchoSession, Outbox) {
        let (inlet, outbox) = Inlet::new(64, usize::MAX, Waiting::default());
        self.log.borrow_mut().push("connected".into());
        let inlet = RefCell::new(Some(inlet));
        let is_member = Cell::new(!self.has_strangers.get());
        let (log, closed, answers) = (Rc::clone(&self.log), Cell::new(false), Cell::new(0));
        (EchoSession { inlet, log, closed, is_member, answers }, outbox)
    }
}

impl Session for EchoSession {
    fn handle_text(&self, _now: Instant, text: &str) {
        let mut slot = self.inlet.borrow_mut();
        let Some(inlet) = &mut *slot else { return };
        self.is_member.set(self.is_member.get() || text == "join");
        self.answers.set(self.answers.get() + u64::from(text.starts_with("answer")));
        let sent = match text {
            "close" => {
                inlet.close(1000, "as you wish");
                Ok(())
            }
            "forget" => {
                *slot = None;
                return;
            }
            "flood" => (0..64).try_for_each(|_| inlet.send(Outbound::Text("x".repeat(1 << 20)))),
            "hot news" | "news" | "slow news" => {
                let patience = match text {
                    "hot news" => Duration::ZERO,
                    "news" => Duration::from_millis(20),
                    _ => Duration::from_secs(3600),
                };
                let news = |i| Outbound::Notice { text: format!("news {i}").into(), patience };
                (0..NEWS_COUNT).try_for_each(|i| inlet.send(news(i)))
            }
            text => inlet.send(Outbound::Text(text.to_owned())),
        };
        if sent.is_err() {
            self.log.borrow_mut().push("queue full".into());
        }
    }

    fn is_member(&self) -> bool {
        self.is_member.get()
    }

    fn answers(&self) -> u64 {
        self.answers.get()
    }

    fn handle_close(self, _now: Instant, code: u16) {
        self.closed.set(true);
        self.log.borrow_mut().push(format!("closed {code}"));
    }
}

impl Drop for EchoSession {
    fn drop(&mut self) {
        if !self.closed.get() {
            self.log.borrow_mut().push("lost".into());
        }
    }
}

struct Steady {
    alive: Rc<Cell<bool>>,
    ready: Rc<Cell<bool>>,
    snapshots: Rc<Cell<u64>>,
}

impl Status for Steady {
    fn alive(&self) -> Result<(), &'static str> {
        if self.alive.get() { Ok(()) } else { Err("a worker does not answer") }
    }

    fn ready(&self) -> Result<(), &'static str> {
        if self.ready.get() { Ok(()) } else { Err("draining") }
    }

    fn is_draining(&self) -> bool {
        !self.ready.get()
    }

    fn snapshot(&self) -> Snapshot {
        self.snapshots.set(self.snapshots.get() + 1);
        Snapshot { workers: vec![Default::default(); 2], ..Default::default() }
    }
}

pub struct Door {
    pub address: SocketAddr,
    pub app: Rc<App<Echo>>,
    pub log: Log,
    pub alive: Rc<Cell<bool>>,
    pub ready: Rc<Cell<bool>>,
    /// How often its counters were looked at.
    pub snapshots: Rc<Cell<u64>>,
    /// Who comes from now on is a member with the message `join`, and not from the beginning.
    pub has_strangers: Rc<Cell<bool>>,
}

/// Time-outs short enough for a test.
pub fn short() -> Limits {
    Limits {
        header_timeout: Duration::from_millis(300),
        ping_interval: Duration::from_secs(60),
        silence_max: Duration::from_secs(90),
        write_timeout: Duration::from_millis(300),
        close_timeout: Duration::from_millis(500),
        ..Limits::default()
    }
}

/// Runs `test` against a front door of its own.
pub fn with_door<F: Future<Output = ()>>(limits: Limits, test: impl FnOnce(Door) -> F) {
    with_door_for(Duration::from_secs(30), limits, test);
}

/// As [`with_door`], with a time limit of its own.
pub fn with_door_for<F: Future<Output = ()>>(
    at_most: Duration,
    limits: Limits,
    test: impl FnOnce(Door) -> F,
) {
    with_policy(at_most, limits, Policy::default(), test);
}

/// As [`with_door_for`], with a policy of its own.
pub fn with_policy<F: Future<Output = ()>>(
    at_most: Duration,
    limits: Limits,
    policy: Policy,
    test: impl FnOnce(Door) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (log, alive, ready) = (Log::default(), Rc::new(Cell::new(true)), Rc::new(Cell::new(true)));
        let snapshots = Rc::new(Cell::new(0));
        let status =
            Steady { alive: Rc::clone(&alive), ready: Rc::clone(&ready), snapshots: Rc::clone(&snapshots) };
        let has_strangers = Rc::new(Cell::new(false));
        let echo = Echo { log: Rc::clone(&log), has_strangers: Rc::clone(&has_strangers) };
        let app = App::with_policy(echo, status, limits, policy);
        tokio::task::spawn_local(serve(listener, Rc::clone(&app)));
        let door = Door { address, app, log, alive, ready, snapshots, has_strangers };
        timeout(at_most, test(door)).await.expect("the test hangs");
    });
}

impl Door {
    pub async fn connect(&self) -> Client {
        Client { stream: TcpStream::connect(self.address).await.unwrap(), buffer: Vec::new() }
    }

    /// From another address of this machine.
    pub async fn connect_from(&self, ip: [u8; 4]) -> Client {
        connect_from(ip, self.address).await
    }

    pub async fn websocket(&self) -> Client {
        self.connect().await.upgraded(HANDSHAKE).await
    }

    /// One request, one answer, over a connection of its own.
    pub async fn request(&self, head: &str) -> (String, String) {
        let mut client = self.connect().await;
        client.write(format!("{head}\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await;
        let mut bytes = Vec::new();
        timeout(STEP_MAX, client.stream.read_to_end(&mut bytes)).await.expect("an answer").unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").expect("a header");
        (head.to_owned(), body.to_owned())
    }

    /// Lets the server run until what is awaited has happened.
    pub async fn until(&self, what: &str, mut happened: impl FnMut(&Door) -> bool) {
        for _ in 0..1000 {
            if happened(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{what} did not happen; sessions: {:?}; {:?}", self.log.borrow(), self.app.counters());
    }
}

pub const HANDSHAKE: &str = "GET /any/path HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
    Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

/// A frame from the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    Text(String),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    End,
}

pub struct Client {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

pub async fn connect_from(ip: [u8; 4], to: SocketAddr) -> Client {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((ip, 0).into()).unwrap();
    Client { stream: socket.connect(to).await.unwrap(), buffer: Vec::new() }
}

impl Client {
    /// A WebSocket from now on.
    pub async fn upgraded(mut self, handshake: &str) -> Client {
        self.write(handshake.as_bytes()).await;
        let head = self.response_head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        // The example of RFC 6455 §1.3.
        assert!(head.to_lowercase().contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
        self
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        timeout(STEP_MAX, self.stream.write_all(bytes)).await.expect("the server to read").unwrap();
    }

    /// As [`Client::write`], where the server may have hung up already.
    pub async fn try_write(&mut self, bytes: &[u8]) -> bool {
        matches!(timeout(STEP_MAX, self.stream.write_all(bytes)).await, Ok(Ok(())))
    }

    pub async fn frame(&mut self, first: u8, payload: &[u8]) {
        self.write(&masked(first, payload)).await;
    }

    pub async fn text(&mut self, text: &str) {
        self.frame(0x81, text.as_bytes()).await;
    }

    async fn fill(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        match timeout(STEP_MAX, self.stream.read(&mut chunk)).await.expect("the server to write") {
            Ok(0) | Err(_) => false,
            Ok(len) => {
                self.buffer.extend_from_slice(&chunk[..len]);
                true
            }
        }
    }

    pub async fn response_head(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                return String::from_utf8(self.buffer.drain(..end + 4).collect()).unwrap();
            }
            assert!(self.fill().await, "the connection ended in {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }

    pub async fn receive(&mut self) -> Received {
        loop {
            if let Some((first, len, payload_at)) = header_of(&self.buffer)
                && self.buffer.len() >= payload_at + len
            {
                let payload: Vec<u8> = self.buffer.drain(..payload_at + len).skip(payload_at).collect();
                return match first {
                    0x81 => Received::Text(String::from_utf8(payload).unwrap()),
                    0x89 => Received::Ping(payload),
                    0x8A => Received::Pong(payload),
                    0x88 if payload.is_empty() => Received::Close(None, String::new()),
                    0x88 => Received::Close(
                        Some(u16::from_be_bytes([payload[0], payload[1]])),
                        String::from_utf8(payload[2..].to_vec()).unwrap(),
                    ),
                    other => panic!("unexpected first byte {other:#x}"),
                };
            }
            if !self.fill().await {
                assert!(self.buffer.is_empty(), "the connection ended inside a frame");
                return Received::End;
            }
        }
    }

    /// Expects a Close frame with this code, and after it nothing but the end.
    pub async fn expect_close(&mut self, code: u16) {
        loop {
            match self.receive().await {
                Received::Pong(_) => {}
                Received::Close(got, _) => break assert_eq!(got, Some(code)),
                other => panic!("{other:?} instead of a close with {code}"),
            }
        }
        self.stream.shutdown().await.unwrap();
        assert_eq!(self.receive().await, Received::End);
    }
}

fn header_of(buffer: &[u8]) -> Option<(u8, usize, usize)> {
    match *buffer {
        [first, 126, a, b, ..] => Some((first, usize::from(u16::from_be_bytes([a, b])), 4)),
        [first, 127, a, b, c, d, e, f, g, h, ..] => {
            Some((first, u64::from_be_bytes([a, b, c, d, e, f, g, h]) as usize, 10))
        }
        [first, len @ 0..=125, ..] => Some((first, usize::from(len), 2)),
        _ => None,
    }
}

/// The header of a masked frame that claims `len` bytes; its mask is zero.
pub fn masked_header(first: u8, len: u64) -> Vec<u8> {
    let mut bytes = vec![first];
    match len {
        0..=125 => bytes.push(0x80 | len as u8),
        126..=0xFFFF => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend(len.to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes
}

pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
    let mut bytes = masked_header(first, payload.len() as u64);
    let mask_at = bytes.len() - 4;
    bytes[mask_at..].copy_from_slice(&MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}
