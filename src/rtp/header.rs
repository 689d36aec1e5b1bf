//! The RTP header: read into offsets, so that the packet can be decrypted in place afterwards, and
//! written for one receiver.

use std::ops::Range;

use super::extension::{self, ExtensionIds, Values};
use crate::ids::{Mid, PayloadType, Ssrc};
use crate::packet::DropReason;
use crate::time::RtpTime;

/// Fixed part of the header (RFC 3550 §5.1).
pub const FIXED_LEN: usize = 12;

/// In the first byte: padding follows the payload (RFC 3550 §5.1).
pub const PADDING_BIT: u8 = 0x20;

/// Longest header that [`OutgoingHeader::write_to`] makes: fixed part and three two-byte elements of 16 bytes.
pub const OUTGOING_LEN_MAX: usize = FIXED_LEN + extension::WRITTEN_LEN_MAX;

/// An RTP header that lies wholly inside its packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// First packet after a silence, for audio (RFC 3551 §4.1).
    pub marker: bool,
    /// The payload's format.
    pub payload_type: PayloadType,
    /// Low 16 bits of the packet index.
    pub sequence_number: u16,
    /// Media time.
    pub timestamp: RtpTime,
    /// Whose packet it claims to be.
    pub ssrc: Ssrc,
    /// Length in bytes, CSRCs and extension included.
    pub len: usize,
    has_padding: bool,
    extension: Option<(u16, Range<u16>)>,
}

impl Header {
    /// Parses the header of `packet` (RFC 3550 §5.1).
    ///
    /// # Errors
    /// [`DropReason::RtpMalformed`] when the version is not 2 or a length runs past the packet.
    pub fn parse(packet: &[u8]) -> Result<Header, DropReason> {
        let (fixed, rest) = packet.split_first_chunk::<FIXED_LEN>().ok_or(DropReason::RtpMalformed)?;
        let [b0, b1, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3] = *fixed;
        if b0 >> 6 != 2 {
            return Err(DropReason::RtpMalformed);
        }
        let csrcs_len = usize::from(b0 & 0x0F) * 4;
        let after_csrcs = rest.get(csrcs_len..).ok_or(DropReason::RtpMalformed)?;
        let mut len = FIXED_LEN + csrcs_len;
        let mut extension = None;
        if b0 & 0x10 != 0 {
            let (&[p0, p1, l0, l1], elements) =
                after_csrcs.split_first_chunk::<4>().ok_or(DropReason::RtpMalformed)?;
            let elements_len = usize::from(u16::from_be_bytes([l0, l1])) * 4;
            if elements.len() < elements_len {
                return Err(DropReason::RtpMalformed);
            }
            let start = len + 4;
            len = start + elements_len;
            let range = u16::try_from(start).ok().zip(u16::try_from(len).ok());
            let (start, end) = range.ok_or(DropReason::RtpMalformed)?;
            extension = Some((u16::from_be_bytes([p0, p1]), start..end));
        }
        Ok(Header {
            marker: b1 & 0x80 != 0,
            payload_type: PayloadType::new(b1 & 0x7F).ok_or(DropReason::RtpMalformed)?,
            sequence_number: u16::from_be_bytes([s0, s1]),
            timestamp: RtpTime(u32::from_be_bytes([t0, t1, t2, t3])),
            ssrc: Ssrc(u32::from_be_bytes([c0, c1, c2, c3])),
            len,
            has_padding: b0 & PADDING_BIT != 0,
            extension,
        })
    }

    /// The payload of the decrypted `packet`, without padding.
    ///
    /// # Errors
    /// [`DropReason::RtpMalformed`] when the padding's count is 0 or larger than the payload.
    pub fn payload<'a>(&self, packet: &'a [u8]) -> Result<&'a [u8], DropReason> {
        let padded = packet.get(self.len..).ok_or(DropReason::RtpMalformed)?;
        if !self.has_padding {
            return Ok(padded);
        }
        let count = usize::from(*padded.last().ok_or(DropReason::RtpMalformed)?);
        match padded.len().checked_sub(count) {
            Some(len) if count > 0 => Ok(&padded[..len]),
            _ => Err(DropReason::RtpMalformed),
        }
    }

    /// The extension elements of `packet` that `ids` names.
    pub fn extensions(&self, packet: &[u8], ids: &ExtensionIds) -> Values {
        match &self.extension {
            Some((profile, range)) => packet
                .get(usize::from(range.start)..usize::from(range.end))
                .map(|elements| Values::read(*profile, elements, ids))
                .unwrap_or_default(),
            None => Values::default(),
        }
    }
}

/// A header as one receiver sees it.
#[derive(Clone, Debug)]
pub struct OutgoingHeader<'a> {
    /// See [`Header::marker`].
    pub marker: bool,
    /// As the receiver numbers it.
    pub payload_type: PayloadType,
    /// Low 16 bits of the index that seals it.
    pub sequence_number: u16,
    /// On the receiver's line.
    pub timestamp: RtpTime,
    /// The slot's.
    pub ssrc: Ssrc,
    /// As the receiver numbers them.
    pub ids: &'a ExtensionIds,
    /// The slot's m-line.
    pub mid: &'a Mid,
    /// What the publisher's packet carried.
    pub values: &'a Values,
}

impl OutgoingHeader<'_> {
    /// Writes the header and returns its length, a multiple of 4.
    pub fn write_to(&self, out: &mut [u8; OUTGOING_LEN_MAX]) -> usize {
        let (fixed, rest) = out.split_first_chunk_mut::<FIXED_LEN>().expect("longer");
        let rest = rest.first_chunk_mut().expect("as long");
        let extension_len = extension::write(rest, self.ids, self.mid, self.values);
        fixed[0] = if extension_len > 0 { 0x90 } else { 0x80 };
        fixed[1] = u8::from(self.marker) << 7 | self.payload_type.get();
        fixed[2..4].copy_from_slice(&self.sequence_number.to_be_bytes());
        fixed[4..8].copy_from_slice(&self.timestamp.0.to_be_bytes());
        fixed[8..12].copy_from_slice(&self.ssrc.0.to_be_bytes());
        FIXED_LEN + extension_len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const IDS: ExtensionIds = ExtensionIds { audio_level: Some(1), mid: Some(4), abs_capture_time: Some(3) };

    fn write(values: &Values, ids: &ExtensionIds) -> Vec<u8> {
        let mut out = [0xEE; OUTGOING_LEN_MAX];
        let header = OutgoingHeader {
            marker: true,
            payload_type: PayloadType::new(111).unwrap(),
            sequence_number: 0xABCD,
            timestamp: RtpTime(0x0102_0304),
            ssrc: Ssrc(0xDEAD_BEEF),
            ids,
            mid: &Mid::parse("s12").unwrap(),
            values,
        };
        let len = header.write_to(&mut out);
        out[..len].to_vec()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let values = Values::new(Some(0x85), Some([7; 8]));
        for ids in [
            IDS,
            ExtensionIds { audio_level: Some(15), ..IDS },
            ExtensionIds { mid: Some(200), ..IDS },
            ExtensionIds { audio_level: None, mid: None, abs_capture_time: None },
            ExtensionIds { mid: None, ..IDS },
        ] {
            let packet = write(&values, &ids);
            let header = Header::parse(&packet).unwrap();
            assert_eq!(header.len, packet.len());
            assert_eq!(header.len % 4, 0);
            assert_eq!((header.marker, header.payload_type.get()), (true, 111));
            assert_eq!((header.sequence_number, header.timestamp), (0xABCD, RtpTime(0x0102_0304)));
            assert_eq!(header.ssrc, Ssrc(0xDEAD_BEEF));
            let read = header.extensions(&packet, &ids);
            assert_eq!(read.audio_level(), ids.audio_level.and(Some(0x85)));
            assert_eq!(read.abs_capture_time(), ids.abs_capture_time.and(Some(&[7; 8])));
            assert_eq!(read.mid().map(|mid| mid.to_string()), ids.mid.map(|_| "s12".to_owned()));
        }
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let packet = write(&Values::new(Some(1), None), &IDS);
        for len in 0..packet.len() {
            assert_eq!(Header::parse(&packet[..len]), Err(DropReason::RtpMalformed), "{len} bytes");
        }
        let mut fifteen_csrcs = [0; 12];
        fifteen_csrcs[0] = 0x8F;
        assert_eq!(Header::parse(&fifteen_csrcs), Err(DropReason::RtpMalformed));
        let mut wrong_version = packet;
        wrong_version[0] &= 0x7F;
        assert_eq!(Header::parse(&wrong_version), Err(DropReason::RtpMalformed));
    }

    #[test]
    fn padding_is_cut_or_refused() {
        let mut packet = vec![0xA0, 111, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 9, 9, 9, 0, 0, 3];
        let header = Header::parse(&packet).unwrap();
        assert_eq!(header.payload(&packet), Ok(&[9, 9, 9][..]));
        for count in [0, 7, 255] {
            *packet.last_mut().unwrap() = count;
            assert_eq!(header.payload(&packet), Err(DropReason::RtpMalformed), "{count}");
        }
        *packet.last_mut().unwrap() = 6;
        assert_eq!(header.payload(&packet), Ok(&[][..]));
        assert_eq!(header.payload(&packet[..12]), Err(DropReason::RtpMalformed));
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..128), extended: bool) {
            let mut bytes = bytes;
            if extended && bytes.len() > 14 {
                bytes[0] = 0x90;
                bytes[12..14].copy_from_slice(&[0xBE, 0xDE]);
            }
            if let Ok(header) = Header::parse(&bytes) {
                prop_assert!(header.len <= bytes.len());
                let _ = header.payload(&bytes);
                let _ = header.extensions(&bytes, &IDS);
            }
        }
    }
}
