//! Records of a datagram (RFC 6347 §4.1) and the handshake fragments in them (§4.2.2).

use bytes::{BufMut, BytesMut};

/// Length of a record's header.
pub(super) const RECORD_HEADER_LEN: usize = 13;
/// Length of a handshake fragment's header.
pub(super) const FRAGMENT_HEADER_LEN: usize = 12;

/// Content types (RFC 5246 §6.2.1).
pub(super) const CHANGE_CIPHER_SPEC: u8 = 20;
pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;

/// DTLS 1.2, as it stands in headers.
pub(super) const VERSION_1_2: u16 = 0xFEFD;

/// One record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    pub(super) content_type: u8,
    pub(super) epoch: u16,
    pub(super) body: &'a [u8],
    /// Header and body.
    pub(super) bytes: &'a [u8],
}

/// The records of a datagram up to the first that is cut short, empty or of another protocol.
pub(super) fn records(datagram: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let &[content_type, 0xFE, _, epoch_high, epoch_low, _, _, _, _, _, _, len_high, len_low, ..] = rest
        else {
            return None;
        };
        let body_len = usize::from(u16::from_be_bytes([len_high, len_low]));
        let (bytes, after) = rest.split_at_checked(RECORD_HEADER_LEN + body_len)?;
        rest = after;
        let body = &bytes[RECORD_HEADER_LEN..];
        let epoch = u16::from_be_bytes([epoch_high, epoch_low]);
        (!body.is_empty()).then_some(Record { content_type, epoch, body, bytes })
    })
}

/// One fragment of a handshake message; the fragment lies within the message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fragment<'a> {
    pub(super) message_type: u8,
    /// Length of the whole message.
    pub(super) message_len: usize,
    pub(super) message_seq: u16,
    pub(super) offset: usize,
    pub(super) body: &'a [u8],
}

/// The fragments of a handshake record up to the first that does not parse.
pub(super) fn fragments(record_body: &[u8]) -> impl Iterator<Item = Fragment<'_>> {
    let mut rest = record_body;
    std::iter::from_fn(move || {
        let (&[message_type, l0, l1, l2, s0, s1, o0, o1, o2, f0, f1, f2], after) =
            rest.split_first_chunk()?;
        let [message_len, offset, body_len] =
            [[0, l0, l1, l2], [0, o0, o1, o2], [0, f0, f1, f2]].map(|be| u32::from_be_bytes(be) as usize);
        let (body, after) = after.split_at_checked(body_len)?;
        rest = after;
        let message_seq = u16::from_be_bytes([s0, s1]);
        (offset + body_len <= message_len).then_some(Fragment {
            message_type,
            message_len,
            message_seq,
            offset,
            body,
        })
    })
}

/// Appends the header of a record of epoch 0.
pub(super) fn put_record_header(out: &mut BytesMut, content_type: u8, sequence: u64, body_len: usize) {
    out.put_u8(content_type);
    out.put_u16(VERSION_1_2);
    // Epoch 0 and 48 bits of sequence number.
    out.put_u64(sequence & 0x0000_FFFF_FFFF_FFFF);
    out.put_u16(body_len as u16);
}

/// Appends a handshake message in one piece, in a record of its own.
pub(super) fn put_message(
    out: &mut BytesMut,
    sequence: u64,
    message_type: u8,
    message_seq: u16,
    body: &[u8],
) {
    put_record_header(out, HANDSHAKE, sequence, FRAGMENT_HEADER_LEN + body.len());
    out.put_u8(message_type);
    out.put_uint(body.len() as u64, 3);
    out.put_u16(message_seq);
    out.put_uint(0, 3);
    out.put_uint(body.len() as u64, 3);
    out.put_slice(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_written_is_the_message_read() {
        let mut datagram = BytesMut::new();
        put_message(&mut datagram, 7, 11, 2, b"certificate");
        put_record_header(&mut datagram, CHANGE_CIPHER_SPEC, 8, 1);
        datagram.put_u8(1);
        let read: Vec<_> = records(&datagram).collect();
        assert_eq!([read[0].content_type, read[1].content_type], [HANDSHAKE, CHANGE_CIPHER_SPEC]);
        assert_eq!((read[0].epoch, read[1].body, read.len()), (0, &[1][..], 2));
        let message: Vec<_> = fragments(read[0].body).collect();
        assert_eq!((message[0].message_type, message[0].message_seq, message[0].offset), (11, 2, 0));
        assert_eq!((message[0].body, message[0].message_len, message.len()), (&b"certificate"[..], 11, 1));
    }

    #[test]
    fn what_is_cut_short_ends_the_datagram() {
        let mut datagram = BytesMut::new();
        put_message(&mut datagram, 0, 1, 0, &[7; 40]);
        for len in 0..datagram.len() {
            assert_eq!(records(&datagram[..len]).count(), 0, "{len}");
        }
        for len in 0..FRAGMENT_HEADER_LEN + 40 {
            assert_eq!(fragments(&datagram[RECORD_HEADER_LEN..][..len]).count(), 0, "{len}");
        }
        // A fragment that reaches beyond its message.
        let mut fragment = datagram[RECORD_HEADER_LEN..].to_vec();
        fragment[8] = 1;
        assert_eq!(fragments(&fragment).count(), 0);
    }
}
