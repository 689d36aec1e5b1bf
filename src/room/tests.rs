//! The room with a clock of the test's own.

use super::*;
use crate::ids::{Mid, PayloadType, Ssrc};
use crate::rtp::extension::{ExtensionIds, Values};
use crate::srtp::index::PacketIndex;
use crate::time::RtpTime;

/// A room whose receivers have their slots, and a clock.
struct Scene {
    room: Room,
    now: Instant,
    changes: Vec<SlotChange>,
}

impl Scene {
    fn new(audio_slots: usize) -> Scene {
        let now = crate::time::Now::read().instant;
        Scene { room: Room::new(RoomId(1), audio_slots), now, changes: Vec::new() }
    }

    fn join(&mut self, slots: u16) -> ReceiverKey {
        let peer = self.room.receiver_count();
        let key = self.room.add_receiver(peer);
        for slot in 0..slots {
            let slot = Slot {
                slot: SlotIndex(slot),
                mid: Mid::parse("s0").unwrap(),
                ssrc: Ssrc(u32::from(slot)),
                payload_type: PayloadType::new(111).unwrap(),
                extensions: ExtensionIds::default(),
                source: Some(TrackId(u64::MAX)), // Gone since.
            };
            self.room.add_slot(self.now, key, slot, None, 0, &mut self.changes);
        }
        key
    }

    fn publish(&mut self, publisher: ReceiverKey) -> TrackKey {
        let id = TrackId(publisher as u64);
        self.room.publish(None, id, publisher, false)
    }

    /// A second of packets at these levels, and what changed.
    fn speak(&mut self, levels: &[(TrackKey, u8)]) -> (Vec<SlotChange>, Vec<Vec<TrackId>>) {
        let mut reports = Vec::new();
        for frame in 0..50 {
            self.now += Duration::from_millis(20);
            for &(track, level) in levels {
                self.say(track, frame, level).unwrap();
            }
            self.room.forward(|_, _, _| {});
            if let Some(speakers) = self.room.handle_interval(self.now, &mut self.changes) {
                reports.push(speakers.into_iter().map(|(id, _)| id).collect());
            }
        }
        (std::mem::take(&mut self.changes), reports)
    }

    fn say(&mut self, track: TrackKey, index: u64, level: u8) -> Result<(), DropReason> {
        let stretch = self.room.track(track).unwrap().stretch;
        self.room.handle_packet(
            self.now,
            Packet {
                track,
                stretch,
                index: PacketIndex(index),
                timestamp: RtpTime(0),
                marker: false,
                values: Values::new(Some(level), None),
                payload: 0..1,
                arrived: None,
            },
        )
    }

    fn heard_by(&mut self, key: ReceiverKey) -> Vec<TrackKey> {
        let receiver = &self.room.receivers[key];
        let mut heard: Vec<_> = receiver.seats().iter().filter_map(|seat| seat.source).collect();
        heard.sort_unstable();
        heard
    }
}

#[test]
fn while_voices_fit_the_room_changes_nothing_by_itself() {
    let mut scene = Scene::new(3);
    let members: Vec<_> = (0..3).map(|_| scene.join(3)).collect();
    let tracks: Vec<_> = members.iter().map(|&key| scene.publish(key)).collect();
    scene.room.assign_slot(scene.now, members[0], SlotIndex(0), Some(tracks[1]), &mut scene.changes);
    let (changes, _) = scene.speak(&[(tracks[1], 20), (tracks[2], 20)]);
    assert_eq!(changes, []);
    assert_eq!(scene.heard_by(members[0]), [tracks[1]]);
}

#[test]
fn a_track_leaves_its_old_slot_and_nobody_hears_itself() {
    let mut scene = Scene::new(4);
    let (a, b) = (scene.join(2), scene.join(2));
    let (voice_a, voice_b) = (scene.publish(a), scene.publish(b));
    let mut changes = Vec::new();
    scene.room.assign_slot(scene.now, a, SlotIndex(0), Some(voice_a), &mut changes);
    assert!(scene.heard_by(a).is_empty());
    scene.room.assign_slot(scene.now, a, SlotIndex(0), Some(voice_b), &mut changes);
    assert_eq!(changes, []);
    scene.room.assign_slot(scene.now, a, SlotIndex(1), Some(voice_b), &mut changes);
    assert_eq!(scene.heard_by(a), [voice_b]);
    assert_eq!(changes, [SlotChange { peer: 0, slot: SlotIndex(0), track: None }]);
}

#[test]
fn beyond_the_slots_the_loudest_are_heard_by_speakers_and_listeners_alike() {
    let mut scene = Scene::new(2);
    let members: Vec<_> = (0..6).map(|_| scene.join(2)).collect();
    let tracks: Vec<_> = members[..5].iter().map(|&key| scene.publish(key)).collect();
    let quiet = [(tracks[0], 90), (tracks[1], 90), (tracks[2], 90)];
    scene.speak(&quiet);
    let (changes, _) = scene.speak(&[quiet[0], quiet[1], quiet[2], (tracks[3], 20), (tracks[4], 25)]);
    assert!(!changes.is_empty());
    assert_eq!(scene.heard_by(members[5]), [tracks[3], tracks[4]], "a listener");
    assert_eq!(scene.heard_by(members[0]), [tracks[3], tracks[4]], "a quiet member");
    assert!(scene.heard_by(members[3]).contains(&tracks[4]), "a speaker hears the other");
    assert!(!scene.heard_by(members[3]).contains(&tracks[3]), "and not itself");
    // Each on the stage becomes loud in turn, the one that a listener has no seat for included.
    for speaker in 0..5 {
        let levels: Vec<_> = (0..5).map(|at| (tracks[at], if at == speaker { 15 } else { 80 })).collect();
        scene.speak(&levels);
        assert!(scene.heard_by(members[5]).contains(&tracks[speaker]), "speaker {speaker}");
    }
}

/// An answer is on its way, or a client that answers no offers.
#[test]
fn with_fewer_seats_than_slots_the_loudest_is_heard_all_the_same() {
    let mut scene = Scene::new(3);
    let members: Vec<_> = (0..5).map(|_| scene.join(3)).collect();
    let tracks: Vec<_> = members.iter().map(|&key| scene.publish(key)).collect();
    let listener = scene.join(1);
    for speaker in 0..5 {
        let levels: Vec<_> = (0..5).map(|at| (tracks[at], if at == speaker { 15 } else { 80 })).collect();
        scene.speak(&levels);
        assert_eq!(scene.heard_by(listener), [tracks[speaker]]);
    }
}

#[test]
fn who_refused_lines_hears_the_loudest_on_those_that_are_left_and_nobody_that_was_refused() {
    let mut scene = Scene::new(4);
    let members: Vec<_> = (0..3).map(|_| scene.join(4)).collect();
    let tracks: Vec<_> = members.iter().map(|&key| scene.publish(key)).collect();
    let listener = scene.join(1);
    let is_loud = |speaker| move |at: usize| if at == speaker { 15 } else { 80 };
    let heard_when_loud = |scene: &mut Scene, speaker: usize| {
        let levels: Vec<_> =
            tracks.iter().enumerate().map(|(at, key)| (*key, is_loud(speaker)(at))).collect();
        let (changes, _) = scene.speak(&levels);
        assert!(changes.iter().all(|change| change.peer == 3), "the others have a slot for each");
        scene.heard_by(listener)
    };
    scene.room.refuse(listener, 1, vec![tracks[2]]);
    for (speaker, heard) in [(0, 0), (1, 1), (2, 1), (0, 0)] {
        assert_eq!(heard_when_loud(&mut scene, speaker), [tracks[heard]], "{speaker} speaks");
    }
    scene.room.refuse(listener, 1, vec![tracks[2], tracks[1]]);
    assert_eq!(
        heard_when_loud(&mut scene, 1),
        [tracks[0]],
        "control decides where as many are left as lines"
    );
    scene.room.unpublish(scene.now, tracks[2]);
    let next = scene.publish(members[2]);
    assert_eq!(next, tracks[2], "the key that was refused, and another track");
    assert_eq!(heard_when_loud(&mut scene, 2), [next]);
    scene.room.remove_receiver(listener);
    assert_eq!(scene.room.refusing_count, 0);
}

#[test]
fn equal_voices_do_not_flutter() {
    let mut scene = Scene::new(2);
    let members: Vec<_> = (0..5).map(|_| scene.join(2)).collect();
    let voices = members.iter().enumerate().map(|(at, &key)| (scene.publish(key), 30 + at as u8 % 2));
    let levels: Vec<_> = voices.collect();
    scene.speak(&levels);
    let (changes, _) = scene.speak(&levels);
    assert_eq!(changes, []);
}

#[test]
fn a_voice_that_ends_gives_its_slot_to_one_that_waits() {
    let mut scene = Scene::new(2);
    let members: Vec<_> = (0..4).map(|_| scene.join(2)).collect();
    let tracks: Vec<_> = members.iter().map(|&key| scene.publish(key)).collect();
    scene.speak(&[(tracks[0], 20), (tracks[1], 20), (tracks[2], 90), (tracks[3], 90)]);
    assert_eq!(scene.heard_by(members[2]), [tracks[0], tracks[1]]);
    scene.room.unpublish(scene.now, tracks[0]);
    assert_eq!(scene.heard_by(members[2]), [tracks[1]]);
    let joins_meanwhile = scene.join(2);
    assert!(!scene.heard_by(joins_meanwhile).contains(&tracks[0]));
    let mut changes = Vec::new();
    scene.room.handle_interval(scene.now, &mut changes);
    assert_eq!(scene.heard_by(members[2]), [tracks[1], tracks[3]]);
    assert!(changes.iter().any(|change| change.peer == 2 && change.track == Some(TrackId(3))));
}

#[test]
fn a_closed_slot_stays_silent_until_it_is_assigned() {
    let mut scene = Scene::new(2);
    let members: Vec<_> = (0..5).map(|_| scene.join(2)).collect();
    let tracks: Vec<_> = members[..4].iter().map(|&key| scene.publish(key)).collect();
    let levels: Vec<_> = tracks.iter().map(|&track| (track, 20 + track as u8)).collect();
    scene.speak(&levels);
    let listener = members[4];
    assert_eq!(scene.heard_by(listener), tracks[..2]);
    scene.room.close_slot(scene.now, listener, SlotIndex(0));
    let (changes, _) = scene.speak(&levels);
    assert_eq!(scene.heard_by(listener).len(), 1);
    let of_listener = |change: &&SlotChange| change.peer == 4 && change.slot == SlotIndex(0);
    assert_eq!(changes.iter().find(of_listener), None);
    // One that control assigns is open again, even where the track has gone meanwhile.
    let mut changes = Vec::new();
    scene.room.assign_slot(scene.now, listener, SlotIndex(0), None, &mut changes);
    scene.speak(&levels);
    assert_eq!(scene.heard_by(listener), tracks[..2]);
}

#[test]
fn a_slot_that_is_added_without_a_voice_is_closed() {
    let mut scene = Scene::new(1);
    let members: Vec<_> = (0..2).map(|_| scene.join(0)).collect();
    let tracks: Vec<_> = members.iter().map(|&key| scene.publish(key)).collect();
    let listener = scene.join(0);
    let slot = Slot {
        slot: SlotIndex(0),
        mid: Mid::parse("s0").unwrap(),
        ssrc: Ssrc(1),
        payload_type: PayloadType::new(111).unwrap(),
        extensions: ExtensionIds::default(),
        source: None,
    };
    let mut changes = Vec::new();
    scene.room.add_slot(scene.now, listener, slot, None, 0, &mut changes);
    scene.speak(&[(tracks[0], 20), (tracks[1], 20)]);
    assert!(scene.heard_by(listener).is_empty());
}

#[test]
fn speakers_are_told_when_they_change_and_not_more_often() {
    let mut scene = Scene::new(8);
    let (a, b) = (scene.join(0), scene.join(0));
    let (voice_a, voice_b) = (scene.publish(a), scene.publish(b));
    let (_, reports) = scene.speak(&[(voice_a, 30), (voice_b, 20)]);
    assert_eq!(reports.last().unwrap(), &[TrackId(1), TrackId(0)]);
    assert!(reports.len() <= 2, "one a change");
    let (_, reports) = scene.speak(&[(voice_a, 30), (voice_b, 127)]);
    assert_eq!(reports, [[TrackId(0)]]);
    let (_, reports) = scene.speak(&[]);
    assert_eq!(reports, [[]]);
}

/// Else who comes would be told of those who spoke when the last home went.
#[test]
fn a_part_that_becomes_home_tells_who_speaks_though_it_knew_before() {
    let mut scene = Scene::new(8);
    let speaker = scene.join(0);
    let voice = scene.publish(speaker);
    scene.room.span(WorkerSet::EMPTY, false);
    scene.speak(&[(voice, 20)]); // Known here, and told by the part that is home.
    assert_eq!(scene.speak(&[(voice, 20)]).1, Vec::<Vec<TrackId>>::new());
    for is_home in [true, true] {
        scene.room.span(WorkerSet::EMPTY, is_home);
    }
    assert_eq!(scene.speak(&[(voice, 20)]).1, [[TrackId(0)]], "once");
    scene.speak(&[]);
    scene.room.span(WorkerSet::EMPTY, false);
    scene.room.span(WorkerSet::EMPTY, true);
    assert_eq!(scene.speak(&[]).1, [[]], "nobody is news, too");
}

#[test]
fn of_more_speakers_than_are_told_the_same_stay_while_they_speak() {
    let mut scene = Scene::new(64);
    let members: Vec<_> = (0..20).map(|_| scene.join(0)).collect();
    let voices: Vec<_> = members.iter().map(|&key| scene.publish(key)).collect();
    let loud =
        |from: usize| voices.iter().enumerate().map(|(at, &v)| (v, 20 + ((at + from) % 20) as u8)).collect();
    let levels: Vec<_> = loud(0);
    let (_, reports) = scene.speak(&levels);
    assert_eq!(reports.last().map(Vec::len), Some(SPEAKER_COUNT_MAX));
    for from in 1..5 {
        let levels: Vec<_> = loud(from);
        assert_eq!(scene.speak(&levels).1, Vec::<Vec<TrackId>>::new(), "whoever is loudest now");
    }
}

#[test]
fn where_the_room_decides_control_is_told_what_its_own_orders_came_to() {
    let mut scene = Scene::new(2);
    let members: Vec<_> = (0..3).map(|_| scene.join(2)).collect();
    let voices: Vec<_> = members.iter().map(|&key| scene.publish(key)).collect();
    let listener = scene.join(2);
    let peer = scene.room.receivers[listener].peer;
    scene.speak(&[(voices[0], 20), (voices[1], 30), (voices[2], 40)]);
    // The slot's new voice is on its way to control, which has just given it to another.
    scene.room.unpublish(scene.now, voices[0]);
    scene.room.handle_interval(scene.now, &mut scene.changes);
    let mut changes = Vec::new();
    let given = Some(voices[1]);
    for slot in [SlotIndex(0), SlotIndex(1)] {
        scene.room.assign_slot(scene.now, listener, slot, given, &mut changes);
        let told = changes.iter().rev().find(|change| change.peer == peer && change.slot == slot).cloned();
        assert_eq!(told, Some(SlotChange { peer, slot, track: Some(TrackId(voices[1] as u64)) }));
    }
}

#[test]
fn a_muted_voice_goes_nowhere_and_leaves_no_gap() {
    let mut scene = Scene::new(8);
    let (a, b) = (scene.join(0), scene.join(1));
    let voice = scene.publish(a);
    scene.room.assign_slot(scene.now, b, SlotIndex(0), Some(voice), &mut scene.changes);
    let mut forwarded = Vec::new();
    for index in 0..9 {
        if index % 3 == 0 {
            scene.room.set_muted(voice, index == 3);
        }
        assert_eq!(scene.say(voice, index, 20).is_err(), (3..6).contains(&index));
        let now = scene.now;
        scene.room.forward(|turn, packets, _| {
            let Turn::Now(receiver) = turn else { return };
            for packet in packets {
                forwarded.extend(receiver.rewrite(now, packet).map(|(rewritten, _)| rewritten.index.0));
            }
        });
    }
    assert_eq!(forwarded, [0, 1, 2, 3, 4, 5]);
    scene.room.set_deafened(b, true);
    scene.say(voice, 9, 20).unwrap();
    scene.room.forward(|turn, _, _| {
        if let Turn::Now(receiver) = turn {
            assert_ne!(receiver.peer, 1);
        }
    });
}

/// With a tick, who publishes and unpublishes within it again and again.
#[test]
fn what_waits_of_a_track_that_ends_goes_with_it() {
    let mut scene = Scene::new(8);
    let publisher = scene.join(0);
    let track = scene.publish(publisher);
    scene.room.keep(b"voice");
    scene.say(track, 0, 20).unwrap();
    assert_eq!((scene.room.has_pending(), scene.room.pending_len()), (true, 5));
    scene.room.unpublish(scene.now, track);
    assert_eq!((scene.room.has_pending(), scene.room.pending_len()), (false, 0));
}

#[test]
fn nobody_is_always_the_first_or_the_last() {
    let mut scene = Scene::new(8);
    for _ in 0..3 {
        scene.join(0);
    }
    let mut firsts = Vec::new();
    for _ in 0..8 {
        let mut order = Vec::new();
        scene.room.forward(|turn, _, _| {
            if let Turn::Now(receiver) = turn {
                order.push(receiver.peer);
            }
        });
        assert_eq!(order.len(), 3);
        firsts.push(order[0]);
    }
    assert!((0..3).all(|peer| firsts.contains(&peer)), "{firsts:?}");
}

proptest::proptest! {
    /// Whoever speaks when: a listener is never left without somebody on stage who is clearly louder than one it hears.
    #[test]
    fn nobody_on_stage_waits_behind_who_is_clearly_quieter(
        steps in proptest::collection::vec((0usize..7, 0u8..127, 0usize..7), 1..40),
    ) {
        let mut scene = Scene::new(3);
        let members: Vec<_> = (0..9).map(|member| scene.join(3 - member % 2)).collect();
        let mut tracks: Vec<_> = members[..7].iter().map(|&key| scene.publish(key)).collect();
        let mut levels = [80; 7];
        for (index, (speaker, level, gone)) in steps.into_iter().enumerate() {
            levels[speaker] = level;
            if index % 8 == 7 {
                scene.room.unpublish(scene.now, tracks[gone]);
                tracks[gone] = scene.publish(members[gone]);
            }
            for frame in 0..30 {
                scene.now += Duration::from_millis(20);
                for (at, track) in tracks.iter().enumerate() {
                    scene.say(*track, (index * 30 + frame) as u64, levels[at]).unwrap();
                }
                scene.room.forward(|_, _, _| {});
                scene.room.handle_interval(scene.now, &mut scene.changes);
                let score = |track: TrackKey| scene.room.tracks[track].loudness.score(scene.now);
                for &key in &members {
                    let receiver = &scene.room.receivers[key];
                    let held = receiver.seats().iter().filter(|seat| seat.is_held_long(scene.now));
                    let Some(quietest) = held.filter_map(|seat| seat.source).map(score).min() else { continue };
                    let waits = scene.room.stage.tracks().filter(|&track| {
                        receiver.seat_of(track).is_none() && scene.room.tracks[track].publisher != Some(key)
                    });
                    for track in waits {
                        proptest::prop_assert!(score(track) <= quietest + stage::MARGIN, "{track} for {key}");
                    }
                }
            }
        }
    }
}
