//! The least that a server on this kernel could do: every datagram to all others of its room, as it came, as many as one
//! call takes.

use std::io::Write;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, ensure};
use gryt_sfu::net::socket::{set_buffer_lens, set_may_fragment};

/// A datagram of this byte and a room's number, two bytes, makes its sender a member of that room.
pub(crate) const REGISTER: u8 = 0x4C;
/// Before the room's number, in a datagram of a voice.
pub(crate) const ROOM_AT: usize = 2;

/// Datagrams a call: as many as the server's.
const BATCH: usize = 128;
const DATAGRAM_LEN_MAX: usize = 2_000;

/// Sends what comes to all who registered for its room but whom it is from, until it is killed.
pub(crate) fn run(bind: SocketAddrV4) -> Result<()> {
    let socket = UdpSocket::bind(bind).with_context(|| format!("{bind} cannot be bound"))?;
    let address = socket.local_addr()?;
    set_buffer_lens(socket.as_raw_fd())?;
    set_may_fragment(socket.as_raw_fd(), false)?;
    println!("{address}");
    std::io::stdout().flush()?;
    let mut rooms: Vec<Vec<libc::sockaddr_in>> = Vec::new();
    let (mut inbox, mut outbox) = (Inbox::new(), Outbox::new());
    loop {
        inbox.fill(&socket)?;
        for i in 0..inbox.lens.len() {
            let (datagram, source) = (&inbox.bytes[i][..inbox.lens[i]], &inbox.sources[i]);
            let (is_member, room) = match datagram {
                [REGISTER, high, low] => (true, u16::from_be_bytes([*high, *low])),
                [_, _, high, low, ..] => (false, u16::from_be_bytes([*high, *low])),
                _ => continue,
            };
            let room = usize::from(room);
            if is_member {
                outbox.flush(&socket); // It points to members, who may move.
                if rooms.len() <= room {
                    rooms.resize(room + 1, Vec::new());
                }
                rooms[room].push(*source);
                continue;
            }
            let place = |address: &libc::sockaddr_in| (address.sin_addr.s_addr, address.sin_port);
            let members = rooms.get(room).into_iter().flatten();
            for member in members.filter(|member| place(member) != place(source)) {
                outbox.push(&socket, datagram, member);
            }
        }
        outbox.flush(&socket);
    }
}

/// An IPv4 address in words of the command line.
pub(crate) fn address(text: &str) -> Result<SocketAddrV4, String> {
    match text.parse() {
        Ok(SocketAddr::V4(address)) => Ok(address),
        _ => Err("an IPv4 address with a port, as in 127.0.0.1:0".into()),
    }
}

/// What one `recvmmsg` brings.
struct Inbox {
    bytes: Box<[[u8; DATAGRAM_LEN_MAX]]>,
    sources: Box<[libc::sockaddr_in]>,
    lens: Vec<usize>,
}

impl Inbox {
    fn new() -> Inbox {
        // SAFETY: all zeros is a valid `sockaddr_in`.
        let nobody: libc::sockaddr_in = unsafe { std::mem::zeroed() };
        Inbox {
            bytes: vec![[0; DATAGRAM_LEN_MAX]; BATCH].into(),
            sources: vec![nobody; BATCH].into(),
            lens: Vec::with_capacity(BATCH),
        }
    }

    /// Waits for one datagram and takes all that are there.
    fn fill(&mut self, socket: &UdpSocket) -> Result<()> {
        let mut parts: [libc::iovec; BATCH] = std::array::from_fn(|i| libc::iovec {
            iov_base: self.bytes[i].as_mut_ptr().cast(),
            iov_len: DATAGRAM_LEN_MAX,
        });
        let mut messages: [libc::mmsghdr; BATCH] = std::array::from_fn(|i| {
            // SAFETY: all zeros is a valid `mmsghdr`: null pointers with zero lengths.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_name = (&raw mut self.sources[i]).cast();
            message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            message.msg_hdr.msg_iov = &raw mut parts[i];
            message.msg_hdr.msg_iovlen = 1;
            message
        });
        let flags = libc::MSG_WAITFORONE;
        let none = std::ptr::null_mut();
        // SAFETY: every pointer is into `self` or a local that outlives the call; the count is the array's.
        let count = unsafe {
            libc::recvmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), BATCH as u32, flags as _, none)
        };
        if count < 0 {
            let error = std::io::Error::last_os_error();
            // A listener that is gone.
            ensure!(error.kind() == std::io::ErrorKind::ConnectionRefused, "the floor receives: {error}");
        }
        self.lens.clear();
        let came = messages.iter().take(usize::try_from(count).unwrap_or(0));
        self.lens.extend(came.map(|message| (message.msg_len as usize).min(DATAGRAM_LEN_MAX)));
        Ok(())
    }
}

/// What one `sendmmsg` takes, as full as what one [`Inbox`] brought makes it. All but the pointers is written once.
struct Outbox {
    messages: Box<[libc::mmsghdr; BATCH]>,
    parts: Box<[libc::iovec; BATCH]>,
    len: usize,
}

impl Outbox {
    fn new() -> Outbox {
        let part = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let mut parts = Box::new([part; BATCH]);
        let messages = Box::new(std::array::from_fn(|i| {
            // SAFETY: all zeros is a valid `mmsghdr`: null pointers with zero lengths.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            message.msg_hdr.msg_iov = &raw mut parts[i];
            message.msg_hdr.msg_iovlen = 1;
            message
        }));
        Outbox { messages, parts, len: 0 }
    }

    /// Both have to stay where they are until they are flushed.
    fn push(&mut self, socket: &UdpSocket, datagram: &[u8], to: &libc::sockaddr_in) {
        if self.len == BATCH {
            self.flush(socket);
        }
        // The kernel reads both and writes neither.
        self.parts[self.len] =
            libc::iovec { iov_base: datagram.as_ptr().cast_mut().cast(), iov_len: datagram.len() };
        self.messages[self.len].msg_hdr.msg_name = std::ptr::from_ref(to).cast_mut().cast();
        self.len += 1;
    }

    /// What the kernel does not take is lost.
    fn flush(&mut self, socket: &UdpSocket) {
        let count = std::mem::take(&mut self.len) as u32;
        if count > 0 {
            // SAFETY: of the first `count`, name and part point to what has stayed there since they were pushed, and
            // the parts are `self`'s own.
            unsafe { libc::sendmmsg(socket.as_raw_fd(), self.messages.as_mut_ptr(), count, 0) };
        }
    }
}
