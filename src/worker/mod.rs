//! Transports and rooms of one core; no socket, no clock.
//!
//! Each wake-up the owner of the ring gives it what came (`handle_*`), then calls [`Worker::flush`], which
//! seals what is due receiver by receiver, and takes [`Worker::take_events`] and [`Worker::take_relays`].
//! On this path nothing allocates, locks, formats or reads a clock.

pub mod capture;
pub mod command;
mod contain;
pub mod event;
mod forward;
mod orders;
mod peer;
mod random;
pub mod relay;
mod reports;
mod seal;
pub mod snapshot;
mod span;
pub mod traffic;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use slab::Slab;

use self::event::Event;
use self::peer::{Peer, RoomKey};
use self::random::Random;
use self::relay::{Relay, RelayBytes};
use self::reports::Reports;
use self::seal::Sealer;
use self::snapshot::Asked;
use crate::demux::Protocol;
use crate::ice::agent::Answered;
use crate::ice::credentials::{LocalUfrag, Secret};
use crate::ice::stun::{CHECK_LEN_MAX, Message, Request};
use crate::ids::{RoomId, TrackId, TransportId, WorkerId};
use crate::metrics::counters::WorkerCounters;
use crate::packet::{Coalescing, Datagram, DropReason, Egress, Path, run};
use crate::room::receiver::ReceiverKey;
use crate::room::track::TrackKey;
use crate::room::{PeerKey, Room, STAGE_INTERVAL, SlotChange};
use crate::time::{Now, NtpTime};

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Payload bytes that may wait in a room before they are sealed early.
const BATCH_LEN_MAX: usize = 64 * 1024;
/// 5-tuples of other workers that are remembered.
const FOREIGN_COUNT_MAX: usize = 1 << 17;
/// How often counters are published.
const COUNTERS_INTERVAL: Duration = Duration::from_secs(1);
/// What is due waits so long for a wake-up that comes anyway, which is longer than a talker's packets are apart: a wake-up
/// between two of them would find the caches cold again.
const WAKE_UP_SLACK: Duration = Duration::from_millis(25);
/// Peers looked after in one wake-up, at most: each may be sent a report, and a voice that comes meanwhile waits.
const LOOK_COUNT_MAX: usize = 16;
/// And rooms: each takes a fraction of a microsecond, one that has more voices than slots some more.
const ROOM_LOOK_COUNT_MAX: usize = 64;

/// What a worker is told at its start.
pub struct Settings {
    /// Which worker this is.
    pub id: WorkerId,
    /// How many workers share its UDP port, itself included; 1 where each has a port of its own.
    pub port_sharers: u8,
    /// From which the ICE passwords follow.
    pub secret: Secret,
    /// Most slots of a receiver.
    pub audio_slots: u16,
    /// How long a room's packets wait for others, so that they leave together; zero: until [`Worker::flush`].
    pub tick: Duration,
    /// A packet that leaves with longer ones is padded when that takes fewer bytes; 0: never.
    pub pad_max: u8,
    /// Whence all its randomness comes.
    pub seed: [u8; 32],
}

/// Looking after all peers for whom something may be due, a few a wake-up.
#[derive(Clone, Copy)]
struct Round {
    /// Who comes next.
    next: PeerKey,
    /// From then on it goes on beside voices.
    late_at: Instant,
}

/// A worker.
pub struct Worker {
    settings: Settings,
    peers: Slab<Peer>,
    /// By peer, when to look after it: a thousand silent ones are passed over without touching them.
    look_at: Vec<Instant>,
    rooms: Slab<Room>,
    by_path: Map<Path, PeerKey>,
    by_ufrag: Map<LocalUfrag, PeerKey>,
    by_transport: Map<TransportId, PeerKey>,
    by_room: Map<RoomId, RoomKey>,
    by_track: Map<TrackId, (RoomKey, TrackKey)>,
    /// 5-tuples that other workers have authenticated.
    foreign: Map<Path, WorkerId>,
    /// Rooms in which packets wait, and until when: the first is due first.
    waiting: VecDeque<(Instant, RoomKey)>,
    sealer: Sealer,
    arrivals: Vec<Duration>,
    changes: Vec<SlotChange>,
    /// The room that is dealt with just now: see [`Worker::contain`].
    at_work: Option<RoomKey>,
    reports: Reports,
    events: Vec<Event>,
    relays: Vec<(WorkerId, Relay)>,
    random: Random,
    interval_at: Instant,
    /// Under way.
    round: Option<Round>,
    /// Of the rooms, which are looked after first: who comes next, while that is under way.
    next_room: Option<RoomKey>,
    /// Voices have been sealed since the last [`Worker::handle_timeout`].
    has_sealed: bool,
    /// Datagrams for other workers, those of STUN not counted.
    passed_on: u64,
    /// Of the wake-up that is worked on.
    coalescing: Option<Coalescing>,
    counters_at: Instant,
    asked: Option<Asked>,
    is_stopped: bool,
    /// Everything counted; the owner of the ring adds what it sees.
    pub counters: WorkerCounters,
}

impl Worker {
    /// A worker without rooms.
    pub fn new(now: Now, settings: Settings) -> Worker {
        Worker {
            random: Random::new(settings.seed),
            sealer: Sealer::new(settings.pad_max),
            settings,
            peers: Slab::new(),
            look_at: Vec::new(),
            rooms: Slab::new(),
            by_path: Map::default(),
            by_ufrag: Map::default(),
            by_transport: Map::default(),
            by_room: Map::default(),
            by_track: Map::default(),
            foreign: Map::default(),
            waiting: VecDeque::new(),
            arrivals: Vec::new(),
            changes: Vec::new(),
            at_work: None,
            reports: Reports::default(),
            events: Vec::new(),
            relays: Vec::new(),
            interval_at: now.instant,
            round: None,
            next_room: None,
            has_sealed: false,
            passed_on: 0,
            coalescing: None,
            counters_at: now.instant,
            asked: None,
            is_stopped: false,
            counters: WorkerCounters::default(),
        }
    }

    /// When the wait before what follows let more datagrams come.
    pub fn set_coalescing(&mut self, coalescing: Option<Coalescing>) {
        self.coalescing = coalescing;
    }

    /// Takes a datagram from the kernel.
    pub fn handle_datagram(&mut self, now: Now, datagram: Datagram<'_>, out: &mut impl Egress) {
        self.at_work = None;
        self.counters.datagrams_in += 1;
        self.counters.bytes_in += datagram.bytes.len() as u64;
        if let Err(reason) = self.route(now, datagram, true, out) {
            self.counters.drop_one(reason);
        }
    }

    /// The kernel refused datagrams that were to go along `path`. The total the owner of the ring has counted.
    pub fn handle_unsent(&mut self, path: &Path, reason: DropReason, count: u64) {
        if let Some(&key) = self.by_path.get(path) {
            self.peers[key].traffic.drop_many(reason, count);
        }
    }

    /// Takes a message from another worker.
    pub fn handle_relay(&mut self, now: Now, from: WorkerId, relay: &mut Relay, out: &mut impl Egress) {
        self.at_work = None;
        match relay {
            Relay::Datagram { path, arrived, bytes, .. } => {
                let datagram = Datagram { path: *path, arrived: *arrived, bytes: bytes.as_mut_slice() };
                if let Err(reason) = self.route(now, datagram, false, out) {
                    self.counters.drop_one(reason);
                }
            }
            Relay::Voice(voice) => {
                if let Err(reason) = self.handle_voice(now, from, voice, out) {
                    self.counters.drop_one(reason);
                }
            }
            Relay::Clock { track, stretch, rtp_time } => {
                if let Err(reason) = self.handle_clock(now, from, *track, *stretch, *rtp_time) {
                    self.counters.drop_one(reason);
                }
            }
            Relay::Learn(path) => {
                let path = *path;
                match self.by_path.get(&path) {
                    Some(&holder) if self.peers[holder].holds(&path) => {
                        // A third worker may hear this before the claim itself: hence once more at the next check.
                        self.peers[holder].is_contested = true;
                        self.keep(path, self.settings.id);
                    }
                    _ => self.learn_foreign(path, from),
                }
            }
            Relay::Keep { path, owner } => {
                let (path, owner) = (*path, *owner);
                let is_refused = self.by_path.contains_key(&path);
                if owner != self.settings.id {
                    self.learn_foreign(path, owner);
                    if is_refused {
                        // Behind the claim, which a third worker may hear after its refusal.
                        self.keep(path, owner);
                    }
                }
            }
            Relay::Forget(path) => {
                if self.foreign.get(path) == Some(&from) {
                    self.foreign.remove(path);
                }
            }
        }
    }

    /// `may_relay`: it came from the kernel, not from another worker.
    fn route(
        &mut self,
        now: Now,
        datagram: Datagram<'_>,
        may_relay: bool,
        out: &mut impl Egress,
    ) -> Result<(), DropReason> {
        let protocol = Protocol::of(datagram.bytes)?;
        if protocol == Protocol::Stun {
            return self.handle_stun(now, datagram, may_relay, out);
        }
        let Datagram { path, arrived, bytes } = datagram;
        // Only STUN may introduce a 5-tuple.
        let is_voice = protocol == Protocol::Rtp;
        let Some(&key) = self.by_path.get(&path) else {
            let owner = self.foreign.get(&path).copied().filter(|_| may_relay);
            let owner = owner.ok_or(DropReason::UnknownPath)?;
            self.count_wait(now, arrived.filter(|_| is_voice));
            self.relay(owner, path, arrived, bytes, false);
            return Ok(());
        };
        self.count_wait(now, arrived.filter(|_| is_voice && may_relay));
        self.works_for(key);
        let handled = match protocol {
            Protocol::Rtp => self.handle_rtp(now, key, arrived, bytes, out),
            Protocol::Rtcp => self.handle_rtcp(now, key, bytes),
            Protocol::Dtls | Protocol::Stun => self.handle_dtls(now, key, path, bytes),
        };
        handled.inspect_err(|reason| self.peers[key].traffic.drop_one(*reason))
    }

    fn handle_stun(
        &mut self,
        now: Now,
        datagram: Datagram<'_>,
        may_relay: bool,
        out: &mut impl Egress,
    ) -> Result<(), DropReason> {
        let Datagram { path, arrived, bytes } = datagram;
        let bytes = &*bytes;
        match Message::parse(bytes)? {
            Message::Request(request) => {
                let ufrag = request.local_ufrag()?;
                if let Some(&key) = self.by_ufrag.get(&ufrag) {
                    let answered = self.answer(now, key, path, &request, out);
                    return answered.inspect_err(|reason| self.peers[key].traffic.drop_one(*reason));
                }
                let owner = ufrag.owner();
                if !may_relay || !self.sharers().any(|sharer| sharer == owner) {
                    return Err(DropReason::StunUnknownUser);
                }
                request.verify(&self.settings.secret.password(&ufrag))?;
                self.relay(owner, path, arrived, bytes, true);
                Ok(())
            }
            Message::Response(response) => match self.by_path.get(&path) {
                Some(&key) => {
                    self.works_for(key);
                    self.look_soon(key);
                    self.peers[key].transport.handle_stun_response(now.instant, path, &response)
                }
                None => {
                    let owner = self.foreign.get(&path).copied().filter(|_| may_relay);
                    self.relay(owner.ok_or(DropReason::StunUnexpected)?, path, arrived, bytes, true);
                    Ok(())
                }
            },
        }
    }

    fn answer(
        &mut self,
        now: Now,
        key: PeerKey,
        path: Path,
        request: &Request<'_>,
        out: &mut impl Egress,
    ) -> Result<(), DropReason> {
        self.works_for(key);
        let mut response = [0; CHECK_LEN_MAX];
        let transport = &mut self.peers[key].transport;
        let answered = transport.handle_stun_request(now.instant, path, request, &mut response)?;
        let is_its_own = transport.is_authenticated(&path);
        let Answered { len, is_new, forgotten } = answered;
        self.look_soon(key);
        self.counters.stun_answered += 1;
        if let Some(forgotten) = forgotten {
            self.forget_path(key, forgotten);
        }
        // Another peer may have had it meanwhile, behind the same NAT or with a forged address.
        let holder = self.by_path.get(&path).copied().filter(|&holder| holder != key);
        let is_held = holder.is_some_and(|holder| self.peers[holder].holds(&path));
        let is_lost = is_its_own && self.by_path.get(&path) != Some(&key);
        if !is_held && (is_new || is_lost && self.peers[key].may_take_back(now.instant)) {
            self.learn_path(key, path);
        }
        if self.peers[key].is_contested && self.peers[key].holds(&path) {
            self.peers[key].is_contested = false;
            self.keep(path, self.settings.id);
        }
        self.learn_ufrags(key);
        self.send(path, &response[..len], out);
        Ok(())
    }

    fn handle_dtls(&mut self, now: Now, key: PeerKey, path: Path, bytes: &[u8]) -> Result<(), DropReason> {
        self.look_soon(key);
        let transport = &mut self.peers[key].transport;
        transport.handle_dtls(now.instant, path, bytes.len())?;
        let datagram = bytes::Bytes::copy_from_slice(bytes);
        self.events.push(Event::Dtls { transport: transport.id, datagram });
        Ok(())
    }

    fn relay(&mut self, owner: WorkerId, path: Path, arrived: Option<Duration>, bytes: &[u8], is_stun: bool) {
        self.counters.relayed_out += 1;
        self.passed_on += u64::from(!is_stun);
        let bytes = RelayBytes::new(bytes);
        self.relays.push((owner, Relay::Datagram { path, is_stun, arrived, bytes }));
    }

    /// The 5-tuple sent a valid MESSAGE-INTEGRITY: it is this peer's, whoever had it before and does not hold it.
    fn learn_path(&mut self, key: PeerKey, path: Path) {
        self.by_path.insert(path, key);
        self.foreign.remove(&path);
        self.tell_sharers(|| Relay::Learn(path));
    }

    fn learn_foreign(&mut self, path: Path, owner: WorkerId) {
        self.by_path.remove(&path);
        if self.foreign.len() < FOREIGN_COUNT_MAX || self.foreign.contains_key(&path) {
            self.foreign.insert(path, owner);
        }
    }

    fn forget_path(&mut self, key: PeerKey, path: Path) {
        if self.by_path.get(&path).is_some_and(|&holder| holder != key) {
            return;
        }
        self.by_path.remove(&path);
        // Even where it is another worker's: when both learnt it at once, each believes that it is the other's.
        self.tell_sharers(|| Relay::Forget(path));
    }

    fn keep(&mut self, path: Path, owner: WorkerId) {
        self.tell_sharers(|| Relay::Keep { path, owner });
    }

    fn tell_sharers(&mut self, relay: impl Fn() -> Relay) {
        let sharers = self.sharers();
        self.relays.extend(sharers.map(|sharer| (sharer, relay())));
    }

    /// The other workers on this one's port.
    fn sharers(&self) -> impl Iterator<Item = WorkerId> + use<> {
        let Settings { id, port_sharers, .. } = self.settings;
        let count = if port_sharers > 1 { port_sharers } else { 0 };
        (0..count).map(WorkerId).filter(move |&other| other != id)
    }

    /// Brings the table of ufrags up to what the peer's agent answers to.
    fn learn_ufrags(&mut self, key: PeerKey) {
        let peer = &mut self.peers[key];
        if peer.transport.ufrags().eq(peer.ufrags.iter().copied()) {
            return;
        }
        for ufrag in peer.ufrags.drain(..) {
            self.by_ufrag.remove(&ufrag);
        }
        peer.ufrags.extend(peer.transport.ufrags());
        for &ufrag in &peer.ufrags {
            self.by_ufrag.insert(ufrag, key);
        }
    }

    /// Sends one datagram.
    fn send(&mut self, path: Path, bytes: &[u8], out: &mut impl Egress) {
        let mut run = run(out, path);
        run.segment(bytes.len()).copy_from_slice(bytes);
        run.commit(bytes.len());
        self.counters.datagrams_out += 1;
        self.counters.bytes_out += bytes.len() as u64;
    }

    /// When to call [`Worker::handle_timeout`] and [`Worker::flush`] at the latest. After a wake-up for anything else the
    /// former finds what is due up to 25 ms earlier.
    pub fn next_timeout(&self) -> Instant {
        if let Some(asked) = &self.asked {
            return asked.at;
        }
        if self.round.is_some() || self.next_room.is_some() {
            return self.interval_at - STAGE_INTERVAL; // It goes on at once.
        }
        let due =
            if self.peers.is_empty() { self.counters_at } else { self.interval_at.min(self.counters_at) };
        let due = due + WAKE_UP_SLACK;
        self.waiting.front().map_or(due, |(flush_at, _)| due.min(*flush_at))
    }

    /// How long a room's packets wait for others.
    pub fn tick(&self) -> Duration {
        self.settings.tick
    }

    /// Makes what comes from now on wait for so long.
    pub fn set_tick(&mut self, tick: Duration) {
        self.settings.tick = tick;
    }

    /// [`Worker::handle_timeout`] tells what is counted now.
    pub fn publishes_counters(&self, now: Now) -> bool {
        now.instant >= self.counters_at
    }

    /// Does what is due: consent, checks of ours, reports, who speaks, counters. A part of it if it is much; comes after
    /// what [`Worker::flush`] has sealed is with the kernel.
    pub fn handle_timeout(&mut self, now: Now, out: &mut impl Egress) {
        if now.instant >= self.interval_at {
            self.interval_at = now.instant + STAGE_INTERVAL;
            self.next_room.get_or_insert(0);
            self.round.get_or_insert(Round { next: 0, late_at: self.interval_at });
        }
        self.look_after_rooms(now.instant);
        self.look_after_peers(now, out);
        self.at_work = None; // What follows is about all rooms.
        if now.instant >= self.counters_at {
            self.counters_at = now.instant + COUNTERS_INTERVAL;
            self.publish_counters();
        }
        self.tell_snapshot(now.instant);
    }

    fn look_after_peers(&mut self, now: Now, out: &mut impl Egress) {
        let has_sealed = std::mem::take(&mut self.has_sealed);
        for _ in 0..LOOK_COUNT_MAX {
            let Some(Round { next, late_at }) = self.round else { return };
            let is_due = |key: &PeerKey| self.look_at[*key] <= now.instant && self.peers.contains(*key);
            let Some(key) = (next..self.look_at.len()).find(is_due) else {
                self.round = None;
                return;
            };
            if has_sealed && now.instant < late_at {
                self.round = Some(Round { next: key, late_at });
                return;
            }
            self.round = Some(Round { next: key + 1, late_at });
            self.look_after(now, key, out);
        }
    }

    fn look_after(&mut self, now: Now, key: PeerKey, out: &mut impl Egress) {
        self.works_for(key);
        self.tell_state(now, key);
        let mut check = [0; CHECK_LEN_MAX];
        while let Some((path, len)) = self.peers[key].transport.next_check(now.instant, &mut check) {
            self.send(path, &check[..len], out);
        }
        self.end_capture(now.instant, key);
        if now.instant >= self.peers[key].report_at {
            self.report(now, key, out);
        }
        self.look_at[key] = self.peers[key].next_look(now.instant);
    }

    /// Something about the peer has changed: the next interval looks after it.
    fn look_soon(&mut self, key: PeerKey) {
        self.look_at[key] = self.look_at[key].min(self.interval_at);
    }

    fn tell_state(&mut self, now: Now, key: PeerKey) {
        let transport = &mut self.peers[key].transport;
        if let Some(state) = transport.update_state(now.instant) {
            self.events.push(Event::Connection { transport: transport.id, state });
        }
    }

    fn look_after_rooms(&mut self, now: Instant) {
        let Some(first) = self.next_room else { return };
        let mut count = 0;
        for key in first..self.rooms.capacity() {
            let Some(room) = self.rooms.get_mut(key) else { continue };
            if count == ROOM_LOOK_COUNT_MAX {
                break;
            }
            count += 1;
            (self.at_work, self.next_room) = (Some(key), Some(key + 1));
            if let Some(speakers) = room.handle_interval(now, &mut self.changes)
                && room.is_home
            {
                self.events.push(Event::ActiveSpeakers { room: room.id, speakers });
            }
        }
        if count < ROOM_LOOK_COUNT_MAX {
            self.next_room = None;
        }
        self.at_work = None;
        self.tell_changes();
    }

    /// Turns what rooms changed into events, one a receiver.
    fn tell_changes(&mut self) {
        self.changes.sort_by_key(|change| change.peer);
        for changes in self.changes.chunk_by(|a, b| a.peer == b.peer) {
            let Some(peer) = self.peers.get(changes[0].peer) else { continue };
            self.events.push(Event::SlotsChanged {
                transport: peer.transport.id,
                changes: changes.iter().map(|change| (change.slot, change.track)).collect(),
            });
        }
        self.changes.clear();
    }

    fn publish_counters(&mut self) {
        self.counters.transports = self.peers.len() as u64;
        self.counters.rooms = self.rooms.len() as u64;
        self.counters.tracks = self.rooms.iter().map(|(_, room)| room.own_track_count() as u64).sum();
        self.counters.slots = self
            .rooms
            .iter()
            .flat_map(|(_, room)| room.receivers())
            .map(|receiver| receiver.seats().len() as u64)
            .sum();
        self.events.push(Event::Counters(Box::new(self.counters.clone())));
    }

    /// News since the last call. The owner gives the vector's capacity back by draining it in place.
    pub fn take_events(&mut self) -> std::vec::Drain<'_, Event> {
        self.events.drain(..)
    }

    /// Messages to other workers since the last call.
    pub fn take_relays(&mut self) -> std::vec::Drain<'_, (WorkerId, Relay)> {
        self.relays.drain(..)
    }

    /// Counts how long the packets took that were forwarded since the last call, from the kernel's receive
    /// timestamp to `now`.
    pub fn record_latencies(&mut self, now: Now) {
        let since = |arrived| now.ntp.since(NtpTime::from_unix(arrived));
        for latency in self.arrivals.drain(..).filter_map(since) {
            self.counters.forwarding_latency.record(latency.as_nanos() as u64);
        }
    }

    /// Packets of voices that it opened, that another part of a room handed it, and what it passed on to whom it is for,
    /// which may be one: whoever waits for more must not make them wait.
    pub fn voice_count(&self) -> u64 {
        self.counters.rtp_in + self.counters.voices_relayed_in + self.passed_on
    }

    /// [`command::Command::Stop`] came: everybody has been told.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    fn room_of(&mut self, key: PeerKey) -> Option<(&mut Room, ReceiverKey)> {
        let peer = self.peers.get(key)?;
        Some((self.rooms.get_mut(peer.room)?, peer.receiver))
    }
}
