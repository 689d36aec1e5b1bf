//! What the server does with each packet of an encrypted call, told by its own core: keys that it wrote down
//! (`KEYLOG_DIR`) open what the capture holds, and each packet of a client goes through a worker as it came.
//!
//! A capture does not say who was in which room, nor who was muted: all that it shows are taken to be in one room, each
//! with one voice, and `--muted` says who is. A transport is there from its first packet that a key opens; where 30 s
//! nothing comes from a client any more, it is gone, as in a call.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use gryt_sfu::dtls::key_log::Entry;
use gryt_sfu::dtls::keying::{KeyingMaterial, MasterKey};
use gryt_sfu::ice::credentials::LocalCredentials;
use gryt_sfu::ids::{Mid, Ssrc, TrackId, TransportId};
use gryt_sfu::packet::{DATAGRAM_LEN_MAX, DropReason, Path, SocketId};
use gryt_sfu::rtp::extension::ExtensionIds;
use gryt_sfu::rtp::header::Header;
use gryt_sfu::srtp::context::SrtpRx;
use gryt_sfu::srtp::index::PacketIndex;
use gryt_sfu::time::Now;
use gryt_sfu::worker::command::{Command, PublishedStream};

use super::sim::Sim;

/// Slots of a receiver: the server's default.
const SLOTS: u16 = 32;
/// Transports of one capture.
const PEER_COUNT_MAX: usize = 512;
/// Directions of 5-tuples that are remembered.
const PATH_COUNT_MAX: usize = 1 << 16;
/// Packets of a direction on which all keys are tried.
const TRIES_MAX: u8 = 16;
/// Of these, those for which streams are looked for that began long before the capture.
const DEEP_TRIES_MAX: u8 = 3;
/// Roll-overs of the sequence number looked for: 23 hours of a voice.
const ROC_MAX: u64 = 64;
/// Packets a second that a publisher may send; no stream rolls over faster.
const PACKET_RATE_MAX: u64 = 250;
/// SSRCs of a transport that are remembered.
const SSRC_COUNT_MAX: usize = 256;
/// Payloads that are remembered, to say what the server sent on.
const ORIGIN_COUNT_MAX: usize = 8_192;
/// Shorter ones are alike: silence is.
const ORIGIN_LEN_MIN: usize = 16;
/// A peer from which something comes still wants to hear.
const CONSENT_INTERVAL: Duration = Duration::from_secs(2);

type Route = (SocketAddr, SocketAddr);

/// The keys, and a worker with everybody whom they opened.
pub(crate) struct Judge {
    settings: Settings,
    keys: Vec<Entry>,
    sim: Sim,
    begun: Now,
    first: Option<Duration>,
    peers: Vec<Peer>,
    by_key: HashMap<usize, usize>,
    routes: HashMap<Route, Known>,
    /// The server's addresses, a socket each.
    servers: Vec<SocketAddr>,
    origins: Origins,
    scratch: Vec<u8>,
}

/// What a capture does not say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// Transports whose users are muted.
    pub(crate) muted: Vec<u64>,
    /// Id of the audio level extension.
    pub(crate) audio_level_id: u8,
}

/// What is known of a direction of a 5-tuple.
#[derive(Clone, Copy, Default)]
struct Known {
    peer: Option<(usize, Side)>,
    tries: u8,
}

/// Who protected a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Side {
    Client,
    Server,
}

/// A transport of the call.
struct Peer {
    key: usize,
    local: LocalCredentials,
    path: Path,
    from_client: SrtpRx,
    from_server: SrtpRx,
    /// Its voice has been published.
    is_speaker: bool,
    /// Streams of which a packet was opened.
    ssrcs: HashSet<(Side, Ssrc)>,
    deep_tries: u8,
    heard_at: Instant,
}

/// RTCP that was opened, or what became of it.
pub(crate) enum Rtcp {
    /// By which key, and the plaintext.
    Opened(String, Vec<u8>),
    /// It ended there.
    Closed(String),
}

/// Whose payload it was, of the latest payloads.
#[derive(Default)]
struct Origins {
    by_hash: HashMap<u64, String>,
    order: VecDeque<u64>,
}

impl Judge {
    /// A room without anybody.
    pub(crate) fn new(keys: Vec<Entry>, settings: Settings) -> Judge {
        let sim = Sim::new(SLOTS);
        Judge {
            settings,
            keys,
            begun: sim.now,
            sim,
            first: None,
            peers: Vec::new(),
            by_key: HashMap::new(),
            routes: HashMap::new(),
            servers: Vec::new(),
            origins: Origins::default(),
            scratch: Vec::new(),
        }
    }

    /// A check over this 5-tuple: whoever is there still wants to hear.
    pub(crate) fn stun(&mut self, time: Duration, route: Route) {
        self.pass(time);
        if let Some((peer, Side::Client)) = self.routes.get(&route).and_then(|known| known.peer) {
            self.consent(peer);
        }
    }

    /// What becomes of an RTP packet.
    pub(crate) fn rtp(&mut self, time: Duration, route: Route, header: &Header, packet: &[u8]) -> String {
        self.pass(time);
        if packet.len() > DATAGRAM_LEN_MAX {
            return format!("dropped: {}", DropReason::TooLong.label());
        }
        let Some((peer, side)) = self.owner(time, route, Some(header), packet) else {
            return "no key opens this stream".into();
        };
        self.find_place(time, (peer, side), header, packet);
        let opened = self.open_rtp((peer, side), header, packet);
        let whose = self.whose(peer, side);
        if side == Side::Server {
            return match opened {
                Ok((index, len)) => {
                    let payload = header.payload(&self.scratch[..len]).unwrap_or_default();
                    let origin = self.origins.find(payload);
                    let origin = origin.map(|origin| format!(", as {origin} said")).unwrap_or_default();
                    format!("{whose}, index {}, {} B of payload{origin}", index.0, payload.len())
                }
                Err(reason) => format!("{whose}: does not open: {}", reason.label()),
            };
        }
        if opened.is_ok() && !self.peers[peer].is_speaker {
            self.publish(peer, header);
        }
        let plain = opened.map(|(index, len)| (index, self.scratch[..len].to_vec()));
        let (dropped, receivers) = self.deliver(peer, packet);
        match (plain, dropped) {
            (Err(reason), dropped) => {
                format!("{whose}: dropped: {}", dropped.unwrap_or(reason).label())
            }
            (Ok((index, plain)), dropped) => {
                self.consent(peer);
                let payload = header.payload(&plain).unwrap_or_default();
                let whose = format!("{whose}, index {}, {} B of payload", index.0, payload.len());
                match dropped {
                    Some(reason) => format!("{whose}: dropped: {}", reason.label()),
                    None if payload.is_empty() => format!("{whose}: counted and not forwarded"),
                    None => {
                        let who = self.keys[self.peers[peer].key].transport;
                        let origin = || {
                            format!(
                                "transport {who} with {:#010x} seq {}",
                                header.ssrc.0, header.sequence_number
                            )
                        };
                        self.origins.remember(payload, origin);
                        format!("{whose}: to {receivers} receivers")
                    }
                }
            }
        }
    }

    /// What becomes of an RTCP packet.
    pub(crate) fn rtcp(&mut self, time: Duration, route: Route, packet: &[u8]) -> Rtcp {
        self.pass(time);
        if packet.len() > DATAGRAM_LEN_MAX {
            return Rtcp::Closed(format!("dropped: {}", DropReason::TooLong.label()));
        }
        let Some((peer, side)) = self.owner(time, route, None, packet) else {
            return Rtcp::Closed("no key opens this stream".into());
        };
        self.scratch.clear();
        self.scratch.extend_from_slice(packet);
        let opened = self.peers[peer].rx(side).unprotect_rtcp(&mut self.scratch);
        let plain = opened.map(|len| self.scratch[..len].to_vec());
        let dropped = if side == Side::Client { self.deliver(peer, packet).0 } else { None };
        let whose = self.whose(peer, side);
        match (plain, dropped, side) {
            (Ok(plain), None, _) => {
                if side == Side::Client {
                    self.consent(peer);
                }
                Rtcp::Opened(whose, plain)
            }
            (Err(reason), None, Side::Server) => {
                Rtcp::Closed(format!("{whose}: does not open: {}", reason.label()))
            }
            (Ok(_), Some(reason), _) | (Err(reason), None, _) | (Err(_), Some(reason), _) => {
                Rtcp::Closed(format!("{whose}: dropped: {}", reason.label()))
            }
        }
    }

    /// Time is the capture's; where its clock steps back, ours waits.
    fn pass(&mut self, time: Duration) {
        let since = time.saturating_sub(*self.first.get_or_insert(time));
        let now = self.begun.after(since.min(Duration::from_secs(86_400 * 365)));
        if now.instant > self.sim.now.instant {
            self.sim.now = now;
        }
        if self.sim.now.instant >= self.sim.worker.next_timeout() {
            self.sim.worker.handle_timeout(self.sim.now, &mut self.sim.sent);
        }
        self.forget_output();
    }

    fn forget_output(&mut self) {
        self.sim.sent.clear();
        self.sim.worker.take_events().for_each(drop);
    }

    /// Whose the packet is, by the keys that open it.
    fn owner(
        &mut self,
        time: Duration,
        route: Route,
        header: Option<&Header>,
        packet: &[u8],
    ) -> Option<(usize, Side)> {
        let known = self.routes.get(&route).copied().unwrap_or_default();
        if let Some((peer, side)) = known.peer
            && (known.tries >= TRIES_MAX || self.may_be_of(time, (peer, side), header, packet))
        {
            return known.peer;
        }
        // Nobody's yet, or a port that somebody else has now.
        let is_remembered = self.routes.contains_key(&route) || self.routes.len() < PATH_COUNT_MAX;
        if known.tries >= TRIES_MAX || !is_remembered {
            return known.peer;
        }
        let found = self.search(time, header, packet, known.tries < DEEP_TRIES_MAX);
        let peer = match found {
            Some((key, side)) => self.meet(key, side, route),
            None => {
                self.routes.insert(route, Known { tries: known.tries + 1, ..known });
                None
            }
        };
        peer.or(known.peer)
    }

    /// Whether the owner of a 5-tuple protected this packet, as far as one can tell without asking all keys.
    fn may_be_of(
        &self,
        time: Duration,
        (peer, side): (usize, Side),
        header: Option<&Header>,
        packet: &[u8],
    ) -> bool {
        let is_known = |header: &Header| self.peers[peer].ssrcs.contains(&(side, header.ssrc));
        let entry = &self.keys[self.peers[peer].key];
        header.is_some_and(is_known) || roc_of(entry, side, time, header, packet, ROC_MAX).is_some()
    }

    /// The key that opens a packet.
    fn search(
        &self,
        time: Duration,
        header: Option<&Header>,
        packet: &[u8],
        is_deep: bool,
    ) -> Option<(usize, Side)> {
        let roc_max = if is_deep { ROC_MAX } else { 0 };
        let sides = [Side::Client, Side::Server];
        // The latest handshakes first: an id of a server that was started again is not the old one.
        (0..self.keys.len()).rev().find_map(|key| {
            let opens = |side: &Side| roc_of(&self.keys[key], *side, time, header, packet, roc_max).is_some();
            sides.into_iter().find(opens).map(|side| (key, side))
        })
    }

    /// A 5-tuple is this key's from now on; its transport is let in if it is new. `None`: there are too many.
    fn meet(&mut self, key: usize, side: Side, (source, destination): Route) -> Option<(usize, Side)> {
        let (client, server) = match side {
            Side::Client => (source, destination),
            Side::Server => (destination, source),
        };
        let socket = self.servers.iter().position(|known| *known == server).unwrap_or_else(|| {
            self.servers.push(server);
            self.servers.len() - 1
        });
        let path = Path { socket: SocketId(socket as u8), local: server.ip(), remote: client };
        let peer = match self.by_key.get(&key) {
            Some(peer) => *peer,
            None if self.peers.len() == PEER_COUNT_MAX => return None,
            None => self.admit(key, path),
        };
        self.peers[peer].path = path;
        self.sim.check(path, &self.peers[peer].local);
        self.forget_output();
        self.routes.insert((client, server), Known { peer: Some((peer, Side::Client)), tries: 0 });
        self.routes.insert((server, client), Known { peer: Some((peer, Side::Server)), tries: 0 });
        Some((peer, side))
    }

    fn admit(&mut self, key: usize, path: Path) -> usize {
        let peer = self.peers.len();
        let keys = &self.keys[key].keys;
        let local = self.sim.admit(transport_of(peer), path, copy_of(keys));
        self.peers.push(Peer {
            key,
            local,
            path,
            from_client: SrtpRx::new(keys.profile, &keys.client),
            from_server: SrtpRx::new(keys.profile, &keys.server),
            is_speaker: false,
            ssrcs: HashSet::new(),
            deep_tries: 0,
            heard_at: self.sim.now.instant,
        });
        self.by_key.insert(key, peer);
        let speakers = (0..peer).filter(|other| self.peers[*other].is_speaker).take(SLOTS.into());
        for (slot, speaker) in speakers.enumerate() {
            self.sim.add_slot_to(transport_of(peer), slot as u16, Some(track_of(speaker)));
        }
        peer
    }

    /// Its first packet is what it says of its voice: the payload type is Opus from now on.
    fn publish(&mut self, peer: usize, header: &Header) {
        let place = self.peers.iter().filter(|peer| peer.is_speaker).count();
        self.peers[peer].is_speaker = true;
        let id = self.keys[self.peers[peer].key].transport;
        let stream = PublishedStream {
            mid: Mid::parse("0").unwrap_or_else(|| unreachable!("a digit is a token")),
            is_only: true,
            ssrcs: vec![header.ssrc],
            payload_type: header.payload_type,
            extensions: ExtensionIds {
                audio_level: Some(self.settings.audio_level_id),
                ..ExtensionIds::default()
            },
        };
        self.sim.command(Command::Publish {
            transport: transport_of(peer),
            track: track_of(peer),
            stream: Box::new(stream),
            muted: self.settings.muted.contains(&id.0),
        });
        if place < usize::from(SLOTS) {
            for other in 0..self.peers.len() {
                self.sim.add_slot_to(transport_of(other), place as u16, Some(track_of(peer)));
            }
        }
        self.forget_output();
    }

    /// Where a stream stands whose first packet this is: not at its beginning when the capture came later.
    fn find_place(&mut self, time: Duration, (peer, side): (usize, Side), header: &Header, packet: &[u8]) {
        let place = (side, header.ssrc);
        let it = &self.peers[peer];
        if it.ssrcs.contains(&place) || it.ssrcs.len() == SSRC_COUNT_MAX || it.deep_tries >= TRIES_MAX {
            return;
        }
        let Some(roc) = roc_of(&self.keys[it.key], side, time, Some(header), packet, ROC_MAX) else {
            self.peers[peer].deep_tries += 1;
            return;
        };
        self.peers[peer].ssrcs.insert(place);
        if roc == 0 {
            return;
        }
        let before = before(roc, header.sequence_number);
        // One SSRC too many is told by the packet itself.
        let _ = self.peers[peer].rx(side).begin_at(header.ssrc, before);
        if side == Side::Client {
            let _ = self.sim.worker.begin_at(transport_of(peer), header.ssrc, before);
        }
    }

    /// Opens a packet into the scratch buffer.
    fn open_rtp(
        &mut self,
        (peer, side): (usize, Side),
        header: &Header,
        packet: &[u8],
    ) -> Result<(PacketIndex, usize), DropReason> {
        self.scratch.clear();
        self.scratch.extend_from_slice(packet);
        let rx = self.peers[peer].rx(side);
        rx.unprotect_rtp(header.ssrc, header.sequence_number, header.len, &mut self.scratch)
    }

    /// Through the worker, as it came: why it went no further, and how many it was sealed for.
    fn deliver(&mut self, peer: usize, packet: &[u8]) -> (Option<DropReason>, u64) {
        let drops = |sim: &Sim| DropReason::ALL.iter().map(|reason| sim.drops(*reason)).collect::<Vec<_>>();
        let (before, sent) = (drops(&self.sim), self.sim.worker.counters.rtp_out);
        self.sim.deliver(self.peers[peer].path, &mut packet.to_vec());
        self.sim.flush();
        let after = drops(&self.sim);
        let dropped = DropReason::ALL.iter().zip(before.iter().zip(&after)).find(|(_, (a, b))| a < b);
        let receivers = self.sim.worker.counters.rtp_out - sent;
        self.forget_output();
        (dropped.map(|(reason, _)| *reason), receivers)
    }

    fn consent(&mut self, peer: usize) {
        let now = self.sim.now.instant;
        let peer = &mut self.peers[peer];
        if now.saturating_duration_since(peer.heard_at) >= CONSENT_INTERVAL {
            peer.heard_at = now;
            self.sim.check(peer.path, &peer.local);
            self.forget_output();
        }
    }

    fn whose(&self, peer: usize, side: Side) -> String {
        let entry = &self.keys[self.peers[peer].key];
        let side = match side {
            Side::Client => "from",
            Side::Server => "to",
        };
        format!("{side} transport {} ({})", entry.transport, entry.keys.profile.name())
    }
}

impl Peer {
    fn rx(&mut self, side: Side) -> &mut SrtpRx {
        match side {
            Side::Client => &mut self.from_client,
            Side::Server => &mut self.from_server,
        }
    }
}

impl Origins {
    fn remember(&mut self, payload: &[u8], origin: impl Fn() -> String) {
        if payload.len() < ORIGIN_LEN_MIN {
            return;
        }
        let hash = hash_of(payload);
        if self.by_hash.insert(hash, origin()).is_none() {
            self.order.push_back(hash);
        }
        if self.order.len() > ORIGIN_COUNT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_hash.remove(&oldest);
        }
    }

    fn find(&self, payload: &[u8]) -> Option<&str> {
        if payload.len() < ORIGIN_LEN_MIN {
            return None;
        }
        self.by_hash.get(&hash_of(payload)).map(String::as_str)
    }
}

fn hash_of(payload: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    payload.hash(&mut hasher);
    hasher.finish()
}

fn transport_of(peer: usize) -> TransportId {
    TransportId(peer as u64 + 1)
}

fn track_of(peer: usize) -> TrackId {
    TrackId(peer as u64 + 1)
}

fn copy_of(keys: &KeyingMaterial) -> KeyingMaterial {
    let master = |master: &MasterKey| MasterKey { key: master.key.clone(), salt: master.salt.clone() };
    KeyingMaterial { profile: keys.profile, client: master(&keys.client), server: master(&keys.server) }
}

/// The index before this one.
fn before(roc: u64, seq: u16) -> PacketIndex {
    PacketIndex((roc << 16 | u64::from(seq)) - 1)
}

/// How often the sequence number had rolled over when this key protected the packet; `None`: it did not. RTCP, which is
/// what has no header here, says its index itself.
fn roc_of(
    entry: &Entry,
    side: Side,
    time: Duration,
    header: Option<&Header>,
    packet: &[u8],
    roc_max: u64,
) -> Option<u64> {
    let keys = &entry.keys;
    let master = if side == Side::Client { &keys.client } else { &keys.server };
    let mut rx = SrtpRx::new(keys.profile, master);
    let mut scratch = packet.to_vec();
    let Some(header) = header else {
        return rx.unprotect_rtcp(&mut scratch).is_ok().then_some(0);
    };
    // From the handshake to the packet; a clock may be wrong by some minutes.
    let age = time.as_secs().saturating_sub(entry.time) + 600;
    let roc_max = roc_max.min(1 + ((age * PACKET_RATE_MAX) >> 16));
    (0..=roc_max).find(|roc| {
        scratch.copy_from_slice(packet);
        if *roc > 0 && rx.begin_at(header.ssrc, before(*roc, header.sequence_number)).is_err() {
            return false;
        }
        rx.unprotect_rtp(header.ssrc, header.sequence_number, header.len, &mut scratch).is_ok()
    })
}
