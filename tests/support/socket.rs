//! A WebSocket client: tungstenite's blocking code over a socket that does not block, with TLS between if wanted.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::UrlError;
use tokio_tungstenite::tungstenite::handshake::client::ClientHandshake;
use tokio_tungstenite::tungstenite::handshake::{HandshakeError, MidHandshake};
use tokio_tungstenite::tungstenite::http::{HeaderValue, Uri, header::SEC_WEBSOCKET_PROTOCOL};
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

enum Stream {
    Plain(NonBlocking),
    Tls(Box<StreamOwned<ClientConnection, NonBlocking>>),
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Stream::Plain(stream) => &stream.0,
            Stream::Tls(stream) => &stream.sock.0,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.read(buffer),
            Stream::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.write(buffer),
            Stream::Tls(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(stream) => stream.flush(),
            Stream::Tls(stream) => stream.flush(),
        }
    }
}

/// An open WebSocket.
pub struct Socket(WebSocket<Stream>);

impl Socket {
    /// Connects and upgrades.
    ///
    /// # Errors
    /// What tungstenite says, an HTTP answer other than 101 among it.
    pub async fn open(address: SocketAddr, path: &str) -> Result<Socket, Error> {
        Socket::open_url(address, &format!("ws://{address}{path}"), None, None, None).await
    }

    /// Connects to this address, over TLS for the URL's host if `tls` says how, and upgrades by this URL, to a
    /// subprotocol (RFC 6455 §1.9) if there is one to be, within the limits of `config`.
    ///
    /// # Errors
    /// As [`Socket::open`].
    pub async fn open_url(
        address: SocketAddr,
        url: &str,
        subprotocol: Option<&'static str>,
        config: Option<WebSocketConfig>,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Result<Socket, Error> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let stream = NonBlocking(stream);
        let stream = match tls {
            None => Stream::Plain(stream),
            Some(tls) => {
                let connection = ClientConnection::new(Arc::clone(tls), server_name(url)?);
                let connection = connection.map_err(io::Error::other)?;
                Stream::Tls(Box::new(StreamOwned::new(connection, stream)))
            }
        };
        let mut request = url.into_client_request()?;
        if let Some(subprotocol) = subprotocol {
            request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
        }
        let mut attempt = client_with_config(request, stream, config);
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
                    self.0.get_ref().tcp().readable().await?;
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
                    self.0.get_ref().tcp().writable().await?;
                    result = self.0.flush();
                }
                other => return other,
            }
        }
    }
}

async fn wait_for_handshake(rest: &MidHandshake<ClientHandshake<Stream>>) -> io::Result<()> {
    // What we say is far smaller than a send buffer: only answers are ever waited for.
    rest.get_ref().get_ref().tcp().readable().await
}

fn server_name(url: &str) -> Result<ServerName<'static>, Error> {
    let uri: Uri = url.parse().map_err(|_| Error::Url(UrlError::NoHostName))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    ServerName::try_from(host).map_err(|_| Error::Url(UrlError::NoHostName))
}
