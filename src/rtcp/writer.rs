//! Composes a compound in a lent slot (RFC 3550 §6.1: a report first, then a CNAME, then the rest).

use super::packet::{CNAME, HEADER_LEN, ITEM_COUNT_MAX, format, packet_type};
use super::report::{ReportBlock, SenderInfo};
use crate::ids::Ssrc;

/// The slot has no room for the packet, or the packet's items are more than it can count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRoom;

/// A compound in the making. A packet that does not fit leaves it as it was.
pub struct Writer<'a> {
    out: &'a mut [u8],
    len: usize,
}

impl<'a> Writer<'a> {
    /// An empty compound.
    pub fn new(out: &'a mut [u8]) -> Writer<'a> {
        Writer { out, len: 0 }
    }

    /// Bytes written.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// SR (RFC 3550 §6.4.1); report blocks beyond the 31st go into RRs behind it.
    ///
    /// # Errors
    /// [`OutOfRoom`].
    pub fn sender_report(
        &mut self,
        info: &SenderInfo,
        reports: impl IntoIterator<Item = ReportBlock>,
    ) -> Result<(), OutOfRoom> {
        self.transaction(|writer| {
            writer.put(&[0; HEADER_LEN])?;
            writer.put(&info.to_bytes())?;
            writer.reports(packet_type::SENDER_REPORT, info.ssrc, reports)
        })
    }

    /// RR (RFC 3550 §6.4.2), of no block too; report blocks beyond the 31st go into more RRs.
    ///
    /// # Errors
    /// [`OutOfRoom`].
    pub fn receiver_report(
        &mut self,
        ssrc: Ssrc,
        reports: impl IntoIterator<Item = ReportBlock>,
    ) -> Result<(), OutOfRoom> {
        self.transaction(|writer| {
            writer.put(&[0; HEADER_LEN])?;
            writer.put(&ssrc.0.to_be_bytes())?;
            writer.reports(packet_type::RECEIVER_REPORT, ssrc, reports)
        })
    }

    /// SDES of one chunk with a CNAME (RFC 3550 §6.5.1), at most 255 bytes.
    ///
    /// # Errors
    /// [`OutOfRoom`].
    pub fn cname(&mut self, ssrc: Ssrc, cname: &str) -> Result<(), OutOfRoom> {
        let cname_len = u8::try_from(cname.len()).map_err(|_| OutOfRoom)?;
        self.transaction(|writer| {
            let start = writer.len;
            writer.put(&[0; HEADER_LEN])?;
            writer.put(&ssrc.0.to_be_bytes())?;
            writer.put(&[CNAME, cname_len])?;
            writer.put(cname.as_bytes())?;
            // At least one null byte, up to the next word.
            let item_len = 2 + cname.len();
            writer.put(&[0; 4][..(item_len + 1).next_multiple_of(4) - item_len])?;
            writer.end(start, packet_type::SOURCE_DESCRIPTION, 1)
        })
    }

    /// BYE of at most 31 sources (RFC 3550 §6.6).
    ///
    /// # Errors
    /// [`OutOfRoom`].
    pub fn bye(&mut self, ssrcs: &[Ssrc]) -> Result<(), OutOfRoom> {
        self.transaction(|writer| {
            let start = writer.len;
            writer.put(&[0; HEADER_LEN])?;
            for ssrc in ssrcs {
                writer.put(&ssrc.0.to_be_bytes())?;
            }
            writer.end(start, packet_type::BYE, ssrcs.len())
        })
    }

    /// Generic NACK (RFC 4585 §6.2.1). Numbers that ascend need the fewest entries; of none, nothing is
    /// written.
    ///
    /// # Errors
    /// [`OutOfRoom`].
    pub fn nack(
        &mut self,
        sender: Ssrc,
        media: Ssrc,
        seqs: impl IntoIterator<Item = u16>,
    ) -> Result<(), OutOfRoom> {
        let mut seqs = seqs.into_iter().peekable();
        if seqs.peek().is_none() {
            return Ok(());
        }
        self.transaction(|writer| {
            let start = writer.feedback(sender, media)?;
            while let Some(first) = seqs.next() {
                let mut following = 0_u16;
                while let Some(distance @ 0..=16) = seqs.peek().map(|seq| seq.wrapping_sub(first)) {
                    // The first one again, at distance 0, is said already.
                    following |= ((1_u32 << distance) >> 1) as u16;
                    seqs.next();
                }
                writer.put(&first.to_be_bytes())?;
                writer.put(&following.to_be_bytes())?;
            }
            writer.end(start, packet_type::TRANSPORT_FEEDBACK, usize::from(format::NACK))
        })
    }

    /// Picture Loss Indication (RFC 4585 §6.3.1).
    ///
    /// # Errors
    /// [`OutOfRoom`].
    pub fn pli(&mut self, sender: Ssrc, media: Ssrc) -> Result<(), OutOfRoom> {
        self.transaction(|writer| {
            let start = writer.feedback(sender, media)?;
            writer.end(start, packet_type::PAYLOAD_FEEDBACK, usize::from(format::PLI))
        })
    }

    fn transaction(
        &mut self,
        write: impl FnOnce(&mut Self) -> Result<(), OutOfRoom>,
    ) -> Result<(), OutOfRoom> {
        let start = self.len;
        write(self).inspect_err(|_| self.len = start)
    }

    /// Report blocks, behind what the packet begins with: its header and either SR's information or
    /// RR's SSRC.
    fn reports(
        &mut self,
        first_type: u8,
        ssrc: Ssrc,
        reports: impl IntoIterator<Item = ReportBlock>,
    ) -> Result<(), OutOfRoom> {
        let fixed_len = match first_type {
            packet_type::SENDER_REPORT => HEADER_LEN + super::report::SENDER_INFO_LEN,
            _ => HEADER_LEN + 4,
        };
        let (mut start, mut packet_type, mut count) = (self.len - fixed_len, first_type, 0);
        for report in reports {
            if count == ITEM_COUNT_MAX {
                self.end(start, packet_type, count)?;
                (start, packet_type, count) = (self.len, packet_type::RECEIVER_REPORT, 0);
                self.put(&[0; HEADER_LEN])?;
                self.put(&ssrc.0.to_be_bytes())?;
            }
            self.put(&report.to_bytes())?;
            count += 1;
        }
        self.end(start, packet_type, count)
    }

    /// Begins a feedback message; where it begins.
    fn feedback(&mut self, sender: Ssrc, media: Ssrc) -> Result<usize, OutOfRoom> {
        let start = self.len;
        self.put(&[0; HEADER_LEN])?;
        self.put(&sender.0.to_be_bytes())?;
        self.put(&media.0.to_be_bytes())?;
        Ok(start)
    }

    /// Fills in the header of the packet that began at `start` and ends here.
    fn end(&mut self, start: usize, packet_type: u8, count: usize) -> Result<(), OutOfRoom> {
        let word_count = (self.len - start - HEADER_LEN) / 4;
        let [l0, l1] = u16::try_from(word_count).map_err(|_| OutOfRoom)?.to_be_bytes();
        let count = u8::try_from(count).ok().filter(|count| usize::from(*count) <= ITEM_COUNT_MAX);
        let first = 2 << 6 | count.ok_or(OutOfRoom)?;
        self.out[start..start + HEADER_LEN].copy_from_slice(&[first, packet_type, l0, l1]);
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), OutOfRoom> {
        let end = self.len + bytes.len();
        self.out.get_mut(self.len..end).ok_or(OutOfRoom)?.copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }
}
