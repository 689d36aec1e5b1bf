//! What is seen, as JSON. Names are JSON strings and nothing else.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::health::rfc3339;
use super::View;
use crate::dtls::keying::SrtpProfile;
use crate::ids::{RoomId, TrackId, TransportId};
use crate::packet::DropReason;
use crate::room::rewrite::OPUS_CLOCK_RATE;
use crate::signalling::{Member, RoomView};
use crate::srtp::path::CryptoPath;
use crate::time::NtpTime;
use crate::transport::ConnectionState;
use crate::worker::snapshot::{DtlsState, PeerSnapshot, PublishedSnapshot, SlotSnapshot};

/// Rows of one answer.
const LIMIT_MAX: usize = 1000;

/// Which list.
pub(super) enum What {
    Rooms,
    Peers(Page),
    Peer(u64),
    Tracks(Page),
    Workers,
}

/// Which part of a list.
#[derive(Clone, Copy)]
pub(super) struct Page {
    limit: usize,
    after: u64,
    room: Option<u64>,
}

/// A query that says nothing we know.
#[derive(Debug)]
pub(super) struct BadQuery;

impl Page {
    pub(super) fn parse(query: &str) -> Result<Page, BadQuery> {
        let mut page = Page { limit: LIMIT_MAX, after: 0, room: None };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or(BadQuery)?;
            let value: u64 = value.parse().map_err(|_| BadQuery)?;
            match name {
                "limit" if (1..=LIMIT_MAX as u64).contains(&value) => page.limit = value as usize,
                "after" => page.after = value,
                "room" => page.room = Some(value),
                _ => return Err(BadQuery),
            }
        }
        Ok(page)
    }
}

/// `None` where the one that is asked for is not there.
pub(super) fn list(view: &View, what: What) -> Option<Value> {
    let books = Books::new(view);
    Some(match what {
        What::Rooms => json!({ "time": rfc3339(view.now.ntp), "rooms": books.rooms() }),
        What::Peers(page) => books.page(page, "peers", |member| Some(books.peer(member))),
        What::Tracks(page) => books.page(page, "tracks", |member| books.track(member)),
        What::Peer(id) => {
            let member = view.members.iter().find(|member| member.id.0 == id)?;
            let mut peer = books.peer(member);
            peer["slots"] = books.slots(member).into();
            peer
        }
        What::Workers => {
            let started_at = Duration::from_secs(view.counters.control.started_at);
            json!({
                "time": rfc3339(view.now.ntp),
                "startedAt": rfc3339(NtpTime::from_unix(started_at)),
                "crypto": CryptoPath::best().to_string(),
                "workers": books.workers(),
            })
        }
    })
}

/// A view with ways to find one's way.
struct Books<'a> {
    view: &'a View,
    rooms: HashMap<RoomId, &'a RoomView>,
    peers: HashMap<TransportId, &'a PeerSnapshot>,
    by_track: HashMap<TrackId, &'a Member>,
    receivers: HashMap<TrackId, u64>,
}

impl<'a> Books<'a> {
    fn new(view: &'a View) -> Books<'a> {
        let peers = || view.peers.iter().flat_map(|peers| peers.iter());
        let mut receivers = HashMap::new();
        for source in peers().flat_map(|peer| &peer.slots).filter_map(|slot| slot.source) {
            *receivers.entry(source).or_default() += 1;
        }
        Books {
            view,
            rooms: view.rooms.iter().map(|room| (room.id, room)).collect(),
            peers: peers().map(|peer| (peer.transport, peer)).collect(),
            by_track: view.members.iter().map(|member| (member.track, member)).collect(),
            receivers,
        }
    }

    fn rooms(&self) -> Vec<Value> {
        let mut members: HashMap<RoomId, Vec<&Member>> = HashMap::new();
        for member in &self.view.members {
            members.entry(member.room).or_default().push(member);
        }
        let room = |room: &RoomView| {
            let members = members.get(&room.id).map_or(&[][..], Vec::as_slice);
            let mut speakers: Vec<(u8, &Member)> = members
                .iter()
                .filter_map(|member| {
                    let published = self.published(member).filter(|published| published.is_speaking)?;
                    Some((published.level, *member))
                })
                .collect();
            speakers.sort_by_key(|(level, member)| (*level, member.id));
            json!({
                "id": room.id.0,
                "name": room.name.as_str(),
                "worker": room.home.0,
                "workers": room.parts.iter().map(|worker| worker.0).collect::<Vec<_>>(),
                "members": members.iter().map(|member| json!({
                    "id": member.id.0,
                    "user": member.user.as_str(),
                    "nickname": member.info.nickname.as_str(),
                    "state": self.state(member).0,
                })).collect::<Vec<_>>(),
                "voices": members.iter().filter(|it| it.is_voice).map(|it| it.user.as_str()).collect::<Vec<_>>(),
                "activeSpeakers": speakers.iter().map(|(level, member)| {
                    json!({ "user": member.user.as_str(), "level": level })
                }).collect::<Vec<_>>(),
            })
        };
        self.view.rooms.iter().map(room).collect()
    }

    fn page(&self, page: Page, name: &str, row: impl Fn(&'a Member) -> Option<Value>) -> Value {
        let members = self.view.members.iter();
        let mut rows = members
            .filter(|member| page.room.is_none_or(|room| member.room.0 == room))
            .filter(|member| member.id.0 > page.after)
            .filter_map(|member| Some((member.id.0, row(member)?)));
        let mut taken: Vec<(u64, Value)> = rows.by_ref().take(page.limit).collect();
        let next = rows.next().and(taken.last().map(|(id, _)| *id));
        let taken: Vec<Value> = taken.drain(..).map(|(_, row)| row).collect();
        json!({ "time": rfc3339(self.view.now.ntp), name: taken, "next": next })
    }

    fn snapshot(&self, member: &Member) -> Option<&'a PeerSnapshot> {
        self.peers.get(&member.transport?).copied()
    }

    fn published(&self, member: &Member) -> Option<&'a PublishedSnapshot> {
        self.snapshot(member)?.published.iter().find(|published| published.track == member.track)
    }

    fn state(&self, member: &Member) -> (&'static str, Instant) {
        match (self.snapshot(member), member.transport) {
            (Some(peer), _) => (state_name(peer.state), peer.since),
            (None, Some(_)) => ("new", member.since),
            (None, None) if member.has_failed => ("failed", member.since),
            (None, None) => ("closed", member.since),
        }
    }

    fn peer(&self, member: &Member) -> Value {
        let (state, since) = self.state(member);
        let port = self.view.ports.get(usize::from(member.worker.0));
        let peer = self.snapshot(member);
        let pair = peer.and_then(|peer| peer.selected).zip(port).map(|(path, port)| {
            json!({
                "local": SocketAddr::new(path.local, *port).to_string(),
                "remote": path.remote.to_string(),
            })
        });
        let traffic = peer.map(|peer| &peer.traffic);
        let room = self.rooms.get(&member.room).map(|room| room.name.as_str());
        let drops: serde_json::Map<String, Value> = DropReason::ALL
            .iter()
            .filter_map(|reason| Some((*reason, traffic?.drops(*reason))))
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| (reason.label().to_owned(), count.into()))
            .collect();
        json!({
            "id": member.id.0,
            "user": member.user.as_str(),
            "nickname": member.info.nickname.as_str(),
            "room": room,
            "roomId": member.room.0,
            "worker": member.worker.0,
            "connection": member.connection.map(|connection| connection.0),
            "transport": member.transport.map(|transport| transport.0),
            "state": state,
            "since": rfc3339(ago(self.view.now.ntp, self.age(since))),
            "sinceMs": millis(self.age(since)),
            "pair": pair,
            "dtls": peer.map_or("new", |peer| dtls_name(peer.dtls)),
            "srtpProfile": peer.and_then(|peer| peer.profile).map(SrtpProfile::name),
            "roundTripMs": traffic.and_then(|it| it.round_trip).map(fine_millis),
            "lastPacketMs": traffic.and_then(|it| it.last_in).map(|at| millis(self.age(at))),
            "muted": member.info.is_silent(),
            "serverMuted": member.info.is_server_muted,
            "deafened": member.info.is_deafened,
            "in": self.inbound(member, peer),
            "out": self.outbound(peer),
            "drops": drops,
        })
    }

    /// What the peer publishes, by our own count.
    fn inbound(&self, member: &Member, peer: Option<&PeerSnapshot>) -> Value {
        let published = self.published(member);
        let traffic = peer.map(|peer| &peer.traffic);
        json!({
            "packets": traffic.map_or(0, |it| it.rtp_in),
            "bytes": traffic.map_or(0, |it| it.bytes_in),
            "packetsPerSecond": traffic.map_or(0, |it| it.rates.packets_in),
            "bitsPerSecond": traffic.map_or(0, |it| it.rates.bits_in),
            "lost": published.map(|it| it.lost),
            "lossPercent": published.map(|it| percent(it.fraction_lost)),
            "jitterMs": published.map(|it| jitter_ms(it.jitter)),
            "level": published.map(|it| it.level),
            "speaking": published.is_some_and(|it| it.is_speaking),
        })
    }

    /// What it is sent, by what its receiver reports say; the worst slot of those that were reported on lately.
    fn outbound(&self, peer: Option<&PeerSnapshot>) -> Value {
        let traffic = peer.map(|peer| &peer.traffic);
        let slots = peer.map_or(&[][..], |peer| peer.slots.as_slice());
        let reports: Vec<_> = slots.iter().filter_map(|slot| slot.report).collect();
        let recent = || reports.iter().filter(|(_, at)| self.age(*at) < Duration::from_secs(10));
        json!({
            "packets": traffic.map_or(0, |it| it.rtp_out),
            "bytes": traffic.map_or(0, |it| it.bytes_out),
            "packetsPerSecond": traffic.map_or(0, |it| it.rates.packets_out),
            "bitsPerSecond": traffic.map_or(0, |it| it.rates.bits_out),
            "lost": (!reports.is_empty()).then(|| reports.iter().map(|(it, _)| i64::from(it.cumulative_lost)).sum::<i64>()),
            "lossPercent": recent().map(|(it, _)| it.fraction_lost).max().map(percent),
            "jitterMs": recent().map(|(it, _)| it.jitter).max().map(jitter_ms),
            "slots": slots.len(),
            "carrying": slots.iter().filter(|slot| slot.source.is_some()).count(),
        })
    }

    fn slots(&self, member: &Member) -> Vec<Value> {
        let slots = self.snapshot(member).map_or(&[][..], |peer| peer.slots.as_slice());
        let user = |track| self.by_track.get(&track).map(|member| member.user.as_str());
        let slot = |slot: &SlotSnapshot| {
            let report = slot.report;
            json!({
                "slot": slot.slot.0,
                "mid": slot.mid.as_str(),
                "ssrc": slot.ssrc.0,
                "from": slot.source.and_then(user),
                "packets": slot.packets,
                "bytes": slot.bytes,
                "lost": report.map(|(it, _)| it.cumulative_lost),
                "lossPercent": report.map(|(it, _)| percent(it.fraction_lost)),
                "jitterMs": report.map(|(it, _)| jitter_ms(it.jitter)),
                "reportMs": report.map(|(_, at)| millis(self.age(at))),
            })
        };
        slots.iter().map(slot).collect()
    }

    /// A voice; one whose publisher has no transport just now has no figures.
    fn track(&self, member: &Member) -> Option<Value> {
        let published = self.published(member);
        (member.is_voice || published.is_some()).then(|| {
            json!({
                "track": member.track.0,
                "publisher": member.id.0,
                "user": member.user.as_str(),
                "room": self.rooms.get(&member.room).map(|room| room.name.as_str()),
                "worker": member.worker.0,
                "mid": published.map(|it| it.mid.as_str()),
                "ssrc": published.and_then(|it| it.ssrc).map(|ssrc| ssrc.0),
                "payloadType": published.map(|it| it.payload_type.get()),
                "muted": member.info.is_silent(),
                "packets": published.map(|it| it.packets),
                "bytes": published.map(|it| it.bytes),
                "lost": published.map(|it| it.lost),
                "lossPercent": published.map(|it| percent(it.fraction_lost)),
                "jitterMs": published.map(|it| jitter_ms(it.jitter)),
                "level": published.map(|it| it.level),
                "speaking": published.is_some_and(|it| it.is_speaking),
                "receivers": self.receivers.get(&member.track).copied().unwrap_or_default(),
            })
        })
    }

    fn workers(&self) -> Vec<Value> {
        let worker = |(index, counters): (usize, &crate::metrics::counters::WorkerCounters)| {
            let drops: serde_json::Map<String, Value> = DropReason::ALL
                .iter()
                .map(|reason| (reason.label().to_owned(), counters.drops(*reason)))
                .filter(|(_, count)| *count > 0)
                .map(|(label, count)| (label, count.into()))
                .collect();
            json!({
                "worker": index,
                "udpPort": self.view.ports.get(index),
                "backend": counters.backend,
                "rooms": counters.rooms,
                "peers": counters.transports,
                "tracks": counters.tracks,
                "slots": counters.slots,
                "rtpIn": counters.rtp_in,
                "rtpOut": counters.rtp_out,
                "bytesIn": counters.bytes_in,
                "bytesOut": counters.bytes_out,
                "wakeups": counters.wakeups,
                "busyMs": counters.busy_ns / 1_000_000,
                "cpuMs": counters.cpu_ns / 1_000_000,
                "cpuWaitMs": counters.cpu_wait_ns / 1_000_000,
                "overloadMs": counters.overload_ns / 1_000_000,
                "voicesRelayedIn": counters.voices_relayed_in,
                "voicesRelayedOut": counters.voices_relayed_out,
                "drops": drops,
            })
        };
        self.view.counters.workers.iter().enumerate().map(worker).collect()
    }

    fn age(&self, at: Instant) -> Duration {
        self.view.now.instant.saturating_duration_since(at)
    }
}

/// As the W3C names it.
fn state_name(state: ConnectionState) -> &'static str {
    match state {
        ConnectionState::New => "new",
        ConnectionState::Connecting => "connecting",
        ConnectionState::Connected => "connected",
        ConnectionState::Disconnected => "disconnected",
        ConnectionState::Failed => "failed",
    }
}

fn dtls_name(state: DtlsState) -> &'static str {
    match state {
        DtlsState::New => "new",
        DtlsState::Connecting => "connecting",
        DtlsState::Connected => "connected",
    }
}

fn ago(now: NtpTime, age: Duration) -> NtpTime {
    NtpTime(now.0.wrapping_sub(NtpTime(0).after(age).0))
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

fn fine_millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 100_000.0).round() / 100.0
}

fn jitter_ms(ticks: u32) -> f64 {
    (f64::from(ticks) * 100_000.0 / f64::from(OPUS_CLOCK_RATE)).round() / 100.0
}

fn percent(fraction_256ths: u8) -> f64 {
    (f64::from(fraction_256ths) * 10_000.0 / 256.0).round() / 100.0
}
