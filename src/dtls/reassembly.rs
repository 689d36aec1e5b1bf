//! One handshake message out of its fragments (RFC 6347 §4.2.3), bounded in bytes, pieces and time.

use std::time::Duration;

use tokio::time::Instant;

use super::record::Fragment;

/// Longest message taken. Browsers' certificates are below 1 KB and their hellos below 2 KB; what we hand
/// on must fit the crate's receive buffer of 8192 bytes with both headers.
pub(super) const MESSAGE_LEN_MAX: usize = 8000;
/// Most separate pieces held of one message.
const PIECE_COUNT_MAX: usize = 64;
/// A message that is not whole by then starts over.
const AGE_MAX: Duration = Duration::from_secs(5);

/// The message of one sequence number. Fragments that contradict what is there start it over: a sender
/// that is real sends the whole message again, and one stray fragment must not block it for good.
#[derive(Default)]
pub(super) struct Reassembly(Option<Partial>);

struct Partial {
    message_type: u8,
    body: Vec<u8>,
    /// Which ranges of `body` are there: sorted, apart from one another.
    pieces: Vec<(usize, usize)>,
    since: Instant,
}

impl Reassembly {
    /// Takes a fragment; returns the message's body when that made it whole.
    pub(super) fn insert(&mut self, fragment: &Fragment<'_>) -> Option<Vec<u8>> {
        if fragment.message_len > MESSAGE_LEN_MAX || fragment.body.is_empty() {
            return None;
        }
        if self.0.as_ref().is_none_or(|partial| !partial.agrees_with(fragment)) {
            self.0 = Some(Partial::new(fragment));
        }
        let partial = self.0.as_mut()?;
        partial.fill(fragment);
        if partial.pieces.len() > PIECE_COUNT_MAX {
            self.0 = None;
            return None;
        }
        let whole = [(0, partial.body.len())] == *partial.pieces;
        if whole { self.0.take().map(|partial| partial.body) } else { None }
    }
}

impl Partial {
    fn new(fragment: &Fragment<'_>) -> Partial {
        Partial {
            message_type: fragment.message_type,
            body: vec![0; fragment.message_len],
            pieces: Vec::new(),
            since: Instant::now(),
        }
    }

    fn agrees_with(&self, fragment: &Fragment<'_>) -> bool {
        let (start, end) = (fragment.offset, fragment.offset + fragment.body.len());
        self.message_type == fragment.message_type
            && self.body.len() == fragment.message_len
            && self.since.elapsed() < AGE_MAX
            && self.pieces.iter().all(|&(from, to)| {
                let (from, to) = (from.max(start), to.min(end));
                from >= to || self.body[from..to] == fragment.body[from - start..to - start]
            })
    }

    fn fill(&mut self, fragment: &Fragment<'_>) {
        let (mut start, mut end) = (fragment.offset, fragment.offset + fragment.body.len());
        self.body[start..end].copy_from_slice(fragment.body);
        self.pieces.retain(|&(from, to)| {
            let touches = from <= end && start <= to;
            if touches {
                (start, end) = (start.min(from), end.max(to));
            }
            !touches
        });
        let place = self.pieces.partition_point(|&(from, _)| from < start);
        self.pieces.insert(place, (start, end));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"the quick brown fox jumps over the lazy dog";

    fn fragment(offset: usize, body: &[u8]) -> Fragment<'_> {
        Fragment { message_type: 1, message_len: TEXT.len(), message_seq: 0, offset, body }
    }

    #[test]
    fn pieces_in_any_order_and_overlapping() {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let ranges = [0..20, 10..30, 25..TEXT.len()];
            let mut reassembly = Reassembly::default();
            let whole: Vec<_> = order
                .iter()
                .map(|&i| reassembly.insert(&fragment(ranges[i].start, &TEXT[ranges[i].clone()])))
                .collect();
            assert_eq!(whole, [None, None, Some(TEXT.to_vec())], "{order:?}");
        }
    }

    #[test]
    fn a_contradiction_starts_over() {
        let mut reassembly = Reassembly::default();
        assert_eq!(reassembly.insert(&fragment(0, b"another message")), None);
        assert_eq!(reassembly.insert(&fragment(0, &TEXT[..20])), None);
        assert_eq!(reassembly.insert(&fragment(20, &TEXT[20..])), Some(TEXT.to_vec()));
        let longer = Fragment { message_len: MESSAGE_LEN_MAX, ..fragment(0, b"x") };
        assert_eq!(reassembly.insert(&longer), None);
        assert_eq!(reassembly.insert(&fragment(0, TEXT)), Some(TEXT.to_vec()));
    }

    #[test]
    fn too_long_or_in_too_many_pieces_is_not_kept() {
        let mut reassembly = Reassembly::default();
        let long = Fragment { message_len: MESSAGE_LEN_MAX + 1, ..fragment(0, b"x") };
        assert_eq!(reassembly.insert(&long), None);
        assert!(reassembly.0.is_none());
        for i in 0..=PIECE_COUNT_MAX {
            let crumb = Fragment { message_len: MESSAGE_LEN_MAX, ..fragment(2 * i, b"x") };
            assert_eq!(reassembly.insert(&crumb), None);
        }
        assert!(reassembly.0.is_none());
    }

    #[test]
    fn half_a_message_does_not_stay() {
        let mut reassembly = Reassembly::default();
        reassembly.insert(&fragment(0, &TEXT[..20]));
        if let Some(partial) = &mut reassembly.0 {
            partial.since -= AGE_MAX;
        }
        assert_eq!(reassembly.insert(&fragment(20, &TEXT[20..])), None);
        assert_eq!(reassembly.insert(&fragment(0, &TEXT[..20])), Some(TEXT.to_vec()));
    }
}
