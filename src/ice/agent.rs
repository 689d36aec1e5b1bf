//! One transport's candidate pairs: which are authenticated, verified, selected.
//!
//! - *authenticated*: a Binding request with our password came over the pair. DTLS and SRTP are taken
//!   from it; nothing but answers and a few checks of ours is sent to it.
//! - *verified*: besides, all of DTLS came over it, or the peer answered a check of ours there. Whoever
//!   receives at that address wants to, until 30 s have passed without media or a check: it may be somebody else's then.
//! - *selected*: where media goes. First the pair that all of DTLS came over, if it was one; afterwards the selection
//!   follows USE-CANDIDATE (RFC 8445 §7.3.2), of several nominations the highest or the one that is repeated: at once
//!   where the pair's remote IP address is that of a verified pair (a NAT gave the client another port), else only when
//!   the pair is verified itself. A pair that fails to become so is left again.
//!   A member could otherwise aim a room at a victim, with a forged source address.
//!   Once the peer has missed a check on the selected pair, it moves to wherever else the peer is heard, on the same terms.
//!
//! Consent (RFC 7675) is the peer's authenticated checks on the selected pair, as an ICE-lite agent
//! sends none by itself.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::checks::{Budget, Transactions};
use super::credentials::{LocalCredentials, LocalUfrag, RemoteCredentials};
use super::integrity::IntegrityKey;
use super::pair::{Nomination, Pair, Proof};
use super::stun::{Check, Request, Response, Role, write_check, write_role_conflict, write_success};
use crate::packet::{DropReason, Path};
use crate::vector;

/// Pairs that a transport may have.
pub const PAIR_COUNT_MAX: usize = 8;
/// Of these, once a pair is selected, those at an IP address that is not verified.
pub const UNVERIFIED_COUNT_MAX: usize = 4;
/// Checks of ours to one pair in a transaction: RFC 8489 §6.2.1 has 7 too. In any [`BUDGET_PERIOD`] at most
/// [`MOVE_COUNT_MAX`] transactions begin, whatever the peer insists on.
pub const CHECK_COUNT_MAX: u8 = 7;
/// Moves of the selection to a pair that is not verified itself, and pairs that we begin to check, in
/// [`BUDGET_PERIOD`]. A move to a verified pair is always free: the peer must be able to come back.
pub const MOVE_COUNT_MAX: usize = 5;
/// See [`MOVE_COUNT_MAX`].
pub const BUDGET_PERIOD: Duration = Duration::from_secs(60);

/// Silence on the selected pair after which the peer may be elsewhere: longer than checks are apart, which is 2.5 s in
/// Chromium and 4 to 6 s in Firefox (RFC 7675 §5.1).
pub const MISSED_AFTER: Duration = Duration::from_millis(6_500);
/// Silence on the selected pair after which consent is stale: two of Firefox's intervals, as it sends each check once and one
/// may be lost.
pub const STALE_AFTER: Duration = Duration::from_secs(13);
/// Silence on the selected pair after which nothing may be sent (RFC 7675 §5.1).
pub const EXPIRED_AFTER: Duration = Duration::from_secs(30);

/// First retransmission of a check; each next takes twice as long.
const RTO: Duration = Duration::from_millis(50);
/// A pair heard within this time is not given up for a new one: browsers check one that they
/// use at least every 2.5 s.
const QUIET_AFTER: Duration = Duration::from_secs(3);
/// While consent is stale we want to be woken that often.
const STALE_TICK: Duration = Duration::from_secs(1);
/// Woken later than this, it was us who stood still, not the peer.
const STALL_MIN: Duration = Duration::from_secs(2);

/// An ICE-lite agent: always controlled, and with no candidates of the peer to check.
pub struct Agent {
    current: Generation,
    /// What a restart replaced, until the peer first uses what it replaced it with.
    previous: Option<Generation>,
    pairs: Vec<Pair>,
    selection: Selection,
    /// The pair that the selection has to move to as soon as it may.
    nominated: Option<Path>,
    /// When consent has something new; of account while a pair is selected.
    consent_due: Instant,
    moves: Budget,
    probes: Budget,
    transactions: Transactions,
}

/// What a Binding request did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Length of the response written.
    pub len: usize,
    /// The pair had not been authenticated before: datagrams from it are this transport's from now on.
    pub is_new: bool,
    /// A pair given up for it: datagrams from there are nobody's from now on.
    pub forgotten: Option<Path>,
}

/// Freshness of the peer's consent on the selected pair (RFC 7675 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// Nothing selected yet.
    None,
    /// An authenticated check within 13 s.
    Fresh,
    /// None for 13 s, or that pair was given up and no other has taken its place yet.
    Stale,
    /// None for 30 s: nothing may be sent.
    Expired,
}

/// The credentials of both sides between two restarts, with their keys ready.
struct Generation {
    /// Counts restarts.
    number: u32,
    local_ufrag: LocalUfrag,
    local_key: IntegrityKey,
    remote: RemoteCredentials,
    remote_key: IntegrityKey,
}

/// In a cache line of its own, as it is asked for with each packet.
#[repr(align(64))]
enum Selection {
    /// DTLS has not finished.
    Handshaking,
    /// Open to the next pair that qualifies. Not for ever, once a pair was given up.
    Vacant {
        given_up_at: Option<Instant>,
    },
    On(Path),
    /// Consent ran out. RFC 7675 §5.1: the credentials of that time cannot renew it.
    Expired {
        generation: u32,
    },
}

const _: () = assert!(size_of::<Selection>() == vector::LINE_LEN);

impl Agent {
    /// `transaction_seed` makes our transaction ids unpredictable; 32 random bytes.
    pub fn new(
        now: Instant,
        local: LocalCredentials,
        remote: RemoteCredentials,
        transaction_seed: [u8; 32],
    ) -> Agent {
        Agent {
            current: Generation::new(0, &local, remote),
            previous: None,
            pairs: Vec::with_capacity(PAIR_COUNT_MAX),
            selection: Selection::Handshaking,
            nominated: None,
            consent_due: now,
            moves: Budget::default(),
            probes: Budget::default(),
            transactions: Transactions::new(Zeroizing::new(transaction_seed)),
        }
    }

    /// New credentials (RFC 8445 §9); the old ones are answered to until the new ones are first used.
    /// Pairs and selection stay, so media goes on meanwhile.
    ///
    /// When the peer has not used the last restart's credentials yet, this one takes their place.
    pub fn restart(&mut self, now: Instant, local: LocalCredentials, remote: RemoteCredentials) {
        let next = Generation::new(self.current.number.wrapping_add(1), &local, remote);
        let replaced = std::mem::replace(&mut self.current, next);
        if self.previous.is_none() {
            self.previous = Some(replaced);
        }
        for pair in &mut self.pairs {
            if let Proof::Refused = pair.proof {
                pair.proof = Proof::None;
            }
        }
        self.settle(now);
    }

    /// The ufrags that this agent answers to now: one, or two after a restart.
    pub fn ufrags(&self) -> impl Iterator<Item = LocalUfrag> {
        self.generations().map(|generation| generation.local_ufrag)
    }

    /// Verifies, answers into `out` (at least 128 bytes), moves the selection where the rules allow.
    ///
    /// A peer that claims our role (RFC 8445 §7.3.1.1) is answered 487 and its pair is not learnt. Only
    /// a full agent can mend such a conflict, and ours is no full one: a correct peer never claims it,
    /// one that overlooked `a=ice-lite` takes the other role after a 487.
    ///
    /// # Errors
    /// [`DropReason::StunUnknownUser`], [`DropReason::StunUnauthenticated`]: not for us, or not from
    /// the peer. [`DropReason::StunLimit`]: no room for another pair. [`DropReason::TooLong`]: the answer, for
    /// `out`. Nothing changed, and nothing is to be sent.
    pub fn handle_request(
        &mut self,
        now: Instant,
        path: Path,
        request: &Request<'_>,
        out: &mut [u8],
    ) -> Result<Answered, DropReason> {
        let ufrag = request.local_ufrag()?;
        let generation = self
            .generations()
            .find(|generation| generation.local_ufrag == ufrag)
            .ok_or(DropReason::StunUnknownUser)?;
        let key = &generation.local_key;
        request.verify_with(key)?;
        if request.role() == Some(Role::Controlled) {
            let len = write_role_conflict(request, key, out).ok_or(DropReason::TooLong)?;
            return Ok(Answered { len, is_new: false, forgotten: None });
        }
        let len = write_success(request, path.remote, key, out).ok_or(DropReason::TooLong)?;
        let generation = generation.number;
        let is_new = !self.is_authenticated(&path);
        let forgotten = if is_new { self.make_room(now, &path)? } else { None };

        self.enter(now, generation);
        self.forget_proof(now, path);
        let priority = request.priority();
        match self.pairs.iter_mut().find(|pair| pair.path == path) {
            Some(pair) => (pair.heard, pair.priority, pair.generation) = (now, priority, generation),
            None => {
                let (heard, proof) = (now, Proof::None);
                self.pairs.push(Pair { path, heard, priority, generation, proof, nomination: None });
            }
        }
        let is_preferred = request.has_use_candidate() && {
            let transaction_id = request.transaction_id();
            self.weigh(path, Nomination { transaction_id, priority })
        };
        self.follow(now, path, is_preferred);
        Ok(Answered { len, is_new, forgotten })
    }

    /// Verifies a response to a check of ours: the pair is verified, and selected if it was waiting
    /// for that.
    ///
    /// # Errors
    /// [`DropReason::StunUnexpected`]: no check of ours is open there, or it has another transaction
    /// id. [`DropReason::StunUnauthenticated`].
    pub fn handle_response(
        &mut self,
        now: Instant,
        path: Path,
        response: &Response<'_>,
    ) -> Result<(), DropReason> {
        let at = self
            .pairs
            .iter()
            .position(|pair| pair.path == path && pair.proof.expects(response.transaction_id()))
            .ok_or(DropReason::StunUnexpected)?;
        response.verify_with(&self.peer().remote_key)?;
        self.pairs[at].proof = Proof::Verified;
        self.follow_life(now);
        self.settle(now);
        Ok(())
    }

    /// DTLS finished, and all of it came over this pair: it is verified, and selected if none was. `None` when it came
    /// over several.
    ///
    /// A cookie and a certificate that go back and forth prove the address, but no part of them does: with a forged
    /// source address, the last flight comes from a victim. Without proof, and should the pair have been forgotten,
    /// the next one that qualifies is selected.
    pub fn handle_dtls_finished(&mut self, now: Instant, path: Option<Path>) {
        let proven = self.pairs.iter_mut().find(|pair| Some(pair.path) == path);
        let proven = proven.map(|pair| {
            pair.proof = Proof::Verified;
            pair.path
        });
        match (&self.selection, proven) {
            (Selection::Handshaking | Selection::Vacant { .. }, Some(path)) => {
                // What the peer nominates and uses outweighs what it only nominates, unless that is ranked higher: then
                // the peer is on its way there.
                let priority = |path| self.nomination_of(path).map(|nomination| nomination.priority);
                if priority(path) >= self.nominated.and_then(priority) {
                    self.nominated = None;
                }
                self.select(now, path);
            }
            (Selection::Handshaking, None) => {
                self.selection = Selection::Vacant { given_up_at: None };
                if path.is_none() && self.nominated.is_none() {
                    let latest = self.pairs.iter().max_by_key(|pair| pair.heard);
                    self.nominated = latest.map(|pair| pair.path);
                }
            }
            (Selection::Vacant { .. } | Selection::On(_) | Selection::Expired { .. }, _) => {}
        }
        self.settle(now);
    }

    /// Whether datagrams from there are this transport's.
    pub fn is_authenticated(&self, path: &Path) -> bool {
        self.pairs.iter().any(|pair| pair.path == *path)
    }

    /// Whether the peer has proven that it receives there.
    pub fn is_verified(&self, path: &Path) -> bool {
        self.pairs.iter().any(|pair| pair.path == *path && matches!(pair.proof, Proof::Verified))
    }

    /// All authenticated pairs, at most [`PAIR_COUNT_MAX`].
    pub fn paths(&self) -> impl Iterator<Item = Path> {
        self.pairs.iter().map(|pair| pair.path)
    }

    /// Where media goes; `None` before the first selection, and from the [`Agent::next_check`] on that
    /// found consent expired.
    pub fn selected(&self) -> Option<Path> {
        match self.selection {
            Selection::On(path) => Some(path),
            Selection::Handshaking | Selection::Vacant { .. } | Selection::Expired { .. } => None,
        }
    }

    /// [`Agent::selected`] is asked in a moment of the one that lies `distance` bytes behind this one.
    pub fn fetch_selected(&self, distance: isize) {
        vector::fetch_start_behind(&self.selection, distance);
    }

    /// Freshness of the peer's consent.
    ///
    /// Time counts only while somebody looked: being asked more than 2 s after
    /// [`Agent::next_timeout`] means that this machine stood still (a paused guest, a stopped
    /// process), and the excess is not held against the peer.
    pub fn consent(&self, now: Instant) -> Consent {
        match self.selection {
            Selection::Handshaking | Selection::Vacant { given_up_at: None } => Consent::None,
            Selection::On(path) => match self.silence(now, &path) {
                silence if silence < STALE_AFTER => Consent::Fresh,
                silence if silence < EXPIRED_AFTER || self.is_renewed(&path) => Consent::Stale,
                _ => Consent::Expired,
            },
            Selection::Vacant { given_up_at: Some(at) } if now < at + EXPIRED_AFTER => Consent::Stale,
            Selection::Vacant { .. } | Selection::Expired { .. } => Consent::Expired,
        }
    }

    /// When [`Agent::next_check`] or [`Agent::consent`] will have something new.
    pub fn next_timeout(&self) -> Option<Instant> {
        let consent = self.watches_consent().then_some(self.consent_due);
        let checks = self.pairs.iter().filter_map(|pair| match pair.proof {
            Proof::Checking { due, .. } => Some(due),
            Proof::None | Proof::Refused | Proof::Verified => None,
        });
        checks.chain(consent).min()
    }

    /// Writes a Binding request of ours that is due into `out` (at least
    /// [`CHECK_LEN_MAX`](super::stun::CHECK_LEN_MAX) bytes), returns where it goes and its length. Call
    /// until `None`. Ends the selection when consent expired.
    pub fn next_check(&mut self, now: Instant, out: &mut [u8]) -> Option<(Path, usize)> {
        self.watch_consent(now);
        let mut at = 0;
        while let Some(pair) = self.pairs.get_mut(at) {
            at += 1;
            let Proof::Checking { transaction_id, sent_count, due, .. } = &mut pair.proof else {
                continue;
            };
            if *due > now {
                continue;
            }
            if *sent_count == CHECK_COUNT_MAX {
                pair.proof = Proof::Refused;
                let path = pair.path;
                self.leave(now, path);
                continue;
            }
            *due = now + RTO * (1 << *sent_count);
            *sent_count += 1;
            // As `peer`, which would borrow all of us.
            let peer = self.previous.as_ref().unwrap_or(&self.current);
            let check = Check {
                transaction_id: *transaction_id,
                remote_ufrag: peer.remote.ufrag(),
                local_ufrag: peer.local_ufrag,
            };
            if let Some(len) = write_check(&check, &peer.remote_key, out) {
                return Some((pair.path, len));
            }
        }
        None
    }

    fn generations(&self) -> impl Iterator<Item = &Generation> {
        std::iter::once(&self.current).chain(&self.previous)
    }

    /// The credentials that the peer is known to have.
    fn peer(&self) -> &Generation {
        self.previous.as_ref().unwrap_or(&self.current)
    }

    /// The peer used this generation's credentials: once it uses the current ones, the previous are gone.
    fn enter(&mut self, now: Instant, generation: u32) {
        if generation != self.current.number {
            return;
        }
        if self.previous.take().is_some() {
            // The peer may have forgotten the credentials of our open checks; they go on under new ones. Where all were
            // sent none follows, whatever was lost: no restart is to keep media longer where nobody has answered.
            for pair in &mut self.pairs {
                pair.nomination = None;
                if let Proof::Checking { transaction_id, due, .. } = &mut pair.proof {
                    (*transaction_id, *due) = (self.transactions.next_id(), now);
                }
            }
        }
        if let Selection::Expired { generation: expired } = self.selection
            && generation != expired
        {
            self.vacate(now);
        }
    }

    /// The peer is about to be heard on a pair. After so long a silence, somebody else may have the address; only the
    /// selected pair is one that it must have kept.
    fn forget_proof(&mut self, now: Instant, path: Path) {
        let is_old = self.selected() != Some(path) && self.silence(now, &path) >= EXPIRED_AFTER;
        if let Some(pair) = self.pairs.iter_mut().find(|pair| is_old && pair.path == path)
            && let Proof::Refused | Proof::Verified = pair.proof
        {
            pair.proof = Proof::None;
        }
    }

    /// Finds a place for a new pair; the pair that is given up for it, if any had to be.
    fn make_room(&mut self, now: Instant, path: &Path) -> Result<Option<Path>, DropReason> {
        let is_unverified = |pair: &Pair| !self.is_verified_ip(now, pair.path.remote.ip());
        // Before the first selection nothing is verified, and nothing goes out that could do harm.
        let is_limited = !matches!(self.selection, Selection::Handshaking)
            && !self.is_verified_ip(now, path.remote.ip())
            && self.pairs.iter().filter(|pair| is_unverified(pair)).count() >= UNVERIFIED_COUNT_MAX;
        if !is_limited && self.pairs.len() < PAIR_COUNT_MAX {
            return Ok(None);
        }
        let selected = self.selected();
        // Unverified ones first, then who was silent longest.
        let (at, _) = self
            .pairs
            .iter()
            .enumerate()
            .filter(|(_, pair)| Some(pair.path) != selected && pair.heard + QUIET_AFTER <= now)
            .filter(|(_, pair)| !is_limited || is_unverified(pair))
            .min_by_key(|(_, pair)| (!is_unverified(pair), pair.heard))
            .ok_or(DropReason::StunLimit)?;
        let forgotten = self.pairs.swap_remove(at).path;
        self.nominated = self.nominated.filter(|nominated| *nominated != forgotten);
        Ok(Some(forgotten))
    }

    /// Notes a nomination; whether it outweighs the latest that we follow or have followed.
    ///
    /// Firefox has USE-CANDIDATE in the first check of each pair, uses the one of highest priority (RFC 5245 §8.1.1.2)
    /// and then nominates no more. Chromium may go to one of lower priority; it repeats USE-CANDIDATE in each check of
    /// the pair that it uses. So a lower one counts from its second transaction on; a retransmission is none. Of equal
    /// ones over the same socket and address of ours, the later is the earlier behind another NAT mapping.
    fn weigh(&mut self, path: Path, nomination: Nomination) -> bool {
        let held = self.nominated.or(self.selected());
        let held = held.and_then(|held| Some((held, self.nomination_of(held)?.priority)));
        let Some(pair) = self.pairs.iter_mut().find(|pair| pair.path == path) else {
            return false;
        };
        let first = *pair.nomination.get_or_insert(nomination);
        let is_repeated = first.transaction_id != nomination.transaction_id;
        held.is_none_or(|(held, priority)| {
            let is_ours_the_same = (held.socket, held.local) == (path.socket, path.local);
            is_repeated || first.priority > priority || first.priority == priority && is_ours_the_same
        })
    }

    fn nomination_of(&self, path: Path) -> Option<Nomination> {
        self.pairs.iter().find(|pair| pair.path == path)?.nomination
    }

    /// An authenticated request came over `path`.
    fn follow(&mut self, now: Instant, path: Path, is_preferred: bool) {
        let is_wanted = match self.selection {
            Selection::On(selected) if selected == path => {
                self.consent_due = now + MISSED_AFTER;
                if is_preferred {
                    self.nominated = None; // The peer came back before we could follow it elsewhere.
                }
                self.forget_substitute();
                false
            }
            Selection::On(selected) => {
                // Whatever it prefers: the peer fell silent on the selected pair, and is alive here. What it has nominated
                // comes first; of others the latest, as somebody may repeat old checks from where nobody answers.
                let is_candidate =
                    || self.is_verified_ip(now, path.remote.ip()) || self.nomination_of(path).is_some();
                let is_rival = |held| self.nomination_of(held).is_some() && !self.is_refused(&held);
                let is_open = || !self.nominated.is_some_and(is_rival);
                let is_wanted =
                    is_preferred || self.has_missed(now, selected) && (is_candidate() || is_open());
                // Asked ahead, so that it can take over as soon as the peer misses a check.
                if !is_wanted && self.is_alike(path, selected) && !self.is_refused(&path) {
                    self.probe(now, path);
                }
                is_wanted
            }
            // DTLS selects first; what the peer nominates meanwhile counts right after that.
            Selection::Handshaking => is_preferred,
            Selection::Vacant { .. } => {
                let is_open = self.nominated.is_none_or(|nominated| self.is_refused(&nominated));
                is_preferred || is_open || self.is_verified_ip(now, path.remote.ip())
            }
            Selection::Expired { .. } => false,
        };
        if is_wanted {
            self.nominated = Some(path);
            // The path may have mended; how often we ask is bounded by the budget.
            if self.is_refused(&path) {
                self.probe(now, path);
            }
        }
        self.settle(now);
    }

    /// Moves the selection to the nominated pair if it may go there now; else asks for the proof that
    /// is wanting.
    fn settle(&mut self, now: Instant) {
        let (Selection::On(_) | Selection::Vacant { .. }, Some(path)) = (&self.selection, self.nominated)
        else {
            return;
        };
        if self.silence(now, &path) >= EXPIRED_AFTER {
            self.nominated = None; // There would be no consent.
            return;
        }
        if !self.is_refused(&path) {
            self.probe(now, path);
        }
        let is_promising = || self.is_first_asked(&path) && self.is_verified_ip(now, path.remote.ip());
        if self.is_verified(&path) || is_promising() && self.moves.spend(now) {
            self.select(now, path);
        }
    }

    /// Moves the selection to where the peer was heard since, if it has missed a check on the selected pair.
    fn follow_life(&mut self, now: Instant) {
        let Selection::On(selected) = self.selection else {
            return;
        };
        if !self.has_missed(now, selected) {
            return;
        }
        let verified = self.pairs.iter().filter(|pair| matches!(pair.proof, Proof::Verified));
        if let Some(latest) = verified.max_by_key(|pair| pair.heard)
            && latest.heard > self.heard(now, &selected)
        {
            self.select(now, latest.path);
            self.forget_substitute();
        }
    }

    /// The pair was selected before its proof, which did not come: back to where the peer was heard last.
    fn leave(&mut self, now: Instant, path: Path) {
        if self.selected() != Some(path) {
            return;
        }
        let is_fresh = |pair: &&Pair| self.is_fresh(now, pair);
        match self.pairs.iter().filter(is_fresh).max_by_key(|pair| pair.heard) {
            Some(pair) => self.select(now, pair.path),
            None => self.vacate(now),
        }
        self.watch_consent(now);
    }

    fn vacate(&mut self, now: Instant) {
        self.selection = Selection::Vacant { given_up_at: Some(now) };
        self.consent_due = now + EXPIRED_AFTER;
    }

    /// The peer is alive where media goes: what it did not nominate is wanted no more.
    fn forget_substitute(&mut self) {
        self.nominated = self.nominated.filter(|path| self.nomination_of(*path).is_some());
    }

    /// Asks whether the peer receives there, if that is neither known nor being asked, and the budget allows.
    fn probe(&mut self, now: Instant, path: Path) {
        if let Some(pair) = self.pairs.iter_mut().find(|pair| pair.path == path)
            && let Proof::None | Proof::Refused = pair.proof
            && self.probes.spend(now)
        {
            let transaction_id = self.transactions.next_id();
            let is_first = matches!(pair.proof, Proof::None);
            pair.proof = Proof::Checking { transaction_id, sent_count: 0, due: now, is_first };
        }
    }

    fn select(&mut self, now: Instant, path: Path) {
        if let Some(pair) = self.pairs.iter().find(|pair| pair.path == path) {
            self.consent_due = now.max(pair.heard + MISSED_AFTER);
            self.selection = Selection::On(path);
            self.nominated = self.nominated.filter(|nominated| *nominated != path);
        }
    }

    fn is_verified_ip(&self, now: Instant, ip: IpAddr) -> bool {
        self.pairs.iter().any(|pair| pair.path.remote.ip() == ip && self.is_fresh(now, pair))
    }

    /// Whether the pair is verified, and its proof not too old.
    fn is_fresh(&self, now: Instant, pair: &Pair) -> bool {
        let is_in_use =
            || self.selected() == Some(pair.path) || self.silence(now, &pair.path) < EXPIRED_AFTER;
        matches!(pair.proof, Proof::Verified) && is_in_use()
    }

    fn is_first_asked(&self, path: &Path) -> bool {
        let is_first = |proof: &Proof| matches!(proof, Proof::Checking { is_first: true, .. });
        self.pairs.iter().any(|pair| pair.path == *path && is_first(&pair.proof))
    }

    fn is_refused(&self, path: &Path) -> bool {
        self.pairs.iter().any(|pair| pair.path == *path && matches!(pair.proof, Proof::Refused))
    }

    /// Whether checks over both look as those of one candidate do, before and after a NAT gave it another mapping.
    fn is_alike(&self, one: Path, other: Path) -> bool {
        let key = |pair: &Pair| (pair.path.socket, pair.path.local, pair.priority);
        let key_of = |path| self.pairs.iter().find(|pair| pair.path == path).map(key);
        key_of(one) == key_of(other)
    }

    fn has_missed(&self, now: Instant, selected: Path) -> bool {
        self.silence(now, &selected) >= MISSED_AFTER
    }

    /// How long the peer has been silent on a pair, less what we stood still.
    fn silence(&self, now: Instant, path: &Path) -> Duration {
        now.saturating_duration_since(self.heard(now, path)).saturating_sub(self.stall(now))
    }

    fn heard(&self, now: Instant, path: &Path) -> Instant {
        self.pairs.iter().find(|pair| pair.path == *path).map_or(now, |pair| pair.heard)
    }

    /// Whether [`Agent::consent`] will have something new by itself.
    fn watches_consent(&self) -> bool {
        matches!(self.selection, Selection::On(_) | Selection::Vacant { given_up_at: Some(_) })
    }

    /// How long we stood still, judging by when we wanted to be woken.
    fn stall(&self, now: Instant) -> Duration {
        let late = now.saturating_duration_since(self.consent_due);
        let is_stall = matches!(self.selection, Selection::On(_)) && late > STALL_MIN;
        if is_stall { late } else { Duration::ZERO }
    }

    fn watch_consent(&mut self, now: Instant) {
        if !self.watches_consent() || now < self.consent_due {
            return;
        }
        let stall = self.stall(now);
        let selected = self.selected();
        if let Some(pair) = self.pairs.iter_mut().find(|pair| Some(pair.path) == selected) {
            pair.heard += stall;
        }
        self.consent_due = now;
        self.follow_life(now);
        let selected = self.selected();
        let next = match self.selection {
            Selection::On(path) => self.next_of_consent(now, &path),
            Selection::Vacant { given_up_at: Some(at) } => at + EXPIRED_AFTER,
            Selection::Handshaking | Selection::Vacant { .. } | Selection::Expired { .. } => return,
        };
        if now < next {
            self.consent_due = next;
        } else if selected.is_some_and(|path| self.is_renewed(&path)) {
            self.vacate(now);
        } else {
            // Under the credentials that the peer had.
            self.selection = Selection::Expired { generation: self.peer().number };
            self.nominated = None;
        }
    }

    /// Whether the peer has used credentials elsewhere that it did not use on this pair: RFC 7675 §5.1 forbids the pair and
    /// those of before, but not these.
    fn is_renewed(&self, path: &Path) -> bool {
        let peer = self.peer().number;
        self.pairs.iter().any(|pair| pair.path == *path && pair.generation != peer)
    }

    fn next_of_consent(&self, now: Instant, path: &Path) -> Instant {
        let heard = self.heard(now, path);
        let expires = heard + EXPIRED_AFTER;
        let next = [heard + MISSED_AFTER, heard + STALE_AFTER].into_iter().find(|at| now < *at);
        next.unwrap_or(expires.min(now + STALE_TICK))
    }
}

impl Generation {
    fn new(number: u32, local: &LocalCredentials, remote: RemoteCredentials) -> Generation {
        Generation {
            number,
            local_ufrag: local.ufrag,
            local_key: IntegrityKey::new(local.password.as_str()),
            remote_key: IntegrityKey::new(remote.password()),
            remote,
        }
    }
}
