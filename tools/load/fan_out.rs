//! The least that a server on this kernel could do: every datagram to all others of its room, as it came.

use std::io::Write;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, ensure};
use gryt_sfu::net::socket::set_may_fragment;

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
    socket2::SockRef::from(&socket).set_recv_buffer_size(8 << 20)?;
    set_may_fragment(socket.as_raw_fd(), false)?;
    println!("{address}");
    std::io::stdout().flush()?;
    let mut rooms: Vec<Vec<libc::sockaddr_in>> = Vec::new();
    let mut inbox = Inbox::new();
    loop {
        inbox.fill(&socket)?;
        for i in 0..inbox.lens.len() {
            let datagram = &mut inbox.bytes[i][..inbox.lens[i]];
            let (is_member, room) = match datagram {
                [REGISTER, high, low] => (true, u16::from_be_bytes([*high, *low])),
                [_, _, high, low, ..] => (false, u16::from_be_bytes([*high, *low])),
                _ => continue,
            };
            let room = usize::from(room);
            if is_member {
                if rooms.len() <= room {
                    rooms.resize(room + 1, Vec::new());
                }
                rooms[room].push(inbox.sources[i]);
                continue;
            }
            for batch in rooms.get_mut(room).into_iter().flat_map(|members| members.chunks_mut(BATCH)) {
                send(&socket, datagram, &inbox.sources[i], batch);
            }
        }
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

/// One datagram to each of at most [`BATCH`] but whom it is from; what the kernel does not take is lost.
fn send(socket: &UdpSocket, datagram: &mut [u8], from: &libc::sockaddr_in, to: &mut [libc::sockaddr_in]) {
    assert!(to.len() <= BATCH);
    let place = |address: &libc::sockaddr_in| (address.sin_addr.s_addr, address.sin_port);
    let mut others = to.iter_mut().filter(|address| place(address) != place(from));
    let mut part = libc::iovec { iov_base: datagram.as_mut_ptr().cast(), iov_len: datagram.len() };
    let mut count = 0;
    let mut messages: [libc::mmsghdr; BATCH] = std::array::from_fn(|_| {
        // SAFETY: all zeros is a valid `mmsghdr`: null pointers with zero lengths.
        let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
        if let Some(address) = others.next() {
            message.msg_hdr.msg_name = std::ptr::from_mut(address).cast();
            message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            message.msg_hdr.msg_iov = &raw mut part;
            message.msg_hdr.msg_iovlen = 1;
            count += 1;
        }
        message
    });
    // SAFETY: every pointer is to a local or a borrowed value that outlives the call; the count is that of the addresses.
    unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), count, 0) };
}
