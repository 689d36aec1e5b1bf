//! Header extension elements (RFC 8285) and the three of them that are mapped from publisher to receiver.

use crate::ids::Mid;

/// Negotiated ids of the extensions that are mapped, 1–14 or 1–255; `None` where not negotiated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ExtensionIds {
    /// Client-to-mixer audio level (RFC 6464).
    pub audio_level: Option<u8>,
    /// Media identification (RFC 8843 §15).
    pub mid: Option<u8>,
    /// Absolute capture time (`http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time`).
    pub abs_capture_time: Option<u8>,
}

/// Profile of the one-byte form.
const ONE_BYTE: u16 = 0xBEDE;
/// Profile of the two-byte form, whose low four bits are free.
const TWO_BYTE: u16 = 0x1000;

/// Of the absolute capture time: an NTP time, by the clock of whom it was captured.
const ABS_CAPTURE_TIME_LEN: usize = 8;

/// What one packet's extensions said, copied out so that the packet can be decrypted.
#[derive(Clone, Debug, Default)]
pub struct Values {
    audio_level: Option<u8>,
    mid: Option<Mid>,
    abs_capture_time: Option<[u8; ABS_CAPTURE_TIME_LEN]>,
}

impl Values {
    /// `audio_level` as in RFC 6464: V bit and level. `abs_capture_time`: an NTP time.
    pub const fn new(
        audio_level: Option<u8>,
        abs_capture_time: Option<[u8; ABS_CAPTURE_TIME_LEN]>,
    ) -> Values {
        Values { audio_level, mid: None, abs_capture_time }
    }

    /// The byte of RFC 6464: voice activity in the highest bit, then 0 (loudest) to 127 −dBov.
    pub const fn audio_level(&self) -> Option<u8> {
        self.audio_level
    }

    /// The m-line that the packet claims.
    pub const fn mid(&self) -> Option<Mid> {
        self.mid
    }

    /// When it was captured, an NTP time by the publisher's clock.
    pub const fn abs_capture_time(&self) -> Option<&[u8; ABS_CAPTURE_TIME_LEN]> {
        self.abs_capture_time.as_ref()
    }

    /// The offset that may follow the time is to the clock of the publisher's sender reports. Receivers get ours, by our
    /// clock: to that it is unknown, and an offset that is not there says so.
    fn set_abs_capture_time(&mut self, value: &[u8]) {
        if let (8 | 16, Some(time)) = (value.len(), value.first_chunk()) {
            self.abs_capture_time = Some(*time);
        }
    }

    /// Walks the elements; one that is truncated or, in the one-byte form, has id 0 and a length ends the walk (RFC 8285
    /// §4.2, §4.3).
    pub(super) fn read(profile: u16, elements: &[u8], ids: &ExtensionIds) -> Values {
        let mut values = Values::default();
        let is_one_byte = profile == ONE_BYTE;
        if !is_one_byte && profile & 0xFFF0 != TWO_BYTE {
            return values;
        }
        let mut rest = elements;
        while let [first, after @ ..] = rest {
            if *first == 0 {
                rest = after; // Padding.
                continue;
            }
            let (id, len, after) = if is_one_byte {
                (first >> 4, usize::from(first & 0x0F) + 1, after)
            } else {
                let [len, after @ ..] = after else { break };
                (*first, usize::from(*len), after)
            };
            if is_one_byte && matches!(id, 0 | 15) {
                break; // RFC 8285 §4.2: stop here.
            }
            let Some((value, after)) = after.split_at_checked(len) else { break };
            values.take(id, value, ids);
            rest = after;
        }
        values
    }

    fn take(&mut self, id: u8, value: &[u8], ids: &ExtensionIds) {
        let id = Some(id);
        if id == ids.audio_level {
            self.audio_level = value.first().copied();
        } else if id == ids.mid {
            self.mid = Mid::from_bytes(value);
        } else if id == ids.abs_capture_time {
            self.set_abs_capture_time(value);
        }
    }
}

/// Longest block that is written: three elements of the two-byte form, made a multiple of 4.
pub(super) const WRITTEN_LEN_MAX: usize =
    (4 + (2 + 16) + (2 + 1) + (2 + ABS_CAPTURE_TIME_LEN)).next_multiple_of(4);

/// Writes an extension block into `out` and returns its length: 0 without elements, else a multiple of 4.
///
/// A value is written with all the room that it could take, and zeros where it is shorter: as many bytes each time, so
/// that no loop is needed for a few of them.
pub(super) fn write(
    out: &mut [u8; WRITTEN_LEN_MAX],
    ids: &ExtensionIds,
    mid: &Mid,
    values: &Values,
) -> usize {
    let level = ids.audio_level.zip(values.audio_level);
    let time = ids.abs_capture_time.zip(values.abs_capture_time);
    let carried = [ids.mid, level.map(|(id, _)| id), time.map(|(id, _)| id)];
    let Some(highest) = carried.into_iter().flatten().max() else { return 0 };
    let is_one_byte = highest < 15;
    let profile = if is_one_byte { ONE_BYTE } else { TWO_BYTE };
    *out = [0; WRITTEN_LEN_MAX];
    let mut at = 4;
    let mut put = |id: u8, value: &[u8], len: usize| {
        if is_one_byte {
            out[at] = id << 4 | (len - 1) as u8;
            at += 1;
        } else {
            out[at..at + 2].copy_from_slice(&[id, len as u8]);
            at += 2;
        }
        out[at..at + value.len()].copy_from_slice(value);
        at += len;
    };
    if let Some(id) = ids.mid {
        put(id, mid.padded(), mid.as_bytes().len());
    }
    if let Some((id, level)) = level {
        put(id, &[level], 1);
    }
    if let Some((id, time)) = time {
        put(id, &time, time.len());
    }
    let len = at.next_multiple_of(4);
    out[0..2].copy_from_slice(&profile.to_be_bytes());
    out[2..4].copy_from_slice(&((len / 4 - 1) as u16).to_be_bytes());
    len
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: ExtensionIds = ExtensionIds { audio_level: Some(1), mid: Some(2), abs_capture_time: Some(3) };

    #[test]
    fn padding_id_15_and_truncation_end_or_skip_as_the_rfc_says() {
        let read = |elements: &[u8]| Values::read(ONE_BYTE, elements, &IDS);
        assert_eq!(read(&[0, 0, 0x10, 0x42]).audio_level(), Some(0x42));
        assert_eq!(read(&[0xF0, 0, 0x10, 0x42]).audio_level(), None);
        assert_eq!(read(&[0x01, 9, 9, 0x10, 0x42]).audio_level(), None);
        assert_eq!(read(&[0x1F, 1, 2, 3]).audio_level(), None);
        assert_eq!(read(&[0x37, 1, 2, 3, 4, 5, 6, 7, 8]).abs_capture_time(), Some(&[1, 2, 3, 4, 5, 6, 7, 8]));
        assert_eq!(read(&[0x32, 1, 2, 3]).abs_capture_time(), None);
        assert_eq!(read(&[0x20, b' ']).mid(), None);
        assert_eq!(Values::read(TWO_BYTE | 7, &[1, 1, 9, 1, 0], &IDS).audio_level(), None);
        assert_eq!(Values::read(TWO_BYTE | 7, &[1, 1, 9], &IDS).audio_level(), Some(9));
        assert_eq!(Values::read(0xABCD, &[0x10, 9], &IDS).audio_level(), None);
    }

    #[test]
    fn the_last_capture_time_counts_without_its_offset() {
        let mut twice = vec![0x37];
        twice.extend([0xEE; 8]);
        twice.push(0x3F);
        twice.extend([0xDD; 8]);
        twice.extend([0xCC; 8]);
        let values = Values::read(ONE_BYTE, &twice, &IDS);
        let ids = ExtensionIds { audio_level: None, mid: None, ..IDS };
        let mut out = [0xFF; WRITTEN_LEN_MAX];
        let len = write(&mut out, &ids, &Mid::parse("a").unwrap(), &values);
        assert_eq!(
            out[..len],
            [0xBE, 0xDE, 0, 3, 0x37, 0xDD, 0xDD, 0xDD, 0xDD, 0xDD, 0xDD, 0xDD, 0xDD, 0, 0, 0]
        );
    }

    #[test]
    fn the_longest_block_is_as_long_as_is_said() {
        let ids = ExtensionIds { audio_level: Some(255), mid: Some(254), abs_capture_time: Some(253) };
        let values = Values::new(Some(1), Some([1; 8]));
        let mut out = [0xFF; WRITTEN_LEN_MAX];
        let len = write(&mut out, &ids, &Mid::parse("sixteen_chars_16").unwrap(), &values);
        assert_eq!(len, (4_usize + 18 + 3 + 10).next_multiple_of(4));
        assert_eq!(out[len..], [0; WRITTEN_LEN_MAX][len..]);
    }
}
