//! The least that a server on this kernel could do: every datagram to every listener, as it came.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, bail};

/// A datagram of this one byte makes its sender a listener.
pub(crate) const REGISTER: u8 = 0x4C;

/// Datagrams a call.
const BATCH: usize = 64;

/// Sends what comes to all who registered, until it is killed.
pub(crate) fn run() -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{}", socket.local_addr()?);
    std::io::stdout().flush()?;
    let mut listeners: Vec<libc::sockaddr_in> = Vec::new();
    let mut buffer = [0; 2000];
    loop {
        let (len, from) = socket.recv_from(&mut buffer).context("the floor receives")?;
        if buffer[..len] == [REGISTER] {
            listeners.push(raw_address(from)?);
            continue;
        }
        for batch in listeners.chunks_mut(BATCH) {
            send(&socket, &mut buffer[..len], batch);
        }
    }
}

fn raw_address(address: SocketAddr) -> Result<libc::sockaddr_in> {
    let SocketAddr::V4(address) = address else { bail!("loopback is IPv4 here") };
    Ok(libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
        sin_zero: [0; 8],
    })
}

/// One datagram to each of at most [`BATCH`]; what the kernel does not take is lost.
fn send(socket: &UdpSocket, datagram: &mut [u8], to: &mut [libc::sockaddr_in]) {
    assert!(to.len() <= BATCH);
    let mut part = libc::iovec { iov_base: datagram.as_mut_ptr().cast(), iov_len: datagram.len() };
    let mut messages: Vec<libc::mmsghdr> = to
        .iter_mut()
        .map(|address| {
            // SAFETY: all zeros is a valid `mmsghdr`: null pointers with zero lengths.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_name = std::ptr::from_mut(address).cast();
            message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            message.msg_hdr.msg_iov = &raw mut part;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    // SAFETY: every pointer is to a local or a borrowed value that outlives the call; the count is the vector's.
    unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), messages.len() as u32, 0) };
}
