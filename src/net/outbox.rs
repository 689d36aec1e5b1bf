//! The sending half. Datagrams of a run are written side by side into one stretch of memory and leave
//! as few sends as their lengths allow.
//!
//! Sends are inline (`MSG_DONTWAIT`; on a ring never asynchronous, linked or drained): the kernel is done with
//! a message and its bytes when the system call that took its submission has returned. So memory is handed
//! out from the front, and all of it is free again once nothing is queued; a small batch stays in a few cache
//! lines whatever the memory's size. How messages reach the kernel is a [`Post`]'s business.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ptr::NonNull;

use super::backend::{Counters, UnsentList, send_drop_reason};
use super::msghdr::{Control, Name};
use super::slab::Slab;
use super::socket::SOCKET_COUNT_MAX;
use super::train::Train;
use crate::packet::{DATAGRAM_LEN_MAX, DropReason, Egress, Path, SocketId};

/// Bytes that may wait for one submission: with [`MESSAGE_COUNT`] voice datagrams some 100 KB are used.
const MEMORY_LEN: usize = 256 * 1024;

/// Sends of one submission. A ring's queue has a few entries more, for receives and the waker.
pub(super) const MESSAGE_COUNT: usize = 496;

/// Sends that wait for others, at most: the first listeners of a large room get theirs while the last ones' are sealed,
/// and what the kernel reads is still in the nearest cache.
const SUBMIT_AT: usize = 32;

/// Attempts to have the kernel take what is queued, when it is short of memory.
const SUBMIT_TRIES: usize = 4;

const _: () = assert!(MEMORY_LEN >= 2 * DATAGRAM_LEN_MAX);
const _: () = assert!(MESSAGE_COUNT <= u16::MAX as usize);
const _: () = assert!(mem::offset_of!(Message, header) == 0);

/// How messages reach the kernel.
pub trait Post {
    /// Queues a message.
    ///
    /// # Safety
    /// Header, and what it points to, stay unchanged until [`Post::has_submitted_all`] says so.
    unsafe fn push(&mut self, message: Posted);

    /// Hands over what is queued, as far as the kernel takes it, without waiting.
    ///
    /// # Errors
    /// When it takes none.
    fn submit(&mut self) -> io::Result<()>;

    /// The kernel has taken everything that was queued, and is done with it.
    fn has_submitted_all(&mut self) -> bool;

    /// Tells what came of it: each message that the kernel refused.
    fn sort(&mut self, counters: &mut Counters, on_refusal: impl FnMut(&mut Counters, Refusal));
}

/// A message to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Posted {
    /// All of it, in the kernel's layout.
    pub header: NonNull<libc::msghdr>,
    /// What it leaves by.
    pub socket: SocketId,
    /// Its number.
    pub message: u16,
    /// Which use of that number.
    pub generation: u32,
}

/// A message that the kernel refused.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    /// Its number.
    pub message: u16,
    /// Which use of that number: news of an earlier one may come late.
    pub generation: u32,
    /// Why.
    pub errno: i32,
}

/// What one send points to, in memory that does not move.
#[repr(C)]
struct Message {
    header: libc::msghdr,
    bytes: libc::iovec,
    name: Name,
    control: Control,
    train: Train,
    socket: SocketId,
}

/// Where a run goes.
#[derive(Clone, Copy, Debug)]
struct Destination {
    socket: SocketId,
    name: Name,
    control: Control,
}

impl Destination {
    fn new(path: Path) -> Destination {
        let mut control = Control::new();
        // A link-local source needs its interface, which is the one that the peer is on.
        let interface = match path.remote {
            SocketAddr::V6(remote) => remote.scope_id(),
            SocketAddr::V4(_) => 0,
        };
        control.push_source(path.local, interface);
        Destination { socket: path.socket, name: Name::new(path.remote), control }
    }
}

impl Message {
    /// Where it was to go: read back, so that only a message that is refused pays for it.
    fn path(&self) -> Option<Path> {
        let remote = self.name.address()?;
        let unspecified = match remote {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Some(Path { socket: self.socket, remote, local: self.control.source().unwrap_or(unspecified) })
    }
}

/// The run that is open.
#[derive(Debug)]
struct OpenRun {
    destination: Destination,
    /// Datagrams committed and not yet queued.
    train: Option<Train>,
    /// Length of the segment lent at the cursor.
    lent_len: usize,
}

/// An egress, and keeper of the way to the kernel: a full queue is emptied in the middle of a run.
pub struct Outbox<P> {
    pub(super) post: P,
    pub(super) counters: Counters,
    pub(super) unsent: UnsentList,
    memory: Slab,
    /// Where the next segment goes; everything before is queued, or being committed.
    cursor: usize,
    messages: Slab,
    message_count: usize,
    /// Distinguishes uses of the messages.
    generation: u32,
    run: Option<OpenRun>,
    /// Sockets whose path cuts sends into segments.
    has_segmentation: [bool; SOCKET_COUNT_MAX],
    /// Sends to repeat datagram by datagram, in their order.
    refused: VecDeque<(Destination, Train)>,
}

impl<P: Post> Outbox<P> {
    pub(super) fn new(post: P, has_segmentation: [bool; SOCKET_COUNT_MAX]) -> io::Result<Outbox<P>> {
        Ok(Outbox {
            post,
            counters: Counters::default(),
            unsent: UnsentList::new(),
            memory: Slab::new(MEMORY_LEN)?,
            cursor: 0,
            messages: Slab::new(MESSAGE_COUNT * mem::size_of::<Message>())?,
            message_count: 0,
            generation: 0,
            run: None,
            has_segmentation,
            refused: VecDeque::with_capacity(MESSAGE_COUNT),
        })
    }

    /// Sorts what completed, sends again what was refused as a whole, and frees the memory of what the
    /// kernel has taken. After every system call.
    pub(super) fn reap(&mut self) {
        self.sort();
        if !self.post.has_submitted_all() {
            return;
        }
        self.free_messages();
        if !self.refused.is_empty() {
            self.repeat_refused();
        }
        if self.post.has_submitted_all() {
            self.cursor = 0;
        }
    }

    fn free_messages(&mut self) {
        self.message_count = 0;
        self.generation = self.generation.wrapping_add(1);
    }

    /// Sorts what is known of what was sent.
    pub(super) fn sort(&mut self) {
        // Taken out of `self` for the loop's time, so that the rest can be changed meanwhile.
        let Self { post, counters, unsent, messages, generation, has_segmentation, refused, .. } = self;
        post.sort(counters, |counters, refusal| {
            let errno = refusal.errno;
            if refusal.generation != *generation {
                // Came so late that its message has gone; it was one datagram at least.
                counters.drop(send_drop_reason(errno), 1);
                return;
            }
            let message = message_at(messages, usize::from(refusal.message));
            // SAFETY: initialised when it was queued, and not overwritten within a generation.
            let message = unsafe { message.as_ref() };
            let train = message.train;
            if train.count > 1 && is_refusal_of_segments(errno) {
                counters.segmentation_refused += 1;
                has_segmentation[usize::from(message.socket.0)] &= !is_refusal_for_good(errno);
                let (name, control) = (message.name, message.control);
                refused.push_back((Destination { socket: message.socket, name, control }, train));
            } else {
                let reason = send_drop_reason(errno);
                counters.drop(reason, train.count.into());
                if let Some(path) = message.path() {
                    unsent.add(path, reason, train.count.into());
                }
            }
        });
    }

    /// The bytes are still where they were: nothing has been written since the submission.
    fn repeat_refused(&mut self) {
        while let Some((mut destination, train)) = self.refused.pop_front() {
            destination.control.pop_segment_len();
            for single in train.singles() {
                if self.message_count == MESSAGE_COUNT && !self.submit_all() {
                    self.counters.drop(DropReason::SendFailed, 1);
                    continue;
                }
                self.queue(destination, single);
            }
        }
        self.submit_all();
    }

    /// Submits without waiting until the kernel has taken everything, and frees the messages but not the
    /// bytes. `false` when it does not take them.
    fn submit_all(&mut self) -> bool {
        for _ in 0..SUBMIT_TRIES {
            if self.post.submit().is_err() {
                return false;
            }
            self.sort();
            if self.post.has_submitted_all() {
                self.free_messages();
                return true;
            }
        }
        false
    }

    /// Makes room in the middle of a flush: everything queued is sent, everything is free.
    fn make_room(&mut self) -> bool {
        let is_taken = self.submit_all();
        if is_taken && !self.refused.is_empty() {
            self.repeat_refused();
        }
        let is_free = is_taken && self.post.has_submitted_all();
        if is_free {
            self.cursor = 0;
        }
        is_free
    }

    /// Queues what the open run has committed.
    fn queue_train(&mut self) {
        let Some(run) = &mut self.run else { return };
        let Some(train) = run.train.take() else { return };
        let destination = run.destination;
        self.counters.trains[usize::from(train.count)] += 1;
        self.counters.datagrams_sent += u64::from(train.count);
        self.counters.bytes_sent += train.len as u64;
        self.queue(destination, train);
        if self.message_count >= SUBMIT_AT {
            // What is not taken now is with the next attempt.
            self.submit_all();
        }
    }

    /// Writes a message and queues its send.
    fn queue(&mut self, destination: Destination, train: Train) {
        assert!(self.message_count < MESSAGE_COUNT && train.start + train.len <= self.memory.len());
        let Destination { socket, name, mut control } = destination;
        if train.count > 1 {
            control.push_segment_len(train.segment_len as u16);
        }
        let place = message_at(&self.messages, self.message_count);
        let field =
            |offset| self.messages.at(self.message_count * mem::size_of::<Message>() + offset).as_ptr();
        // SAFETY: all zeroes is a valid msghdr.
        let mut header: libc::msghdr = unsafe { mem::zeroed() };
        header.msg_name = field(mem::offset_of!(Message, name)).cast();
        header.msg_namelen = name.len();
        header.msg_iov = field(mem::offset_of!(Message, bytes)).cast();
        header.msg_iovlen = 1;
        header.msg_control = field(mem::offset_of!(Message, control)).cast();
        header.msg_controllen = control.len() as _;
        let bytes = libc::iovec { iov_base: self.memory.at(train.start).as_ptr().cast(), iov_len: train.len };
        // SAFETY: aligned and inside the slab, and free: nothing that is queued points to it, since messages
        // are handed out once between two empty queues.
        unsafe { place.write(Message { header, bytes, name, control, train, socket }) };
        let message = self.message_count as u16;
        // The header comes first in a message.
        let posted = Posted { header: place.cast(), socket, message, generation: self.generation };
        // SAFETY: message and bytes stay until the queue is empty.
        unsafe { self.post.push(posted) };
        self.message_count += 1;
    }
}

impl<P: Post> Egress for Outbox<P> {
    fn cuts_segments(&self, path: Path) -> bool {
        self.has_segmentation[usize::from(path.socket.0)]
    }

    fn open(&mut self, path: Path) -> bool {
        self.close();
        if self.message_count == MESSAGE_COUNT && !self.make_room() {
            return false;
        }
        self.run = Some(OpenRun { destination: Destination::new(path), train: None, lent_len: 0 });
        true
    }

    fn segment(&mut self, len_max: usize) -> Option<&mut [u8]> {
        assert!(len_max <= DATAGRAM_LEN_MAX);
        let run = self.run.as_mut()?;
        // The train may have to leave without this segment, and then both take a message.
        let messages_needed = 1 + usize::from(run.train.is_some());
        if self.cursor + len_max > self.memory.len() || self.message_count + messages_needed > MESSAGE_COUNT {
            self.queue_train();
            if !self.make_room() {
                return None;
            }
        }
        self.run.as_mut()?.lent_len = len_max;
        // SAFETY: everything queued lies before the cursor.
        Some(unsafe { self.memory.bytes_mut(self.cursor, len_max) })
    }

    fn commit(&mut self, len: usize) {
        let Some(run) = &mut self.run else { return };
        assert!(len <= run.lent_len);
        run.lent_len = 0;
        if len == 0 {
            return;
        }
        let has_segmentation = self.has_segmentation[usize::from(run.destination.socket.0)];
        if let Some(train) = run.train.as_mut().filter(|train| has_segmentation && train.takes(len)) {
            train.len += len;
            train.count += 1;
        } else {
            self.queue_train();
            let train = Train::new(self.cursor, len);
            self.run.as_mut().expect("still open").train = Some(train);
        }
        self.cursor += len;
    }

    fn close(&mut self) {
        self.queue_train();
        self.run = None;
    }
}

/// Errors that may mean "not as one": no checksum offload, or a segment longer than the path's MTU.
fn is_refusal_of_segments(errno: i32) -> bool {
    matches!(errno, libc::EIO | libc::EINVAL | libc::EMSGSIZE)
}

/// No checksum offload on the way out: it will not learn. The others are about one peer's path, which must
/// not cost the others their segments.
fn is_refusal_for_good(errno: i32) -> bool {
    errno == libc::EIO
}

fn message_at(messages: &Slab, index: usize) -> NonNull<Message> {
    assert!(index < MESSAGE_COUNT);
    messages.at(index * mem::size_of::<Message>()).cast()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_device_without_checksums_ends_segmentation_for_all() {
        for errno in [libc::EIO, libc::EINVAL, libc::EMSGSIZE] {
            assert!(is_refusal_of_segments(errno));
        }
        assert!(!is_refusal_of_segments(libc::EAGAIN));
        assert!(is_refusal_for_good(libc::EIO));
        assert!(!is_refusal_for_good(libc::EINVAL) && !is_refusal_for_good(libc::EMSGSIZE));
    }
}
