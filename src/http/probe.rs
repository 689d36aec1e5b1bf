//! `sfu --health`: asks the server on this machine whether it is alive. For container images that hold no
//! shell and no HTTP client.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// For each of connecting, asking and reading: a live server answers within milliseconds, and who calls this
/// has a time-out of seconds.
const STEP_MAX: Duration = Duration::from_secs(1);

/// What of an answer counts: `HTTP/1.1 200` (RFC 9112 §4).
const STATUS_LEN: usize = 12;

/// Why the server does not count as alive.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The port is chosen anew at each start.
    #[error("PORT=0 does not say where the server listens")]
    AnyPort,
    /// Nobody listens, or nobody answers.
    #[error("no answer on TCP port {0}: {1}")]
    Silent(u16, io::Error),
    /// An answer other than 200.
    #[error("the answer on TCP port {0} is {1:?}, not HTTP/1.1 200")]
    Unwell(u16, String),
}

/// `GET /health` on loopback, over IPv4 and else over IPv6.
///
/// # Errors
/// Anything but an answer with status 200, within seconds.
pub fn probe(port: u16) -> Result<(), ProbeError> {
    if port == 0 {
        return Err(ProbeError::AnyPort);
    }
    let v4 = (Ipv4Addr::LOCALHOST, port).into();
    let status = status_of(v4).or_else(|error| match error.kind() {
        // A server without IPv4; any other fault is the server's own.
        io::ErrorKind::ConnectionRefused => status_of((Ipv6Addr::LOCALHOST, port).into()).map_err(|_| error),
        _ => Err(error),
    });
    match status {
        Ok(status) if status == *b"HTTP/1.1 200" => Ok(()),
        Ok(status) => Err(ProbeError::Unwell(port, String::from_utf8_lossy(&status).into_owned())),
        Err(error) => Err(ProbeError::Silent(port, error)),
    }
}

fn status_of(server: SocketAddr) -> io::Result<[u8; STATUS_LEN]> {
    let mut stream = TcpStream::connect_timeout(&server, STEP_MAX)?;
    stream.set_read_timeout(Some(STEP_MAX))?;
    stream.set_write_timeout(Some(STEP_MAX))?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut status = [0; STATUS_LEN];
    stream.read_exact(&mut status)?;
    Ok(status)
}
