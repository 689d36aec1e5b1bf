//! The sending half. Datagrams of a run are written side by side into one stretch of memory and leave
//! as few sends as their lengths allow.
//!
//! The kernel is done with a message and its bytes when the system call that took it has returned. So memory is handed
//! out from the front, and all of it is free again once nothing is queued; a small batch stays in a few cache
//! lines whatever the memory's size.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ptr::NonNull;

use super::backend::{Counters, TRAIN_LEN_MAX, UnsentList, send_drop_reason};
use super::msghdr::{Control, Name};
use super::post::{Post, Posted};
use super::slab::Slab;
use super::socket::{SOCKET_COUNT_MAX, WorkerSockets};
use super::train::Train;
use crate::packet::{DATAGRAM_LEN_MAX, Egress, Path, SocketId};

/// Bytes that may wait for one submission: one receiver's packets of a batch, and those of the few before it.
const MEMORY_LEN: usize = 256 * 1024;

/// Sends that wait for others, at most: the first listeners of a large room get theirs while the last ones' are sealed,
/// and what the kernel reads is still in a near cache. A pause between two calls costs as well: who receives goes to
/// sleep in it, and the next datagram has to wake it.
pub(super) const MESSAGE_COUNT: usize = 128;

const _: () = assert!(MEMORY_LEN >= 2 * DATAGRAM_LEN_MAX);
const _: () = assert!(TRAIN_LEN_MAX <= MESSAGE_COUNT && MESSAGE_COUNT <= u16::MAX as usize);
// One cache line, which is all that most sends need.
const _: () = assert!(mem::size_of::<Message>() == 64);

/// What one send points to, in memory that does not move.
#[repr(C, align(64))]
struct Message {
    name: Name,
    bytes: libc::iovec,
    train: Train,
    socket: SocketId,
    /// There are control messages, at the same place among them.
    has_control: bool,
}

/// Where a run goes.
#[derive(Clone, Copy, Debug)]
struct Destination {
    socket: SocketId,
    name: Name,
    control: Control,
}

impl Destination {
    /// `source`: where the socket's datagrams leave from anyway. To tell the kernel costs it time with each send.
    fn new(path: Path, source: Option<IpAddr>) -> Destination {
        let mut control = Control::new();
        if source != Some(path.local) {
            // A link-local source needs its interface, which is the one that the peer is on.
            let interface = match path.remote {
                SocketAddr::V6(remote) => remote.scope_id(),
                SocketAddr::V4(_) => 0,
            };
            control.push_source(path.local, interface);
        }
        Destination { socket: path.socket, name: Name::new(path.remote), control }
    }

    /// Where it was to go: read back, so that only a message that is refused pays for it.
    fn path(&self, sources: &[Option<IpAddr>; SOCKET_COUNT_MAX]) -> Option<Path> {
        let remote = self.name.address()?;
        let unspecified = match remote {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let local = self.control.source().or(sources[usize::from(self.socket.0)]).unwrap_or(unspecified);
        Some(Path { socket: self.socket, remote, local })
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
pub struct Outbox {
    pub(super) counters: Counters,
    pub(super) unsent: UnsentList,
    post: Post,
    memory: Slab,
    /// Where the next segment goes; everything before is queued, or being committed.
    cursor: usize,
    messages: Slab,
    controls: Slab,
    message_count: usize,
    run: Option<OpenRun>,
    /// Sockets whose path cuts sends into segments.
    has_segmentation: [bool; SOCKET_COUNT_MAX],
    /// See [`WorkerSockets::sources`].
    sources: [Option<IpAddr>; SOCKET_COUNT_MAX],
    /// Sends to repeat, in their order. Empty but for the time of a submission.
    refused: VecDeque<(Destination, Train)>,
}

impl Outbox {
    /// Leaves by these sockets, which stay open as long as it is used.
    pub(super) fn new(
        sockets: &WorkerSockets,
        has_segmentation: [bool; SOCKET_COUNT_MAX],
    ) -> io::Result<Outbox> {
        Ok(Outbox {
            counters: Counters::default(),
            unsent: UnsentList::new(),
            post: Post::new(sockets.fds()),
            memory: Slab::new(MEMORY_LEN)?,
            cursor: 0,
            messages: Slab::new(MESSAGE_COUNT * mem::size_of::<Message>())?,
            controls: Slab::new(MESSAGE_COUNT * mem::size_of::<Control>())?,
            message_count: 0,
            run: None,
            has_segmentation,
            sources: sockets.sources(),
            refused: VecDeque::with_capacity(MESSAGE_COUNT),
        })
    }

    /// System calls made since the last call.
    pub(super) fn take_calls(&mut self) -> u64 {
        mem::take(&mut self.post.calls)
    }

    /// Ends the run that is open and sends everything. All memory is free then.
    pub(super) fn flush(&mut self) {
        self.close();
        self.submit();
        self.cursor = 0;
    }

    /// Sends everything that is queued. The messages are free then, and all bytes but those of the open run.
    fn submit(&mut self) {
        self.hand_over(true);
        // At once: what was handed over with them has left, and nothing later overtakes them.
        while let Some((destination, train)) = self.refused.pop_front() {
            self.repeat(destination, train);
        }
    }

    /// Sends the datagrams of a refused train, or a refused datagram, one by one, and in fragments where one is longer
    /// than its path's MTU.
    fn repeat(&mut self, mut destination: Destination, train: Train) {
        if train.count() > 1 {
            destination.control.pop_segment_len();
        }
        self.post.set_may_fragment(destination.socket, true);
        train.singles().for_each(|single| self.queue(destination, single));
        self.hand_over(false);
        self.post.set_may_fragment(destination.socket, false);
    }

    /// Gives the kernel what is queued, and sorts what it refused: to be counted, or to be repeated.
    fn hand_over(&mut self, may_repeat: bool) {
        // Taken out of `self` for the loop's time, so that the rest can be changed meanwhile.
        let Self { post, counters, unsent, messages, controls, has_segmentation, sources, refused, .. } =
            self;
        for refusal in post.submit() {
            let errno = refusal.errno;
            let index = usize::from(refusal.message);
            // SAFETY: initialised when it was queued, and not overwritten since.
            let message = unsafe { place::<Message>(messages, index).as_ref() };
            let mut control = Control::new();
            if message.has_control {
                // SAFETY: as the message.
                control = unsafe { place::<Control>(controls, index).read() };
            }
            let destination = Destination { socket: message.socket, name: message.name, control };
            let train = message.train;
            let is_train_refused = train.count() > 1 && is_refusal_of_segments(errno);
            if is_train_refused {
                counters.segmentation_refused += 1;
                has_segmentation[usize::from(message.socket.0)] &= !is_refusal_for_good(errno);
            }
            if may_repeat && (is_train_refused || errno == libc::EMSGSIZE) {
                refused.push_back((destination, train));
            } else {
                let reason = send_drop_reason(errno);
                counters.drop(reason, train.count().into());
                if let Some(path) = destination.path(sources) {
                    unsent.add(path, reason, train.count().into());
                }
            }
        }
        self.message_count = 0;
    }

    /// Queues what the open run has committed.
    fn queue_train(&mut self) {
        let Some(run) = &mut self.run else { return };
        let Some(train) = run.train.take() else { return };
        let destination = run.destination;
        self.counters.trains[usize::from(train.count())] += 1;
        self.counters.datagrams_sent += u64::from(train.count());
        self.counters.bytes_sent += train.bytes().len() as u64;
        self.queue(destination, train);
        if self.message_count == MESSAGE_COUNT {
            self.submit();
        }
    }

    /// Writes a message and queues its send.
    fn queue(&mut self, destination: Destination, train: Train) {
        let bytes = train.bytes();
        assert!(self.message_count < MESSAGE_COUNT && bytes.end <= self.memory.len());
        let Destination { socket, name, mut control } = destination;
        if train.count() > 1 {
            control.push_segment_len(train.segment_len());
        }
        let index = self.message_count;
        let field = |offset| self.messages.at(index * mem::size_of::<Message>() + offset).as_ptr();
        // SAFETY: all zeroes is a valid msghdr.
        let mut header: libc::msghdr = unsafe { mem::zeroed() };
        header.msg_name = field(mem::offset_of!(Message, name)).cast();
        header.msg_namelen = name.len();
        header.msg_iov = field(mem::offset_of!(Message, bytes)).cast();
        header.msg_iovlen = 1;
        let has_control = control.len() > 0;
        if has_control {
            let at = place::<Control>(&self.controls, index);
            // SAFETY: as for the message below.
            unsafe { at.write(control) };
            header.msg_control = at.as_ptr().cast();
            header.msg_controllen = control.len() as _;
        }
        let iov_base = self.memory.at(bytes.start).as_ptr().cast();
        let bytes = libc::iovec { iov_base, iov_len: bytes.len() };
        // SAFETY: aligned and inside the slab, and free: nothing that is queued points to it, since messages
        // are handed out once between two empty queues.
        unsafe { place(&self.messages, index).write(Message { name, bytes, train, socket, has_control }) };
        let posted = Posted { header, socket, message: index as u16 };
        // SAFETY: message and bytes stay until they are submitted.
        unsafe { self.post.push(posted) };
        self.message_count += 1;
    }
}

impl Egress for Outbox {
    fn cuts_segments(&self, path: Path) -> bool {
        self.has_segmentation[usize::from(path.socket.0)]
    }

    fn open(&mut self, path: Path) {
        self.close();
        let destination = Destination::new(path, self.sources[usize::from(path.socket.0)]);
        self.run = Some(OpenRun { destination, train: None, lent_len: 0 });
    }

    fn segment(&mut self, len_max: usize) -> &mut [u8] {
        assert!(len_max <= DATAGRAM_LEN_MAX);
        if self.cursor + len_max > self.memory.len() {
            // The train has to leave without this segment.
            self.queue_train();
            self.submit();
            self.cursor = 0;
        }
        self.run.as_mut().expect("an open run").lent_len = len_max;
        // SAFETY: everything queued lies before the cursor.
        unsafe { self.memory.bytes_mut(self.cursor, len_max) }
    }

    fn commit(&mut self, len: usize) {
        let Some(run) = &mut self.run else { return };
        assert!(len <= run.lent_len);
        run.lent_len = 0;
        if len == 0 {
            return;
        }
        let has_segmentation = self.has_segmentation[usize::from(run.destination.socket.0)];
        let is_taken = has_segmentation && run.train.as_mut().is_some_and(|train| train.push(len));
        if !is_taken {
            self.queue_train();
            let train = Train::new(self.cursor, len);
            self.run.as_mut().expect("still open").train = Some(train);
        }
        self.cursor += len;
    }

    fn close(&mut self) {
        self.queue_train();
        self.run = None;
        if self.message_count == 0 {
            self.cursor = 0;
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        // What is queued still leaves.
        self.flush();
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

/// Of the message with this index: itself, or its control messages.
fn place<T>(slab: &Slab, index: usize) -> NonNull<T> {
    assert!(index < MESSAGE_COUNT);
    slab.at(index * mem::size_of::<T>()).cast()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_told_a_source_only_where_it_would_choose_another() {
        let own = IpAddr::from([192, 0, 2, 1]);
        let path = Path { socket: SocketId(0), local: own, remote: "198.51.100.1:9".parse().unwrap() };
        let told = |source| Destination::new(path, source).control;
        assert_eq!(told(Some(own)).len(), 0);
        for source in [None, Some(IpAddr::from([192, 0, 2, 2]))] {
            assert_eq!(told(source).source(), Some(own));
        }
    }

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
