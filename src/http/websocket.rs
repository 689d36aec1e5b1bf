//! One client's WebSocket (RFC 6455): frames to messages and back.
//!
//! Two futures live as long as the connection: one reads, one writes. A read that has begun is never
//! dropped in favour of something else, for the library loses its place in the stream then. Each
//! knows of the other only through a [`Line`].
//!
//! Invariants: at most [`MESSAGE_LEN_MAX`] bytes of an unfinished message are kept, and of who has not joined
//! [`STRANGER_LEN_MAX`]; at most one Close
//! frame is sent and nothing after it; at most one pong waits to be written (§5.5.3 allows to answer
//! the latest ping only), so a flood of pings costs its sender alone.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use fastwebsockets::upgrade::UpgradeFut;
use fastwebsockets::{CloseCode, Frame, OpCode, Payload, WebSocketError};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::task::{AbortHandle, spawn_local, yield_now};
use tokio::time::{sleep_until, timeout};

use super::frames::Frames;
use super::rate::Rates;
use super::{App, MESSAGE_LEN_MAX, Service, Session};
use crate::signalling::message::{self, ServerMessage};
use crate::signalling::negotiation::ErrorCode;
use crate::signalling::{Outbound, Outbox};
use crate::throttle::throttled;
use crate::time::Now;

/// Longest message of who has not joined, which only a `join` can change.
const STRANGER_LEN_MAX: usize = message::MESSAGE_LEN_MAX;

/// Longest payload of a Close, Ping or Pong frame (RFC 6455 §5.5).
const CONTROL_LEN_MAX: usize = 125;

/// Longest head of a frame of ours, which are not masked (RFC 6455 §5.2).
const HEAD_LEN_MAX: usize = 10;

/// Bytes of frames to a client that wait for others to leave with, beside one frame.
const FRAMES_LEN_MAX: usize = 32 * 1024;

/// Frames a client may send in a second for as long as it likes; each KiB counts as one more.
const FRAME_RATE: u32 = 200;

/// And so many at once: a join, an offer of full size and its candidates many times over.
const FRAME_BURST: u32 = 2_000;

/// A WebSocket, counted from the handshake until dropped, and listed while it is no member's.
pub(super) struct OpenWebSocket<S: Service> {
    app: Rc<App<S>>,
    id: u64,
    /// The client's, which a trusted proxy may have told.
    from: IpAddr,
    /// What ends it, while it is a member's.
    kept: Cell<Option<AbortHandle>>,
}

impl<S: Service> OpenWebSocket<S> {
    /// When there are as many as there may be, one that is no member's gives way: of the address that has the
    /// most, the one that has been there for the longest. Joining takes no time, so one stranger cannot keep others out,
    /// nor many the members. `None` when all are members'.
    pub(super) fn admit(app: &Rc<App<S>>, from: IpAddr) -> Option<OpenWebSocket<S>> {
        let mut counters = app.counters.borrow_mut();
        if counters.websockets_open >= app.limits.websockets_max as u64 {
            let Some(other) = app.strangers.borrow_mut().make_room(from) else {
                counters.websockets_refused += 1;
                return None;
            };
            other.abort();
            counters.websockets_evicted += 1;
            let open = app.limits.websockets_max;
            throttled!(
                warn,
                open,
                "WebSockets of no member give way to new ones: twice MAX_CONNECTIONS are open"
            );
        }
        counters.websockets_open += 1;
        counters.websockets_admitted += 1;
        let (id, kept) = (counters.websockets_admitted, Cell::default());
        Some(OpenWebSocket { app: Rc::clone(app), id, from, kept })
    }

    /// Serves it in a task of its own.
    pub(super) fn begin(self, upgraded: UpgradeFut, remote: SocketAddr) {
        let (app, id, from) = (Rc::clone(&self.app), self.id, self.from);
        let task = spawn_local(serve(upgraded, self, remote));
        app.strangers.borrow_mut().push(from, id, task.abort_handle());
    }

    /// It stays, whoever else comes.
    fn keep(&self) {
        self.kept.set(self.app.strangers.borrow_mut().remove(self.from, self.id));
    }

    /// It is a member's no longer: one who joins over himself again and again and answers no Close would fill the house.
    fn release(&self) {
        if let Some(end) = self.kept.take() {
            self.app.strangers.borrow_mut().push(self.from, self.id, end);
        }
    }
}

impl<S: Service> Drop for OpenWebSocket<S> {
    fn drop(&mut self) {
        self.app.count(|counters| counters.websockets_open -= 1);
        self.app.strangers.borrow_mut().remove(self.from, self.id);
    }
}

/// Serves one client to the end of its connection.
async fn serve<S: Service>(upgraded: UpgradeFut, open: OpenWebSocket<S>, remote: SocketAddr) {
    // The peer may go away before it has read the answer to its handshake.
    let Ok(websocket) = upgraded.await else { return };
    let app = &open.app;
    let (mut read_half, mut write_half) = tokio::io::split(websocket.into_inner());

    let end = converse(&open, &mut read_half, &mut write_half, remote).await;
    app.count(|counters| match end {
        End::Closed | End::Lost => {}
        End::Silent => counters.websockets_silent += 1,
        End::Stuck => counters.websockets_stuck += 1,
        End::Violation => counters.websockets_violated += 1,
        End::Limited => counters.websockets_limited += 1,
    });
    if matches!(end, End::Closed | End::Violation | End::Limited) {
        // Boxed: a connection is as large as its largest wait, all its life.
        Box::pin(hang_up(read_half, write_half, app.limits.close_timeout)).await;
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// By Close frames.
    Closed,
    /// The peer broke the protocol and was told so.
    Violation,
    /// The peer said more than RATE_LIMIT_REQUESTS allows and was told so.
    Limited,
    /// Without a word.
    Lost,
    /// Neither message nor pong for too long.
    Silent,
    /// The peer does not read.
    Stuck,
}

async fn converse<S: Service>(
    open: &OpenWebSocket<S>,
    read_half: &mut ReadHalf<TokioIo<Upgraded>>,
    write_half: &mut WriteHalf<TokioIo<Upgraded>>,
    remote: SocketAddr,
) -> End {
    let app = &*open.app;
    let now = Now::read().instant;
    let (session, outbox) = app.service.connect(now, remote);
    let line = Line::new(now);
    // From the first word of farewell on, however long it takes to say.
    let closing = outbox.closing();
    let leaving = async {
        closing.await;
        open.release();
        pending::<Infallible>().await
    };
    let mut reading = pin!(read_messages(Reader::new(read_half, now), session, &line, open));
    let mut writing = pin!(write_messages(write_half, outbox, &line, app));

    tokio::select! {
        read_end = &mut reading => {
            open.release();
            match read_end {
                ReadEnd::Lost => End::Lost,
                // The writer says goodbye; it is never longer about it than one write may take.
                ReadEnd::Closed => writing.await,
                ReadEnd::Refused(refused) => match writing.await {
                    End::Closed => refused,
                    end => end,
                },
            }
        }
        end = &mut writing => {
            open.release();
            if end == End::Closed {
                line.discarding.set(true);
                let _ = timeout(app.limits.close_timeout, reading).await;
            }
            end
        }
        never = leaving => match never {},
    }
}

/// Ends our direction and reads the peer's to its end, so that unread bytes do not turn the end of the
/// connection into a reset, which could overtake our Close frame.
async fn hang_up(
    mut read_half: ReadHalf<TokioIo<Upgraded>>,
    mut write_half: WriteHalf<TokioIo<Upgraded>>,
    limit: Duration,
) {
    let _ = timeout(limit, async {
        write_half.shutdown().await?;
        let mut scrap = [0; 4096];
        while read_half.read(&mut scrap).await? > 0 {}
        Ok::<(), std::io::Error>(())
    })
    .await;
}

/// What reader and writer of one connection tell each other.
struct Line {
    /// When the last message or pong came.
    heard: Cell<Instant>,
    /// The payload of the latest ping that was not answered yet.
    pong: RefCell<Option<Vec<u8>>>,
    /// The writer is to send this Close frame and end.
    close: Cell<Option<(u16, &'static str)>>,
    /// And this message before it.
    last_words: Cell<Option<String>>,
    /// The writer is to look at `pong` and `close`.
    wake: Notify,
    /// Our Close frame is out: what still comes is not for the session.
    discarding: Cell<bool>,
}

impl Line {
    fn new(now: Instant) -> Line {
        Line {
            heard: Cell::new(now),
            pong: RefCell::default(),
            close: Cell::new(None),
            last_words: Cell::new(None),
            wake: Notify::new(),
            discarding: Cell::new(false),
        }
    }

    fn close(&self, code: u16, reason: &'static str) {
        self.close.set(Some((code, reason)));
        self.wake.notify_one();
    }

    fn pong(&self, payload: &[u8]) {
        *self.pong.borrow_mut() = Some(payload.to_vec());
        self.wake.notify_one();
    }
}

/// How the peer's direction ended.
enum ReadEnd {
    Closed,
    /// The peer must be sent away, which is counted as this.
    Refused(End),
    Lost,
}

/// Passes the peer's messages to its session. Owns the session, so that whatever ends the connection
/// ends the session too.
async fn read_messages<S: Service, R: AsyncRead + Unpin>(
    mut reader: Reader<R>,
    session: S::Session,
    line: &Line,
    open: &OpenWebSocket<S>,
) -> ReadEnd {
    let app = &open.app;
    let rate = app.rates.as_ref().map(Rates::of_messages);
    let mut is_member = session.is_member();
    if is_member {
        open.keep();
    }
    loop {
        let input = reader.next_input(if is_member { MESSAGE_LEN_MAX } else { STRANGER_LEN_MAX }).await;
        let now = Now::read().instant;
        if line.discarding.get() && !matches!(input, Err(_) | Ok(Input::Close { .. })) {
            continue;
        }
        match input {
            Ok(Input::Message(text)) => {
                line.heard.set(now);
                app.count(|counters| counters.messages_in += 1);
                let (answers, len) = (session.answers(), text.len());
                session.handle_text(now, &text);
                if !is_member && session.is_member() {
                    is_member = true;
                    open.keep();
                }
                // An answer that we asked for is not the client's to spare.
                let is_asked_for = session.answers() > answers;
                if is_asked_for {
                    reader.budget.give_back(len);
                }
                if !is_asked_for && rate.as_ref().is_some_and(|rate| !rate.take()) {
                    let message = "too many messages".to_owned();
                    let error = ServerMessage::Error { code: ErrorCode::RateLimited, message };
                    line.last_words.set(Some(error.write()));
                    line.close(CloseCode::Policy.into(), "too many messages");
                    return ReadEnd::Refused(End::Limited);
                }
                // However much came at once: those who were told of it take their turns.
                yield_now().await;
            }
            Ok(Input::Nothing) => {}
            Ok(Input::Pong) => line.heard.set(now),
            Ok(Input::Ping(payload)) => line.pong(&payload),
            Ok(Input::Close { code }) => {
                session.handle_close(now, code);
                line.close(code, "");
                return ReadEnd::Closed;
            }
            Err(Fault::Lost) => return ReadEnd::Lost,
            Err(Fault::Violation { code, reason }) => {
                tracing::debug!(code, reason, "closing a WebSocket");
                line.close(code, reason);
                return ReadEnd::Refused(End::Violation);
            }
        }
    }
}

/// Writes what the session, the pings and the reader have for the peer, until a Close frame is out or
/// nothing can be written any more. All that waits leaves in one write.
async fn write_messages<S: Service>(
    stream: &mut WriteHalf<TokioIo<Upgraded>>,
    mut outbox: Outbox,
    line: &Line,
    app: &App<S>,
) -> End {
    let silence_max = app.limits.silence_max;
    let mut writer = Writer { stream, app, frames: Vec::new(), due: None, written_at: line.heard.get() };
    let mut next_ping = app.next_ping(line.heard.get());
    loop {
        if let Some((code, reason)) = line.close.take() {
            if let Some(words) = line.last_words.take() {
                writer.add(Frame::text(Payload::Borrowed(words.as_bytes())), Duration::ZERO);
            }
            return writer.close(code, reason).await;
        }
        if let Some(payload) = line.pong.take() {
            writer.add(Frame::pong(Payload::Borrowed(&payload)), Duration::ZERO);
        }
        let now = Now::read().instant;
        let silent_at = line.heard.get() + silence_max;
        if now >= silent_at {
            // Nobody is there to wait for, but a middlebox may be glad to hear of it.
            let _ = writer.close(CloseCode::Policy.into(), "no answer to pings").await;
            return End::Silent;
        }
        if now >= next_ping {
            next_ping = app.next_ping(now);
            writer.add(Frame::new(true, OpCode::Ping, None, Payload::Borrowed(b"")), Duration::ZERO);
        }
        if writer.due.is_some_and(|due| due <= now)
            && let Err(end) = writer.flush(now).await
        {
            return end;
        }
        let wake_at = writer.due.into_iter().fold(next_ping.min(silent_at), Instant::min);
        let close = tokio::select! {
            biased;
            () = line.wake.notified() => None,
            message = outbox.recv() => writer.gather(message, &mut outbox),
            () = sleep_until(wake_at.into()) => None,
        };
        if let Some((code, reason)) = close {
            return writer.close(code, reason).await;
        }
    }
}

/// Gathers frames, and writes them together.
struct Writer<'a, S: Service> {
    stream: &'a mut WriteHalf<TokioIo<Upgraded>>,
    app: &'a App<S>,
    /// Whole ones that wait, one after the other.
    frames: Vec<u8>,
    /// When they are to leave.
    due: Option<Instant>,
    /// When others left last.
    written_at: Instant,
}

impl<S: Service> Writer<'_, S> {
    /// Takes a message, and those that wait behind it. Returns the Close frame that is to be the last.
    fn gather(&mut self, mut message: Option<Outbound>, outbox: &mut Outbox) -> Option<(u16, &'static str)> {
        loop {
            match message {
                Some(Outbound::Text(text)) => {
                    self.add(Frame::text(Payload::Borrowed(text.as_bytes())), Duration::ZERO);
                }
                Some(Outbound::Notice { text, patience }) => {
                    self.add(Frame::text(Payload::Borrowed(text.as_bytes())), patience);
                }
                Some(Outbound::Close { code, reason }) => return Some((code, reason)),
                None => return Some((CloseCode::Normal.into(), "")),
            }
            self.app.count(|counters| counters.messages_out += 1);
            if self.frames.len() >= FRAMES_LEN_MAX {
                self.due = Some(self.written_at);
                return None;
            }
            message = match outbox.try_recv() {
                Ok(message) => Some(message),
                Err(TryRecvError::Disconnected) => None,
                Err(TryRecvError::Empty) => return None,
            };
        }
    }

    /// Puts a frame behind the others. It leaves at once where none left for as long as it may wait.
    fn add(&mut self, mut frame: Frame<'_>, patience: Duration) {
        let mut head = [0; HEAD_LEN_MAX];
        let len = frame.fmt_head(&mut head);
        self.frames.extend_from_slice(&head[..len]);
        self.frames.extend_from_slice(&frame.payload);
        let due = self.written_at + patience;
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
    }

    async fn flush(&mut self, now: Instant) -> Result<(), End> {
        let frames = std::mem::take(&mut self.frames);
        (self.due, self.written_at) = (None, now);
        self.app.count(|counters| counters.writes += 1);
        let writing = async {
            self.stream.write_all(&frames).await?;
            self.stream.flush().await
        };
        match timeout(self.app.limits.write_timeout, writing).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Lost),
            Err(_) => Err(End::Stuck),
        }
    }

    async fn close(&mut self, code: u16, reason: &'static str) -> End {
        // A Close frame without a code is answered by one (§7.1.5): 1005 never goes over the wire.
        let frame = match CloseCode::from(code) {
            CloseCode::Status => Frame::close_raw(Payload::Borrowed(b"")),
            _ => Frame::close(code, reason.as_bytes()),
        };
        self.add(frame, Duration::ZERO);
        match self.flush(Now::read().instant).await {
            Ok(()) => End::Closed,
            Err(end) => end,
        }
    }
}

/// What came from the peer.
enum Input {
    Message(String),
    Ping(Vec<u8>),
    Pong,
    Close {
        /// The peer's, or 1005 if it gave none.
        code: u16,
    },
    /// A fragment.
    Nothing,
}

/// Why nothing more can come from the peer.
enum Fault {
    /// The stream ended or failed.
    Lost,
    /// The peer must be sent away.
    Violation { code: u16, reason: &'static str },
}

const fn violation(code: u16, reason: &'static str) -> Fault {
    Fault::Violation { code, reason }
}

struct Reader<R> {
    frames: Frames<R>,
    /// The fragments so far of a message that is not finished (§5.4).
    unfinished: Option<Vec<u8>>,
    budget: FrameBudget,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    fn new(stream: R, now: Instant) -> Reader<R> {
        Reader { frames: Frames::new(stream), unfinished: None, budget: FrameBudget::new(now) }
    }

    /// `message_len_max`: of a message, its fragments counted together.
    async fn next_input(&mut self, message_len_max: usize) -> Result<Input, Fault> {
        let so_far = self.unfinished.as_ref().map_or(0, Vec::len);
        let len_max = message_len_max.saturating_sub(so_far).max(CONTROL_LEN_MAX);
        let frame = self.frames.next(len_max).await.map_err(fault_of)?;
        if !frame.is_masked {
            return Err(violation(1002, "unmasked frame"));
        }
        if !self.budget.take(Now::read().instant, frame.payload.len()) {
            return Err(violation(1008, "too many messages"));
        }
        let payload = frame.payload;
        match frame.opcode {
            OpCode::Binary => Err(violation(1003, "text only")),
            OpCode::Text if self.unfinished.is_some() => Err(violation(1002, "message inside a message")),
            OpCode::Text if frame.is_last => text(payload),
            OpCode::Text => {
                self.unfinished = Some(payload);
                Ok(Input::Nothing)
            }
            OpCode::Continuation => {
                let Some(mut so_far) = self.unfinished.take() else {
                    return Err(violation(1002, "nothing to continue"));
                };
                if so_far.len() + payload.len() > message_len_max {
                    return Err(violation(1009, "message too big"));
                }
                so_far.extend_from_slice(&payload);
                if frame.is_last {
                    return text(so_far);
                }
                self.unfinished = Some(so_far);
                Ok(Input::Nothing)
            }
            OpCode::Ping | OpCode::Pong | OpCode::Close if payload.len() > CONTROL_LEN_MAX => {
                Err(violation(1002, "control frame too long"))
            }
            OpCode::Ping => Ok(Input::Ping(payload)),
            OpCode::Pong => Ok(Input::Pong),
            OpCode::Close => close(&payload),
        }
    }
}

fn text(bytes: Vec<u8>) -> Result<Input, Fault> {
    String::from_utf8(bytes).map(Input::Message).map_err(|_| violation(1007, "not UTF-8"))
}

/// RFC 6455 §5.5.1, §7.4.
fn close(payload: &[u8]) -> Result<Input, Fault> {
    match *payload {
        [] => Ok(Input::Close { code: CloseCode::Status.into() }),
        [_] => Err(violation(1002, "malformed close")),
        [high, low, ref reason @ ..] => {
            let code = u16::from_be_bytes([high, low]);
            if !CloseCode::from(code).is_allowed() {
                return Err(violation(1002, "close code out of range"));
            }
            if std::str::from_utf8(reason).is_err() {
                return Err(violation(1007, "not UTF-8"));
            }
            Ok(Input::Close { code })
        }
    }
}

fn fault_of(error: WebSocketError) -> Fault {
    match error {
        WebSocketError::InvalidUTF8 => violation(1007, "not UTF-8"),
        WebSocketError::FrameTooLarge => violation(1009, "message too big"),
        WebSocketError::ReservedBitsNotZero => violation(1002, "no extension was agreed on"),
        WebSocketError::InvalidValue => violation(1002, "unknown opcode"),
        WebSocketError::ControlFrameFragmented => violation(1002, "control frame in fragments"),
        WebSocketError::PingFrameTooLarge => violation(1002, "control frame too long"),
        _ => Fault::Lost,
    }
}

/// A token bucket: a frame costs one token, and one more for each KiB.
struct FrameBudget {
    tokens: f64,
    refilled: Instant,
}

impl FrameBudget {
    fn new(now: Instant) -> FrameBudget {
        FrameBudget { tokens: f64::from(FRAME_BURST), refilled: now }
    }

    /// `false` when the peer sends more than it may.
    fn take(&mut self, now: Instant, payload_len: usize) -> bool {
        let elapsed = now.saturating_duration_since(self.refilled).as_secs_f64();
        self.refilled = now;
        self.tokens = (self.tokens + elapsed * f64::from(FRAME_RATE)).min(f64::from(FRAME_BURST));
        self.tokens -= cost(payload_len);
        self.tokens >= 0.0
    }

    /// A message of this length is none of the peer's own.
    fn give_back(&mut self, payload_len: usize) {
        self.tokens = (self.tokens + cost(payload_len)).min(f64::from(FRAME_BURST));
    }
}

fn cost(payload_len: usize) -> f64 {
    1.0 + payload_len as f64 / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_allows_a_steady_rate_and_ends_a_flood() {
        let start = Now::read().instant;
        let mut budget = FrameBudget::new(start);
        for i in 0..10 * FRAME_RATE {
            assert!(budget.take(start + Duration::from_secs(1) * i / FRAME_RATE * 2, 0), "frame {i}");
        }
        let mut budget = FrameBudget::new(start);
        assert_eq!((0..).take_while(|_| budget.take(start, 0)).count(), FRAME_BURST as usize);
        assert!(!FrameBudget::new(start).take(start, FRAME_BURST as usize * 1024));
        // What the server asked for costs nothing, however long.
        let mut budget = FrameBudget::new(start);
        for _ in 0..FRAME_BURST {
            assert!(budget.take(start, 20 * 1024));
            budget.give_back(20 * 1024);
        }
    }
}
