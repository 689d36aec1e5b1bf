//! Receive buffers: the kernel picks one for each datagram, we hand it back when it is handled.
//!
//! One whole buffer a datagram: header, source address, control messages, payload, each at its fixed place.

use std::io;
use std::mem;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::types::{BufRingEntry, RecvMsgOut};

use super::ring::Ring;
use crate::net::msghdr::{NAME_LEN, Origin, SAID_LEN, parse_origin};
use crate::net::slab::Slab;
use crate::packet::{DATAGRAM_LEN_MAX, DropReason, Path, SocketId};

/// Length of `io_uring_recvmsg_out`, which the kernel writes first.
const HEADER_LEN: usize = 16;

const PAYLOAD_START: usize = HEADER_LEN + NAME_LEN + SAID_LEN;

/// No more than fits the longest datagram, so that the kernel marks longer ones as truncated.
const BUFFER_LEN: usize = PAYLOAD_START + DATAGRAM_LEN_MAX;

/// From one buffer to the next: an odd number of cache lines, so that their beginnings spread over the
/// sets of the cache.
const BUFFER_STRIDE: usize = 64 * (BUFFER_LEN.div_ceil(64) | 1);

/// A buffer that the kernel filled and that is ours until it is given back.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) socket: SocketId,
    buffer: u16,
    len: usize,
}

impl Received {
    /// From the completion of a receive: the buffer it names and the bytes in it.
    pub(super) fn new(socket: SocketId, buffer: u16, len: usize) -> Received {
        Received { socket, buffer, len }
    }
}

/// A ring of buffers, filled by the kernel in the order in which they were given back.
pub(super) struct BufferRing {
    /// What the kernel reads: `count` entries with the tail inside the first, then `layout`.
    entries: Slab,
    buffers: Slab,
    count: u16,
    tail: u16,
    /// What the kernel is told of a buffer's layout: lengths of name and control messages.
    layout: libc::msghdr,
}

impl BufferRing {
    /// `count` buffers, a power of two, registered with `ring` and all given to the kernel.
    pub(super) fn new(ring: &Ring, count: u16) -> io::Result<BufferRing> {
        assert!(count.is_power_of_two());
        let entries_len = usize::from(count) * mem::size_of::<BufRingEntry>();
        let entries = Slab::new(entries_len + mem::size_of::<libc::msghdr>())?;
        let buffers = Slab::new(usize::from(count) * BUFFER_STRIDE)?;
        // SAFETY: the slab has room for `count` entries. It is dropped after the ring, or never: see
        // `Drop for Uring`.
        unsafe { ring.register_buffers(&entries, count)? };
        // SAFETY: all zeroes is a valid msghdr.
        let mut layout: libc::msghdr = unsafe { mem::zeroed() };
        layout.msg_namelen = NAME_LEN as u32;
        layout.msg_controllen = SAID_LEN as _;
        // SAFETY: inside the slab, aligned as the page and the entries before it are, and nobody else's yet.
        unsafe { entries.at(entries_len).cast().write(layout) };
        let mut this = BufferRing { entries, buffers, count, tail: 0, layout };
        for buffer in 0..count {
            this.put(buffer);
        }
        Ok(this)
    }

    /// What a receive operation points to, for as long as it is under way.
    pub(super) fn header(&self) -> *const libc::msghdr {
        self.entries.at(usize::from(self.count) * mem::size_of::<BufRingEntry>()).cast().as_ptr()
    }

    /// Gives the memory up without freeing it: the kernel may still write there.
    pub(super) fn leak(&mut self) {
        self.entries.leak();
        self.buffers.leak();
    }

    /// Hands a buffer back to the kernel.
    pub(super) fn give_back(&mut self, received: Received) {
        self.put(received.buffer);
    }

    fn put(&mut self, buffer: u16) {
        assert!(buffer < self.count);
        let address = self.buffers.at(usize::from(buffer) * BUFFER_STRIDE).as_ptr() as u64;
        let index = usize::from(self.tail & (self.count - 1));
        let mut entry = self.entries.at(index * mem::size_of::<BufRingEntry>()).cast::<BufRingEntry>();
        // SAFETY: inside the slab, aligned since the slab is, and not read by the kernel before the tail
        // passes it. The tail itself lies in a field of the first entry that is not written here.
        let entry = unsafe { entry.as_mut() };
        entry.set_addr(address);
        entry.set_len(BUFFER_LEN as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        self.publish();
    }

    fn publish(&self) {
        let base = self.entries.at(0).cast::<BufRingEntry>().as_ptr();
        // SAFETY: `base` is the first entry of a registered ring.
        let tail = unsafe { BufRingEntry::tail(base) };
        // SAFETY: aligned, inside the slab, and only read by the kernel.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// The way that a datagram came and when, or why it is none to be handed out.
    pub(super) fn origin_of(&mut self, received: &Received) -> Result<(Path, Option<Duration>), DropReason> {
        let layout = self.layout;
        let Origin { local, remote, arrived } = parse(self.bytes_mut(received), &layout)?;
        Ok((Path { socket: received.socket, local, remote }, arrived))
    }

    /// The payload of a datagram that has a [`BufferRing::origin_of`].
    pub(super) fn payload_mut(&mut self, received: &Received) -> &mut [u8] {
        &mut self.bytes_mut(received)[PAYLOAD_START..]
    }

    fn bytes_mut(&mut self, received: &Received) -> &mut [u8] {
        let start = usize::from(received.buffer) * BUFFER_STRIDE;
        // SAFETY: `received` says that the kernel has filled this buffer and will not touch it again, and
        // the loan ends before it can be given back.
        unsafe { self.buffers.bytes_mut(start, received.len.min(BUFFER_LEN)) }
    }
}

fn parse(bytes: &[u8], layout: &libc::msghdr) -> Result<Origin, DropReason> {
    let message = RecvMsgOut::parse(bytes, layout).map_err(|()| DropReason::TooShort)?;
    if message.is_payload_truncated() {
        return Err(DropReason::TooLong);
    }
    if message.payload_data().is_empty() {
        return Err(DropReason::TooShort);
    }
    parse_origin(message.name_data(), message.control_data())
}
