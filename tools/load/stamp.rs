//! The last bytes of every payload that is sent: whose it is, which of the sender's packets, and when it left.
//!
//! They stand in the padding of an Opus packet, so that whoever joins the room with a browser hears the voice as it is.

/// Length of a [`Stamp`] at the end of a payload.
pub(crate) const STAMP_LEN: usize = 20;

/// What a receiver learns from a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Unique among the sessions of one run.
    pub(crate) sender: u32,
    /// Counts the sender's packets.
    pub(crate) counter: u32,
    /// Nanoseconds on the clock of this process.
    pub(crate) sent_at: u64,
}

impl Stamp {
    /// Over the end of the payload, which must have room.
    pub(crate) fn write_to(self, payload: &mut [u8]) {
        let Some(start) = payload.len().checked_sub(STAMP_LEN) else { return };
        payload[start..start + 4].copy_from_slice(&self.sender.to_be_bytes());
        payload[start + 4..start + 8].copy_from_slice(&self.counter.to_be_bytes());
        payload[start + 8..start + 16].copy_from_slice(&self.sent_at.to_be_bytes());
        let sum = checksum(&payload[..start + 16]);
        payload[start + 16..].copy_from_slice(&sum.to_be_bytes());
    }

    /// `None` when a single byte of the payload is not as it was sent.
    pub(crate) fn of(payload: &[u8]) -> Option<Stamp> {
        let (rest, sum) = payload.split_last_chunk()?;
        if checksum(rest) != u32::from_be_bytes(*sum) {
            return None;
        }
        let (rest, sent_at) = rest.split_last_chunk()?;
        let (rest, counter) = rest.split_last_chunk()?;
        let (_, sender) = rest.split_last_chunk()?;
        Some(Stamp {
            sender: u32::from_be_bytes(*sender),
            counter: u32::from_be_bytes(*counter),
            sent_at: u64::from_be_bytes(*sent_at),
        })
    }
}

/// FNV-1a, 32 bits.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811C_9DC5, |sum, &byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_as_written_and_no_byte_may_change() {
        let stamp = Stamp { sender: 7, counter: u32::MAX, sent_at: 1 << 40 };
        for len in [STAMP_LEN, 33, 1200] {
            let mut payload = vec![0xF8; len];
            stamp.write_to(&mut payload);
            assert_eq!(Stamp::of(&payload), Some(stamp));
            for i in 0..len {
                payload[i] ^= 0x10;
                assert_eq!(Stamp::of(&payload), None, "byte {i} of {len}");
                payload[i] ^= 0x10;
            }
        }
        for len in 0..STAMP_LEN {
            let mut payload = vec![0; len];
            stamp.write_to(&mut payload);
            assert_eq!(Stamp::of(&payload), None);
        }
    }
}
