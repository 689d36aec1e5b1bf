//! The packet path allocates nothing: 4 speakers, 100 listeners, checks of theirs and reports of ours, once
//! everything is warm. One allocation a second is left, the snapshot of the counters that goes to control.

mod sim;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use gryt_sfu::dtls::keying::SrtpProfile;
use gryt_sfu::ice::credentials::Secret;
use gryt_sfu::ids::{TrackId, WorkerId, WorkerSet};
use gryt_sfu::packet::DropReason;
use gryt_sfu::worker::Settings;
use gryt_sfu::worker::command::Command;
use gryt_sfu::worker::event::Event;
use sim::{Caller, ROOM, Sim, binding_request};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // Gone while a thread ends; nothing is measured then.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

#[expect(unsafe_code, reason = "an allocator that counts has to be one")]
// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: by the caller's word.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        count();
        // SAFETY: by the caller's word.
        unsafe { System.realloc(old, layout, len) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: by the caller's word.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SPEAKERS: u16 = 4;
const LISTENERS: u16 = 100;
/// On which packets of several lengths leave together, padded.
const TICK: Duration = Duration::from_millis(10);

/// What the room does in 20 ms, and how many snapshots of counters came of it.
fn frame(sim: &mut Sim, callers: &mut [Caller], checks: &[Vec<u8>], number: usize) -> u64 {
    sim.sent.clear();
    for (n, speaker) in callers[..usize::from(SPEAKERS)].iter_mut().enumerate() {
        sim.speak(speaker, 20, &[0x5A; 120][n * 9..]);
    }
    sim.now = sim.now.after(TICK);
    sim.flush();
    // Each caller checks every 2.5 s; a stranger and a forger are always there.
    for at in (number % 125..callers.len()).step_by(125) {
        let mut check = [0; 256];
        let check = &mut check[..checks[at].len()];
        check.copy_from_slice(&checks[at]);
        sim.deliver(callers[at].path, check);
    }
    sim.deliver(sim::path(60_000, 1), &mut [0x80; 100]);
    sim.deliver(callers[0].path, &mut [0x80; 100]);
    sim.pass(Duration::from_millis(20) - TICK);
    sim.worker.take_events().map(|event| u64::from(matches!(event, Event::Counters(_)))).sum()
}

#[test]
fn a_room_in_full_swing_allocates_nothing() {
    let (id, secret, tick) = (WorkerId(0), Secret::random(), TICK);
    let settings =
        Settings { id, port_sharers: 1, secret, audio_slots: 32, tick, pad_max: 64, seed: [7; 32] };
    let mut sim = Sim::with_settings(settings);
    let mut callers: Vec<_> = (1..=SPEAKERS + LISTENERS)
        .map(|number| sim.join(number, SrtpProfile::ALL[usize::from(number) % SrtpProfile::ALL.len()]))
        .collect();
    for speaker in &callers[..usize::from(SPEAKERS)] {
        sim.publish(speaker);
    }
    for caller in &callers {
        for speaker in (1..=SPEAKERS).filter(|speaker| u64::from(*speaker) != caller.transport.0) {
            sim.add_slot(caller, speaker, Some(TrackId(speaker.into())));
        }
    }
    let checks: Vec<_> = callers.iter().map(|caller| binding_request(&caller.local, true)).collect();
    for number in 0..200 {
        frame(&mut sim, &mut callers, &checks, number);
    }
    let (before, rtp_out) = (ALLOCATIONS.get(), sim.worker.counters.rtp_out);
    assert!(before > 0, "the allocator counts");
    let snapshots: u64 = (0..250).map(|number| frame(&mut sim, &mut callers, &checks, number)).sum();
    let allocations = ALLOCATIONS.get() - before;
    assert_eq!(sim.worker.counters.rtp_out - rtp_out, 250 * 4 * 103);
    assert_eq!(snapshots, 5);
    assert!(sim.worker.counters.padding_out > 0);
    assert_eq!(allocations, snapshots, "beside the snapshots of the counters");
    assert!(sim.drops(DropReason::BadAuthTag) >= 250 && sim.drops(DropReason::UnknownPath) >= 250);
}

/// What crosses between the parts of a room that spans workers, both ways, too.
#[test]
fn a_room_that_spans_two_workers_allocates_nothing() {
    let secret = Secret::random();
    let mut parts = [0, 1].map(|id| Sim::with_sharers(32, secret.clone(), WorkerId(id), 1));
    let mut callers = Vec::new();
    for (part, sim) in parts.iter_mut().enumerate() {
        let others = WorkerSet::EMPTY.with(WorkerId(1 - part as u8));
        sim.command(Command::SpanRoom { room: ROOM, others, is_home: part == 0 });
        for number in 0..10 {
            callers.push(sim.join(1 + 10 * part as u16 + number, SrtpProfile::AeadAes128Gcm));
        }
    }
    let speakers = [0, 10];
    for (part, speaker) in speakers.into_iter().enumerate() {
        let (track, worker) = (TrackId(callers[speaker].transport.0), WorkerId(part as u8));
        parts[1 - part].command(Command::PublishElsewhere { room: ROOM, track, worker, muted: false });
        parts[part].publish(&callers[speaker]);
    }
    for (at, caller) in callers.iter().enumerate() {
        for speaker in speakers.into_iter().filter(|speaker| *speaker != at) {
            parts[at / 10].add_slot(caller, speaker as u16, Some(TrackId(callers[speaker].transport.0)));
        }
    }
    let mut ids = [0, 1].map(WorkerId);
    let mut frame = |number: usize| -> u64 {
        for (part, speaker) in speakers.into_iter().enumerate() {
            parts[part].sent.clear();
            parts[part].speak(&mut callers[speaker], 20, &[0x5A; 120][number % 40..]);
        }
        for _ in 0..2 {
            let [from, to] = &mut parts;
            for (_, mut relay) in from.worker.take_relays() {
                to.worker.handle_relay(to.now, ids[0], &mut relay, &mut to.sent);
            }
            parts.reverse();
            ids.reverse();
        }
        let mut snapshots = 0;
        for sim in &mut parts {
            sim.flush();
            sim.pass(Duration::from_millis(20));
            let is_snapshot = |event| u64::from(matches!(event, Event::Counters(_)));
            snapshots += sim.worker.take_events().map(is_snapshot).sum::<u64>();
        }
        snapshots
    };
    assert!((0..200).map(&mut frame).sum::<u64>() > 0);
    let before = ALLOCATIONS.get();
    let snapshots: u64 = (0..250).map(frame).sum();
    assert_eq!((ALLOCATIONS.get() - before, snapshots), (10, 10), "beside the snapshots of the counters");
    for sim in &parts {
        assert_eq!((sim.worker.counters.voices_relayed_in, sim.worker.counters.rtp_out), (450, 450 * 19));
    }
}
