//! News for which control has no room yet.
//!
//! Invariant: what carries state is handed over, in its order. Of a receiver's slots, of a room's speakers and of
//! counters only the latest state counts: it takes the place of what was to be told of them before. So however long
//! control stalls, what waits is an entry for each receiver and room, besides what happens to peers and tracks, most of
//! it at control's own order; and what it costs a wake-up is what is new.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};

use crossbeam_channel::{Sender, TrySendError};

use crate::ids::{RoomId, TransportId};
use crate::worker::event::Event;

/// Of what waits, handed over in one wake-up at most.
const FLUSH_COUNT_MAX: usize = 1024;

/// What waits, the oldest first.
#[derive(Default)]
pub(super) struct Backlog {
    events: VecDeque<Event>,
    /// How many have been handed over: the number of the oldest that waits.
    gone: u64,
    /// Which number tells of it. A tree grows in small steps, where a table would be copied at once.
    latest: BTreeMap<Subject, u64>,
}

/// Something of which only the latest state counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Slots(TransportId),
    Speakers(RoomId),
    /// A worker of which none come counts as one that hangs.
    Counters,
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Hands over what waits and then `news`, as far as there is room; what carries state and finds none waits. Returns how
    /// many others were dropped.
    pub(super) fn hand_over(&mut self, news: impl Iterator<Item = Event>, queue: &Sender<Event>) -> u64 {
        self.flush(queue);
        let mut dropped = 0;
        for event in news {
            let carries_state = !matches!(event, Event::Dtls { .. } | Event::Snapshot(_));
            if carries_state && !self.is_empty() {
                self.keep(event); // Even if there is room by now: what it follows waits.
                continue;
            }
            match queue.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) if carries_state => self.keep(event),
                Err(TrySendError::Full(_)) => dropped += 1,
                // Control is gone, and the process with it.
                Err(TrySendError::Disconnected(_)) => {}
            }
        }
        dropped
    }

    fn flush(&mut self, queue: &Sender<Event>) {
        for _ in 0..FLUSH_COUNT_MAX {
            let Some(event) = self.events.pop_front() else { return };
            let subject = Subject::of(&event);
            if let Err(TrySendError::Full(event)) = queue.try_send(event) {
                self.events.push_front(event);
                return;
            }
            self.gone += 1;
            if let Some(subject) = subject {
                self.latest.remove(&subject);
            }
        }
    }

    fn keep(&mut self, event: Event) {
        if let Some(subject) = Subject::of(&event) {
            match self.latest.entry(subject) {
                Entry::Vacant(entry) => {
                    entry.insert(self.gone + self.events.len() as u64);
                }
                Entry::Occupied(entry) => {
                    return supersede(&mut self.events[(entry.get() - self.gone) as usize], event);
                }
            }
        }
        self.events.push_back(event);
    }
}

impl Subject {
    fn of(event: &Event) -> Option<Subject> {
        match event {
            Event::SlotsChanged { transport, .. } => Some(Subject::Slots(*transport)),
            Event::ActiveSpeakers { room, .. } => Some(Subject::Speakers(*room)),
            Event::Counters(_) => Some(Subject::Counters),
            Event::Dtls { .. }
            | Event::Connection { .. }
            | Event::TrackStarted(_)
            | Event::RoomFailed(_)
            | Event::Snapshot(_) => None,
        }
    }
}

/// Makes `old` tell what both do, of the same subject.
fn supersede(old: &mut Event, new: Event) {
    match (old, new) {
        // Slots that are not among the new ones are as they were told to be.
        (Event::SlotsChanged { changes: old, .. }, Event::SlotsChanged { changes: new, .. }) => {
            for (slot, track) in new {
                // The last word of it, where there are several.
                match old.iter_mut().rfind(|(it, _)| *it == slot) {
                    Some((_, old)) => *old = track,
                    None => old.push((slot, track)),
                }
            }
        }
        (old, new) => *old = new,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use crossbeam_channel::{Receiver, bounded};

    use super::*;
    use crate::ids::{SlotIndex, TrackId};
    use crate::metrics::counters::WorkerCounters;
    use crate::net::thread::cpu_time;

    /// A transport's slots: the number of each, and of the track that it has now.
    fn slots(transport: u64, changes: &[(u16, u64)]) -> Event {
        let change = |&(slot, track)| (SlotIndex(slot), Some(TrackId(track)));
        Event::SlotsChanged {
            transport: TransportId(transport),
            changes: changes.iter().map(change).collect(),
        }
    }

    fn speakers(room: u64, track: u64) -> Event {
        Event::ActiveSpeakers { room: RoomId(room), speakers: vec![(TrackId(track), 20)] }
    }

    fn started(track: u64) -> Event {
        Event::TrackStarted(TrackId(track))
    }

    fn counters(wakeups: u64) -> Event {
        let mut counters = WorkerCounters::default();
        counters.wakeups = wakeups;
        Event::Counters(Box::new(counters))
    }

    fn dtls() -> Event {
        Event::Dtls { transport: TransportId(1), datagram: Bytes::new() }
    }

    fn words(event: &Event) -> String {
        match event {
            Event::TrackStarted(track) => format!("track {track}"),
            Event::RoomFailed(room) => format!("failed {room}"),
            Event::Dtls { .. } => "dtls".into(),
            Event::ActiveSpeakers { room, speakers } => format!("speakers {room} {speakers:?}"),
            Event::SlotsChanged { transport, changes } => {
                let change = |(slot, track): &(SlotIndex, Option<TrackId>)| {
                    format!(" {slot}={}", track.map_or(0, |track| track.0))
                };
                format!("slots {transport}{}", changes.iter().map(change).collect::<String>())
            }
            Event::Counters(counters) => format!("counters {}", counters.wakeups),
            Event::Connection { .. } | Event::Snapshot(_) => "other".into(),
        }
    }

    /// Takes all that comes, as control does when it has time again.
    fn take_all(backlog: &mut Backlog, queue: &Sender<Event>, control: &Receiver<Event>) -> Vec<String> {
        let mut taken = Vec::new();
        loop {
            taken.extend(control.try_iter().map(|event| words(&event)));
            if backlog.is_empty() {
                return taken;
            }
            backlog.hand_over([].into_iter(), queue);
        }
    }

    #[test]
    fn news_overtake_no_other_while_control_makes_room() {
        const COUNT: u64 = 50_000;
        let (queue, control) = bounded(2);
        let reader = std::thread::spawn(move || {
            for expected in 0..COUNT {
                let Ok(Event::TrackStarted(TrackId(number))) = control.recv() else {
                    panic!("nothing else is sent")
                };
                assert_eq!(number, expected);
            }
        });
        let mut backlog = Backlog::default();
        let mut next = 0;
        while (next < COUNT || !backlog.is_empty()) && !reader.is_finished() {
            let count = (COUNT - next).min(8);
            assert_eq!(backlog.hand_over((next..next + count).map(started), &queue), 0);
            next += count;
        }
        reader.join().unwrap();
    }

    #[test]
    fn what_is_not_told_yet_is_told_as_it_is_last() {
        let (queue, control) = bounded(1);
        let mut backlog = Backlog::default();
        let news = [
            slots(1, &[(0, 9)]),
            slots(1, &[(0, 1), (1, 2)]),
            speakers(7, 1),
            started(5),
            slots(2, &[(0, 3)]),
            dtls(),
            speakers(7, 2),
            speakers(8, 3),
            slots(1, &[(2, 4), (0, 2), (1, 0)]),
            Event::RoomFailed(RoomId(9)),
            counters(1),
            started(7),
            counters(2),
        ];
        assert_eq!(backlog.hand_over(news.into_iter(), &queue), 1, "a datagram may be lost");
        let told = [
            "slots 1 0=9", // It was in the queue already.
            "slots 1 0=2 1=0 2=4",
            "speakers 7 [(TrackId(2), 20)]",
            "track 5",
            "slots 2 0=3",
            "speakers 8 [(TrackId(3), 20)]",
            "failed 9",
            "counters 2",
            "track 7",
        ];
        assert_eq!(take_all(&mut backlog, &queue, &control), told);
        // What was told is told anew.
        backlog.hand_over([started(6), slots(1, &[(0, 1)]), speakers(7, 1)].into_iter(), &queue);
        let told = ["track 6", "slots 1 0=1", "speakers 7 [(TrackId(1), 20)]"];
        assert_eq!(take_all(&mut backlog, &queue, &control), told);
        assert!(backlog.latest.is_empty());
    }

    /// A room in full swing goes on for minutes while control stalls, with more waiting than any wake-up may touch.
    #[test]
    fn a_control_that_stalls_costs_a_wake_up_what_is_new_and_no_more() {
        const WAITING: u64 = 200_000;
        let (queue, control) = bounded(1);
        let mut backlog = Backlog::default();
        backlog.hand_over((0..=WAITING).map(started), &queue);
        let begun = cpu_time();
        for number in 0..1_000 {
            let news = [slots(number % 10, &[(0, number)]), speakers(number % 5, number), dtls()];
            assert_eq!(backlog.hand_over(news.into_iter(), &queue), 1);
        }
        let took = cpu_time() - begun;
        // To touch all that waits, 1,000 times, takes ten times that and more.
        assert!(took < Duration::from_millis(300), "{took:?}");
        assert_eq!(backlog.events.len() as u64, WAITING + 10 + 5);
        let taken = take_all(&mut backlog, &queue, &control);
        let tracks = (0..=WAITING).map(|track| format!("track {track}"));
        let last = (0..10).map(|transport| format!("slots {transport} 0={}", 990 + transport));
        assert!(taken.iter().filter(|words| !words.starts_with("speakers")).cloned().eq(tracks.chain(last)));
    }

    /// Against the slow obvious way: nothing is merged there.
    #[test]
    fn control_ends_up_with_what_it_would_know_had_it_heard_everything() {
        let (queue, control) = bounded(3);
        let mut backlog = Backlog::default();
        let (mut states, mut tracks) = ([BTreeMap::new(), BTreeMap::new()], [vec![], vec![]]);
        let mut hear = |who: usize, event: &Event| match event {
            Event::SlotsChanged { transport, changes } => {
                let changes = changes.iter().map(|(slot, track)| ((transport.0, slot.0), *track));
                states[who].extend(changes);
            }
            Event::ActiveSpeakers { room, speakers } => {
                states[who].insert((room.0, u16::MAX), Some(speakers[0].0));
            }
            Event::TrackStarted(track) => tracks[who].push(*track),
            _ => panic!("nothing else is sent"),
        };
        let mut seed = 1_u32;
        let mut random = |below: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 16) % below
        };
        for number in 0..20_000 {
            let news: Vec<Event> = (0..random(4))
                .map(|_| match random(3) {
                    0 => started(number),
                    1 => speakers(random(3).into(), number),
                    // At times twice of the same slot.
                    _ => slots(
                        random(5).into(),
                        &[(random(4) as u16, 2 * number), (random(5) as u16, 2 * number + 1)],
                    ),
                })
                .collect();
            news.iter().for_each(|event| hear(0, event));
            backlog.hand_over(news.into_iter(), &queue);
            // Now and then it stalls.
            let taken = if number / 500 % 2 == 0 { random(5) } else { 0 };
            control.try_iter().take(taken as usize).for_each(|event| hear(1, &event));
        }
        while !backlog.is_empty() || !control.is_empty() {
            control.try_iter().for_each(|event| hear(1, &event));
            backlog.hand_over([].into_iter(), &queue);
        }
        assert_eq!(states[0], states[1]);
        assert_eq!(tracks[0], tracks[1]);
    }
}
