//! Rooms and who is in them: placement on workers, admission, and the ids that are handed out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use std::time::{Duration, Instant};

use super::participant::{Participant, ParticipantId, UserInfo, stream_id};
use super::placement::Placement;
use crate::ids::{RoomId, RoomName, TrackId, TransportId, UserId, WorkerId, WorkerSet};

/// Users that a room remembers as muted while they are away; the oldest are forgotten first.
pub const MUTED_AWAY_COUNT_MAX: usize = 256;

/// A room with at least one member.
#[derive(Debug)]
pub struct Room {
    /// As the clients call it.
    pub name: RoomName,
    /// The worker that speaks for it; it holds a part.
    pub home: WorkerId,
    /// Workers that hold a part of it, each with how many members it has; none without.
    parts: BTreeMap<WorkerId, usize>,
    members: BTreeSet<ParticipantId>,
    by_user: BTreeMap<UserId, ParticipantId>,
    voices: Vec<ParticipantId>,
    /// Who left while a moderator had them muted, the oldest first.
    muted_away: VecDeque<UserId>,
    speakers: Vec<(TrackId, u8)>,
}

impl Room {
    /// Who speaks, as the home told last: the loudest first, level 0 (loudest) to 127.
    pub fn speakers(&self) -> &[(TrackId, u8)] {
        &self.speakers
    }

    /// All members in the order of joining.
    pub fn members(&self) -> impl Iterator<Item = ParticipantId> {
        self.members.iter().copied()
    }

    /// Members that publish, in the order of publishing.
    pub fn voices(&self) -> impl Iterator<Item = ParticipantId> {
        self.voices.iter().copied()
    }

    /// The workers that hold a part of it, each with all transports of its members there.
    pub fn parts(&self) -> WorkerSet {
        self.parts.keys().copied().collect()
    }

    /// Takes a member out of its part. Whether that is gone with it.
    fn leave_part(&mut self, worker: WorkerId) -> bool {
        let Some(count) = self.parts.get_mut(&worker) else { return false };
        *count -= 1;
        if *count > 0 {
            return false;
        }
        self.parts.remove(&worker);
        if worker == self.home {
            // The largest, which has most of the voices to itself already; of equals the first.
            let largest =
                self.parts.iter().max_by_key(|(worker, count)| (**count, std::cmp::Reverse(**worker)));
            self.home = largest.map_or(self.home, |(worker, _)| *worker);
        }
        true
    }

    fn forgive(&mut self, user: &UserId) -> bool {
        let place = self.muted_away.iter().position(|away| away == user);
        place.and_then(|place| self.muted_away.remove(place)).is_some()
    }
}

/// A new participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Its id.
    pub participant: ParticipantId,
    /// Its room.
    pub room: RoomId,
    /// Where its transports are to live.
    pub worker: WorkerId,
    /// The room was made for it.
    pub is_first: bool,
    /// It is the first of its room on its worker.
    pub opens_part: bool,
}

/// Why somebody may not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// As many participants as the server takes.
    #[error("the server is full")]
    ServerFull,
    /// The same user is in that room; join again over the one that is there.
    #[error("the user is in the room")]
    AlreadyThere,
}

/// A participant that left.
#[derive(Debug)]
pub struct Left {
    /// What it was.
    pub participant: Participant,
    /// Its room's name.
    pub room_name: RoomName,
    /// Where its room lived until now.
    pub parts: WorkerSet,
    /// It was the last of its room on its worker.
    pub closed_part: bool,
    /// It published.
    pub was_voice: bool,
    /// It was the last: the room is gone.
    pub was_last: bool,
}

/// All rooms and participants of this process.
#[derive(Debug)]
pub struct Registry {
    participants_max: usize,
    placement: Placement,
    rooms: BTreeMap<RoomId, Room>,
    by_name: BTreeMap<RoomName, RoomId>,
    participants: BTreeMap<ParticipantId, Participant>,
    by_track: BTreeMap<TrackId, ParticipantId>,
    id_next: u64,
}

impl Registry {
    /// For `worker_count` workers, `participants_max` participants over all rooms, and `span_at` members of a room on one
    /// worker before it takes another.
    ///
    /// # Panics
    /// Without a worker, or with more than a [`WorkerId`] can name.
    pub fn new(worker_count: usize, participants_max: usize, span_at: usize) -> Registry {
        assert!((1..=crate::ids::WORKER_COUNT_MAX).contains(&worker_count));
        Registry {
            participants_max,
            placement: Placement::new(worker_count, span_at),
            rooms: BTreeMap::new(),
            by_name: BTreeMap::new(),
            participants: BTreeMap::new(),
            by_track: BTreeMap::new(),
            id_next: 1,
        }
    }

    /// A worker's thread has used this much CPU time since its start.
    pub fn handle_load(&mut self, now: Instant, worker: WorkerId, cpu_time: Duration) {
        self.placement.measure(now, worker, cpu_time);
    }

    /// Takes a user into a room, making the room where there is none, and finds a worker for it: see [`Placement`]. Whom
    /// a moderator had muted before it left is so still.
    ///
    /// # Errors
    /// [`Refusal`]; nothing has changed then.
    pub fn join(&mut self, name: &RoomName, user: &UserId, mut info: UserInfo) -> Result<Joined, Refusal> {
        if self.find(name, user).is_some() {
            return Err(Refusal::AlreadyThere);
        }
        if self.participants.len() >= self.participants_max {
            return Err(Refusal::ServerFull);
        }
        let is_first = !self.by_name.contains_key(name);
        let id = if is_first { self.add_room(name) } else { self.by_name[name] };
        let participant = ParticipantId(self.next_id());
        let track = TrackId(self.next_id());
        let Some(room) = self.rooms.get_mut(&id) else {
            unreachable!("every name leads to a room");
        };
        let parts: Vec<(WorkerId, usize)> =
            room.parts.iter().map(|(worker, count)| (*worker, *count)).collect();
        let worker = if is_first { room.home } else { self.placement.of_member(&parts) };
        let members = room.parts.entry(worker).or_default();
        *members += 1;
        let opens_part = *members == 1;
        self.placement.add(worker);
        info.is_server_muted |= room.forgive(user);
        room.members.insert(participant);
        room.by_user.insert(user.clone(), participant);
        self.by_track.insert(track, participant);
        let stream_id = stream_id(user);
        let user = user.clone();
        self.participants.insert(participant, Participant { room: id, worker, user, info, track, stream_id });
        Ok(Joined { participant, room: id, worker, is_first, opens_part })
    }

    /// Takes a participant out; an empty room goes with it. `None` when it had left before.
    pub fn leave(&mut self, id: ParticipantId) -> Option<Left> {
        let participant = self.participants.remove(&id)?;
        self.by_track.remove(&participant.track);
        let room = self.rooms.get_mut(&participant.room)?;
        room.members.remove(&id);
        room.by_user.remove(&participant.user);
        let voices_before = room.voices.len();
        room.voices.retain(|voice| *voice != id);
        let was_voice = room.voices.len() < voices_before;
        let parts = room.parts();
        let closed_part = room.leave_part(participant.worker);
        let room_name = room.name.clone();
        if participant.info.is_server_muted {
            if room.muted_away.len() >= MUTED_AWAY_COUNT_MAX {
                room.muted_away.pop_front();
            }
            room.muted_away.push_back(participant.user.clone());
        }
        let was_last = room.members.is_empty();
        if was_last {
            self.by_name.remove(&room_name);
            self.rooms.remove(&participant.room);
        }
        self.placement.remove(participant.worker);
        Some(Left { participant, room_name, parts, closed_part, was_voice, was_last })
    }

    /// A new name for a transport; never used before in this process.
    pub fn next_transport(&mut self) -> TransportId {
        TransportId(self.next_id())
    }

    /// Makes a participant a voice of its room, the last in order. `false` when it was one.
    pub fn publish(&mut self, id: ParticipantId) -> bool {
        let is_new = !self.is_voice(id);
        if is_new && let Some(room) = self.room_of_mut(id) {
            room.voices.push(id);
        }
        is_new
    }

    /// Takes a participant's voice out of its room. What it publishes next is another track: who has not been told of
    /// the end yet must not take it for this one. Returns the track that has ended, `None` when there was none.
    pub fn unpublish(&mut self, id: ParticipantId) -> Option<TrackId> {
        if !self.is_voice(id) {
            return None;
        }
        self.room_of_mut(id)?.voices.retain(|voice| *voice != id);
        let next = TrackId(self.next_id());
        let ended = std::mem::replace(&mut self.participants.get_mut(&id)?.track, next);
        self.by_track.remove(&ended);
        self.by_track.insert(next, id);
        Some(ended)
    }

    /// Whether it publishes.
    pub fn is_voice(&self, id: ParticipantId) -> bool {
        let room = self.participants.get(&id).and_then(|participant| self.rooms.get(&participant.room));
        room.is_some_and(|room| room.voices.contains(&id))
    }

    /// The room's home tells who speaks. `false` when another worker does, or the room is gone.
    pub fn set_speakers(&mut self, worker: WorkerId, room: RoomId, speakers: &[(TrackId, u8)]) -> bool {
        let Some(room) = self.rooms.get_mut(&room).filter(|it| it.home == worker) else { return false };
        room.speakers = speakers.to_vec();
        true
    }

    /// Changes what a participant says of itself; returns what it said before, `None` when it is gone or
    /// nothing differs.
    pub fn set_info(&mut self, id: ParticipantId, info: UserInfo) -> Option<UserInfo> {
        let participant = self.participants.get_mut(&id)?;
        (participant.info != info).then(|| std::mem::replace(&mut participant.info, info))
    }

    /// The participant with this user id in this room.
    pub fn find(&self, name: &RoomName, user: &UserId) -> Option<ParticipantId> {
        self.rooms[self.by_name.get(name)?].by_user.get(user).copied()
    }

    /// The member of a room with this user id.
    pub fn member(&self, room: RoomId, user: &UserId) -> Option<ParticipantId> {
        self.rooms.get(&room)?.by_user.get(user).copied()
    }

    /// Forgets that a user left this room muted. `false` when it did not.
    pub fn forgive(&mut self, room: RoomId, user: &UserId) -> bool {
        self.rooms.get_mut(&room).is_some_and(|room| room.forgive(user))
    }

    /// One participant.
    pub fn participant(&self, id: ParticipantId) -> Option<&Participant> {
        self.participants.get(&id)
    }

    /// Whose track it is.
    pub fn publisher(&self, track: TrackId) -> Option<&Participant> {
        self.participants.get(self.by_track.get(&track)?)
    }

    /// One room.
    pub fn room(&self, id: RoomId) -> Option<&Room> {
        self.rooms.get(&id)
    }

    /// All rooms in the order of their making.
    pub fn rooms(&self) -> impl Iterator<Item = (RoomId, &Room)> {
        self.rooms.iter().map(|(id, room)| (*id, room))
    }

    /// How many participants there are, over all rooms.
    pub fn participant_count(&self) -> usize {
        self.participants.len()
    }

    /// How many rooms there are.
    pub fn room_count(&self) -> usize {
        self.rooms.len()
    }

    fn add_room(&mut self, name: &RoomName) -> RoomId {
        let id = RoomId(self.next_id());
        let room = Room {
            name: name.clone(),
            home: self.placement.of_room(),
            parts: BTreeMap::new(),
            members: BTreeSet::new(),
            by_user: BTreeMap::new(),
            voices: vec![],
            muted_away: VecDeque::new(),
            speakers: Vec::new(),
        };
        self.rooms.insert(id, room);
        self.by_name.insert(name.clone(), id);
        id
    }

    /// All ids come from one counter: 2^64 outlasts the process.
    fn next_id(&mut self) -> u64 {
        let id = self.id_next;
        self.id_next += 1;
        id
    }

    fn room_of_mut(&mut self, id: ParticipantId) -> Option<&mut Room> {
        self.rooms.get_mut(&self.participants.get(&id)?.room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(worker_count: usize) -> Registry {
        Registry::new(worker_count, 4, usize::MAX)
    }

    fn join(registry: &mut Registry, room: &str, user: &str) -> Result<Joined, Refusal> {
        let user = UserId::parse(user).unwrap();
        registry.join(&RoomName::parse(room).unwrap(), &user, UserInfo::of(&user))
    }

    fn users(registry: &Registry, ids: impl Iterator<Item = ParticipantId>) -> Vec<String> {
        ids.map(|id| registry.participant(id).unwrap().user.to_string()).collect()
    }

    #[test]
    fn members_are_in_join_order_and_voices_in_the_order_of_publishing() {
        let mut registry = registry(1);
        let [zoe, _, bob] = ["zoe", "alice", "bob"].map(|user| join(&mut registry, "r", user).unwrap());
        assert_eq!(users(&registry, registry.room(zoe.room).unwrap().members()), ["zoe", "alice", "bob"]);
        assert!(registry.publish(bob.participant) && registry.publish(zoe.participant));
        assert!(!registry.publish(bob.participant), "published before");
        assert_eq!(users(&registry, registry.room(zoe.room).unwrap().voices()), ["bob", "zoe"]);
        let ended = registry.participant(bob.participant).unwrap().track;
        assert_eq!(registry.unpublish(bob.participant), Some(ended));
        assert_eq!(registry.unpublish(bob.participant), None);
        let next = registry.participant(bob.participant).unwrap().track;
        assert_ne!(next, ended);
        assert!(registry.publisher(ended).is_none() && registry.publisher(next).is_some());
        assert!(!registry.is_voice(bob.participant) && registry.is_voice(zoe.participant));
    }

    #[test]
    fn rooms_go_to_the_least_loaded_worker_and_stay_there() {
        let mut registry = registry(2);
        let a = join(&mut registry, "a", "1").unwrap();
        let b = join(&mut registry, "b", "2").unwrap();
        assert_eq!((a.worker, a.is_first), (WorkerId(0), true));
        assert_eq!((b.worker, b.is_first), (WorkerId(1), true));
        let b2 = join(&mut registry, "b", "3").unwrap();
        assert_eq!((b2.worker, b2.is_first, b2.room), (WorkerId(1), false, b.room));
        assert_eq!(join(&mut registry, "c", "4").unwrap().worker, WorkerId(0));
    }

    #[test]
    fn a_room_spans_workers_and_shrinks_again_home_last_of_all() {
        let mut registry = Registry::new(2, 9, 2);
        let joined: Vec<Joined> =
            (0..4).map(|user| join(&mut registry, "r", &user.to_string()).unwrap()).collect();
        let [a, b, c, d] = joined[..] else { panic!("four") };
        assert_eq!([a, b, c, d].map(|it| it.worker.0), [0, 0, 1, 1]);
        assert_eq!([a, b, c, d].map(|it| it.opens_part), [true, false, true, false]);
        let both: WorkerSet = [WorkerId(0), WorkerId(1)].into_iter().collect();
        let room = |registry: &Registry| registry.room(a.room).map(|room| (room.home, room.parts()));
        assert_eq!(room(&registry), Some((WorkerId(0), both)));
        let left = registry.leave(b.participant).unwrap();
        assert!(left.parts == both && !left.closed_part && !left.was_last);
        let left = registry.leave(a.participant).unwrap();
        assert!(left.parts == both && left.closed_part && !left.was_last);
        assert_eq!(room(&registry), Some((WorkerId(1), both.without(WorkerId(0)))), "another is home");
        let e = join(&mut registry, "r", "e").unwrap();
        assert_eq!((e.worker, e.opens_part, e.is_first), (WorkerId(0), true, false));
        registry.leave(c.participant);
        registry.leave(e.participant);
        let left = registry.leave(d.participant).unwrap();
        assert!(left.closed_part && left.was_last && room(&registry).is_none());
    }

    #[test]
    fn the_last_to_leave_takes_the_room_along_and_ids_are_not_used_again() {
        let mut registry = registry(1);
        let a = join(&mut registry, "r", "a").unwrap();
        let b = join(&mut registry, "r", "b").unwrap();
        registry.publish(a.participant);
        let left = registry.leave(a.participant).unwrap();
        assert!(left.was_voice && !left.was_last);
        assert!(registry.publisher(left.participant.track).is_none());
        assert!(registry.leave(a.participant).is_none());
        let left = registry.leave(b.participant).unwrap();
        assert!(!left.was_voice && left.was_last);
        assert_eq!((registry.room_count(), registry.participant_count()), (0, 0));
        assert!(registry.by_name.is_empty() && registry.by_track.is_empty());
        assert_eq!(registry.placement.member_count(WorkerId(0)), 0);
        let again = join(&mut registry, "r", "a").unwrap();
        assert!(again.room != a.room && again.participant > b.participant);
    }

    #[test]
    fn who_leaves_muted_comes_back_muted_while_the_room_lives() {
        let mut registry = registry(1);
        let mute = |registry: &mut Registry, id: ParticipantId| {
            let info = UserInfo { is_server_muted: true, ..registry.participant(id).unwrap().info.clone() };
            registry.set_info(id, info);
        };
        let is_muted = |registry: &Registry, joined: Joined| {
            registry.participant(joined.participant).unwrap().info.is_server_muted
        };
        let host = join(&mut registry, "r", "host").unwrap();
        let first = join(&mut registry, "r", "a").unwrap();
        mute(&mut registry, first.participant);
        registry.leave(first.participant);
        let again = join(&mut registry, "r", "a").unwrap();
        assert!(is_muted(&registry, again));
        registry.leave(again.participant);
        let user = |text: &str| UserId::parse(text).unwrap();
        assert!(registry.forgive(host.room, &user("a")) && !registry.forgive(host.room, &user("a")));
        let again = join(&mut registry, "r", "a").unwrap();
        assert!(!is_muted(&registry, again), "forgiven while it was away");
        mute(&mut registry, again.participant);
        registry.leave(again.participant);
        for number in 0..MUTED_AWAY_COUNT_MAX {
            let other = join(&mut registry, "r", &format!("b{number}")).unwrap();
            mute(&mut registry, other.participant);
            registry.leave(other.participant);
        }
        assert_eq!(registry.room(host.room).unwrap().muted_away.len(), MUTED_AWAY_COUNT_MAX);
        assert!(!registry.forgive(host.room, &user("a")), "the oldest is forgotten");
        registry.leave(host.participant);
        let fresh = join(&mut registry, "r", "b3").unwrap();
        assert!(!is_muted(&registry, fresh), "another room of that name");
    }

    #[test]
    fn as_many_as_there_is_room_for_and_a_user_once_a_room() {
        let mut registry = registry(1);
        join(&mut registry, "r", "a").unwrap();
        assert_eq!(join(&mut registry, "r", "a"), Err(Refusal::AlreadyThere));
        join(&mut registry, "s", "a").unwrap();
        join(&mut registry, "r", "b").unwrap();
        join(&mut registry, "r", "c").unwrap();
        assert_eq!(join(&mut registry, "new", "d"), Err(Refusal::ServerFull));
        assert_eq!(registry.room_count(), 2, "a refused one makes no room");
    }
}
