//! Which of a peer's records reach the crate: the messages of one client's handshake, whole, in order,
//! each once, and a bounded number of protected records after them.
//!
//! The crate by itself looks messages up by type whenever they come, keeps fragments up to 2 MB in a
//! recursion as deep as they are many, and queues protected records without limit.

use bytes::{BufMut, Bytes, BytesMut};

use super::endpoint::Error;
use super::hello::{CLIENT_HELLO, Hello, Reader};
use super::reassembly::{MESSAGE_LEN_MAX, Reassembly};
use super::record::{
    ALERT, CHANGE_CIPHER_SPEC, FRAGMENT_HEADER_LEN, Fragment, HANDSHAKE, RECORD_HEADER_LEN, Record,
    fragments, put_message, put_record_header, records,
};

const HELLO_VERIFY_REQUEST: u8 = 3;
const CERTIFICATE: u8 = 11;
const CERTIFICATE_VERIFY: u8 = 15;
const CLIENT_KEY_EXCHANGE: u8 = 16;

/// What a client sends in epoch 0, by message sequence number (RFC 5246 §7.3): the hello comes again with
/// our cookie (RFC 6347 §4.2.1), and the certificate is asked for and not optional.
const MESSAGE_TYPES: [u8; 5] =
    [CLIENT_HELLO, CLIENT_HELLO, CERTIFICATE, CLIENT_KEY_EXCHANGE, CERTIFICATE_VERIFY];

/// Index of the hello with the cookie; the messages after it are one flight.
const SECOND_HELLO: usize = 1;

/// The crate's receive buffer.
const CRATE_DATAGRAM_LEN_MAX: usize = 8192;
const _: () = assert!(RECORD_HEADER_LEN + FRAGMENT_HEADER_LEN + MESSAGE_LEN_MAX <= CRATE_DATAGRAM_LEN_MAX);

/// Lengths of protected bodies in our one cipher suite: nonce of 8, content, tag of 16. The contents are
/// Finished with its header (12 + 12) and an alert (2); anything else has no place in a handshake.
/// Records shorter than nonce and tag make the crate's arithmetic overflow.
const FINISHED_BODY_LEN: usize = 8 + FRAGMENT_HEADER_LEN + 12 + 16;
const ALERT_BODY_LEN: usize = 8 + 2 + 16;

/// Most protected records held until the messages before them are there.
const PROTECTED_HELD_MAX: usize = 8;
/// Most protected records of a handshake. Anybody can write them; the real one needs to get through.
const PROTECTED_COUNT_MAX: usize = 64;
/// Most times that a repeated first hello is let through: HelloVerifyRequest was lost.
const FIRST_HELLO_COUNT_MAX: usize = 16;

/// A peer's side of one handshake.
pub(super) struct Guard {
    random: [u8; 32],
    /// What the second hello must bring back; the crate would end the handshake over another.
    cookie: Option<Vec<u8>>,
    /// Hellos of message sequence number 0: the same one again, or another handshake's.
    first_hello: Reassembly,
    first_hello_count: usize,
    /// Message sequence number that is delivered next.
    next: usize,
    parts: [Reassembly; MESSAGE_TYPES.len()],
    whole: [Option<Vec<u8>>; MESSAGE_TYPES.len()],
    has_change_cipher_spec: bool,
    change_cipher_spec_delivered: bool,
    protected: Vec<Bytes>,
    protected_count: usize,
    /// Our own record numbers towards the crate: the peer's, in epoch 0, are anybody's.
    sequence: u64,
    outbox: Vec<Bytes>,
}

/// What a datagram meant besides what it adds to the outbox.
#[derive(Debug, Default)]
pub(super) struct Notice {
    /// A ClientHello of another handshake, while nobody returned our cookie in this one.
    pub(super) rival: Option<Hello>,
    /// A fatal alert without protection: the peer's, or anybody's.
    pub(super) fatal_alert: Option<u8>,
    /// The handshake is a message further.
    pub(super) is_progress: bool,
}

impl Guard {
    /// Begins with a peer's first hello, which is delivered first.
    pub(super) fn new(hello: &Hello) -> Guard {
        let mut guard = Guard {
            random: hello.random,
            cookie: None,
            first_hello: Reassembly::default(),
            first_hello_count: 0,
            next: SECOND_HELLO,
            parts: Default::default(),
            whole: Default::default(),
            has_change_cipher_spec: false,
            change_cipher_spec_delivered: false,
            protected: Vec::new(),
            protected_count: 0,
            sequence: 0,
            outbox: Vec::new(),
        };
        guard.deliver_first_hello(&hello.body);
        guard
    }

    /// Takes what the peer sent.
    ///
    /// # Errors
    /// [`Error::NoCertificate`].
    pub(super) fn handle_datagram(&mut self, datagram: &[u8]) -> Result<Notice, Error> {
        let mut notice = Notice::default();
        let next_before = self.next;
        for record in records(datagram) {
            match (record.epoch, record.content_type, record.body) {
                (0, HANDSHAKE, body) => {
                    for fragment in fragments(body) {
                        self.handle_fragment(&fragment, &mut notice)?;
                    }
                }
                (0, CHANGE_CIPHER_SPEC, [1]) if self.awaits_last_flight() => {
                    self.has_change_cipher_spec = true
                }
                // Level fatal (RFC 5246 §7.2).
                (0, ALERT, &[2, description]) => notice.fatal_alert = Some(description),
                (1, HANDSHAKE | ALERT, _) if self.awaits_last_flight() => self.handle_protected(&record),
                _ => {}
            }
        }
        self.deliver();
        notice.is_progress = self.next > next_before;
        Ok(notice)
    }

    /// Takes what the crate sends.
    pub(super) fn handle_outgoing(&mut self, datagram: &[u8]) {
        let handshakes =
            records(datagram).filter(|record| (record.epoch, record.content_type) == (0, HANDSHAKE));
        for fragment in handshakes.flat_map(|record| fragments(record.body)) {
            // Version, length of the cookie, cookie (RFC 6347 §4.2.1).
            if let (HELLO_VERIFY_REQUEST, [_, _, _, cookie @ ..]) = (fragment.message_type, fragment.body) {
                self.cookie = Some(cookie.to_vec());
            }
        }
    }

    /// Whether the crate has something to do.
    pub(super) fn is_ready(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Datagrams for the crate, each within its buffer.
    pub(super) fn take_outbox(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.outbox)
    }

    fn awaits_last_flight(&self) -> bool {
        self.next > SECOND_HELLO
    }

    fn handle_fragment(&mut self, fragment: &Fragment<'_>, notice: &mut Notice) -> Result<(), Error> {
        let index = usize::from(fragment.message_seq);
        if MESSAGE_TYPES.get(index) != Some(&fragment.message_type) {
            return Ok(());
        }
        if index == 0 {
            if self.next == SECOND_HELLO
                && let Some(hello) = self.first_hello.insert(fragment).and_then(Hello::parse)
            {
                if hello.random == self.random {
                    self.deliver_first_hello(&hello.body);
                } else {
                    notice.rival = Some(hello);
                }
            }
            return Ok(());
        }
        // The last flight cannot begin before ours, which answers the second hello.
        let is_due = index == self.next || self.awaits_last_flight() && index > self.next;
        if !is_due || self.whole[index].is_some() {
            return Ok(());
        }
        if let Some(body) = self.parts[index].insert(fragment) {
            let is_sound = match fragment.message_type {
                CLIENT_HELLO => self.is_second_hello(&body),
                CERTIFICATE if body == [0, 0, 0] => return Err(Error::NoCertificate),
                CERTIFICATE => is_certificate_list(&body),
                CLIENT_KEY_EXCHANGE => is_key_exchange(&body),
                _ => is_signature(&body),
            };
            // Else the place stays free for the peer's own.
            if is_sound {
                self.whole[index] = Some(body);
            }
        }
        Ok(())
    }

    /// RFC 6347 §4.2.1: all but the cookie is as before, so the profile chosen stands.
    fn is_second_hello(&self, body: &[u8]) -> bool {
        Hello::parse(body.to_vec())
            .is_some_and(|hello| hello.random == self.random && Some(hello.cookie) == self.cookie)
    }

    fn handle_protected(&mut self, record: &Record<'_>) {
        let expected_len = if record.content_type == ALERT { ALERT_BODY_LEN } else { FINISHED_BODY_LEN };
        if record.body.len() == expected_len
            && self.protected.len() < PROTECTED_HELD_MAX
            && self.protected_count < PROTECTED_COUNT_MAX
        {
            self.protected_count += 1;
            self.protected.push(Bytes::copy_from_slice(record.bytes));
        }
    }

    fn deliver_first_hello(&mut self, body: &[u8]) {
        if self.first_hello_count < FIRST_HELLO_COUNT_MAX {
            self.first_hello_count += 1;
            let mut datagram = BytesMut::new();
            self.put(&mut datagram, 0, body);
            self.outbox.push(datagram.freeze());
        }
    }

    /// Moves what is complete into the outbox. The last flight goes over as one, its signature is checked
    /// on every datagram that the crate gets after it.
    fn deliver(&mut self) {
        let mut datagram = BytesMut::new();
        if self.next == SECOND_HELLO {
            if let Some(body) = self.whole[SECOND_HELLO].take() {
                self.put(&mut datagram, SECOND_HELLO, &body);
                self.next += 1;
            }
        } else if self.next < MESSAGE_TYPES.len() && self.whole[self.next..].iter().all(Option::is_some) {
            for index in self.next..MESSAGE_TYPES.len() {
                let body = self.whole[index].take().unwrap_or_default();
                let len = RECORD_HEADER_LEN + FRAGMENT_HEADER_LEN + body.len();
                self.make_room(&mut datagram, len);
                self.put(&mut datagram, index, &body);
            }
            self.next = MESSAGE_TYPES.len();
        }
        if self.next == MESSAGE_TYPES.len() && self.has_change_cipher_spec {
            if !self.change_cipher_spec_delivered {
                self.change_cipher_spec_delivered = true;
                self.make_room(&mut datagram, RECORD_HEADER_LEN + 1);
                put_record_header(&mut datagram, CHANGE_CIPHER_SPEC, self.sequence, 1);
                datagram.put_u8(1);
                self.sequence += 1;
            }
            for record in std::mem::take(&mut self.protected) {
                self.make_room(&mut datagram, record.len());
                datagram.put_slice(&record);
            }
        }
        self.make_room(&mut datagram, CRATE_DATAGRAM_LEN_MAX);
    }

    /// Ends the datagram when `len` more bytes do not fit the crate's buffer.
    fn make_room(&mut self, datagram: &mut BytesMut, len: usize) {
        if !datagram.is_empty() && datagram.len() + len > CRATE_DATAGRAM_LEN_MAX {
            self.outbox.push(datagram.split().freeze());
        }
    }

    fn put(&mut self, datagram: &mut BytesMut, index: usize, body: &[u8]) {
        put_message(datagram, self.sequence, MESSAGE_TYPES[index], index as u16, body);
        self.sequence += 1;
    }
}

/// A list of certificates (RFC 5246 §7.4.2). The crate allocates whatever a length says.
fn is_certificate_list(body: &[u8]) -> bool {
    let mut reader = Reader(body);
    let Some(mut list) = reader.vec24().filter(|_| reader.0.is_empty()) else { return false };
    while !list.0.is_empty() {
        if list.vec24().is_none_or(|certificate| certificate.0.is_empty()) {
            return false;
        }
    }
    true
}

/// A public key on a curve (RFC 8422 §5.7). The crate indexes two bytes of whatever came.
fn is_key_exchange(body: &[u8]) -> bool {
    let mut reader = Reader(body);
    reader.vec8().is_some_and(|key| !key.0.is_empty()) && reader.0.is_empty()
}

/// An algorithm and a signature (RFC 5246 §7.4.8).
fn is_signature(body: &[u8]) -> bool {
    let mut reader = Reader(body);
    reader.u16().is_some() && reader.vec16().is_some() && reader.0.is_empty()
}

#[cfg(test)]
mod tests {
    use super::super::hello::tests::acceptable;
    use super::*;

    /// A message in a record of its own.
    fn message(message_type: u8, message_seq: u16, body: &[u8]) -> Vec<u8> {
        let mut datagram = BytesMut::new();
        put_message(&mut datagram, 0, message_type, message_seq, body);
        datagram.to_vec()
    }

    fn change_cipher_spec() -> Vec<u8> {
        vec![CHANGE_CIPHER_SPEC, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 1]
    }

    fn protected(content_type: u8, len: usize, filling: u8) -> Vec<u8> {
        let header = [content_type, 0xFE, 0xFD, 0, 1, 0, 0, 0, 0, 0, 0, 0, len as u8];
        [&header[..], &vec![filling; len]].concat()
    }

    fn finished(filling: u8) -> Vec<u8> {
        protected(HANDSHAKE, FINISHED_BODY_LEN, filling)
    }

    /// What is in the outbox: content type and epoch, message type and sequence number of each record.
    fn outbox(guard: &mut Guard) -> Vec<(u8, u16, u8, u16)> {
        let datagrams = guard.take_outbox();
        let all = datagrams.iter().flat_map(|datagram| records(datagram));
        all.map(|record| {
            let message = fragments(record.body).next().filter(|_| record.epoch == 0);
            let (kind, seq) = message.map_or((0, 0), |message| (message.message_type, message.message_seq));
            (record.content_type, record.epoch, kind, seq)
        })
        .collect()
    }

    /// The crate asked for the cookie that the hellos here bring, which is empty.
    fn begun() -> Guard {
        let mut guard = Guard::new(&Hello::parse(acceptable(&[7])).unwrap());
        guard.handle_outgoing(&message(HELLO_VERIFY_REQUEST, 0, &[0xFE, 0xFD, 0]));
        guard
    }

    /// The second hello went through.
    fn proven() -> Guard {
        let mut guard = begun();
        guard.handle_datagram(&message(CLIENT_HELLO, 1, &acceptable(&[7]))).unwrap();
        assert_eq!(outbox(&mut guard), [(22, 0, 1, 0), (22, 0, 1, 1)]);
        guard
    }

    /// A list of one certificate, `len` bytes in all.
    fn certificate(len: usize) -> Vec<u8> {
        let lengths = [(len - 3) as u32, (len - 6) as u32].map(u32::to_be_bytes);
        [&lengths[0][1..], &lengths[1][1..], &vec![1; len - 6]].concat()
    }

    const KEY: &[u8] = &[2, 1, 1];
    const SIGNATURE: &[u8] = &[4, 3, 0, 2, 1, 1];

    const LAST_FLIGHT: [(u8, u16, u8, u16); 5] =
        [(22, 0, 11, 2), (22, 0, 16, 3), (22, 0, 15, 4), (20, 0, 0, 0), (22, 1, 0, 0)];

    #[test]
    fn the_last_flight_goes_over_whole_and_in_order_however_it_came() {
        let parts = [
            message(CERTIFICATE, 2, &certificate(40)),
            message(CLIENT_KEY_EXCHANGE, 3, KEY),
            message(CERTIFICATE_VERIFY, 4, SIGNATURE),
            change_cipher_spec(),
            finished(1),
        ];
        for rotation in 0..parts.len() {
            for reversed in [false, true] {
                let mut order: Vec<_> = (0..parts.len()).map(|i| (i + rotation) % parts.len()).collect();
                if reversed {
                    order.reverse();
                }
                let mut guard = proven();
                let mut seen = Vec::new();
                // Once as it came, and once more because the peer sends again.
                for index in order.into_iter().chain(0..parts.len()) {
                    guard.handle_datagram(&parts[index]).unwrap();
                    seen.extend(outbox(&mut guard));
                }
                seen.truncate(LAST_FLIGHT.len());
                assert_eq!(seen, LAST_FLIGHT);
            }
        }
        let mut guard = proven();
        guard.handle_datagram(&parts.concat()).unwrap();
        assert_eq!(guard.outbox.len(), 1, "in one datagram when it came in one");
    }

    #[test]
    fn messages_of_another_kind_or_time_do_not_go_over() {
        let mut guard = begun();
        outbox(&mut guard);
        // Before the cookie came back.
        for stray in [message(CERTIFICATE, 2, b"x"), change_cipher_spec(), finished(1)] {
            guard.handle_datagram(&stray).unwrap();
        }
        let mut guard = proven();
        // Out of its place, unknown, or beyond the last.
        for stray in [
            message(CLIENT_KEY_EXCHANGE, 2, b"x"),
            message(CERTIFICATE_VERIFY, 3, b"x"),
            message(20, 5, b"finished in the clear"),
            message(0, 2, b"x"),
            message(CLIENT_KEY_EXCHANGE, 5, b"x"),
            protected(23, FINISHED_BODY_LEN, 1),
            protected(HANDSHAKE, FINISHED_BODY_LEN - 1, 1),
            protected(HANDSHAKE, 3, 1),
            protected(ALERT, FINISHED_BODY_LEN, 1),
            vec![CHANGE_CIPHER_SPEC, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 2],
        ] {
            guard.handle_datagram(&stray).unwrap();
        }
        assert_eq!((outbox(&mut guard), guard.protected.len()), (vec![], 0));
        assert!(guard.whole.iter().all(Option::is_none) && !guard.has_change_cipher_spec);
    }

    #[test]
    fn the_second_hello_is_the_first_ones() {
        let mut guard = begun();
        outbox(&mut guard);
        let mut other = acceptable(&[7]);
        other[2] ^= 1;
        let notice = guard.handle_datagram(&message(CLIENT_HELLO, 1, &other)).unwrap();
        assert!(!guard.is_ready() && !notice.is_progress);
        guard.handle_outgoing(&message(HELLO_VERIFY_REQUEST, 0, &[0xFE, 0xFD, 1, 7]));
        guard.handle_datagram(&message(CLIENT_HELLO, 1, &acceptable(&[7]))).unwrap();
        assert!(!guard.is_ready(), "another cookie");
        guard.handle_outgoing(&message(HELLO_VERIFY_REQUEST, 0, &[0xFE, 0xFD, 0]));
        let notice = guard.handle_datagram(&message(CLIENT_HELLO, 0, &other)).unwrap();
        assert!(notice.rival.is_some_and(|hello| hello.body == other));
        assert!(guard.handle_datagram(&message(CLIENT_HELLO, 1, &acceptable(&[7]))).unwrap().is_progress);
        // Who returned the cookie has no rivals.
        assert!(guard.handle_datagram(&message(CLIENT_HELLO, 0, &other)).unwrap().rival.is_none());
    }

    #[test]
    fn an_empty_certificate_is_none() {
        let answer = proven().handle_datagram(&message(CERTIFICATE, 2, &[0, 0, 0]));
        assert!(matches!(answer, Err(Error::NoCertificate)));
    }

    #[test]
    fn what_does_not_add_up_leaves_its_place_free() {
        for (index, sound) in [(2, certificate(40)), (3, KEY.to_vec()), (4, SIGNATURE.to_vec())] {
            let mut guard = proven();
            for len in 1..sound.len() {
                guard.handle_datagram(&message(MESSAGE_TYPES[index], index as u16, &sound[..len])).unwrap();
                assert!(guard.whole[index].is_none(), "{index}: {len}");
            }
            let longer = [&sound[..], &[0]].concat();
            guard.handle_datagram(&message(MESSAGE_TYPES[index], index as u16, &longer)).unwrap();
            assert!(guard.whole[index].is_none());
            guard.handle_datagram(&message(MESSAGE_TYPES[index], index as u16, &sound)).unwrap();
            assert!(guard.whole[index].is_some());
        }
        assert!(
            !is_certificate_list(&[0, 0, 3, 0, 0, 0]) && !is_certificate_list(&[0, 0, 4, 255, 255, 255, 1])
        );
        assert!(!is_key_exchange(&[0]) && !is_signature(&[4, 3]));
    }

    #[test]
    fn floods_are_bounded() {
        let mut guard = begun();
        for _ in 0..1000 {
            guard.handle_datagram(&message(CLIENT_HELLO, 0, &acceptable(&[7]))).unwrap();
        }
        assert_eq!(outbox(&mut guard).len(), FIRST_HELLO_COUNT_MAX);
        let mut guard = proven();
        for filling in 0..=255 {
            guard.handle_datagram(&finished(filling)).unwrap();
        }
        assert_eq!(guard.protected.len(), PROTECTED_HELD_MAX);
        let signature = [&[4, 3, 31, 60][..], &[1; MESSAGE_LEN_MAX - 4]].concat();
        guard.handle_datagram(&message(CERTIFICATE, 2, &certificate(MESSAGE_LEN_MAX))).unwrap();
        guard.handle_datagram(&message(CLIENT_KEY_EXCHANGE, 3, KEY)).unwrap();
        guard.handle_datagram(&message(CERTIFICATE_VERIFY, 4, &signature)).unwrap();
        guard.handle_datagram(&change_cipher_spec()).unwrap();
        for filling in 0..=255 {
            guard.handle_datagram(&finished(filling)).unwrap();
        }
        let datagrams = guard.take_outbox();
        assert!(datagrams.iter().all(|datagram| datagram.len() <= CRATE_DATAGRAM_LEN_MAX));
        let all: Vec<_> = datagrams.iter().flat_map(|datagram| records(datagram)).collect();
        assert_eq!(all.iter().filter(|record| record.epoch == 1).count(), PROTECTED_COUNT_MAX);
        assert_eq!(all.iter().filter(|record| record.epoch == 0).count(), 4);
    }
}
