//! A worker without a kernel: callers that speak STUN and SRTP to it in memory, on a virtual clock.
//!
//! The worker is the production core, untouched; only the `Egress` is a `Vec`, and DTLS is left out: both sides
//! are given the same keys.

#![allow(dead_code, unreachable_pub, reason = "each test and bench uses its part of it")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use gryt_sfu::dtls::keying::{KeyingMaterial, MasterKey, SrtpProfile};
use gryt_sfu::ice::credentials::{LocalCredentials, RemoteCredentials, Secret};
use gryt_sfu::ids::{Mid, PayloadType, RoomId, SlotIndex, Ssrc, TrackId, TransportId, WorkerId};
use gryt_sfu::packet::{Datagram, DropReason, Egress, Path, SocketId};
use gryt_sfu::rtp::extension::ExtensionIds;
use gryt_sfu::rtp::header::Header;
use gryt_sfu::srtp::context::{SrtpRx, SrtpTx};
use gryt_sfu::srtp::index::PacketIndex;
use gryt_sfu::time::{Now, NtpTime};
use gryt_sfu::worker::command::{Command, PublishedStream, Slot};
use gryt_sfu::worker::event::Event;
use gryt_sfu::worker::relay::Relay;
use gryt_sfu::worker::{Settings, Worker};
use stun::agent::TransactionId;
use stun::attributes::{ATTR_USE_CANDIDATE, ATTR_USERNAME};
use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::{BINDING_REQUEST, BINDING_SUCCESS, Message};
use stun::textattrs::TextAttribute;

/// The room of a simulation; there can be more.
pub const ROOM: RoomId = RoomId(1);
/// What every caller calls Opus.
pub const OPUS: u8 = 111;
/// Where callers begin.
const FIRST_INDEX: PacketIndex = PacketIndex(100);
/// Something that looks like it.
pub const DTLS: [u8; 4] = [22, 254, 253, 0];
/// Header extensions, as every caller numbers them.
pub const IDS: ExtensionIds = ExtensionIds { audio_level: Some(1), mid: Some(4), abs_capture_time: None };

/// A worker, its clock, and what it sent.
pub struct Sim {
    pub worker: Worker,
    pub now: Now,
    pub sent: Sent,
    /// Where the next callers join.
    pub room: RoomId,
    secret: Secret,
    id: WorkerId,
    /// How long ago the kernel has received what is delivered, where it says so.
    pub age: Option<Duration>,
}

/// The time since 1970.
fn since_unix(ntp: NtpTime) -> Duration {
    let nanos = ((ntp.0 & 0xFFFF_FFFF) * 1_000_000_000) >> 32;
    Duration::new(ntp.unix_seconds().into(), nanos as u32)
}

/// What left: datagrams, and how they were grouped.
#[derive(Default)]
pub struct Sent {
    bytes: Vec<u8>,
    datagrams: Vec<(Path, Range<usize>)>,
    run: Option<Path>,
    lent: Range<usize>,
    /// Runs that ended with something in them.
    pub run_count: usize,
    /// A run to here panics, as a fault of ours would.
    pub trap: Option<Path>,
}

impl Egress for Sent {
    fn cuts_segments(&self, _path: Path) -> bool {
        true
    }

    fn open(&mut self, path: Path) {
        assert!(self.run.replace(path).is_none(), "a run inside a run");
        if self.trap == Some(path) {
            self.run = None;
            panic!("the trap of this test");
        }
        self.run_count += 1;
    }

    fn segment(&mut self, len_max: usize) -> &mut [u8] {
        let start = self.datagrams.last().map_or(0, |(_, range)| range.end);
        self.lent = start..start + len_max;
        self.bytes.resize(self.lent.end, 0);
        &mut self.bytes[self.lent.clone()]
    }

    fn commit(&mut self, len: usize) {
        assert!(len <= self.lent.len(), "more committed than lent");
        let path = self.run.expect("a commit outside a run");
        self.datagrams.push((path, self.lent.start..self.lent.start + len));
        self.lent = 0..0;
    }

    fn close(&mut self) {
        self.run = None;
    }
}

impl Sent {
    /// Every datagram that left, in order.
    pub fn datagrams(&self) -> impl Iterator<Item = (Path, &[u8])> {
        self.datagrams.iter().map(|(path, range)| (*path, &self.bytes[range.clone()]))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// Forgets everything but the memory.
    pub fn clear(&mut self) {
        self.datagrams.clear();
        self.bytes.clear();
        self.run_count = 0;
    }
}

/// A client, its transport connected.
pub struct Caller {
    pub transport: TransportId,
    pub path: Path,
    pub local: LocalCredentials,
    pub profile: SrtpProfile,
    tx: SrtpTx,
    rx: SrtpRx,
    /// Of its voice.
    pub ssrc: Ssrc,
    /// Of its next packet.
    pub next: PacketIndex,
}

/// A packet that a caller heard.
#[derive(Debug, PartialEq, Eq)]
pub struct Heard {
    pub ssrc: Ssrc,
    pub seq: u16,
    /// That sealed it.
    pub index: u64,
    pub timestamp: u32,
    pub marker: bool,
    pub mid: Option<String>,
    pub level: Option<u8>,
    pub payload: Vec<u8>,
}

impl Sim {
    /// A worker alone on its port, with [`ROOM`] in it.
    pub fn new(audio_slots: u16) -> Sim {
        Sim::with_sharers(audio_slots, Secret::random(), WorkerId(0), 1)
    }

    /// A worker that shares its port with others.
    pub fn with_sharers(audio_slots: u16, secret: Secret, id: WorkerId, port_sharers: u8) -> Sim {
        let tick = Duration::ZERO;
        Sim::with_settings(Settings {
            id,
            port_sharers,
            secret,
            audio_slots,
            tick,
            pad_max: 0,
            seed: [7; 32],
        })
    }

    /// A worker with settings of the test's own.
    pub fn with_settings(settings: Settings) -> Sim {
        let now = Now { instant: Now::read().instant, ntp: NtpTime(0xE000_0000_0000_0000) };
        let (id, secret) = (settings.id, settings.secret.clone());
        let mut sim = Sim {
            worker: Worker::new(now, settings),
            now,
            sent: Sent::default(),
            room: ROOM,
            secret,
            id,
            age: None,
        };
        sim.command(Command::AddRoom(ROOM));
        sim
    }

    /// Gives an order.
    pub fn command(&mut self, command: Command) {
        self.worker.handle_command(self.now, command, &mut self.sent);
    }

    /// Lets time pass in steps of 10 ms, doing what is due.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now.instant + time;
        while self.now.instant < end {
            self.now = self.now.after(Duration::from_millis(10).min(end - self.now.instant));
            self.worker.handle_timeout(self.now, &mut self.sent);
        }
    }

    /// A transport that has done nothing yet. `number` makes its address, its name and its SSRC.
    pub fn add(&mut self, number: u16, profile: SrtpProfile) -> Caller {
        let transport = TransportId(u64::from(number));
        let local = self.secret.credentials(self.id);
        let remote = RemoteCredentials::parse("peer", "aPasswordOf22Characters").unwrap();
        self.command(Command::AddTransport { transport, room: self.room, local, remote });
        Caller {
            transport,
            path: path(number, 40_000),
            local,
            profile,
            tx: SrtpTx::new(profile, &master_key(profile, number, 1)),
            rx: SrtpRx::new(profile, &master_key(profile, number, 2)),
            ssrc: Ssrc(0x1000_0000 + u32::from(number)),
            next: FIRST_INDEX,
        }
    }

    /// A transport with a selected pair and keys.
    pub fn join(&mut self, number: u16, profile: SrtpProfile) -> Caller {
        let caller = self.add(number, profile);
        self.connect(&caller);
        caller
    }

    /// Binding request, something of DTLS, keys.
    pub fn connect(&mut self, caller: &Caller) {
        self.consent(caller);
        self.deliver(caller.path, &mut DTLS.clone());
        self.finish_dtls(caller, 1);
    }

    /// Keys of the caller's first handshake, 1, or of a later one.
    pub fn finish_dtls(&mut self, caller: &Caller, handshake: u8) {
        let keys = KeyingMaterial {
            profile: caller.profile,
            client: master_key(caller.profile, caller.transport.0 as u16, 2 * handshake - 1),
            server: master_key(caller.profile, caller.transport.0 as u16, 2 * handshake),
        };
        self.command(Command::SetKeys { transport: caller.transport, keys: Box::new(keys) });
    }

    /// A transport over any path and with any keys. Returns what its checks are signed with.
    pub fn admit(&mut self, transport: TransportId, path: Path, keys: KeyingMaterial) -> LocalCredentials {
        let local = self.secret.credentials(self.id);
        let remote = RemoteCredentials::parse("peer", "aPasswordOf22Characters").unwrap();
        self.command(Command::AddTransport { transport, room: self.room, local, remote });
        self.check(path, &local);
        self.deliver(path, &mut DTLS.clone());
        self.command(Command::SetKeys { transport, keys: Box::new(keys) });
        local
    }

    /// A nominating check over any path.
    pub fn check(&mut self, path: Path, local: &LocalCredentials) {
        self.deliver(path, &mut binding_request(local, true));
    }

    /// Whoever is there answers all checks that were sent there.
    pub fn answer(&mut self, path: Path) {
        let checks = self.sent.datagrams().filter(|(to, bytes)| *to == path && bytes.starts_with(&[0, 1]));
        let ids: Vec<_> = checks.map(|(_, bytes)| TransactionId(bytes[8..20].try_into().unwrap())).collect();
        let integrity = || MessageIntegrity::new_short_term_integrity("aPasswordOf22Characters".into());
        for id in ids {
            let mut message = Message::new();
            message.build(&[Box::new(BINDING_SUCCESS), Box::new(id)]).unwrap();
            message.build_on(&[Box::new(integrity()), Box::new(FINGERPRINT)]);
            self.deliver(path, &mut message.raw);
        }
    }

    /// The caller publishes a track of the same number as its transport.
    pub fn publish(&mut self, caller: &Caller) -> TrackId {
        let track = TrackId(caller.transport.0);
        self.publish_as(caller, track);
        track
    }

    /// As [`Sim::publish`], a track of the test's choice.
    pub fn publish_as(&mut self, caller: &Caller, track: TrackId) {
        self.command(Command::Publish {
            transport: caller.transport,
            track,
            stream: Box::new(PublishedStream {
                mid: Mid::parse("0").unwrap(),
                is_only: true,
                ssrcs: vec![caller.ssrc],
                payload_type: PayloadType::new(OPUS).unwrap(),
                extensions: IDS,
            }),
            muted: false,
        });
    }

    /// New ICE credentials on our side, which the caller uses at once.
    pub fn restart_ice(&mut self, caller: &mut Caller) {
        self.begin_restart(caller);
        self.consent(caller);
    }

    /// New ICE credentials on our side, which the caller has not used yet.
    pub fn begin_restart(&mut self, caller: &mut Caller) {
        caller.local = self.secret.credentials(self.id);
        let remote = RemoteCredentials::parse("peer", "aPasswordOf22Characters").unwrap();
        self.command(Command::RestartIce { transport: caller.transport, local: caller.local, remote });
    }

    /// The caller's check that it still wants to hear.
    pub fn consent(&mut self, caller: &Caller) {
        self.deliver(caller.path, &mut binding_request(&caller.local, true));
    }

    /// A message from another worker comes in.
    pub fn hand_over(&mut self, from: WorkerId, mut relay: Relay) {
        self.worker.handle_relay(self.now, from, &mut relay, &mut self.sent);
    }

    /// The caller accepts a slot.
    pub fn add_slot(&mut self, caller: &Caller, slot: u16, source: Option<TrackId>) {
        self.add_slot_to(caller.transport, slot, source);
    }

    /// As [`Sim::add_slot`].
    pub fn add_slot_to(&mut self, transport: TransportId, slot: u16, source: Option<TrackId>) {
        self.command(Command::AddSlot {
            transport,
            slot: Box::new(Slot {
                slot: SlotIndex(slot),
                mid: Mid::parse(&format!("s{slot}")).unwrap(),
                ssrc: slot_ssrc(slot),
                payload_type: PayloadType::new(OPUS).unwrap(),
                extensions: IDS,
                source,
            }),
        });
    }

    /// A datagram comes in.
    pub fn deliver(&mut self, path: Path, bytes: &mut [u8]) {
        let arrived = self.age.map(|age| since_unix(self.now.ntp) - age);
        self.worker.handle_datagram(self.now, Datagram { path, arrived, bytes }, &mut self.sent);
    }

    /// The caller speaks: one packet, at this level.
    pub fn speak(&mut self, caller: &mut Caller, level: u8, payload: &[u8]) {
        let mut packet = [0; 1500];
        let len = caller.protect(level, payload, &mut packet);
        self.deliver(caller.path, &mut packet[..len]);
    }

    /// The batch ends.
    pub fn flush(&mut self) {
        self.worker.flush(self.now, &mut self.sent);
    }

    /// What this caller heard of all that left since [`Sent::clear`].
    pub fn heard(&self, caller: &mut Caller) -> Vec<Heard> {
        let own = caller.path;
        let to_caller = self.sent.datagrams().filter(|(path, _)| *path == own);
        to_caller.filter_map(|(_, bytes)| caller.unprotect(bytes)).collect()
    }

    /// News since the last call.
    pub fn events(&mut self) -> Vec<Event> {
        self.worker.take_events().collect()
    }

    /// Messages to other workers since the last call.
    pub fn relays(&mut self) -> Vec<(WorkerId, Relay)> {
        self.worker.take_relays().collect()
    }

    /// How many were dropped for this reason so far.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.worker.counters.drops(reason)
    }
}

impl Caller {
    /// Speaks with the keys of another handshake, from the first index on.
    pub fn begin_again(&mut self, handshake: u8) {
        let key = master_key(self.profile, self.transport.0 as u16, 2 * handshake - 1);
        self.tx = SrtpTx::new(self.profile, &key);
        self.next = FIRST_INDEX;
    }

    /// Seals one packet of this caller's voice into `out`; returns its length.
    pub fn protect(&mut self, level: u8, payload: &[u8], out: &mut [u8]) -> usize {
        let index = self.next;
        self.next = PacketIndex(index.0 + 1);
        self.protect_at(index, level, payload, out)
    }

    /// As [`Caller::protect`], with an index of the test's choice.
    pub fn protect_at(&mut self, index: PacketIndex, level: u8, payload: &[u8], out: &mut [u8]) -> usize {
        let mut header = [0; 20];
        header[0] = 0x90;
        header[1] = OPUS;
        header[2..4].copy_from_slice(&index.seq().to_be_bytes());
        header[4..8].copy_from_slice(&(index.0 as u32).wrapping_mul(960).to_be_bytes());
        header[8..12].copy_from_slice(&self.ssrc.0.to_be_bytes());
        header[12..16].copy_from_slice(&[0xBE, 0xDE, 0, 1]);
        header[16..18].copy_from_slice(&[0x10, level]);
        self.tx.protect_rtp(index, &header, payload, out).unwrap()
    }

    /// Seals any packet: a header of the test's choice, which says `index`'s low bits and an SSRC.
    pub fn protect_packet(&mut self, index: PacketIndex, header: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut header = header.to_vec();
        header[2..4].copy_from_slice(&index.seq().to_be_bytes());
        let mut out = vec![0; header.len() + payload.len() + 16];
        let len = self.tx.protect_rtp(index, &header, payload, &mut out).unwrap();
        out.truncate(len);
        out
    }

    /// Seals a compound RTCP packet.
    pub fn protect_rtcp(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut out = vec![0; packet.len() + 20];
        let len = self.tx.protect_rtcp(packet, &mut out).unwrap();
        out.truncate(len);
        out
    }

    /// Opens a media packet; `None` for anything else.
    pub fn unprotect(&mut self, datagram: &[u8]) -> Option<Heard> {
        if !matches!(datagram, [128..=191, second, ..] if !(192..=223).contains(second)) {
            return None;
        }
        let mut bytes = datagram.to_vec();
        let header = Header::parse(&bytes).unwrap();
        let (index, len) = self
            .rx
            .unprotect_rtp(header.ssrc, header.sequence_number, header.len, &mut bytes)
            .expect("what the worker sealed opens");
        let values = header.extensions(&bytes[..len], &IDS);
        Some(Heard {
            ssrc: header.ssrc,
            seq: header.sequence_number,
            index: index.0,
            timestamp: header.timestamp.0,
            marker: header.marker,
            mid: values.mid().map(|mid| mid.to_string()),
            level: values.audio_level(),
            payload: header.payload(&bytes[..len]).unwrap().to_vec(),
        })
    }

    /// Opens an RTCP packet; `None` for anything else.
    pub fn unprotect_rtcp(&mut self, datagram: &[u8]) -> Option<Vec<u8>> {
        if !matches!(datagram, [128..=191, 192..=223, ..]) {
            return None;
        }
        let mut bytes = datagram.to_vec();
        let len = self.rx.unprotect_rtcp(&mut bytes).expect("what the worker sealed opens");
        bytes.truncate(len);
        Some(bytes)
    }
}

/// The SSRC of a slot, the same for every caller.
pub fn slot_ssrc(slot: u16) -> Ssrc {
    Ssrc(0x2000_0000 + u32::from(slot))
}

/// The path of caller `number` from this port of its own.
pub fn path(number: u16, port: u16) -> Path {
    let [high, low] = number.to_be_bytes();
    Path {
        socket: SocketId(0),
        local: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        remote: SocketAddr::from((Ipv4Addr::new(198, 51, high, low), port)),
    }
}

/// A Binding request with the integrity of these credentials, made by the `stun` crate.
pub fn binding_request(local: &LocalCredentials, use_candidate: bool) -> Vec<u8> {
    binding_request_with(local.ufrag.as_str(), local.password.as_str(), use_candidate)
}

/// As [`binding_request`], with any password.
pub fn binding_request_with(ufrag: &str, password: &str, use_candidate: bool) -> Vec<u8> {
    let mut message = Message::new();
    let setters: Vec<Box<dyn stun::message::Setter>> = vec![
        Box::new(BINDING_REQUEST),
        Box::new(TransactionId::new()),
        Box::new(TextAttribute::new(ATTR_USERNAME, format!("{ufrag}:peer"))),
    ];
    message.build(&setters).unwrap();
    if use_candidate {
        message.add(ATTR_USE_CANDIDATE, &[]);
    }
    let integrity = MessageIntegrity::new_short_term_integrity(password.to_owned());
    message.build_on(&[Box::new(integrity), Box::new(FINGERPRINT)]);
    message.raw
}

trait BuildOn {
    fn build_on(&mut self, setters: &[Box<dyn stun::message::Setter>]);
}

impl BuildOn for Message {
    fn build_on(&mut self, setters: &[Box<dyn stun::message::Setter>]) {
        for setter in setters {
            setter.add_to(self).unwrap();
        }
    }
}

fn master_key(profile: SrtpProfile, number: u16, direction: u8) -> MasterKey {
    let bytes = |len: usize, tweak: u8| {
        let [high, low] = number.to_be_bytes();
        (0..len).map(|i| (i as u8).wrapping_mul(31) ^ high ^ low.rotate_left(3) ^ direction ^ tweak).collect()
    };
    let key: Vec<u8> = bytes(profile.key_len(), 0x55);
    let salt: Vec<u8> = bytes(profile.salt_len(), 0xAA);
    MasterKey { key: key.into(), salt: salt.into() }
}
