//! The member itself: a task that owns a WebSocket, a UDP socket and an [`Rtc`], and obeys.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{ExtensionValues, RtpPacket, RtpWrite};
use str0m::{Candidate, Event, Input, Output, Rtc};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::super::frame::{FRAME_TICKS, Frame, nanos};
use super::super::now;
use super::super::sdp::{Description, candidate_address};
use super::super::socket::Socket;
use super::state::{Heard, Shared, State};
use super::{Glare, Options, Played};

pub(super) enum Order {
    Speak(Voice),
    Play(Played),
    Hush,
    Send(Message),
    RestartIce,
    Rebind,
    Move,
    Inject(Vec<u8>),
    LoseSocket,
    UseToken(Option<String>),
    Resume,
}

pub(super) struct Join {
    pub(super) server: SocketAddr,
    pub(super) room: String,
    pub(super) user: String,
    pub(super) info: Value,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    Media,
    /// One more m-line to listen on.
    Line,
    RestartIce,
    MovePort,
}

pub(super) struct Voice {
    pub(super) level: u8,
    pub(super) every: Duration,
    pub(super) next_at: Instant,
}

pub(super) struct Member {
    id: u32,
    join: Join,
    options: Options,
    shared: Arc<Shared>,
    socket: Option<Socket>,
    rtc: Rtc,
    udp: UdpSocket,
    /// Where ICE believes that we are; elsewhere than `udp` after a rebinding.
    local: SocketAddr,
    pending: Option<(SdpPendingOffer, Wish)>,
    wish: Option<Wish>,
    collided: bool,
    mid: Option<Mid>,
    voice: Option<Voice>,
    seq: u64,
    timestamp: u32,
    counter: u32,
    timeout: Instant,
}

impl Member {
    pub(super) async fn new(id: u32, join: Join, options: Options, shared: Arc<Shared>) -> Member {
        let udp = bind_udp(join.server, options.bind).await;
        let local = udp.local_addr().expect("bound");
        shared.change(|state| state.address = Some(local));
        let mut config = Rtc::builder().set_rtp_mode(true).clear_codecs().enable_opus(true, false);
        if let Some(interval) = options.check_every {
            config.set_max_stun_rto(interval);
        }
        let mut rtc = config.build(now());
        if !options.trickle {
            rtc.add_local_candidate(Candidate::host(local, "udp").expect("a host address"));
        }
        let seq = u64::from(options.first_seq);
        let socket = None;
        let mut member = Member {
            id,
            join,
            options,
            shared,
            socket,
            rtc,
            udp,
            local,
            pending: None,
            wish: None,
            collided: false,
            mid: None,
            voice: None,
            seq,
            timestamp: id.wrapping_mul(0x1234_5677),
            counter: 0,
            timeout: now(),
        };
        member.open(None).await;
        member
    }

    async fn open(&mut self, resume: Option<String>) {
        match Socket::open(self.join.server, "/").await {
            Ok(socket) => self.socket = Some(socket),
            Err(error) => return self.shared.fault(format!("no WebSocket: {error}")),
        }
        let mut data = json!({"roomId": self.join.room, "userId": self.join.user});
        for (key, value) in [("token", self.options.token.clone()), ("resume", resume)] {
            if let Some(value) = value {
                data[key] = value.into();
            }
        }
        if !self.join.info.is_null() {
            data["userInfo"] = self.join.info.clone();
        }
        self.say("join", data).await;
    }

    pub(super) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        loop {
            self.drain();
            let wake_at = self.voice.as_ref().map_or(self.timeout, |voice| voice.next_at.min(self.timeout));
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.obey(order).await,
                    None => return,
                },
                message = next_message(&mut self.socket) => self.handle_message(message).await,
                _ = self.udp.readable() => self.receive(),
                () = tokio::time::sleep_until(wake_at.into()) => self.handle_timeout(),
            }
        }
    }

    fn handle_timeout(&mut self) {
        let time = now();
        if let Some(voice) = &mut self.voice
            && voice.next_at <= time
        {
            voice.next_at += voice.every;
            self.send_frame();
        }
        if self.timeout <= time {
            self.input(Input::Timeout(time));
        }
    }

    fn input(&mut self, input: Input<'_>) {
        if let Err(error) = self.rtc.handle_input(input)
            && !self.options.lies
        {
            self.shared.fault(format!("str0m: {error}"));
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
                    if transmit.contents.first().is_some_and(|first| (128..192).contains(first)) {
                        self.shared.state().media = Some(transmit.destination);
                        if transmit.contents[1] & 0x7F < 64 || transmit.contents[1] & 0x7F > 95 {
                            self.shared.state().last_rtp = transmit.contents.to_vec();
                        }
                    }
                    (self.options.outgoing)(&transmit.contents);
                    // A candidate pair that cannot work, or a full buffer: a datagram may be lost.
                    let _ = self.udp.try_send_to(&transmit.contents, transmit.destination);
                }
                Ok(Output::Event(event)) => self.handle_event(event),
                Err(error) => {
                    // A liar is told so by the server.
                    if !self.options.lies {
                        self.shared.fault(format!("str0m: {error}"));
                    }
                    self.timeout = now() + Duration::from_secs(1);
                    return;
                }
            }
        }
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Connected => self.shared.change(|state| state.connected = true),
            Event::IceConnectionStateChange(ice) => self.shared.change(|state| state.ice = Some(ice)),
            Event::RtpPacket(packet) => self.hear(&packet),
            Event::Closed => self.shared.change(|state| state.connected = false),
            _ => {}
        }
    }

    fn hear(&mut self, packet: &RtpPacket) {
        let ssrc = packet.header.ssrc;
        let mid = self.rtc.direct_api().stream_rx(&ssrc).map(|stream| stream.mid().to_string());
        let frame = Frame::from_payload(&packet.payload);
        let keeps = self.options.keeps;
        self.shared.change(|state| {
            let (Some(mid), Some(frame)) = (mid, frame) else {
                state.broken += 1;
                return;
            };
            *state.counts.entry(frame.sender).or_default() += 1;
            let latency = Duration::from_nanos(nanos().saturating_sub(frame.sent_at));
            if !keeps {
                state.latencies.push(latency.as_micros() as u32);
            } else {
                let carries = state.carries(&mid);
                state.heard.push(Heard {
                    frame,
                    mid,
                    carries,
                    ssrc: *ssrc,
                    seq: *packet.seq_no,
                    timestamp: packet.header.timestamp,
                    marker: packet.header.marker,
                    level: packet.header.ext_vals.audio_level.map(i8::unsigned_abs),
                    latency,
                });
            }
        });
    }

    fn receive(&mut self) {
        let mut buffer = [0; 2000];
        // As many as are there, within bounds: the WebSocket wants its turn, too.
        for _ in 0..64 {
            let Ok((len, source)) = self.udp.try_recv_from(&mut buffer) else { return };
            let bytes = &buffer[..len];
            if !(self.options.incoming)(bytes) {
                continue;
            }
            let Ok(contents) = bytes.try_into() else { continue };
            let destination = self.local;
            self.input(Input::Receive(
                now(),
                Receive { proto: Protocol::Udp, source, destination, contents },
            ));
        }
    }

    fn send_frame(&mut self) {
        let Some(level) = self.voice.as_ref().map(|voice| voice.level) else { return };
        let payload = Frame::new(self.id, self.counter).to_payload();
        let ext_vals = ExtensionValues {
            audio_level: Some(-(level as i8)),
            voice_activity: Some(level < 127),
            ..ExtensionValues::default()
        };
        if self.write_rtp(payload.to_vec(), ext_vals, self.counter == 0) {
            self.seq += 1;
            self.counter += 1;
            self.timestamp = self.timestamp.wrapping_add(FRAME_TICKS);
            let counter = self.counter;
            self.shared.change(|state| state.sent = counter);
        }
    }

    fn play(&mut self, played: Played) {
        self.seq = self.seq.saturating_add_signed(played.seq_step.into());
        self.timestamp = self.timestamp.wrapping_add(played.ticks);
        let ext_vals = ExtensionValues {
            audio_level: played.level.map(|level| -((level & 0x7F) as i8)),
            voice_activity: played.level.map(|level| level & 0x80 != 0),
            ..ExtensionValues::default()
        };
        self.write_rtp(played.payload, ext_vals, played.marker);
    }

    /// Sends a packet at the present place of our stream, once there is one.
    fn write_rtp(&mut self, payload: Vec<u8>, ext_vals: ExtensionValues, marker: bool) -> bool {
        let Some(mid) = self.mid.filter(|_| self.shared.state().connected) else { return false };
        let Some(pt) = self.rtc.media(mid).and_then(|media| media.remote_pts().first().copied()) else {
            return false;
        };
        let Some(codec) = self.rtc.codec_config().params().iter().find(|params| params.pt() == pt) else {
            self.shared.fault(format!("the server negotiated payload type {pt}, which we did not offer"));
            return false;
        };
        let (pt, time) = (codec.pt(), now());
        let mut api = self.rtc.direct_api();
        let Some(stream) = api.stream_tx_by_mid(mid, None) else { return false };
        let write = RtpWrite::new(pt, self.seq.into(), self.timestamp, time, payload);
        stream.write_rtp(write.ext_vals(ext_vals).marker(marker));
        self.drain();
        self.input(Input::Timeout(time));
        true
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Speak(voice) => self.voice = Some(voice),
            Order::Play(played) => self.play(played),
            Order::Hush => self.voice = None,
            Order::Send(message) => self.send(message).await,
            Order::RestartIce => self.offer(Wish::RestartIce).await,
            Order::Move => self.offer(Wish::MovePort).await,
            Order::Rebind => {
                self.udp = bind_udp(self.join.server, self.options.bind).await;
                let address = self.udp.local_addr().ok();
                let (check, target) = self.shared.change(|state| {
                    state.address = address;
                    (state.binding_request(true), state.media)
                });
                if let Some(target) = target {
                    // str0m checks every few seconds; we are not that patient.
                    let _ = self.udp.try_send_to(&check, target);
                }
            }
            Order::Inject(datagram) => {
                let target = self.shared.state().media;
                if let Some(target) = target {
                    let _ = self.udp.try_send_to(&datagram, target);
                }
            }
            Order::LoseSocket => self.socket = None,
            Order::UseToken(token) => self.options.token = token,
            Order::Resume => {
                let last = |state: &State| {
                    let given = state.events("joined", 0).filter_map(|joined| joined["resume"].as_str());
                    given.last().map(str::to_owned)
                };
                let token = last(&self.shared.state());
                self.open(token).await;
            }
        }
    }

    async fn handle_message(&mut self, message: Result<Message, Error>) {
        match message {
            Ok(Message::Text(text)) => self.handle_text(&text).await,
            Ok(Message::Binary(_)) => self.shared.fault("a binary message".into()),
            Ok(Message::Close(frame)) => {
                let how = frame.map_or((1005, String::new()), |f| (f.code.into(), f.reason.to_string()));
                self.shared.change(|state| state.closed = Some(how));
            }
            Ok(_) => {}
            Err(error) => {
                self.socket = None;
                self.shared.change(|state| state.closed.get_or_insert((1006, error.to_string())).0);
            }
        }
    }

    async fn handle_text(&mut self, text: &str) {
        let Ok(Value::Object(envelope)) = serde_json::from_str(text) else {
            return self.shared.fault(format!("not an envelope: {text}"));
        };
        let (event, data) = (envelope.get("event").and_then(Value::as_str), envelope.get("data"));
        let (Some(event), Some(data)) = (event, data.filter(|data| data.is_object())) else {
            return self.shared.fault(format!("not an event with an object: {text}"));
        };
        self.shared.change(|state| {
            if let ("slots", Some(slots)) = (event, data.as_object()) {
                let told = slots.iter().map(|(mid, user)| (mid.clone(), user.as_str().map(str::to_owned)));
                state.slots.extend(told);
            }
            state.messages.push((event.to_owned(), data.clone()));
        });
        match event {
            "joined" if data["success"] == true && self.options.offers && self.mid.is_none() => {
                self.offer(Wish::Media).await;
            }
            "offer" => self.handle_offer(data["sdp"].as_str().unwrap_or_default()).await,
            "answer" => self.handle_answer(data["sdp"].as_str().unwrap_or_default()).await,
            "ice-candidate" => self.handle_candidate(data["candidate"].as_str().unwrap_or_default()),
            "error" if data["code"] == "glare" => self.offer_again().await,
            _ => {}
        }
    }

    async fn offer(&mut self, wish: Wish) {
        if self.pending.is_some() {
            self.wish = Some(wish);
            return;
        }
        let mut api = self.rtc.sdp_api();
        match wish {
            Wish::Media => {
                let direction = if self.options.publish { Direction::SendRecv } else { Direction::RecvOnly };
                let mid = api.add_media(MediaKind::Audio, direction, Some("voice".into()), None, None);
                self.mid = Some(mid);
            }
            Wish::Line => drop(api.add_media(MediaKind::Audio, Direction::RecvOnly, None, None, None)),
            Wish::RestartIce => drop(api.ice_restart(true)),
            Wish::MovePort => drop(api.ice_restart(false)),
        }
        let (offer, pending) = api.apply().expect("there is something to offer");
        self.pending = Some((pending, wish));
        let sdp = self.as_told(offer.to_sdp_string());
        self.shared.change(|state| state.local = Description::parse(&sdp));
        self.say("offer", json!({"type": "offer", "sdp": sdp})).await;
        if self.options.trickle && wish == Wish::Media {
            let candidate = Candidate::host(self.local, "udp").expect("a host address");
            let text = candidate.to_sdp_string();
            self.rtc.add_local_candidate(candidate);
            let text = text.trim_start_matches("a=");
            let mid = self.mid.map(|mid| mid.to_string());
            self.say("ice-candidate", json!({"candidate": text, "sdpMid": mid, "sdpMLineIndex": 0})).await;
            self.say("ice-candidate", json!({"candidate": "", "sdpMid": mid, "sdpMLineIndex": 0})).await;
        }
    }

    async fn offer_again(&mut self) {
        if let Some(wish) = self.wish.take() {
            self.offer(wish).await;
        }
    }

    async fn handle_offer(&mut self, sdp: &str) {
        if self.options.glare != Glare::Never && !self.collided {
            // Our offer crosses theirs on the way. Once.
            self.collided = true;
            let restarts = self.options.glare == Glare::RestartsIce;
            self.offer(if restarts { Wish::RestartIce } else { Wish::Line }).await;
        }
        if self.options.glare == Glare::Stubborn && self.pending.is_some() {
            return;
        }
        self.learn(sdp);
        // RFC 8842 §5.3: who answers should be active, as browsers are; str0m would be passive.
        let sdp = &sdp.replace("a=setup:actpass", "a=setup:passive");
        let answer = SdpOffer::from_sdp_string(sdp).and_then(|offer| self.accept_offer(offer));
        match answer {
            Ok(answer) => {
                let answer = self.as_told(answer);
                self.shared.change(|state| state.local = Description::parse(&answer));
                self.say("answer", json!({"type": "answer", "sdp": answer})).await;
                self.shared.change(|state| state.answered += 1);
                if let Some((_, wish)) = self.pending.take() {
                    // Rolled back by str0m. The server says `glare` when it has waited for us.
                    self.wish = Some(wish);
                    if self.options.glare == Glare::RestartsIce {
                        self.offer_again().await;
                    }
                }
            }
            Err(error) => self.shared.fault(format!("the server's offer: {error}\n{sdp}")),
        }
    }

    /// Our description as the server gets to see it.
    fn as_told(&self, mut sdp: String) -> String {
        if self.options.lies {
            let prefix = "a=fingerprint:sha-256 ";
            let at = sdp.find(prefix).expect("a description has a fingerprint") + prefix.len();
            let first = if &sdp[at..at + 2] == "00" { "01" } else { "00" };
            sdp.replace_range(at..at + 2, first);
        }
        sdp
    }

    fn accept_offer(&mut self, offer: SdpOffer) -> Result<String, str0m::error::SdpError> {
        match self.rtc.sdp_api().accept_offer(offer) {
            Ok(answer) => Ok(answer.to_sdp_string()),
            Err(error) => {
                self.shared.fault(format!("the server's offer: {error}"));
                Ok(String::new())
            }
        }
    }

    async fn handle_answer(&mut self, sdp: &str) {
        let Some((pending, wish)) = self.pending.take() else {
            return self.shared.fault("an answer to nothing".into());
        };
        self.learn(sdp);
        let answer = match SdpAnswer::from_sdp_string(sdp) {
            Ok(answer) => answer,
            Err(error) => return self.shared.fault(format!("the server's answer: {error}\n{sdp}")),
        };
        if let Err(error) = self.rtc.sdp_api().accept_answer(pending, answer) {
            return self.shared.fault(format!("the server's answer: {error}\n{sdp}"));
        }
        // Else its checks begin at its next timeout, up to a second later.
        self.input(Input::Timeout(now()));
        if wish == Wish::MovePort {
            self.udp = bind_udp(self.join.server, self.options.bind).await;
            self.local = self.udp.local_addr().expect("bound");
            self.rtc.add_local_candidate(Candidate::host(self.local, "udp").expect("a host address"));
            let address = Some(self.local);
            self.shared.change(|state| state.address = address);
        }
        self.shared.change(|state| state.accepted += 1);
        self.offer_again().await;
    }

    fn learn(&self, sdp: &str) {
        let remote = Description::parse(sdp);
        self.shared.change(|state| {
            state.lines = remote.lines.iter().map(|line| (line.mid.clone(), line.clone())).collect();
            state.slots.clear();
            state.remote = remote;
        });
    }

    fn handle_candidate(&mut self, candidate: &str) {
        if candidate.is_empty() {
            return;
        }
        let known = candidate_address(candidate.trim_start_matches("candidate:"));
        match Candidate::from_sdp_string(candidate) {
            Ok(candidate) => self.rtc.add_remote_candidate(candidate),
            Err(error) => {
                self.shared.fault(format!("the server's candidate {candidate:?} ({known:?}): {error}"))
            }
        }
    }

    async fn say(&mut self, event: &str, data: Value) {
        self.send(Message::text(json!({"event": event, "data": data}).to_string())).await;
    }

    async fn send(&mut self, message: Message) {
        let Some(socket) = &mut self.socket else { return };
        // An end of the connection shows when we read.
        let _ = socket.send(message).await;
    }
}

async fn next_message(socket: &mut Option<Socket>) -> Result<Message, Error> {
    match socket {
        Some(socket) => socket.next().await,
        None => std::future::pending().await,
    }
}

/// On the address from which the server is reached, unless another is asked for: our candidate names it.
async fn bind_udp(server: SocketAddr, wanted: Option<IpAddr>) -> UdpSocket {
    let probe = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|probe| {
        probe.connect(server)?;
        probe.local_addr()
    });
    let found = || probe.map_or(Ipv4Addr::LOCALHOST.into(), |address| address.ip());
    let address = wanted.unwrap_or_else(found);
    let socket = UdpSocket::bind((address, 0)).await.expect("a free port");
    // `try_send_to` refuses what comes before tokio has seen so: the first check would be lost.
    socket.writable().await.expect("a socket");
    socket
}
