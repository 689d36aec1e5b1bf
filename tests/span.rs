//! A room that spans two workers: both production cores in one thread, and what they relay carried between them by
//! hand, so that it can be late or lost.

mod sim;

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use gryt_sfu::dtls::keying::SrtpProfile;
use gryt_sfu::ice::credentials::Secret;
use gryt_sfu::ids::{RoomId, SlotIndex, Ssrc, TrackId, TransportId, WorkerId, WorkerSet};
use gryt_sfu::packet::{Datagram, DropReason};
use gryt_sfu::room::rewrite::Stretch;
use gryt_sfu::rtcp::packet::{Compound, Packet};
use gryt_sfu::rtcp::report::SenderInfo;
use gryt_sfu::rtcp::writer::Writer;
use gryt_sfu::srtp::index::PacketIndex;
use gryt_sfu::time::{Now, NtpTime, RtpTime};
use gryt_sfu::worker::command::Command;
use gryt_sfu::worker::event::Event;
use gryt_sfu::worker::relay::Relay;
use gryt_sfu::worker::snapshot::PeerSnapshot;
use proptest::prelude::*;
use sim::{Caller, Heard, ROOM, Sim, binding_request, slot_ssrc};

const GCM: SrtpProfile = SrtpProfile::AeadAes128Gcm;
const MS20: Duration = Duration::from_millis(20);

/// Two parts of one room. Caller n is on part 0 if n is odd, else on part 1.
struct Span {
    parts: [Sim; 2],
    /// On their way: from whom, to whom.
    under_way: VecDeque<(usize, usize, Relay)>,
}

fn part_of(number: u64) -> usize {
    usize::from(number.is_multiple_of(2))
}

fn worker(part: usize) -> WorkerId {
    WorkerId(part as u8)
}

impl Span {
    fn new(audio_slots: u16) -> Span {
        let secret = Secret::random();
        let parts = [0, 1].map(|part| Sim::with_sharers(audio_slots, secret.clone(), worker(part), 1));
        let mut span = Span { parts, under_way: VecDeque::new() };
        span.span(true);
        span
    }

    /// Tells both parts of each other, or that there is no other.
    fn span(&mut self, spans: bool) {
        for part in 0..2 {
            let others = if spans { WorkerSet::EMPTY.with(worker(1 - part)) } else { WorkerSet::EMPTY };
            self.parts[part].command(Command::SpanRoom { room: ROOM, others, is_home: part == 0 });
        }
    }

    fn join(&mut self, number: u16) -> Caller {
        self.parts[part_of(number.into())].join(number, GCM)
    }

    fn sim(&mut self, caller: &Caller) -> &mut Sim {
        &mut self.parts[part_of(caller.transport.0)]
    }

    /// As control does it: the other part first.
    fn publish(&mut self, caller: &Caller) -> TrackId {
        let (part, track) = (part_of(caller.transport.0), TrackId(caller.transport.0));
        let elsewhere = Command::PublishElsewhere { room: ROOM, track, worker: worker(part), muted: false };
        self.parts[1 - part].command(elsewhere);
        self.parts[part].publish(caller)
    }

    /// Tells both parts.
    fn tell(&mut self, command: impl Fn() -> Command) {
        self.parts.iter_mut().for_each(|part| part.command(command()));
    }

    fn speak(&mut self, caller: &mut Caller, level: u8, payload: &[u8]) {
        let part = part_of(caller.transport.0);
        self.parts[part].speak(caller, level, payload);
    }

    /// What was relayed is on its way.
    fn collect(&mut self) {
        for from in 0..2 {
            for (to, relay) in self.parts[from].relays() {
                self.under_way.push_back((from, usize::from(to.0), relay));
            }
        }
    }

    /// What is on its way arrives.
    fn carry(&mut self) {
        self.collect();
        for (from, to, relay) in self.under_way.drain(..) {
            self.parts[to].hand_over(worker(from), relay);
        }
    }

    /// All arrives, and both batches end. What each of these heard.
    fn hear<const N: usize>(&mut self, callers: [&mut Caller; N]) -> [Vec<Heard>; N] {
        self.carry();
        self.parts.iter_mut().for_each(Sim::flush);
        let heard = callers.map(|caller| self.sim(caller).heard(caller));
        self.parts.iter_mut().for_each(|part| part.sent.clear());
        heard
    }

    fn pass(&mut self, time: Duration) {
        self.parts.iter_mut().for_each(|part| part.pass(time));
    }

    fn drops(&self, reason: DropReason) -> [u64; 2] {
        [0, 1].map(|part| self.parts[part].drops(reason))
    }
}

/// Callers 1 to 4 who all publish and hear each other, each on the slot of the other's number.
fn room_of_four() -> (Span, [Caller; 4]) {
    let mut span = Span::new(64);
    let callers = [1, 2, 3, 4].map(|number| span.join(number));
    callers.iter().for_each(|caller| {
        span.publish(caller);
    });
    for caller in &callers {
        for other in callers.iter().filter(|other| other.transport != caller.transport) {
            let track = TrackId(other.transport.0);
            span.sim(caller).add_slot(caller, track.0 as u16, Some(track));
        }
    }
    span.parts.iter_mut().for_each(|part| {
        part.sent.clear();
        part.events();
    });
    (span, callers)
}

fn payloads(heard: &[Heard]) -> Vec<&[u8]> {
    heard.iter().map(|heard| heard.payload.as_slice()).collect()
}

fn snapshot(sim: &mut Sim, transport: TransportId) -> PeerSnapshot {
    sim.command(Command::Snapshot(1));
    sim.worker.handle_timeout(sim.now, &mut sim.sent);
    let peers = sim.events().into_iter().filter_map(|event| match event {
        Event::Snapshot(piece) => Some(piece.peers),
        _ => None,
    });
    peers.flatten().find(|peer| peer.transport == transport).expect("a peer")
}

#[test]
fn members_on_both_parts_hear_each_other_and_each_packet_crosses_once() {
    let (mut span, [mut a, mut b, mut c, mut d]) = room_of_four();
    let mut lines = Vec::new();
    for frame in 0..5 {
        span.pass(MS20);
        span.speak(&mut a, 20, &[1, frame]);
        span.speak(&mut b, 30, &[2, frame]);
        let [on_a, on_b, on_c, on_d] = span.hear([&mut a, &mut b, &mut c, &mut d]);
        assert_eq!(payloads(&on_a), [[2, frame]]);
        assert_eq!(payloads(&on_b), [[1, frame]]);
        for (heard, part) in [(on_c, 0), (on_d, 1)] {
            let mut said = payloads(&heard);
            said.sort_unstable();
            assert_eq!(said, [[1, frame], [2, frame]]);
            lines.extend(heard.into_iter().map(|heard| (part, heard)));
        }
    }
    for part in 0..2 {
        for (slot, level) in [(1, 20), (2, 30)] {
            let ssrc = slot_ssrc(slot);
            let line: Vec<_> =
                lines.iter().filter(|(on, it)| *on == part && it.ssrc == ssrc).map(|(_, it)| it).collect();
            assert_eq!(line.len(), 5);
            assert!(line.windows(2).all(|pair| pair[1].seq == pair[0].seq.wrapping_add(1)));
            assert!(line.windows(2).all(|pair| pair[1].timestamp.wrapping_sub(pair[0].timestamp) == 960));
            assert_eq!(
                line.iter().map(|it| it.marker).collect::<Vec<_>>(),
                [true, false, false, false, false]
            );
            assert!(line.iter().all(|it| it.level == Some(level)));
            assert!(line.iter().all(|it| it.mid.as_deref() == Some(&*format!("s{slot}"))));
        }
    }
    for part in &span.parts {
        let counters = &part.worker.counters;
        assert_eq!((counters.voices_relayed_out, counters.voices_relayed_in), (5, 5), "one a packet");
        assert_eq!((counters.rtp_in, counters.rtp_out), (5, 5 * 3), "opened once");
    }
}

#[test]
fn order_holds_and_a_loss_on_the_way_is_a_loss_on_the_line() {
    let (mut span, [mut a, mut b, ..]) = room_of_four();
    for number in 0..6 {
        span.speak(&mut a, 20, &[number]);
    }
    span.collect();
    span.under_way.remove(2);
    let [heard] = span.hear([&mut b]);
    assert_eq!(payloads(&heard), [[0], [1], [3], [4], [5]]);
    let steps: Vec<u16> = heard.windows(2).map(|pair| pair[1].seq.wrapping_sub(pair[0].seq)).collect();
    assert_eq!(steps, [1, 2, 1, 1]);
}

#[test]
fn a_mute_holds_on_both_parts_whichever_hears_of_it_first() {
    let (mut span, [mut a, mut b, mut c, _]) = room_of_four();
    let track = TrackId(1);
    let mut seqs = Vec::new();
    for first in [0, 1] {
        span.pass(MS20);
        span.speak(&mut a, 20, b"before");
        seqs.extend(span.hear([&mut b])[0].iter().map(|heard| heard.seq));
        span.speak(&mut a, 20, b"on its way");
        span.collect();
        span.parts[first].command(Command::SetMuted { track, muted: true });
        span.speak(&mut a, 20, b"between");
        span.parts[1 - first].command(Command::SetMuted { track, muted: true });
        let (muted, on_way) = (span.drops(DropReason::Muted), span.hear([&mut b, &mut c]));
        assert_eq!(payloads(&on_way[0]), [[0; 0]; 0], "the listener's part has the last word");
        let at_listener = [1, 2][first];
        assert_eq!(span.drops(DropReason::Muted)[1] - muted[1], at_listener);
        let relayed = span.parts[0].worker.counters.voices_relayed_out;
        span.speak(&mut a, 20, b"muted");
        span.speak(&mut a, 20, b"muted");
        assert_eq!(span.hear([&mut b, &mut c]), [vec![], vec![]]);
        assert_eq!(span.parts[0].worker.counters.voices_relayed_out, relayed, "muted at ingress");
        span.tell(|| Command::SetMuted { track, muted: false });
    }
    span.speak(&mut a, 20, b"after");
    let [heard] = span.hear([&mut b]);
    assert_eq!(payloads(&heard), [b"after"]);
    assert!(heard[0].marker);
    seqs.push(heard[0].seq);
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)), "a mute leaves no gap");
}

#[test]
fn a_tracks_end_frees_its_slots_on_both_parts() {
    let (mut span, [mut a, b, c, _]) = room_of_four();
    let carries = |span: &mut Span, caller: &Caller| {
        let slots = snapshot(span.sim(caller), caller.transport).slots;
        slots.iter().find(|slot| slot.slot == SlotIndex(1)).unwrap().source
    };
    assert_eq!((carries(&mut span, &b), carries(&mut span, &c)), (Some(TrackId(1)), Some(TrackId(1))));
    span.speak(&mut a, 20, b"late");
    span.collect();
    span.tell(|| Command::Unpublish(TrackId(1)));
    assert_eq!((carries(&mut span, &b), carries(&mut span, &c)), (None, None));
    span.carry();
    assert_eq!(span.drops(DropReason::RelayUnknown), [0, 1]);
    span.pass(Duration::from_secs(1));
    let tracks: Vec<u64> = span.parts.iter().map(|part| part.worker.counters.tracks).collect();
    assert_eq!(tracks, [1, 2], "each counts its own");
}

#[test]
fn what_a_part_was_not_told_of_is_refused() {
    let (mut span, [mut a, mut b, ..]) = room_of_four();
    let mut relayed = |span: &mut Span| -> Relay {
        span.speak(&mut a, 20, b"voice");
        span.collect();
        span.under_way.pop_back().expect("one relay").2
    };
    // A worker that the track does not come from, and one's own track from elsewhere.
    let relay = relayed(&mut span);
    span.parts[1].hand_over(WorkerId(7), relay);
    let relay = relayed(&mut span);
    span.parts[0].hand_over(WorkerId(1), relay);
    assert_eq!(span.drops(DropReason::RelayUnknown), [1, 1]);
    assert_eq!(span.hear([&mut b]), [vec![]]);
    // A room that is gone here, or never was.
    let relay = relayed(&mut span);
    span.parts[1].command(Command::RemoveRoom(ROOM));
    span.parts[1].hand_over(WorkerId(0), relay);
    assert_eq!(span.drops(DropReason::RelayUnknown), [1, 2]);
    let elsewhere =
        Command::PublishElsewhere { room: RoomId(9), track: TrackId(1), worker: WorkerId(0), muted: false };
    span.parts[1].command(elsewhere);
    let relay = relayed(&mut span);
    span.parts[1].hand_over(WorkerId(0), relay);
    assert_eq!(span.drops(DropReason::RelayUnknown), [1, 3]);
    // Nobody relays without order, nor to itself.
    span.span(false);
    span.speak(&mut a, 20, b"voice");
    let itself = WorkerSet::EMPTY.with(WorkerId(0));
    span.parts[0].command(Command::SpanRoom { room: ROOM, others: itself, is_home: true });
    span.speak(&mut a, 20, b"voice");
    span.collect();
    assert!(span.under_way.is_empty());
}

/// A 5-tuple means another thing on each port, and who asks at the wrong one is nobody.
#[test]
fn with_a_port_each_nothing_but_voices_crosses() {
    let (mut span, [mut a, b, ..]) = room_of_four();
    span.collect();
    assert!(span.under_way.is_empty(), "no paths");
    for (part, caller) in [(1, &a), (0, &b)] {
        let mut request = binding_request(&caller.local, true);
        span.parts[part].deliver(caller.path, &mut request);
    }
    assert_eq!(span.drops(DropReason::StunUnknownUser), [1, 1]);
    span.speak(&mut a, 20, b"voice");
    span.collect();
    let relays: Vec<_> = span.under_way.iter().map(|(_, to, relay)| (*to, relay)).collect();
    assert!(matches!(relays[..], [(1, Relay::Voice(_))]));
}

#[test]
fn a_new_stretch_is_news_on_the_other_part_too() {
    let (mut span, [mut a, mut b, ..]) = room_of_four();
    span.speak(&mut a, 20, b"one");
    let [first] = span.hear([&mut b]);
    assert_eq!(first.len(), 1);
    // Another SSRC with numbers of its own, as a browser takes that restarts its encoder.
    (a.ssrc, a.next) = (Ssrc(77), PacketIndex(150));
    span.pass(MS20);
    span.speak(&mut a, 20, b"two");
    span.speak(&mut a, 20, b"three");
    let [second] = span.hear([&mut b]);
    assert_eq!(payloads(&second), [&b"two"[..], b"three"]);
    assert_eq!(second[0].seq, first[0].seq.wrapping_add(1));
    assert_eq!(second.iter().map(|heard| heard.marker).collect::<Vec<_>>(), [true, false]);
    assert_eq!(second[0].timestamp.wrapping_sub(first[0].timestamp), 960, "by the time elapsed");
}

#[test]
fn beyond_the_slots_the_loudest_of_all_parts_are_heard_on_all_and_home_tells_who_speaks() {
    let mut span = Span::new(2);
    let mut callers: Vec<Caller> = (1..=6).map(|number| span.join(number)).collect();
    for caller in &callers {
        span.publish(caller);
    }
    for caller in &callers {
        (0..2).for_each(|slot| span.sim(caller).add_slot(caller, slot, Some(TrackId(1 + u64::from(slot)))));
    }
    span.parts.iter_mut().for_each(|part| drop(part.events()));
    let mut heard = HashSet::new();
    for frame in 0..100 {
        span.pass(MS20);
        for (at, caller) in callers.iter_mut().enumerate() {
            span.speak(caller, if at >= 4 { 15 } else { 80 }, &[at as u8]);
        }
        let (left, right) = callers.split_at_mut(1);
        let [on_a, on_b] = span.hear([&mut left[0], &mut right[0]]);
        if frame >= 70 {
            heard.extend(on_a.iter().map(|it| (0, it.payload[0])));
            heard.extend(on_b.iter().map(|it| (1, it.payload[0])));
        }
    }
    assert_eq!(heard, HashSet::from([(0, 4), (0, 5), (1, 4), (1, 5)]), "callers 5 and 6, on both parts");
    let mut speakers = |part: usize| {
        let told = span.parts[part].events().into_iter().filter_map(|event| match event {
            Event::ActiveSpeakers { speakers, .. } => {
                Some(speakers.into_iter().map(|(track, _)| track.0).collect::<Vec<_>>())
            }
            _ => None,
        });
        told.last()
    };
    assert_eq!((speakers(0), speakers(1)), (Some(vec![5, 6]), None), "callers of both, by one part");
}

#[test]
fn the_way_between_parts_counts_into_the_latency() {
    let (mut span, [mut a, mut b, ..]) = room_of_four();
    let arrived = Duration::from_secs(1_000_000_000);
    let mut bytes = [0; 200];
    let len = a.protect(20, b"voice", &mut bytes);
    let sim = &mut span.parts[0];
    let datagram = Datagram { path: a.path, arrived: Some(arrived), bytes: &mut bytes[..len] };
    sim.worker.handle_datagram(sim.now, datagram, &mut sim.sent);
    assert_eq!(span.hear([&mut b])[0].len(), 1);
    for part in &mut span.parts {
        let ntp = NtpTime::from_unix(arrived + Duration::from_micros(300));
        part.worker.record_latencies(Now { ntp, ..part.now });
        let latency = &part.worker.counters.forwarding_latency;
        assert_eq!(latency.count(), 1);
        assert!((299_000..=301_000).contains(&latency.sum()), "{}", latency.sum());
    }
}

/// The publisher's clock is 100 ms ahead of its packets, as its sender report says.
#[test]
fn reports_on_the_other_part_go_by_the_publishers_clock_too() {
    let (mut span, [mut a, mut b, ..]) = room_of_four();
    span.speak(&mut a, 20, b"voice");
    let spoken = (a.next.0 as u32 - 1).wrapping_mul(960);
    let [heard] = span.hear([&mut b]);
    let info = |ssrc| SenderInfo {
        ssrc,
        ntp: NtpTime(0),
        rtp_time: RtpTime(spoken + 4_800),
        packet_count: 1,
        octet_count: 5,
    };
    let mut report = [0; 600];
    let mut writer = Writer::new(&mut report);
    // However many say it: the way between parts is for voices.
    (0..20).for_each(|_| writer.sender_report(&info(a.ssrc), []).unwrap());
    let len = writer.len();
    let mut sealed = a.protect_rtcp(&report[..len]);
    span.parts[0].deliver(a.path, &mut sealed);
    let relays = span.parts[0].relays();
    assert!(matches!(&relays[..], [(_, Relay::Clock { .. })]), "{} of them", relays.len());
    for (_, relay) in relays {
        span.parts[1].hand_over(WorkerId(0), relay);
    }
    let reported_at = span.parts[1].now;
    span.carry();
    span.parts[1].sent.clear();
    span.parts[1].pass(Duration::from_millis(1_100));
    let to_b: Vec<Vec<u8>> = span.parts[1]
        .sent
        .datagrams()
        .filter(|(path, _)| *path == b.path)
        .map(|(_, bytes)| bytes.to_vec())
        .collect();
    let mut infos = Vec::new();
    for compound in to_b.iter().filter_map(|bytes| b.unprotect_rtcp(bytes)) {
        for packet in Compound::parse(&compound).unwrap().packets() {
            if let Packet::SenderReport { info, .. } = packet {
                infos.push(info);
            }
        }
    }
    let [info] = infos[..] else { panic!("{} reports on slots", infos.len()) };
    assert_eq!(info.ssrc, slot_ssrc(1));
    let elapsed = (info.ntp.0.wrapping_sub(reported_at.ntp.0) as f64 / f64::from(u32::MAX) * 48_000.0) as i64;
    let ticks = i64::from(info.rtp_time.0.wrapping_sub(heard[0].timestamp));
    assert!((ticks - elapsed - 4_800).abs() <= 2, "{ticks} ticks in {elapsed}");
    // What another worker says of it counts for nothing.
    let clock = Relay::Clock { track: TrackId(1), stretch: Stretch(1), rtp_time: RtpTime(0) };
    span.parts[1].hand_over(WorkerId(7), clock);
    assert_eq!(span.drops(DropReason::RelayUnknown), [0, 1]);
}

#[test]
fn a_fault_in_what_was_relayed_ends_the_room_there() {
    let (mut span, [mut a, b, ..]) = room_of_four();
    span.speak(&mut a, 20, b"voice");
    span.carry();
    let sim = &mut span.parts[1];
    sim.sent.trap = Some(b.path);
    assert!(sim.worker.contain(|worker| worker.flush(sim.now, &mut sim.sent)));
    assert!(sim.events().iter().any(|event| matches!(event, Event::RoomFailed(ROOM))));
    span.speak(&mut a, 20, b"voice");
    span.carry();
    assert_eq!(span.drops(DropReason::RelayUnknown), [0, 1], "until control ends the rest");
    span.parts[0].command(Command::RemoveRoom(ROOM));
    let strangers = span.drops(DropReason::UnknownPath)[0];
    span.speak(&mut a, 20, b"voice");
    assert_eq!(span.drops(DropReason::UnknownPath)[0], strangers + 1);
}

/// A nonce is a key, an SSRC and an index (RFC 3711 §9.1): none may come twice.
mod nonces {
    use super::*;

    const CALLERS: usize = 4;

    #[derive(Clone, Debug)]
    enum Step {
        Speak { who: usize, jump: u64 },
        ChangeSsrc { who: usize },
        Assign { who: usize, slot: u16, source: Option<usize> },
        Mute { who: usize, part: usize, muted: bool },
        Deafen { who: usize, deafened: bool },
        Republish { who: usize },
        Span(bool),
        Lose,
        Carry,
        Flush,
        Pass { ms: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        let who = 0..CALLERS;
        prop_oneof![
            12 => (who.clone(), prop_oneof![9 => Just(1_u64), 2 => 1..60_u64, 1 => 2_900..33_000_u64])
                .prop_map(|(who, jump)| Step::Speak { who, jump }),
            1 => who.clone().prop_map(|who| Step::ChangeSsrc { who }),
            4 => (who.clone(), 0..2_u16, prop::option::of(who.clone()))
                .prop_map(|(who, slot, source)| Step::Assign { who, slot, source }),
            2 => (who.clone(), 0..2_usize, any::<bool>())
                .prop_map(|(who, part, muted)| Step::Mute { who, part, muted }),
            2 => (who.clone(), any::<bool>()).prop_map(|(who, deafened)| Step::Deafen { who, deafened }),
            1 => who.prop_map(|who| Step::Republish { who }),
            1 => prop::bool::weighted(0.8).prop_map(Step::Span),
            1 => Just(Step::Lose),
            5 => Just(Step::Carry),
            6 => Just(Step::Flush),
            2 => (1..1_500_u64).prop_map(|ms| Step::Pass { ms }),
        ]
    }

    struct History {
        span: Span,
        callers: [Caller; CALLERS],
        sealed: HashSet<(TransportId, Ssrc, u64)>,
    }

    impl History {
        fn new() -> History {
            let mut span = Span::new(2); // Fewer slots than voices: the stage takes part.
            let callers = [1, 2, 3, 4].map(|number| span.join(number));
            callers.iter().for_each(|caller| {
                span.publish(caller);
            });
            for caller in &callers {
                for slot in 0..2 {
                    let source = TrackId(1 + (caller.transport.0 + u64::from(slot)) % CALLERS as u64);
                    span.sim(caller).add_slot(caller, slot, Some(source));
                }
            }
            History { span, callers, sealed: HashSet::new() }
        }

        fn take(&mut self, step: Step) {
            let span = &mut self.span;
            let track = |who: usize| TrackId(1 + who as u64);
            match step {
                Step::Speak { who, jump } => {
                    let caller = &mut self.callers[who];
                    caller.next = PacketIndex(caller.next.0 + jump - 1);
                    span.speak(caller, 10 + who as u8, b"voice");
                }
                Step::ChangeSsrc { who } => {
                    let caller = &mut self.callers[who];
                    (caller.ssrc, caller.next) = (Ssrc(caller.ssrc.0 + 0x100), PacketIndex(7));
                }
                Step::Assign { who, slot, source } => {
                    let caller = &self.callers[who];
                    let (transport, slot) = (caller.transport, SlotIndex(slot));
                    span.sim(caller).command(Command::AssignSlot {
                        transport,
                        slot,
                        source: source.map(track),
                    });
                }
                Step::Mute { who, part, muted } => {
                    span.parts[part].command(Command::SetMuted { track: track(who), muted });
                }
                Step::Deafen { who, deafened } => {
                    let transport = self.callers[who].transport;
                    span.tell(|| Command::SetDeafened { transport, deafened });
                }
                Step::Republish { who } => {
                    span.tell(|| Command::Unpublish(track(who)));
                    span.publish(&self.callers[who]);
                }
                Step::Span(spans) => span.span(spans),
                Step::Lose => {
                    span.collect();
                    span.under_way.pop_front();
                }
                Step::Carry => span.carry(),
                Step::Flush => span.parts.iter_mut().for_each(Sim::flush),
                Step::Pass { ms } => {
                    self.callers.iter().for_each(|caller| span.sim(caller).consent(caller));
                    span.pass(Duration::from_millis(ms));
                }
            }
            self.look();
        }

        fn look(&mut self) {
            for part in &mut self.span.parts {
                for (path, bytes) in part.sent.datagrams() {
                    let Some(caller) = self.callers.iter_mut().find(|caller| caller.path == path) else {
                        continue;
                    };
                    if let Some(heard) = caller.unprotect(bytes) {
                        let sealed = (caller.transport, heard.ssrc, heard.index);
                        assert!(self.sealed.insert(sealed), "{sealed:?} left twice");
                    }
                }
                part.sent.clear();
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn no_index_of_an_ssrc_leaves_twice_under_a_key(steps in prop::collection::vec(step(), 1..250)) {
            let mut history = History::new();
            steps.into_iter().for_each(|step| history.take(step));
        }
    }

    #[test]
    fn a_history_has_something_in_it() {
        let mut history = History::new();
        for _ in 0..20 {
            (0..CALLERS).for_each(|who| history.take(Step::Speak { who, jump: 1 }));
            history.take(Step::Carry);
            history.take(Step::Flush);
        }
        assert!(history.sealed.len() >= 100, "{}", history.sealed.len());
        let relayed: u64 = history.span.parts.iter().map(|part| part.worker.counters.voices_relayed_in).sum();
        assert_eq!(relayed, 80);
    }
}
