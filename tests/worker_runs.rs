//! How a receiver's packets of one batch become sends: together, as few as their lengths allow, each SSRC in its
//! order, on the tick where there is one.

mod sim;

use std::time::Duration;

use gryt_sfu::dtls::keying::SrtpProfile;
use gryt_sfu::ice::credentials::Secret;
use gryt_sfu::ids::{RoomId, TrackId, WorkerId};
use gryt_sfu::worker::Settings;
use gryt_sfu::worker::command::Command;
use proptest::prelude::*;
use sim::{Caller, Heard, Sim};

const MS: Duration = Duration::from_millis(1);

fn settings(tick: Duration, pad_max: u8) -> Settings {
    let id = WorkerId(0);
    Settings { id, port_sharers: 1, secret: Secret::random(), audio_slots: 64, tick, pad_max, seed: [7; 32] }
}

/// Callers 1 to `count`; all but the last speak, and the last listens, with nobody else in the room.
fn room_of(count: u16, settings: Settings, profile: SrtpProfile) -> (Sim, Vec<Caller>) {
    let mut sim = Sim::with_settings(settings);
    let callers: Vec<Caller> = (1..=count).map(|number| sim.join(number, profile)).collect();
    for speaker in 1..count {
        sim.publish(&callers[usize::from(speaker) - 1]);
        sim.add_slot(&callers[usize::from(count) - 1], speaker, Some(TrackId(speaker.into())));
    }
    sim.sent.clear();
    (sim, callers)
}

/// A voice and who hears it, in a room of their own.
fn another_room(sim: &mut Sim) -> Vec<Caller> {
    sim.room = RoomId(2);
    sim.command(Command::AddRoom(sim.room));
    let callers: Vec<Caller> = (11..=12).map(|number| sim.join(number, SrtpProfile::AeadAes128Gcm)).collect();
    let voice = sim.publish(&callers[0]);
    sim.add_slot(&callers[1], 1, Some(voice));
    sim.pass(MS);
    sim.sent.clear();
    callers
}

fn say(sim: &mut Sim, speaker: &mut Caller, len: usize) {
    sim.speak(speaker, 20, &vec![speaker.transport.0 as u8; len]);
}

/// Lengths on the wire, in the order in which they left.
fn lengths(sim: &Sim) -> Vec<usize> {
    sim.sent.datagrams().map(|(_, bytes)| bytes.len()).collect()
}

/// Datagrams that the kernel cuts out of one send: of one length, the last perhaps shorter, 16 at most.
fn sends(lengths: &[usize]) -> usize {
    let (mut sends, mut open) = (0, None);
    for &len in lengths {
        open = match open {
            Some((first, count)) if len <= first && count < 16 => {
                if len < first {
                    None
                } else {
                    Some((first, count + 1))
                }
            }
            _ => {
                sends += 1;
                Some((len, 1))
            }
        };
    }
    sends
}

fn heard(sim: &mut Sim, callers: &mut [Caller]) -> Vec<Heard> {
    let heard = sim.heard(callers.last_mut().unwrap());
    sim.sent.clear();
    heard
}

#[test]
fn packets_of_several_lengths_leave_as_one_send() {
    for profile in SrtpProfile::ALL {
        let (mut sim, mut callers) = room_of(5, settings(Duration::ZERO, 64), profile);
        for (speaker, len) in [(0, 80), (1, 120), (2, 101), (3, 60)] {
            say(&mut sim, &mut callers[speaker], len);
        }
        sim.flush();
        // The last one need not be padded.
        let lengths = lengths(&sim);
        assert_eq!(lengths.iter().map(|len| lengths[0] - len).collect::<Vec<_>>(), [0, 0, 0, 60]);
        assert_eq!((sends(&lengths), sim.sent.run_count), (1, 1));
        assert_eq!(sim.worker.counters.padding_out, 19 + 40);
        let payloads: Vec<_> = heard(&mut sim, &mut callers).into_iter().map(|heard| heard.payload).collect();
        assert_eq!(payloads, [vec![2; 120], vec![3; 101], vec![1; 80], vec![4; 60]], "padding is no sound");
    }
}

#[test]
fn padding_that_costs_too_much_is_left_out() {
    for (pad_max, expected_sends) in [(0, 3), (2, 3), (3, 2), (42, 2), (43, 1), (255, 1)] {
        let (mut sim, mut callers) =
            room_of(6, settings(Duration::ZERO, pad_max), SrtpProfile::AeadAes128Gcm);
        for (speaker, len) in [(0, 120), (1, 110), (2, 80), (3, 78), (4, 60)] {
            say(&mut sim, &mut callers[speaker], len);
        }
        sim.flush();
        let padding = sim.worker.counters.padding_out;
        assert_eq!(sends(&lengths(&sim)), expected_sends, "at most {pad_max}, {padding} bytes padded");
        assert!(pad_max > 0 || padding == 0);
        assert_eq!(heard(&mut sim, &mut callers).len(), 5);
    }
}

#[test]
fn on_a_tick_a_room_waits_for_its_other_voices_and_for_no_other_room() {
    let (mut sim, mut callers) = room_of(4, settings(10 * MS, 64), SrtpProfile::AeadAes128Gcm);
    let mut others = another_room(&mut sim);

    let began = sim.now;
    say(&mut sim, &mut callers[0], 100);
    assert_eq!(sim.worker.next_timeout(), began.instant + 10 * MS, "the owner is told when to come back");
    sim.now = began.after(4 * MS);
    say(&mut sim, &mut callers[1], 100);
    say(&mut sim, &mut others[0], 100);
    sim.flush();
    assert_eq!(sim.sent.len(), 0, "nothing is due yet");

    sim.now = began.after(9 * MS);
    say(&mut sim, &mut callers[2], 100);
    sim.now = began.after(10 * MS);
    sim.flush();
    assert_eq!((sim.sent.len(), sim.sent.run_count), (3, 1));
    assert_eq!(heard(&mut sim, &mut callers).len(), 3);
    assert_eq!(sim.worker.next_timeout(), began.instant + 14 * MS);
    sim.now = began.after(14 * MS);
    sim.flush();
    assert_eq!(heard(&mut sim, &mut others).len(), 1);
    sim.now = began.after(30 * MS);
    sim.flush();
    assert_eq!(sim.sent.len(), 0, "nothing leaves twice");
}

#[test]
fn a_room_whose_packet_is_older_goes_before_one_that_was_looked_at_first() {
    let (mut sim, mut callers) = room_of(2, settings(10 * MS, 64), SrtpProfile::AeadAes128Gcm);
    let mut others = another_room(&mut sim);

    let began = sim.now.instant;
    say(&mut sim, &mut callers[0], 100);
    sim.age = Some(8 * MS);
    say(&mut sim, &mut others[0], 100);
    // The kernel's clock and NTP's are rounded to each other.
    let rounding = Duration::from_micros(1);
    let wait = sim.worker.next_timeout().duration_since(began);
    assert!(wait.abs_diff(2 * MS) < rounding, "{wait:?}");
    sim.now = sim.now.after(2 * MS + rounding);
    sim.flush();
    assert_eq!(heard(&mut sim, &mut others).len(), 1);
    assert_eq!(sim.worker.next_timeout(), began + 10 * MS);
}

#[test]
fn a_tick_begins_when_the_kernel_has_the_packet() {
    for (age, left) in [(0, 10), (3, 7), (10, 0), (1_000, 0)] {
        let (mut sim, mut callers) = room_of(2, settings(10 * MS, 64), SrtpProfile::AeadAes128Gcm);
        sim.pass(MS);
        sim.age = Some(age * MS);
        say(&mut sim, &mut callers[0], 100);
        let left = left * MS;
        let told = sim.worker.next_timeout() - sim.now.instant;
        assert!(told.abs_diff(left) < Duration::from_micros(1), "{told:?} left after {age} ms");
    }
}

/// As an overloaded worker's does, and one's that is overloaded no longer.
#[test]
fn a_tick_that_changes_loses_nothing() {
    let (mut sim, mut callers) = room_of(4, settings(Duration::ZERO, 64), SrtpProfile::AeadAes128Gcm);
    sim.pass(MS);
    let began = sim.now;
    sim.worker.set_tick(5 * MS);
    say(&mut sim, &mut callers[0], 100);
    sim.worker.set_tick(20 * MS);
    sim.now = began.after(4 * MS);
    say(&mut sim, &mut callers[1], 100);
    sim.flush();
    assert_eq!(sim.sent.len(), 0);
    sim.now = began.after(5 * MS);
    sim.flush();
    assert_eq!(heard(&mut sim, &mut callers).len(), 2, "as soon as the first was promised");
    say(&mut sim, &mut callers[0], 100);
    assert_eq!(sim.worker.next_timeout(), sim.now.instant + 20 * MS);
    sim.worker.set_tick(Duration::ZERO);
    say(&mut sim, &mut callers[1], 100);
    sim.flush();
    assert_eq!(heard(&mut sim, &mut callers).len(), 2, "at once");
}

#[test]
fn what_waits_of_a_room_that_ends_is_forgotten() {
    let (mut sim, mut callers) = room_of(2, settings(10 * MS, 64), SrtpProfile::AeadAes128Gcm);
    say(&mut sim, &mut callers[0], 100);
    let room = sim.room;
    sim.command(Command::RemoveRoom(room));
    sim.sent.clear();
    sim.now = sim.now.after(20 * MS);
    sim.flush();
    assert_eq!(sim.sent.len(), 0);
}

#[test]
fn a_flood_is_sealed_before_its_tick() {
    let (mut sim, mut callers) = room_of(5, settings(20 * MS, 64), SrtpProfile::AeadAes128Gcm);
    for _ in 0..20 {
        (0..4).for_each(|speaker| say(&mut sim, &mut callers[speaker], 1_200));
    }
    assert!(sim.sent.len() >= 40, "what waits is bounded: {} left", sim.sent.len());
}

proptest! {
    /// Whatever comes in whatever order, all of it is heard, on each line in its order.
    #[test]
    fn nothing_is_lost_and_each_voice_keeps_its_order(
        said in proptest::collection::vec((0_usize..5, 1_usize..300, 0_u64..7), 1..60),
        tick in 0_u64..=20,
        pad_max: u8,
    ) {
        let (mut sim, mut callers) = room_of(6, settings(tick as u32 * MS, pad_max), SrtpProfile::AeadAes128Gcm);
        let mut lines = Vec::new();
        for &(speaker, len, wait) in &said {
            sim.now = sim.now.after(wait as u32 * MS);
            sim.flush();
            say(&mut sim, &mut callers[speaker], len);
        }
        sim.now = sim.now.after(21 * MS);
        sim.flush();
        for voice in heard(&mut sim, &mut callers) {
            lines.push((voice.ssrc, voice.index, voice.payload));
        }
        for speaker in 0..5 {
            let words: Vec<_> = said.iter().filter(|word| word.0 == speaker).map(|word| word.1).collect();
            let line = lines.iter().filter(|(_, _, payload)| payload[0] == speaker as u8 + 1);
            let (indices, heard): (Vec<_>, Vec<_>) = line.map(|(_, index, payload)| (*index, payload.len())).unzip();
            prop_assert_eq!(heard, words);
            prop_assert!(indices.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", indices);
        }
    }
}
