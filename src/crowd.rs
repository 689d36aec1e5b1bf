//! Connections and members that may have to make room, by where they are from.
//!
//! Invariant: who gives way is of the address that holds the most, so nobody takes the room of those who hold less
//! than he does. Where all share one address, as at one proxy or on this machine, that is the oldest of all. The
//! table has an entry for each of them and no more; every step costs the logarithm of that.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

/// Addresses whose oldest is asked for, before nobody is found.
const ASKED_MAX: usize = 256;

/// `T` is what ends one, or who it is.
pub struct Crowd<T> {
    /// Of each address, or /64, by the order of coming. None is empty.
    groups: BTreeMap<IpAddr, BTreeMap<u64, T>>,
    /// How many of each there are, and the oldest: who gives way first is the last.
    ranks: BTreeSet<(usize, Reverse<u64>, IpAddr)>,
    len: usize,
}

impl<T> Default for Crowd<T> {
    fn default() -> Crowd<T> {
        Crowd { groups: BTreeMap::new(), ranks: BTreeSet::new(), len: 0 }
    }
}

impl<T> Crowd<T> {
    /// How many there are.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Ids grow with everybody who comes.
    pub fn push(&mut self, from: IpAddr, id: u64, end: T) {
        let is_new = self.change(key(from), |group| group.insert(id, end).is_none());
        self.len += usize::from(is_new);
    }

    /// It is over, or it stays: either way it makes room no more.
    pub fn remove(&mut self, from: IpAddr, id: u64) -> Option<T> {
        let removed = self.change(key(from), |group| group.remove(&id));
        self.len -= usize::from(removed.is_some());
        removed
    }

    /// Who has to make room for one more from this address, as [`Crowd::make_room`] has it, the first of those who would:
    /// where the oldest of an address is kept, that of the next is asked. Of 256 addresses at most.
    pub fn next_where(&self, newcomer: IpAddr, would: impl Fn(&T) -> bool) -> Option<&T> {
        let newcomer = key(newcomer);
        let own = self.own_rank(newcomer);
        let greater = self.ranks.iter().rev().copied().filter(|(_, _, from)| *from != newcomer);
        let greater = greater.take_while(|rank| own.is_none_or(|own| *rank > own)).take(ASKED_MAX);
        let oldest =
            |(_, Reverse(oldest), from): (usize, Reverse<u64>, IpAddr)| self.groups.get(&from)?.get(&oldest);
        greater.chain(own).filter_map(oldest).find(|oldest| would(oldest))
    }

    /// Takes out who has to make room for one more from this address: the oldest of those of the address that would have
    /// the most, and among such the oldest of all.
    pub fn make_room(&mut self, newcomer: IpAddr) -> Option<T> {
        let (from, oldest) = self.first_out(newcomer)?;
        self.remove(from, oldest)
    }

    fn first_out(&self, newcomer: IpAddr) -> Option<(IpAddr, u64)> {
        let own = self.own_rank(key(newcomer));
        let (_, Reverse(oldest), from) = own.max(self.ranks.last().copied())?;
        Some((from, oldest))
    }

    /// With the newcomer.
    fn own_rank(&self, newcomer: IpAddr) -> Option<(usize, Reverse<u64>, IpAddr)> {
        let (count, oldest, from) = rank(newcomer, self.groups.get(&newcomer)?)?;
        Some((count + 1, oldest, from))
    }

    fn change<R>(&mut self, from: IpAddr, change: impl FnOnce(&mut BTreeMap<u64, T>) -> R) -> R {
        let group = self.groups.entry(from).or_default();
        if let Some(rank) = rank(from, group) {
            self.ranks.remove(&rank);
        }
        let result = change(group);
        match rank(from, group) {
            Some(rank) => {
                self.ranks.insert(rank);
            }
            None => {
                self.groups.remove(&from);
            }
        }
        result
    }
}

fn rank<T>(from: IpAddr, group: &BTreeMap<u64, T>) -> Option<(usize, Reverse<u64>, IpAddr)> {
    let (&oldest, _) = group.first_key_value()?;
    Some((group.len(), Reverse(oldest), from))
}

/// Of IPv6 the /64, which is what one subscriber has at least (RFC 6177 §2): he can be any address in it.
pub fn key(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// Addresses are numbers here.
    fn ip(from: u32) -> IpAddr {
        Ipv4Addr::from_bits(from).into()
    }

    fn crowd(from: &[u32]) -> Crowd<u64> {
        let mut crowd = Crowd::default();
        for (&from, id) in from.iter().zip(0..) {
            crowd.push(ip(from), id, id);
        }
        crowd
    }

    #[test]
    fn who_has_the_most_loses_the_oldest() {
        let mut crowd = crowd(&[1, 2, 3, 2, 2, 3]);
        assert_eq!(crowd.make_room(ip(4)), Some(1), "2 has three");
        assert_eq!(crowd.make_room(ip(4)), Some(2), "2 and 3 have two, and the oldest of those is of 3");
        assert_eq!(crowd.make_room(ip(4)), Some(3));
        assert_eq!(crowd.make_room(ip(4)), Some(0), "each has one");
        assert_eq!(crowd.make_room(ip(4)), Some(4));
        assert_eq!(crowd.make_room(ip(4)), Some(5));
        assert_eq!(crowd.make_room(ip(4)), None);
        assert_eq!((crowd.len(), crowd.groups.len(), crowd.ranks.len()), (0, 0, 0));
    }

    #[test]
    fn who_comes_counts_among_his_own() {
        assert_eq!(crowd(&[1, 2]).make_room(ip(2)), Some(1), "1 has no more than one");
        assert_eq!(crowd(&[1, 2]).make_room(ip(1)), Some(0));
        assert_eq!(crowd(&[1, 2]).make_room(ip(3)), Some(0), "all have one: the oldest");
        assert_eq!(crowd(&[1, 1, 2]).make_room(ip(2)), Some(0), "both would have two: the oldest");
    }

    #[test]
    fn where_the_oldest_is_kept_the_next_address_is_asked_and_none_that_holds_less() {
        let crowd = crowd(&[1, 2, 2, 3, 3, 3, 4]);
        let next = |newcomer, kept: &[u64]| crowd.next_where(ip(newcomer), |id| !kept.contains(id)).copied();
        assert_eq!(next(5, &[]), Some(3));
        assert_eq!(next(5, &[3]), Some(1));
        assert_eq!(next(5, &[3, 1]), Some(0));
        assert_eq!(next(5, &[3, 1, 0, 6]), None);
        assert_eq!(next(2, &[3]), Some(1), "his own");
        assert_eq!(next(2, &[3, 1]), None, "1 and 4 hold less");
    }

    #[test]
    fn a_flood_from_one_address_ends_itself_alone() {
        let mut crowd = crowd(&[1, 2]);
        for id in 2..100_000 {
            if crowd.len() >= 256 {
                assert!(crowd.make_room(ip(3)).is_some_and(|ended| ended >= 2));
            }
            crowd.push(ip(3), id, id);
        }
        assert_eq!((crowd.len(), crowd.groups.len(), crowd.ranks.len()), (256, 3, 3));
    }

    #[test]
    fn a_64_is_one_address() {
        let mut crowd = Crowd::default();
        crowd.push(ip(1), 0, 0);
        for id in 1..100_u16 {
            crowd.push(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, id).into(), id.into(), id);
        }
        assert_eq!(crowd.make_room(ip(2)), Some(1));
        assert_eq!(crowd.groups.len(), 2);
    }

    /// Against the slow obvious way.
    #[test]
    fn it_agrees_with_a_scan() {
        let (mut crowd, mut list, mut seed) = (Crowd::default(), Vec::<(IpAddr, u64)>::new(), 1_u32);
        for id in 0..5_000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let from = ip((seed >> 16) % 7);
            if (seed >> 24).is_multiple_of(3) && !list.is_empty() {
                let (from, id) = list.remove(seed as usize % list.len());
                assert_eq!(crowd.remove(from, id), Some(id));
                assert_eq!(crowd.remove(from, id), None);
            }
            if list.len() >= 20 {
                let count =
                    |ip| list.iter().filter(|(from, _)| *from == ip).count() + usize::from(ip == from);
                let most = list.iter().map(|(from, _)| count(*from)).max();
                let at = list.iter().position(|(from, _)| Some(count(*from)) == most);
                let ended = at.map(|at| list.remove(at).1);
                assert_eq!(crowd.make_room(from), ended);
            }
            crowd.push(from, id, id);
            list.push((from, id));
            assert_eq!(crowd.len(), list.len());
        }
    }
}
