//! The worker's promises, one by one: the production core with callers in memory, on a virtual clock.

#[path = "worker/consent.rs"]
mod consent;
#[path = "worker/hostile.rs"]
mod hostile;
#[path = "worker/nonces.rs"]
mod nonces;
#[path = "worker/paths.rs"]
mod paths;
mod sim;

use std::collections::HashMap;
use std::time::Duration;

use gryt_sfu::dtls::keying::SrtpProfile;
use gryt_sfu::ice::credentials::Secret;
use gryt_sfu::ids::{Mid, PayloadType, RoomId, SlotIndex, Ssrc, TrackId, TransportId, WorkerId};
use gryt_sfu::packet::{Datagram, DropReason, Path};
use gryt_sfu::rtcp::packet::{Compound, Packet};
use gryt_sfu::rtcp::report::{ReportBlock, SenderInfo};
use gryt_sfu::rtcp::writer::Writer;
use gryt_sfu::srtp::index::PacketIndex;
use gryt_sfu::time::{NtpTime, RtpTime};
use gryt_sfu::worker::command::{Command, PublishedStream};
use gryt_sfu::worker::event::{ConnectionState, Event};
use gryt_sfu::worker::relay::Relay;
use gryt_sfu::worker::snapshot::PeerSnapshot;
use sim::{
    Caller, DTLS, Heard, IDS, OPUS, ROOM, Sim, binding_request, binding_request_with, path, slot_ssrc,
};

const GCM: SrtpProfile = SrtpProfile::AeadAes128Gcm;
const MS20: Duration = Duration::from_millis(20);

/// Callers 1 to `count` who all publish and hear each other, each on the slot of the other's number.
fn room_of(count: u16) -> (Sim, Vec<Caller>) {
    let mut sim = Sim::new(64);
    let profiles = SrtpProfile::ALL.into_iter().cycle();
    let callers: Vec<Caller> = (1..=count).zip(profiles).map(|(n, profile)| sim.join(n, profile)).collect();
    for caller in &callers {
        sim.publish(caller);
    }
    for caller in &callers {
        for other in callers.iter().filter(|other| other.transport != caller.transport) {
            sim.add_slot(caller, other.transport.0 as u16, Some(TrackId(other.transport.0)));
        }
    }
    sim.sent.clear();
    sim.events();
    (sim, callers)
}

/// Everything flushed, heard by this caller, forgotten.
fn hear(sim: &mut Sim, caller: &mut Caller) -> Vec<Heard> {
    sim.flush();
    let heard = sim.heard(caller);
    sim.sent.clear();
    heard
}

fn payloads(heard: &[Heard]) -> Vec<&[u8]> {
    heard.iter().map(|heard| heard.payload.as_slice()).collect()
}

fn states(sim: &mut Sim) -> Vec<(TransportId, ConnectionState)> {
    let connection = |event| match event {
        Event::Connection { transport, state } => Some((transport, state)),
        _ => None,
    };
    sim.events().into_iter().filter_map(connection).collect()
}

/// Time passes while these callers go on consenting.
fn pass_consenting(sim: &mut Sim, time: Duration, callers: &[Caller]) {
    let end = sim.now.instant + time;
    while sim.now.instant < end {
        callers.iter().for_each(|caller| sim.consent(caller));
        sim.pass((end - sim.now.instant).min(Duration::from_millis(2_500)));
    }
}

#[test]
fn a_batch_leaves_receiver_by_receiver_in_the_order_in_which_it_came() {
    let (mut sim, mut callers) = room_of(3);
    for frame in 0..3 {
        for (speaker, caller) in callers.iter_mut().enumerate().take(2) {
            sim.speak(caller, 20 + speaker as u8, &[speaker as u8, frame]);
        }
    }
    assert_eq!(sim.sent.len(), 0, "nothing leaves before the batch ends");
    sim.flush();
    assert_eq!(sim.sent.run_count, 3, "one run a receiver");
    let mut receivers: Vec<_> = sim.sent.datagrams().map(|(path, _)| path.remote).collect();
    receivers.dedup();
    assert_eq!(receivers.len(), 3, "a receiver's packets lie side by side");

    let heard = sim.heard(&mut callers[2]);
    assert_eq!(payloads(&heard), [[0, 0], [1, 0], [0, 1], [1, 1], [0, 2], [1, 2]]);
    for speaker in 0..2_u16 {
        let ssrc = slot_ssrc(speaker + 1);
        let line: Vec<_> = heard.iter().filter(|heard| heard.ssrc == ssrc).collect();
        assert!(line.windows(2).all(|pair| pair[1].seq == pair[0].seq.wrapping_add(1)));
        assert!(line.windows(2).all(|pair| pair[1].timestamp.wrapping_sub(pair[0].timestamp) == 960));
        assert_eq!(line.iter().map(|heard| heard.marker).collect::<Vec<_>>(), [true, false, false]);
        assert!(line.iter().all(|heard| heard.level == Some(20 + speaker as u8)));
        assert!(line.iter().all(|heard| heard.mid.as_deref() == Some(&*format!("s{}", speaker + 1))));
    }
    assert_eq!(payloads(&sim.heard(&mut callers[0])), [[1, 0], [1, 1], [1, 2]], "nobody hears itself");
}

#[test]
fn a_slot_goes_on_whatever_it_carries_and_one_without_source_is_silent() {
    let (mut sim, mut callers) = room_of(3);
    let assign = |sim: &mut Sim, source| {
        sim.command(Command::AssignSlot { transport: TransportId(3), slot: SlotIndex(1), source });
    };
    sim.speak(&mut callers[0], 20, b"a");
    let first = hear(&mut sim, &mut callers[2]).remove(0);
    sim.pass(MS20);
    assign(&mut sim, Some(TrackId(2)));
    sim.speak(&mut callers[0], 20, b"a");
    sim.speak(&mut callers[1], 20, b"b");
    let second = hear(&mut sim, &mut callers[2]);
    assert_eq!(payloads(&second), [b"b"], "one track left its slot, the other took it");
    assert_eq!((second[0].ssrc, second[0].seq), (first.ssrc, first.seq.wrapping_add(1)));
    assert_eq!(second[0].timestamp.wrapping_sub(first.timestamp), 960, "by the time elapsed");
    assert!(second[0].marker);
    assign(&mut sim, None);
    assign(&mut sim, Some(TrackId(99)));
    sim.speak(&mut callers[1], 20, b"b");
    assert_eq!(hear(&mut sim, &mut callers[2]), []);
    assign(&mut sim, Some(TrackId(3)));
    sim.speak(&mut callers[2], 20, b"me");
    assert_eq!(hear(&mut sim, &mut callers[2]), [], "its own voice is no source");
}

#[test]
fn what_a_receiver_refused_is_not_chosen_for_it() {
    let mut sim = Sim::new(4);
    let mut callers: Vec<Caller> = (1..=4).map(|n| sim.join(n, GCM)).collect();
    for caller in &callers[..3] {
        sim.publish(caller);
    }
    sim.add_slot(&callers[3], 1, Some(TrackId(1)));
    // Of another room, or gone: nobody's.
    let tracks = [TrackId(2), TrackId(77)].into();
    sim.command(Command::Refuse { transport: TransportId(4), line_count_max: 1, tracks });
    let mut last = None;
    for (loud, expected) in [(0, b"0"), (1, b"0"), (2, b"2"), (1, b"2"), (0, b"0")] {
        for _ in 0..50 {
            sim.pass(MS20);
            for (at, caller) in callers[..3].iter_mut().enumerate() {
                sim.speak(caller, if at == loud { 15 } else { 80 }, at.to_string().as_bytes());
            }
            last = hear(&mut sim, &mut callers[3]).pop().map(|heard| heard.payload).or(last);
        }
        assert_eq!(last.as_deref(), Some(&expected[..]), "{loud} is loud");
    }
}

#[test]
fn the_muted_are_dropped_on_the_way_in_and_the_deaf_are_sent_nothing() {
    let (mut sim, mut callers) = room_of(3);
    let mut seqs = Vec::new();
    for muted in [false, true, false] {
        sim.command(Command::SetMuted { track: TrackId(1), muted });
        for _ in 0..5 {
            sim.pass(MS20);
            sim.speak(&mut callers[0], 20, b"voice");
            seqs.extend(hear(&mut sim, &mut callers[1]).iter().map(|heard| heard.seq));
        }
    }
    assert_eq!(sim.drops(DropReason::Muted), 5);
    assert_eq!(seqs.len(), 10);
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)), "a mute leaves no gap");

    sim.command(Command::SetDeafened { transport: TransportId(2), deafened: true });
    sim.speak(&mut callers[0], 20, b"voice");
    sim.flush();
    assert_eq!(sim.heard(&mut callers[1]), []);
    assert_eq!(hear(&mut sim, &mut callers[2]).len(), 1, "the others hear on");
    sim.command(Command::SetDeafened { transport: TransportId(2), deafened: false });
    sim.speak(&mut callers[0], 20, b"voice");
    let again = hear(&mut sim, &mut callers[1]);
    assert_eq!(again[0].seq, seqs.last().unwrap().wrapping_add(1));
}

/// When a socket's buffer is full, the last of a batch are refused: that must not be the same ones always.
#[test]
fn each_receiver_comes_last_in_turn() {
    let (mut sim, mut callers) = room_of(6);
    let mut last = HashMap::new();
    for _ in 0..60 {
        sim.pass(MS20);
        sim.sent.clear();
        sim.speak(&mut callers[0], 20, b"voice");
        sim.flush();
        assert_eq!(sim.sent.len(), 5);
        *last.entry(sim.sent.datagrams().last().unwrap().0).or_insert(0) += 1;
    }
    assert_eq!(last.len(), 5, "{last:?}");
    // Whoever comes before the speaker, who has nothing to hear, is last twice as often.
    assert!(last.values().all(|count| (10..=20).contains(count)), "{last:?}");
}

/// The reports on what this caller publishes, and on its slots, of all that left since the last clear.
fn reports_to(sim: &Sim, caller: &mut Caller) -> (Vec<ReportBlock>, Vec<SenderInfo>) {
    let own = caller.path;
    let to_caller = sim.sent.datagrams().filter(|(path, _)| *path == own);
    let compounds: Vec<_> = to_caller.filter_map(|(_, bytes)| caller.unprotect_rtcp(bytes)).collect();
    let (mut blocks, mut infos) = (Vec::new(), Vec::new());
    for compound in &compounds {
        for packet in Compound::parse(compound).unwrap().packets() {
            match packet {
                Packet::ReceiverReport { reports, .. } => blocks.extend(reports.iter()),
                Packet::SenderReport { info, .. } => infos.push(info),
                _ => {}
            }
        }
    }
    (blocks, infos)
}

#[test]
fn a_voice_is_reported_on_each_second_and_a_slot_each_five_and_silence_not_at_all() {
    let (mut sim, mut callers) = room_of(2);
    let (mut blocks, mut infos) = (0, 0);
    for _ in 0..30 {
        callers.iter().for_each(|caller| sim.consent(caller));
        for _ in 0..50 {
            sim.pass(MS20);
            sim.speak(&mut callers[0], 20, b"voice");
            sim.flush();
        }
        blocks += reports_to(&sim, &mut callers[0]).0.len();
        infos += reports_to(&sim, &mut callers[1]).1.len();
        sim.sent.clear();
    }
    assert!((24..=40).contains(&blocks), "{blocks} receiver reports in 30 s");
    // The first within 1.25 s.
    assert!((5..=9).contains(&infos), "{infos} sender reports in 30 s");

    callers[0].next.0 += 10; // Lost.
    sim.speak(&mut callers[0], 20, b"voice");
    let fraction_lost = |sim: &mut Sim| {
        let peers = snapshot(sim);
        peers.iter().flat_map(|peer| &peer.published).map(|published| published.fraction_lost).max()
    };
    let told = (0..65).any(|_| {
        sim.pass(MS20);
        fraction_lost(&mut sim) > Some(0)
    });
    assert!(told, "within 1.25 s, looked at each 50 ms");
    sim.pass(Duration::from_secs(7)); // What came last may still be reported on, and no more.
    assert_eq!(fraction_lost(&mut sim), Some(0), "it is of the last second");
    sim.sent.clear();
    callers.iter().for_each(|caller| sim.consent(caller));
    sim.pass(Duration::from_secs(15));
    assert_eq!(reports_to(&sim, &mut callers[0]), (vec![], vec![]));
    assert_eq!(reports_to(&sim, &mut callers[1]), (vec![], vec![]));
}

#[test]
fn reports_are_mapped_onto_the_slot_whatever_the_publishers_clock_says() {
    let (mut sim, mut callers) = room_of(2);
    for ntp in [sim.now.ntp, NtpTime(u64::MAX), NtpTime(0)] {
        sim.sent.clear();
        sim.speak(&mut callers[0], 20, b"voice");
        let spoken = (callers[0].next.0 as u32 - 1).wrapping_mul(960);
        sim.flush();
        let heard = sim.heard(&mut callers[1]).remove(0);
        let mut report = [0; 64];
        let mut writer = Writer::new(&mut report);
        let info = SenderInfo {
            ssrc: callers[0].ssrc,
            ntp,
            rtp_time: RtpTime(spoken),
            packet_count: 1,
            octet_count: 5,
        };
        writer.sender_report(&info, []).unwrap();
        let len = writer.len();
        let sealed = callers[0].protect_rtcp(&report[..len]);
        sim.deliver(callers[0].path, &mut sealed.clone());
        let reported_at = sim.now;
        sim.sent.clear();
        // On a slot 6.25 s after the last at the latest, looked at with the next on the voice, which is due for 1.25 s.
        sim.pass(Duration::from_millis(7_600));

        let block = reports_to(&sim, &mut callers[0]).0.pop().expect("a report on the voice");
        assert_eq!((block.ssrc, block.last_sr), (callers[0].ssrc, ntp.middle()));
        assert!((1..=88_500).contains(&block.delay_since_last_sr), "in 65536ths of a second");
        let info = reports_to(&sim, &mut callers[1]).1.pop().expect("a report on the slot");
        assert_eq!(info.ssrc, slot_ssrc(1));
        // The same instant on our clock and on the slot's: ticks since the voice are the time since then.
        let elapsed =
            (info.ntp.0.wrapping_sub(reported_at.ntp.0) as f64 / f64::from(u32::MAX) * 48_000.0) as i64;
        let ticks = i64::from(info.rtp_time.0.wrapping_sub(heard.timestamp));
        assert!((ticks - elapsed).abs() <= 2, "{ticks} ticks in {elapsed}");
    }
}

#[test]
fn a_flood_is_cut_to_the_rate_and_nobody_else_notices() {
    let (mut sim, mut callers) = room_of(3);
    let (mut flooded, mut heard) = (0, 0);
    for frame in 0..50_u8 {
        sim.pass(MS20);
        for _ in 0..100 {
            sim.speak(&mut callers[0], 0, &[0xFF; 120]);
        }
        sim.speak(&mut callers[1], 20, &[frame]);
        for packet in hear(&mut sim, &mut callers[2]) {
            match packet.payload.len() {
                1 => {
                    assert_eq!(packet.payload, [frame]);
                    heard += 1;
                }
                _ => flooded += 1,
            }
        }
    }
    assert_eq!(heard, 50);
    assert!((250..=505).contains(&flooded), "{flooded} of 5000");
    assert_eq!(sim.drops(DropReason::RateLimited), 5_000 - flooded);
    // Few packets and many bytes.
    let before = sim.drops(DropReason::RateLimited);
    for _ in 0..50 {
        sim.pass(MS20);
        for _ in 0..5 {
            sim.speak(&mut callers[1], 0, &[0xFF; 1_300]);
        }
    }
    assert!(sim.drops(DropReason::RateLimited) > before);
}

#[test]
fn what_fits_in_no_datagram_is_dropped_once_and_laid_to_its_sender_alone() {
    let (mut sim, mut callers) = room_of(3);
    sim.speak(&mut callers[0], 0, &[0xFF; 1_400]);
    assert_eq!(payloads(&hear(&mut sim, &mut callers[1])), [[0xFF; 1_400]]);
    sim.pass(MS20);
    sim.speak(&mut callers[0], 0, &[0xFF; 1_460]);
    assert_eq!(hear(&mut sim, &mut callers[1]).len(), 0);
    assert_eq!(sim.drops(DropReason::TooLong), 1);
    let counts: Vec<u64> =
        snapshot(&mut sim).iter().map(|peer| peer.traffic.drops(DropReason::TooLong)).collect();
    assert_eq!(counts, [1, 0, 0]);
}

#[test]
fn jitter_is_that_of_the_network_and_not_of_the_wake_ups() {
    let (mut sim, mut callers) = room_of(2);
    for _ in 0..20 {
        sim.pass(2 * MS20);
        for age in [MS20, Duration::ZERO] {
            sim.age = Some(age);
            sim.speak(&mut callers[0], 0, b"voice");
        }
    }
    let jitter = |sim: &mut Sim| snapshot(sim)[0].published[0].jitter;
    // A tick is 21 µs.
    assert!(jitter(&mut sim) <= 1, "{}", jitter(&mut sim));
    for _ in 0..20 {
        sim.pass(2 * MS20);
        sim.age = Some(Duration::ZERO);
        sim.speak(&mut callers[0], 0, b"voice");
        sim.speak(&mut callers[0], 0, b"voice");
    }
    assert!(jitter(&mut sim) > 500, "{}", jitter(&mut sim));
}

#[test]
fn who_joins_again_is_heard_on_the_slots_of_before() {
    let (mut sim, mut callers) = room_of(2);
    sim.speak(&mut callers[0], 20, b"before");
    let before = hear(&mut sim, &mut callers[1]).remove(0);
    sim.command(Command::RemoveTransport(TransportId(1)));
    sim.pass(Duration::from_secs(2));
    let mut again = sim.join(11, GCM);
    sim.publish_as(&again, TrackId(1));
    sim.sent.clear();
    sim.speak(&mut again, 20, b"after");
    let after = hear(&mut sim, &mut callers[1]).remove(0);
    assert_eq!(after.payload, b"after");
    assert_eq!((after.ssrc, after.seq), (before.ssrc, before.seq.wrapping_add(1)));
    assert_eq!(after.timestamp.wrapping_sub(before.timestamp), 2 * 48_000);
    assert!(after.marker);
    // What the old transport still sends is a stranger's.
    let unknown = sim.drops(DropReason::UnknownPath);
    sim.speak(&mut callers[0], 20, b"ghost");
    assert_eq!(hear(&mut sim, &mut callers[1]), []);
    assert_eq!(sim.drops(DropReason::UnknownPath), unknown + 1);
}

#[test]
fn stalls_and_clock_steps_end_no_call() {
    let (mut sim, mut callers) = room_of(2);
    for round in 0..40_u64 {
        callers.iter().for_each(|caller| sim.consent(caller));
        // The wall clock leaps by years, both ways; the worker sleeps 100 ms, once 40 s in the middle of it.
        sim.now.ntp = NtpTime(round.wrapping_mul(0x1357_9BDF_0246_8ACE));
        for _ in 0..25 {
            sim.now = sim.now.after(Duration::from_millis(100));
            sim.worker.handle_timeout(sim.now, &mut sim.sent);
        }
        if round == 20 {
            sim.now = sim.now.after(Duration::from_secs(40));
            sim.worker.handle_timeout(sim.now, &mut sim.sent);
        }
        sim.speak(&mut callers[0], 20, b"voice");
        assert_eq!(hear(&mut sim, &mut callers[1]).len(), 1, "round {round}");
        let ended = |(_, state): &(TransportId, ConnectionState)| *state == ConnectionState::Failed;
        let told = states(&mut sim);
        assert!(!told.iter().any(ended) && (told.is_empty() || round >= 20), "{told:?} in round {round}");
    }
}

/// A fault of ours, here in the middle of a batch.
#[test]
fn a_panic_ends_the_room_that_it_struck_and_no_other() {
    let (mut sim, mut callers) = room_of(3);
    sim.room = RoomId(2);
    sim.command(Command::AddRoom(sim.room));
    let mut others: Vec<Caller> = (11..=12).map(|number| sim.join(number, GCM)).collect();
    let voice = sim.publish(&others[0]);
    sim.add_slot(&others[1], 1, Some(voice));
    sim.sent.clear();
    sim.events();
    sim.speak(&mut callers[0], 20, b"lost");
    sim.speak(&mut others[0], 20, b"kept");

    let now = sim.now;
    sim.sent.trap = Some(callers[1].path);
    assert!(sim.worker.contain(|worker| worker.flush(now, &mut sim.sent)));
    assert!(!sim.worker.contain(|worker| worker.flush(now, &mut sim.sent)), "the rest of the batch");
    assert_eq!(payloads(&hear(&mut sim, &mut others[1])), [b"kept"]);
    let failed = |event: &Event| matches!(event, Event::RoomFailed(room) if *room == ROOM);
    assert_eq!(sim.events().iter().filter(|event| failed(event)).count(), 1);

    // Who was in that room is a stranger now; the other room goes on.
    let strangers = sim.drops(DropReason::UnknownPath);
    sim.speak(&mut callers[0], 20, b"hello?");
    assert_eq!(sim.drops(DropReason::UnknownPath), strangers + 1);
    sim.speak(&mut others[0], 20, b"on");
    assert_eq!(payloads(&hear(&mut sim, &mut others[1])), [b"on"]);
    sim.pass(Duration::from_secs(3));

    // Orders that crossed the event are about nothing; the room can be made anew.
    sim.command(Command::RemoveTransport(callers[0].transport));
    sim.command(Command::RemoveRoom(ROOM));
    sim.command(Command::AddRoom(RoomId(3)));
    sim.room = RoomId(3);
    sim.sent.trap = None;
    let caller = sim.join(1, GCM);
    assert_eq!(states(&mut sim).last(), Some(&(caller.transport, ConnectionState::Connected)));
}

/// A snapshot of everybody, as soon as it is told.
fn snapshot(sim: &mut Sim) -> Vec<PeerSnapshot> {
    sim.command(Command::Snapshot(1));
    sim.worker.handle_timeout(sim.now, &mut sim.sent);
    let pieces = sim.events().into_iter().filter_map(|event| match event {
        Event::Snapshot(piece) => Some(piece.peers),
        _ => None,
    });
    pieces.flatten().collect()
}

#[test]
fn what_the_kernel_refused_is_counted_for_the_peer_that_it_was_for() {
    let (mut sim, callers) = room_of(2);
    sim.worker.handle_unsent(&callers[1].path, DropReason::SendUnreachable, 3);
    sim.worker.handle_unsent(&callers[1].path, DropReason::SendUnreachable, 1);
    // Gone meanwhile, or never there.
    sim.worker.handle_unsent(&path(99, 1), DropReason::SendUnreachable, 1);
    let counts: Vec<u64> =
        snapshot(&mut sim).iter().map(|peer| peer.traffic.drops(DropReason::SendUnreachable)).collect();
    assert_eq!(counts, [0, 4]);
    assert_eq!(sim.drops(DropReason::SendUnreachable), 0, "the owner of the ring counts the total");
}

/// The room that was dealt with before is not to blame for what comes after.
#[test]
#[should_panic = "nobody's fault"]
fn a_room_is_not_blamed_for_the_next_piece_of_work() {
    let (mut sim, callers) = room_of(2);
    let now = sim.now;
    let mut request = binding_request(&callers[0].local, true);
    sim.worker.contain(|worker| {
        let datagram = Datagram { path: callers[0].path, arrived: None, bytes: &mut request };
        worker.handle_datagram(now, datagram, &mut sim.sent);
        worker.handle_command(now, Command::AddRoom(RoomId(2)), &mut sim.sent);
        panic!("nobody's fault");
    });
}

/// Nobody to blame: the process has to end.
#[test]
#[should_panic = "nobody's fault"]
fn a_panic_outside_of_any_room_goes_on() {
    let (mut sim, _callers) = room_of(2);
    sim.worker.contain(|_| panic!("nobody's fault"));
}

/// However large a worker's rooms are, what it tells of them in one wake-up is bounded, and all is told.
#[test]
fn a_snapshot_is_told_in_pieces() {
    let (mut sim, mut callers) = room_of(30);
    sim.speak(&mut callers[0], 20, b"voice");
    sim.flush();
    sim.command(Command::Snapshot(7));
    let (mut told, mut pieces) = (Vec::new(), 0);
    loop {
        assert!(sim.worker.next_timeout() <= sim.now.instant, "the next piece waits for nothing");
        sim.worker.handle_timeout(sim.now, &mut sim.sent);
        let piece = |event| match event {
            Event::Snapshot(piece) => Some(piece),
            _ => None,
        };
        let [piece] = &mut sim.events().into_iter().filter_map(piece).collect::<Vec<_>>()[..] else {
            panic!("one piece a wake-up");
        };
        assert_eq!(piece.request, 7);
        let rows: usize = piece.peers.iter().map(|peer| 1 + peer.published.len() + peer.slots.len()).sum();
        assert!(rows <= 128 + 32, "{rows} rows in one wake-up");
        told.append(&mut piece.peers);
        pieces += 1;
        if piece.is_last {
            break;
        }
    }
    assert!(pieces > 5, "{pieces}");
    assert_eq!(told.len(), 30);
    assert!(told.iter().all(|peer| peer.slots.len() == 29 && peer.state == ConnectionState::Connected));
    let first = told.iter().find(|peer| peer.transport == TransportId(1)).expect("the speaker");
    assert_eq!((first.traffic.rtp_in, first.published[0].packets), (1, 1));
    let sent: u64 = told.iter().map(|peer| peer.traffic.rtp_out).sum();
    assert_eq!(sent, 29);
    assert!(sim.worker.next_timeout() > sim.now.instant, "it rests again");
}

/// A report takes as long as a voice to one listener does: were they sent all at once, a voice would wait for hundreds.
#[test]
fn reports_leave_a_few_a_wake_up_and_after_voices() {
    let (mut sim, mut callers) = room_of(50);
    let mut wake_up = |sim: &mut Sim, later: Duration, speaks: bool| {
        sim.now = sim.now.after(later);
        if speaks {
            sim.speak(&mut callers[0], 20, b"voice");
        }
        sim.flush();
        sim.sent.clear();
        sim.worker.handle_timeout(sim.now, &mut sim.sent);
        sim.sent.len()
    };
    wake_up(&mut sim, Duration::ZERO, true);
    while sim.worker.next_timeout() <= sim.now.instant {
        wake_up(&mut sim, Duration::ZERO, false);
    }
    assert_eq!(wake_up(&mut sim, Duration::from_secs(2), true), 0, "voices leave first");
    assert!(sim.worker.next_timeout() <= sim.now.instant, "reports wait for nothing else");
    assert_eq!(wake_up(&mut sim, Duration::from_millis(49), true), 0);
    assert_eq!(wake_up(&mut sim, Duration::from_millis(1), true), 16, "not for ever");
    let mut count = 16;
    while sim.worker.next_timeout() <= sim.now.instant {
        let some = wake_up(&mut sim, Duration::ZERO, false);
        assert!(some <= 16, "{some} in one wake-up");
        count += some;
    }
    assert_eq!(count, 50);
}

/// Thousands of rooms are looked after every 50 ms, and a voice that comes meanwhile waits.
#[test]
fn rooms_are_looked_after_some_a_wake_up() {
    let (mut sim, mut callers) = room_of(2);
    (1000..1199).for_each(|id| sim.command(Command::AddRoom(RoomId(id))));
    let mut goes = |sim: &mut Sim| {
        sim.now = sim.now.after(Duration::from_millis(50));
        sim.speak(&mut callers[0], 0, b"voice");
        sim.flush();
        let mut goes = 0;
        while goes == 0 || sim.worker.next_timeout() <= sim.now.instant {
            sim.worker.handle_timeout(sim.now, &mut sim.sent);
            goes += 1;
        }
        goes
    };
    (0..4).for_each(|_| _ = goes(&mut sim));
    assert_eq!(goes(&mut sim), 4, "200 rooms, 64 at a time");
    let tells =
        |event: &Event| matches!(event, Event::ActiveSpeakers { speakers, .. } if speakers.len() == 1);
    assert_eq!(
        sim.events().iter().filter(|event| tells(event)).count(),
        1,
        "and who speaks is told all the same"
    );
}

/// A wake-up between two voices would find the caches cold, and cost as much as theirs.
#[test]
fn one_voice_wakes_the_worker_often_enough() {
    let (mut sim, mut callers) = room_of(10);
    let every = Duration::from_millis(20);
    let (mut reports, mut more) = (0, 0);
    for _ in 0..100 {
        sim.speak(&mut callers[0], 20, b"voice");
        sim.flush();
        sim.sent.clear();
        let mut at_once = 0;
        sim.worker.handle_timeout(sim.now, &mut sim.sent);
        while sim.worker.next_timeout() <= sim.now.instant {
            at_once += 1;
            assert_eq!(at_once, 1, "what voices leave for later takes one go more");
            sim.worker.handle_timeout(sim.now, &mut sim.sent);
        }
        more += at_once;
        assert!(sim.worker.next_timeout() - sim.now.instant > every, "a wake-up between two voices");
        reports += sim.sent.len();
        sim.now = sim.now.after(every);
    }
    assert!(more <= 10, "{more} goes more, though peers are seldom to be looked after");
    assert!((11..=13).contains(&reports), "{reports}: one to each of nine, and one a second to the speaker");
    let silence = every + (sim.worker.next_timeout() - sim.now.instant);
    assert!(silence <= Duration::from_millis(75), "{silence:?}");
}

/// After a pause of the machine all reports are due at once; that must not last.
#[test]
fn reports_that_fell_together_come_apart() {
    let (mut sim, mut callers) = room_of(40);
    let mut counts = Vec::new();
    for round in 0..200 {
        if round % 20 == 0 {
            callers.iter().for_each(|caller| sim.consent(caller));
        }
        sim.speak(&mut callers[0], 20, b"voice");
        sim.flush();
        sim.sent.clear();
        sim.pass(Duration::from_millis(100));
        counts.push(sim.sent.len());
    }
    assert!(counts[..20].contains(&40), "{counts:?}");
    assert!(counts[100..].iter().all(|count| *count <= 15), "{counts:?}");
    let a_second = counts[100..].iter().sum::<usize>() / 10;
    assert!((7..=10).contains(&a_second), "{a_second} in a second to 40, of whom each has one in five");
}
