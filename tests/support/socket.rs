//! A WebSocket client: tungstenite's blocking code over a socket that does not block.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::client::ClientHandshake;
use tokio_tungstenite::tungstenite::handshake::{HandshakeError, MidHandshake};
use tokio_tungstenite::tungstenite::protocol::{WebSocket, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, client::client_with_config};

struct NonBlocking(TcpStream);

impl Read for NonBlocking {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for NonBlocking {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.try_write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An open WebSocket.
pub struct Socket(WebSocket<NonBlocking>);

impl Socket {
    /// Connects and upgrades.
    ///
    /// # Errors
    /// What tungstenite says, an HTTP answer other than 101 among it.
    pub async fn open(address: SocketAddr, path: &str) -> Result<Socket, Error> {
        Socket::open_url(address, &format!("ws://{address}{path}"), None).await
    }

    /// Connects to this address and upgrades by this URL, within the limits of `config`.
    ///
    /// # Errors
    /// As [`Socket::open`].
    pub async fn open_url(
        address: SocketAddr,
        url: &str,
        config: Option<WebSocketConfig>,
    ) -> Result<Socket, Error> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut attempt = client_with_config(url, NonBlocking(stream), config);
        loop {
            attempt = match attempt {
                Ok((socket, _)) => return Ok(Socket(socket)),
                Err(HandshakeError::Failure(error)) => return Err(error),
                Err(HandshakeError::Interrupted(rest)) => {
                    wait_for_handshake(&rest).await?;
                    rest.handshake()
                }
            };
        }
    }

    /// The next message. May be cancelled without losing one.
    ///
    /// # Errors
    /// [`Error::ConnectionClosed`] after the closing handshake, others as they happen.
    pub async fn next(&mut self) -> Result<Message, Error> {
        loop {
            match self.0.read() {
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.0.get_ref().0.readable().await?;
                }
                other => return other,
            }
        }
    }

    /// Sends a message; waits while the kernel takes no more.
    ///
    /// # Errors
    /// As they happen.
    pub async fn send(&mut self, message: Message) -> Result<(), Error> {
        let mut result = self.0.send(message);
        loop {
            match result {
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.0.get_ref().0.writable().await?;
                    result = self.0.flush();
                }
                other => return other,
            }
        }
    }
}

async fn wait_for_handshake(rest: &MidHandshake<ClientHandshake<NonBlocking>>) -> io::Result<()> {
    // The request is far smaller than a send buffer: only the answer is ever waited for.
    rest.get_ref().get_ref().0.readable().await
}
