//! One member of a room: a task with a WebSocket, a UDP port and an [`Rtc`], from one session to the next.

#[path = "expected.rs"]
mod expected;

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use serde_json::Value;
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpPacket;
use str0m::{Candidate, Event, Input, Output, Rtc};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::line::{Arrival, Line};
use super::sent_times::{SentTimes, Speakers};
use super::signalling::{Dialect, Signalling};
use super::speech::MuteCycle;
use super::stamp::Stamp;
use super::support::now;
use super::support::socket::Socket;
use super::tally::{Counts, Tally};
use super::udp::{BATCH_LEN, Batch, Clocks, Port, local_ip};
use super::voice::Voice;
use super::voice_file::VoicePacket;
use super::wire::{self, FromServer, close_meaning, say, shown};

/// SSRCs that one server may send to one member.
const LINE_COUNT_MAX: usize = 512;
/// Candidates that one server may name to one member.
const CANDIDATE_COUNT_MAX: usize = 64;
/// Batches that are read before others get their turn.
const BATCHES_MAX: usize = 4;
/// How often a light member looks into its socket. Its buffer holds far more than comes meanwhile.
const DRAIN_EVERY: Duration = Duration::from_millis(50);
/// How often one that is to hear no voices does.
const DEAF_DRAIN_EVERY: Duration = Duration::from_millis(500);
/// A light member that hears nothing is woken by datagrams for so long.
const AWAKE_MAX: Duration = Duration::from_secs(3);
/// Until a server that was told `leave` has closed.
const LEAVING_MAX: Duration = Duration::from_secs(1);

thread_local! {
    static BATCH: RefCell<Batch> = RefCell::new(Batch::new());
}

/// Where the server is.
pub(crate) struct Target {
    pub(crate) url: String,
    pub(crate) address: SocketAddr,
    /// For wss://: whom to trust.
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

/// What a member does.
pub(crate) struct Plan {
    /// Among all members.
    pub(crate) index: usize,
    pub(crate) target: Arc<Target>,
    pub(crate) room: String,
    /// The room's, among all rooms.
    pub(crate) room_number: u32,
    pub(crate) user: String,
    pub(crate) dialect: Dialect,
    /// In its room.
    pub(crate) speakers: usize,
    /// What it says; `None` listens only.
    pub(crate) voice: Option<Arc<[VoicePacket]>>,
    /// Of the packet interval: when in it this voice sends, counted from [`House::epoch`].
    pub(crate) phase: Duration,
    /// Talks in spurts.
    pub(crate) with_pauses: bool,
    pub(crate) mute: Option<MuteCycle>,
    /// Decrypts few packets.
    pub(crate) light: bool,
    /// Of the others; not so who only publishes.
    pub(crate) is_sent_voices: bool,
    /// Once it has heard somebody, it goes on hearing.
    pub(crate) hears: bool,
    /// Voices that the server sends to one client at most.
    pub(crate) slots: usize,
    /// From join to connected.
    pub(crate) patience: Duration,
    pub(crate) seed: u64,
}

/// What the members of a thread share.
pub(crate) struct House {
    pub(crate) tally: Tally,
    pub(crate) speakers: Arc<Speakers>,
    pub(crate) news: mpsc::UnboundedSender<News>,
    /// Times of this process are counted from here.
    pub(crate) epoch: Instant,
}

impl House {
    pub(crate) fn nanos(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.epoch).as_nanos() as u64
    }

    fn tell(&self, news: News) {
        let _ = self.news.send(news); // Nobody listens when the run is over.
    }
}

/// What a member is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Leaves and joins again.
    Rejoin,
    /// Says no more.
    Hush,
    /// Settles what it heard and did not hear.
    Count,
    /// Leaves for good.
    Finish,
}

/// What a member tells.
#[derive(Debug)]
pub(crate) enum News {
    Connected {
        index: usize,
        after: Duration,
    },
    FirstAudio {
        after: Duration,
    },
    /// It never was connected.
    Failed {
        index: usize,
        why: String,
    },
    /// It was.
    Lost {
        index: usize,
        why: String,
    },
    Counted,
    Ended,
}

enum End {
    Rejoin,
    Finish,
    /// The server's or the network's doing.
    Broken(String),
}

/// Lives from the first join to [`Order::Finish`].
pub(crate) async fn run(plan: Plan, house: Arc<House>, mut orders: mpsc::UnboundedReceiver<Order>) {
    loop {
        let started = now();
        let open = Session::open(&plan, &house, started);
        let session = tokio::time::timeout(plan.patience, open).await;
        let (end, was_connected) = match session {
            Ok(Ok(mut session)) => (session.run(&mut orders).await, session.connected_at.is_some()),
            Ok(Err(why)) => (End::Broken(why), false),
            Err(_) => (End::Broken("the server does not answer".into()), false),
        };
        match end {
            End::Rejoin => continue,
            End::Finish => break,
            End::Broken(why) => house.tell(if was_connected {
                News::Lost { index: plan.index, why }
            } else {
                News::Failed { index: plan.index, why }
            }),
        }
        // Out of the game until it is told otherwise.
        loop {
            match orders.recv().await {
                Some(Order::Rejoin) => break,
                Some(Order::Hush) => {}
                Some(Order::Count) => house.tell(News::Counted),
                Some(Order::Finish) | None => return house.tell(News::Ended),
            }
        }
    }
    house.tell(News::Ended);
}

struct Session<'a> {
    plan: &'a Plan,
    house: &'a Arc<House>,
    started: Instant,
    socket: Socket,
    signalling: Signalling,
    rtc: Rtc,
    port: Port,
    local: SocketAddr,
    pending: Option<SdpPendingOffer>,
    mid: Option<Mid>,
    timeout: Instant,
    drain_at: Option<Instant>,
    connected_at: Option<Instant>,
    stage: &'static str,
    voice: Option<Voice>,
    lines: HashMap<u32, Line>,
    heard: HashMap<u32, Arc<SentTimes>>,
    /// What speakers had sent already when this session began to listen.
    before: HashMap<u32, u32>,
    candidate_count: usize,
    dropped: u32,
    has_heard: bool,
    /// The packet that was just decrypted: what its payload says.
    looked: Option<Stamp>,
    /// What the server said when it refused.
    refusal: Option<String>,
    /// Why the session cannot go on.
    broken: Option<String>,
}

impl<'a> Session<'a> {
    async fn open(plan: &'a Plan, house: &'a Arc<House>, started: Instant) -> Result<Session<'a>, String> {
        let limits = Some(wire::socket_limits());
        let signalling = Signalling::new(plan);
        let (address, url, tls) = (plan.target.address, &plan.target.url, plan.target.tls.as_ref());
        let socket = Socket::open_url(address, url, signalling.subprotocol(), limits, tls).await;
        let mut socket = socket.map_err(|error| match error {
            Error::Http(answer) => format!("no WebSocket there: HTTP status {}", answer.status().as_u16()),
            Error::Io(error) => format!("no connection: {error}"),
            other => format!("no WebSocket there: {}", shown(&other.to_string())),
        })?;
        say(&mut socket, &signalling.opening()).await?;

        let ip = local_ip(plan.target.address).map_err(|error| format!("no route: {error}"))?;
        let port = Port::bind(ip).map_err(|error| format!("no UDP port: {error}"))?;
        let local = port.local_addr().map_err(|error| format!("no UDP port: {error}"))?;
        let mut rtc = Rtc::builder().set_rtp_mode(true).clear_codecs().enable_opus(true, false).build(now());
        let candidate = Candidate::host(local, "udp").map_err(|error| format!("{local}: {error}"))?;
        rtc.add_local_candidate(candidate);
        Ok(Session {
            plan,
            house,
            started,
            socket,
            signalling,
            rtc,
            port,
            local,
            pending: None,
            mid: None,
            timeout: now(),
            drain_at: None,
            connected_at: None,
            stage: "the server does not let us in",
            voice: None,
            lines: HashMap::new(),
            heard: HashMap::new(),
            before: HashMap::new(),
            candidate_count: 0,
            dropped: 0,
            has_heard: false,
            looked: None,
            refusal: None,
            broken: None,
        })
    }

    async fn run(&mut self, orders: &mut mpsc::UnboundedReceiver<Order>) -> End {
        loop {
            self.drain();
            if let Some(why) = self.broken.take() {
                return End::Broken(why);
            }
            let wake_at = self.wake_at();
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Hush) => self.voice.iter_mut().for_each(|voice| voice.hushed = true),
                    Some(Order::Count) => self.settle(),
                    Some(Order::Rejoin) => {
                        self.leave().await;
                        return End::Rejoin;
                    }
                    Some(Order::Finish) | None => {
                        self.leave().await;
                        return End::Finish;
                    }
                },
                message = self.socket.next() => self.handle_message(message).await,
                () = self.port.readable() => self.receive(),
                () = wait(self.voice.as_mut(), wake_at) => self.handle_timeout().await,
            }
        }
    }

    fn wake_at(&self) -> Instant {
        let mut at = self.drain_at.unwrap_or(self.timeout);
        if self.connected_at.is_none() {
            at = at.min(self.started + self.plan.patience);
        }
        if let Some(next_at) = self.voice.as_ref().and_then(Voice::wake_at) {
            at = at.min(next_at);
        }
        self.signalling.wake_at().map_or(at, |wake_at| at.min(wake_at))
    }

    async fn handle_timeout(&mut self) {
        let time = now();
        if self.connected_at.is_none() && time >= self.started + self.plan.patience {
            let stage = self.signalling.waits_for().unwrap_or(self.stage);
            self.broken = Some(self.refusal.take().unwrap_or_else(|| stage.to_owned()));
            return;
        }
        if let Some(message) = self.signalling.due(time) {
            self.tell(&message).await;
        }
        self.turn_microphone(time).await;
        self.speak(time);
        if let Some(drain_at) = self.drain_at.filter(|&at| at <= time) {
            // Never twice at once, however late.
            self.drain_at = Some((drain_at + self.drain_every()).max(time));
            self.receive();
        }
        if self.timeout <= time {
            self.input(Input::Timeout(time));
        }
        self.sleep_if_light(time);
    }

    /// A light member that is well connected is no longer woken by datagrams.
    fn sleep_if_light(&mut self, time: Instant) {
        let Some(connected_at) = self.connected_at.filter(|_| self.plan.light && self.drain_at.is_none())
        else {
            return;
        };
        if self.has_heard || time > connected_at + AWAKE_MAX {
            let deafened = if self.plan.hears { Ok(()) } else { self.port.deafen() };
            match deafened.and_then(|()| self.port.sleep()) {
                Ok(()) => self.drain_at = Some(time + self.drain_every()),
                Err(error) => self.broken = Some(format!("no UDP port: {error}")),
            }
        }
    }

    fn drain_every(&self) -> Duration {
        if self.plan.hears { DRAIN_EVERY } else { DEAF_DRAIN_EVERY }
    }

    async fn turn_microphone(&mut self, time: Instant) {
        let Some((voice, connected_at)) = self.voice.as_mut().zip(self.connected_at) else { return };
        let muted = voice.turn_microphone(self.plan, connected_at, time);
        if let Some(message) = muted.and_then(|muted| self.signalling.muted(muted)) {
            self.tell(&message).await;
        }
    }

    fn speak(&mut self, time: Instant) {
        let (Some(voice), Some(mid)) = (&mut self.voice, self.mid) else { return };
        if !voice.is_due(time) {
            return;
        }
        let Some(pt) = payload_type(&self.rtc, mid) else {
            self.broken = Some("the server negotiated a payload type that was not offered".into());
            return;
        };
        let mut api = self.rtc.direct_api();
        let Some(stream) = api.stream_tx_by_mid(mid, None) else { return };
        let (packet, sent_at) = voice.next_packet(pt);
        stream.write_rtp(packet);
        self.house.tally.change(|counts| counts.sent += 1);
        self.drain();
        self.input(Input::Timeout(sent_at));
    }

    fn input(&mut self, input: Input<'_>) {
        if let Err(error) = self.rtc.handle_input(input) {
            self.broken = Some(format!("media: {}", shown(&error.to_string())));
        }
        self.drain();
    }

    /// Everything str0m wants, up to its next timeout.
    fn drain(&mut self) {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    self.timeout = at;
                    return;
                }
                Ok(Output::Transmit(transmit)) => {
                    if let Some(voice) =
                        self.voice.as_ref().filter(|_| rtp_header(&transmit.contents).is_some())
                    {
                        voice.leaves();
                    }
                    self.port.send(&transmit.contents, transmit.destination);
                }
                Ok(Output::Event(Event::Connected)) => self.handle_connected(),
                Ok(Output::Event(Event::RtpPacket(packet))) => self.looked = self.stamp_of(&packet),
                Ok(Output::Event(Event::Closed)) => self.broken = Some("the server ended the media".into()),
                Ok(Output::Event(_)) => {}
                Err(error) => {
                    self.broken = Some(format!("media: {}", shown(&error.to_string())));
                    self.timeout = now() + Duration::from_secs(1);
                    return;
                }
            }
        }
    }

    fn stamp_of(&self, packet: &RtpPacket) -> Option<Stamp> {
        Stamp::of(&packet.payload)
    }

    fn handle_connected(&mut self) {
        let time = now();
        if self.connected_at.is_some() {
            return;
        }
        self.connected_at = Some(time);
        let after = time - self.started;
        self.house.tell(News::Connected { index: self.plan.index, after });
        self.before = self.house.speakers.in_room(self.plan.room_number).into_iter().collect();
        let Some(packets) = &self.plan.voice else { return };
        match Voice::new(self.plan, packets, self.house, time) {
            Ok(voice) => self.voice = Some(voice),
            Err(error) => self.broken = Some(format!("no timer: {error}")),
        }
    }

    fn receive(&mut self) {
        BATCH.with_borrow_mut(|batch| {
            for _ in 0..BATCHES_MAX {
                let count = self.port.receive(batch);
                let (clocks, house) = (Clocks::read(), self.house);
                house.tally.change(|counts| {
                    (0..count).for_each(|i| self.handle_datagram(batch, i, clocks, counts));
                });
                if count < BATCH_LEN {
                    return;
                }
            }
        });
    }

    fn handle_datagram(&mut self, batch: &Batch, i: usize, clocks: Clocks, counts: &mut Counts) {
        let Some(datagram) = batch.datagram(i) else {
            counts.unreadable += 1;
            return;
        };
        // From a deaf one the kernel keeps what it counts as dropped.
        if let Some(dropped) = datagram.dropped.filter(|_| self.plan.hears) {
            counts.overflowed += u64::from(dropped.wrapping_sub(self.dropped));
            self.dropped = dropped;
        }
        let Some((ssrc, seq, marker)) = rtp_header(datagram.bytes) else {
            return self.feed(batch, i, datagram.bytes, clocks.instant);
        };
        let age = datagram.arrived_at.map_or(0, |at| clocks.since(at));
        let has_room = self.lines.len() < LINE_COUNT_MAX;
        let (arrival, index) = match self.lines.get_mut(&ssrc) {
            Some(line) => line.note(seq),
            None if has_room => {
                let line = Line::new(seq);
                let newest = line.index();
                self.lines.insert(ssrc, line);
                (Arrival::Newest { missing: 0 }, newest)
            }
            None => {
                counts.unreadable += 1;
                return;
            }
        };
        match arrival {
            Arrival::Newest { missing } => counts.missing += missing.cast_signed(),
            Arrival::Late => counts.missing -= 1,
            Arrival::Double => {
                counts.doubles += 1;
                return;
            }
        }
        counts.received += 1;
        if !self.has_heard {
            self.has_heard = true;
            let arrived = clocks.instant.checked_sub(Duration::from_nanos(age)).unwrap_or(clocks.instant);
            self.house.tell(News::FirstAudio { after: arrived.saturating_duration_since(self.started) });
        }
        let Some(line) = self.lines.get_mut(&ssrc) else { return };
        if marker {
            line.forget(); // Perhaps another speaker.
        }
        let arrived_at = self.house.nanos(clocks.instant).saturating_sub(age);
        let sent_at = if !self.plan.light || line.wants_look() {
            self.look(batch, i, datagram.bytes, clocks.instant, ssrc, index, counts)
        } else {
            line.packet_at(index).and_then(|(sender, counter)| self.heard.get(&sender)?.time_of(counter))
        };
        if let Some(sent_at) = sent_at {
            counts.latency.record(arrived_at.saturating_sub(sent_at) / 1_000);
        }
    }

    /// Decrypts a packet: when it was sent, on the clock of this process.
    #[expect(clippy::too_many_arguments, reason = "the parts of one datagram, taken apart by its one caller")]
    fn look(
        &mut self,
        batch: &Batch,
        i: usize,
        bytes: &[u8],
        time: Instant,
        ssrc: u32,
        index: u64,
        counts: &mut Counts,
    ) -> Option<u64> {
        self.looked = None;
        self.feed(batch, i, bytes, time);
        let Some(stamp) = self.looked.take() else {
            counts.unreadable += 1;
            return None;
        };
        if !self.heard.contains_key(&stamp.sender)
            && let Some(times) = self.house.speakers.get(stamp.sender)
        {
            counts.missing += i64::from(self.missed_before(stamp.sender, stamp.counter));
            self.heard.insert(stamp.sender, times);
        }
        self.lines.get_mut(&ssrc)?.identify(index, stamp.sender, stamp.counter);
        // Another run's speaker counts by another clock. The stamp was sealed, and that took its time.
        self.heard.get(&stamp.sender).map(|times| times.time_of(stamp.counter).unwrap_or(stamp.sent_at))
    }

    /// Hands a datagram to str0m.
    fn feed(&mut self, batch: &Batch, i: usize, bytes: &[u8], time: Instant) {
        let (Some(source), Ok(contents)) = (batch.source(i), bytes.try_into()) else { return };
        let destination = self.local;
        self.input(Input::Receive(time, Receive { proto: Protocol::Udp, source, destination, contents }));
    }

    async fn tell(&mut self, message: &Value) {
        if let Err(why) = say(&mut self.socket, message).await {
            self.broken = Some(why);
        }
    }

    async fn leave(&mut self) {
        let _ = say(&mut self.socket, &self.signalling.leave()).await; // It is over in any case.
        if !self.signalling.is_closed_after_leave() {
            return;
        }
        let closes = async { while self.socket.next().await.is_ok() {} };
        let _ = tokio::time::timeout(LEAVING_MAX, closes).await; // One that does not close is left all the same.
    }

    async fn handle_message(&mut self, message: Result<Message, Error>) {
        match message {
            Ok(Message::Text(text)) => match self.signalling.hear(&text, now()) {
                Ok((message, reply)) => {
                    if let Some(reply) = reply {
                        self.tell(&reply).await;
                    }
                    if let Err(why) = self.obey(message).await {
                        self.broken = Some(why);
                    }
                }
                Err(why) => self.broken = Some(why),
            },
            Ok(Message::Close(frame)) => {
                let closed = frame.map_or("closed without a code".into(), |frame| {
                    let code = u16::from(frame.code);
                    format!("closed with {code}{}", close_meaning(code))
                });
                self.broken = Some(match self.refusal.take() {
                    Some(refusal) => format!("refused: {refusal} ({closed})"),
                    None => format!("the server {closed}"),
                });
            }
            Ok(_) => {}
            Err(error) => {
                let error = shown(&error.to_string());
                self.broken = Some(self.refusal.take().unwrap_or(format!("the WebSocket broke: {error}")));
            }
        }
    }

    async fn obey(&mut self, message: FromServer) -> Result<(), String> {
        match message {
            FromServer::Joined if self.mid.is_none() => self.offer().await?,
            FromServer::Refused(what) => {
                self.refusal.get_or_insert(what);
            }
            FromServer::Offer(sdp) => self.answer(&sdp).await?,
            FromServer::Answer(sdp) => {
                let pending = self.pending.take().ok_or("an answer to nothing")?;
                let answer = SdpAnswer::from_sdp_string(&sdp).map_err(|error| bad_sdp(&error))?;
                self.rtc.sdp_api().accept_answer(pending, answer).map_err(|error| bad_sdp(&error))?;
                self.stage = "no media: ICE or DTLS did not get through by UDP";
                // Else its checks begin at its next timeout, up to a second later.
                self.input(Input::Timeout(now()));
            }
            FromServer::Candidate(text) if self.candidate_count < CANDIDATE_COUNT_MAX => {
                self.candidate_count += 1;
                // One that cannot be read cannot be used.
                if let Ok(candidate) = Candidate::from_sdp_string(&text) {
                    self.rtc.add_remote_candidate(candidate);
                    self.input(Input::Timeout(now()));
                }
            }
            FromServer::Slots => self.lines.values_mut().for_each(Line::forget),
            FromServer::Joined | FromServer::Candidate(_) | FromServer::Other => {}
        }
        Ok(())
    }

    async fn offer(&mut self) -> Result<(), String> {
        self.stage = "the server does not answer our offer";
        let mut api = self.rtc.sdp_api();
        let direction = match (self.plan.voice.is_some(), self.plan.is_sent_voices) {
            (true, true) => Direction::SendRecv,
            (true, false) => Direction::SendOnly,
            (false, _) => Direction::RecvOnly,
        };
        let mid = api.add_media(MediaKind::Audio, direction, Some("voice".into()), None, None);
        let (offer, pending) = api.apply().ok_or("there is nothing to offer")?;
        self.mid = Some(mid);
        self.pending = Some(pending);
        let offer = self.signalling.offer(&offer.to_sdp_string());
        say(&mut self.socket, &offer).await
    }

    async fn answer(&mut self, sdp: &str) -> Result<(), String> {
        // RFC 8842 §5.3: who answers should be active, as browsers are; str0m would be passive.
        let sdp = sdp.replace("a=setup:actpass", "a=setup:passive");
        let offer = SdpOffer::from_sdp_string(&sdp).map_err(|error| bad_sdp(&error))?;
        let answer = self.rtc.sdp_api().accept_offer(offer).map_err(|error| bad_sdp(&error))?;
        self.lines.values_mut().for_each(Line::forget);
        let answer = self.signalling.answer(&answer.to_sdp_string());
        say(&mut self.socket, &answer).await
    }
}

/// A voice keeps time; for all else milliseconds do.
async fn wait(voice: Option<&mut Voice>, at: Instant) {
    match voice {
        Some(voice) => voice.wait(at).await,
        None => tokio::time::sleep_until(at.into()).await,
    }
}

fn bad_sdp(error: &impl std::fmt::Display) -> String {
    format!("the server's description: {}", shown(&error.to_string()))
}

/// The payload type that both sides have for Opus.
fn payload_type(rtc: &Rtc, mid: Mid) -> Option<str0m::media::Pt> {
    let pt = rtc.media(mid)?.remote_pts().first().copied()?;
    rtc.codec_config().params().iter().map(|params| params.pt()).find(|&ours| ours == pt)
}

/// SSRC, sequence number and marker of an RTP packet (RFC 3550 §5.1); `None` of anything else (RFC 7983, RFC 5761 §4).
fn rtp_header(datagram: &[u8]) -> Option<(u32, u16, bool)> {
    let header: &[u8; 12] = datagram.first_chunk()?;
    let is_rtcp = (192..=223).contains(&header[1]);
    if header[0] >> 6 != 2 || is_rtcp {
        return None;
    }
    let ssrc = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
    Some((ssrc, u16::from_be_bytes([header[2], header[3]]), header[1] & 0x80 != 0))
}
