//! The receiving half: one call fills some buffers, and they are handed out one by one before the next.

use std::io;
use std::mem;
use std::ops::Range;
use std::os::fd::RawFd;
use std::ptr;
use std::time::Duration;

use crate::net::msghdr::{NAME_LEN, Origin, SAID_LEN, parse_origin};
use crate::net::slab::Slab;
use crate::packet::{DATAGRAM_LEN_MAX, DropReason, Path, SocketId};

/// Datagrams of one call, at most: more would only be cold when their turn comes.
const CALL_LEN_MAX: u16 = 64;

// Where the parts of a datagram lie. A longer payload is cut off, and the kernel says so.
const CONTROL_START: usize = NAME_LEN.next_multiple_of(8);
const PAYLOAD_START: usize = CONTROL_START + SAID_LEN;
const PLACE_LEN: usize = PAYLOAD_START + DATAGRAM_LEN_MAX;

/// From one place to the next: an odd number of cache lines, so that their beginnings spread over the sets
/// of the cache.
const PLACE_STRIDE: usize = 64 * (PLACE_LEN.div_ceil(64) | 1);

/// Buffers, and what the kernel is told of them.
pub(super) struct Inlet {
    headers: Vec<libc::mmsghdr>,
    /// What the headers point to: where the payloads go.
    _payloads: Box<[libc::iovec]>,
    places: Slab,
    /// Where what is in the buffers came in.
    socket: SocketId,
    /// Filled and not yet handed out.
    filled: Range<usize>,
    /// Headers that the kernel has written to since they were laid out.
    written: usize,
}

/// What a call brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Brought {
    /// Datagrams in every buffer: more may wait.
    Full,
    /// The last that there were, or none at all.
    Last,
    /// Nothing but an error.
    Error,
}

impl Inlet {
    /// As many buffers as that, or as one call takes.
    pub(super) fn new(buffer_count: u16) -> io::Result<Inlet> {
        let count = usize::from(buffer_count.min(CALL_LEN_MAX));
        let places = Slab::new(count * PLACE_STRIDE)?;
        let at = |index: usize, offset| places.at(index * PLACE_STRIDE + offset).as_ptr();
        let payload =
            |index| libc::iovec { iov_base: at(index, PAYLOAD_START).cast(), iov_len: DATAGRAM_LEN_MAX };
        let mut payloads: Box<[libc::iovec]> = (0..count).map(payload).collect();
        let header = |(index, payload): (usize, &mut libc::iovec)| {
            // SAFETY: all zeroes is a valid mmsghdr.
            let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
            header.msg_hdr.msg_name = at(index, 0).cast();
            header.msg_hdr.msg_iov = payload;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = at(index, CONTROL_START).cast();
            header
        };
        let headers = payloads.iter_mut().enumerate().map(header).collect();
        Ok(Inlet { headers, _payloads: payloads, places, socket: SocketId(0), filled: 0..0, written: count })
    }

    /// There are datagrams to be handed out.
    pub(super) fn has_some(&self) -> bool {
        !self.filled.is_empty()
    }

    /// Receives what `socket` has. Only when everything has been handed out.
    pub(super) fn fill(&mut self, socket: SocketId, fd: RawFd) -> Brought {
        assert!(!self.has_some());
        for header in &mut self.headers[..self.written] {
            // The kernel wrote how much of this it used.
            header.msg_hdr.msg_namelen = NAME_LEN as u32;
            header.msg_hdr.msg_controllen = SAID_LEN as _;
        }
        let (first, count) = (self.headers.as_mut_ptr(), self.headers.len());
        // SAFETY: `count` valid messages; they point to places that are as long as they say, stay as long as
        // `self`, and are lent to nobody now.
        let received =
            unsafe { libc::recvmmsg(fd, first, count as u32, libc::MSG_DONTWAIT, ptr::null_mut()) };
        // One that failed half-way may have been written to as well.
        self.written = (usize::try_from(received).unwrap_or(0) + 1).min(count);
        let Ok(received) = usize::try_from(received) else {
            return match io::Error::last_os_error().raw_os_error() {
                Some(libc::EAGAIN | libc::EINTR) => Brought::Last,
                _ => Brought::Error,
            };
        };
        self.socket = socket;
        self.filled = 0..received.min(count);
        if received == count { Brought::Full } else { Brought::Last }
    }

    /// The number of the next datagram, to be looked at before the next [`Inlet::fill`].
    pub(super) fn take(&mut self) -> Option<usize> {
        self.filled.next()
    }

    /// The way that a datagram came and when, or why it is none to be handed out.
    pub(super) fn origin_of(&mut self, index: usize) -> Result<(Path, Option<Duration>), DropReason> {
        let header = &self.headers[index];
        if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
            return Err(DropReason::TooLong);
        }
        if header.msg_len == 0 {
            return Err(DropReason::TooShort);
        }
        let name_len = (header.msg_hdr.msg_namelen as usize).min(NAME_LEN);
        let control_len = header.msg_hdr.msg_controllen.min(SAID_LEN);
        // SAFETY: the kernel writes only in `fill`, and this loan ends before.
        let place = unsafe { self.places.bytes_mut(index * PLACE_STRIDE, PAYLOAD_START) };
        let (name, control) = place.split_at(CONTROL_START);
        let Origin { local, remote, arrived } = parse_origin(&name[..name_len], &control[..control_len])?;
        Ok((Path { socket: self.socket, local, remote }, arrived))
    }

    /// The payload of a datagram that has an [`Inlet::origin_of`].
    pub(super) fn payload_mut(&mut self, index: usize) -> &mut [u8] {
        let len = (self.headers[index].msg_len as usize).min(DATAGRAM_LEN_MAX);
        // SAFETY: the kernel writes only in `fill`, and this loan ends before.
        unsafe { self.places.bytes_mut(index * PLACE_STRIDE + PAYLOAD_START, len) }
    }
}
