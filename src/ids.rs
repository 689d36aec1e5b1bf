//! The names that several rooms share: numbers of the wire (RFC 3550, 8843) and identities of ours.
//!
//! Plain data, no behaviour beyond parsing. Numeric ids of ours are unique for the life of the
//! process and never reused, so a late message about something gone finds nothing.

use std::fmt;
use std::rc::Rc;

/// Synchronization source (RFC 3550 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ssrc(pub u32);

/// RTP payload type, 0–127 (RFC 3550 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PayloadType(u8);

impl PayloadType {
    /// Returns `None` above 127.
    pub const fn new(value: u8) -> Option<PayloadType> {
        if value < 128 { Some(PayloadType(value)) } else { None }
    }

    /// The value, 0–127.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// Longest media identification tag that fits the one-byte header extension (RFC 8285 §4.2).
pub const MID_LEN_MAX: usize = 16;

/// Media identification tag of an m-line (RFC 5888, RFC 8843 §15), 1–16 token characters, inline.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mid {
    len: u8,
    bytes: [u8; MID_LEN_MAX],
}

impl Mid {
    /// Returns `None` unless `text` is 1–16 bytes of RFC 4566 token characters.
    pub fn parse(text: &str) -> Option<Mid> {
        Mid::from_bytes(text.as_bytes())
    }

    /// As [`Mid::parse`], from the bytes of a header extension.
    pub fn from_bytes(source: &[u8]) -> Option<Mid> {
        if source.is_empty() || source.len() > MID_LEN_MAX || !source.iter().all(|&b| is_token_char(b)) {
            return None;
        }
        let mut bytes = [0; MID_LEN_MAX];
        bytes[..source.len()].copy_from_slice(source);
        Some(Mid { len: source.len() as u8, bytes })
    }

    /// The tag's bytes, as they go into the header extension.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// [`Mid::as_bytes`], and zeros behind them.
    pub const fn padded(&self) -> &[u8; MID_LEN_MAX] {
        &self.bytes
    }

    /// The tag as text.
    pub fn as_str(&self) -> &str {
        // Only token characters get in, and those are ASCII.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

impl fmt::Debug for Mid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mid({})", self.as_str())
    }
}

impl fmt::Display for Mid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A `token-char` of RFC 4566 §9.
pub const fn is_token_char(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x27 | 0x2A..=0x2B | 0x2D..=0x2E | 0x30..=0x39 | 0x41..=0x5A | 0x5E..=0x7E)
}

/// SHA-256 fingerprint of a certificate (RFC 8122 §5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Parses 32 colon-separated hexadecimal pairs; either case.
    pub fn parse(text: &str) -> Option<Fingerprint> {
        let mut bytes = [0; 32];
        let mut pairs = text.split(':');
        for byte in &mut bytes {
            let pair = pairs.next().filter(|pair| pair.len() == 2 && !pair.starts_with('+'))?;
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        pairs.next().is_none().then_some(Fingerprint(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            let colon = if i == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02X}")?;
        }
        Ok(())
    }
}

macro_rules! numeric_id {
    ($(#[$doc:meta])* $name:ident($repr:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub $repr);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

numeric_id! {
    /// One worker thread, counted from 0; at most [`WORKER_COUNT_MAX`].
    WorkerId(u8)
}
numeric_id! {
    /// One peer's transport. Given out by control.
    TransportId(u64)
}
numeric_id! {
    /// A room on its worker; its name stays in control.
    RoomId(u64)
}
numeric_id! {
    /// What one participant publishes on one m-line. It outlives the transport: a participant who
    /// joins again publishes the same track, so the slots that carry it keep it.
    TrackId(u64)
}
numeric_id! {
    /// The n-th slot of a receiver (DESIGN: a slot is an m-line towards the receiver).
    SlotIndex(u16)
}

/// The owner's index is one base64url character of the ICE ufrag.
pub const WORKER_COUNT_MAX: usize = 64;

/// Some of the workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerSet(u64);

const _: () = assert!(WORKER_COUNT_MAX <= u64::BITS as usize);

impl WorkerSet {
    /// None of them.
    pub const EMPTY: WorkerSet = WorkerSet(0);

    /// This, and one more.
    #[must_use]
    pub const fn with(self, worker: WorkerId) -> WorkerSet {
        WorkerSet(self.0 | 1 << worker.0)
    }

    /// This, but for one.
    #[must_use]
    pub const fn without(self, worker: WorkerId) -> WorkerSet {
        WorkerSet(self.0 & !(1 << worker.0))
    }

    /// Whether it is among them.
    pub const fn contains(self, worker: WorkerId) -> bool {
        self.0 >> worker.0 & 1 == 1
    }

    /// How many.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// None.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// They, ascending.
    pub fn iter(self) -> impl Iterator<Item = WorkerId> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let lowest = (rest != 0).then(|| rest.trailing_zeros() as u8)?;
            rest &= rest - 1;
            Some(WorkerId(lowest))
        })
    }
}

impl FromIterator<WorkerId> for WorkerSet {
    fn from_iter<T: IntoIterator<Item = WorkerId>>(workers: T) -> WorkerSet {
        workers.into_iter().fold(WorkerSet::EMPTY, WorkerSet::with)
    }
}

/// Longest room name and user id, in bytes of UTF-8.
pub const NAME_LEN_MAX: usize = 128;

/// A room's name as clients give it: 1–128 bytes of UTF-8, no control characters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RoomName(Rc<str>);

/// A participant's `userId` as the client gives it: 1–128 bytes of UTF-8, no control characters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct UserId(Rc<str>);

fn is_valid_name(text: &str) -> bool {
    (1..=NAME_LEN_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

macro_rules! client_name {
    ($name:ident) => {
        impl $name {
            /// Returns `None` when empty, longer than [`NAME_LEN_MAX`] bytes or with a control character.
            pub fn parse(text: &str) -> Option<$name> {
                is_valid_name(text).then(|| $name(text.into()))
            }

            /// The name as the client wrote it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        /// For a log: a name that could be taken for more than one field there, or that would not show as it is, is
        /// quoted and escaped.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let is_plain = |c: char| c.is_alphanumeric() || "-_.:@/+".contains(c);
                if self.0.chars().all(is_plain) { f.write_str(&self.0) } else { write!(f, "{:?}", &*self.0) }
            }
        }
    };
}

client_name!(RoomName);
client_name!(UserId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mid_takes_tokens_of_1_to_16_bytes() {
        assert_eq!(Mid::parse("audio-0").map(|mid| mid.to_string()), Some("audio-0".into()));
        assert!(Mid::parse("0123456789abcdef").is_some());
        for bad in ["", "0123456789abcdefg", "a b", "é", "a\r\n", "a\"b", "a/b"] {
            assert_eq!(Mid::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn fingerprint_round_trips_and_refuses_other_lengths() {
        let text = (0..32).map(|i| format!("{:02X}", i * 7)).collect::<Vec<_>>().join(":");
        assert_eq!(Fingerprint::parse(&text).unwrap().to_string(), text);
        assert_eq!(Fingerprint::parse(&text.to_lowercase()), Fingerprint::parse(&text));
        for bad in ["", &text[..text.len() - 3], &format!("{text}:00"), &text.replace("07", "+7")] {
            assert_eq!(Fingerprint::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_name_forges_nothing_in_a_log() {
        let shown = |text| UserId::parse(text).unwrap().to_string();
        assert_eq!(["ada", "björk", "a@b.example"].map(shown), ["ada", "björk", "a@b.example"]);
        assert_eq!(shown("r user=ada"), "\"r user=ada\"");
        assert_eq!(shown("a\"=\u{2028}\u{202E}"), r#""a\"=\u{2028}\u{202e}""#);
    }

    #[test]
    fn names_are_bounded_and_printable() {
        assert!(UserId::parse("Zoë \"the <b>\" O'Neil").is_some());
        assert!(RoomName::parse(&"x".repeat(NAME_LEN_MAX)).is_some());
        for bad in ["", "a\nb", "a\u{7f}", &"x".repeat(NAME_LEN_MAX + 1)] {
            assert_eq!(UserId::parse(bad), None, "{bad:?}");
        }
    }
}
