//! The crate's side of the wall: a connection made of two queues.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Mutex, Notify, mpsc};
use webrtc_util::{Conn, Error, Result};

/// What the handshake keeps of a [`Pipe`]. The queues have no bound of their own: one is filled by the
/// guard, which has, the other is emptied by the handshake before anything else.
pub(super) struct PipeEnd {
    /// Datagrams for the crate.
    pub(super) incoming: mpsc::UnboundedSender<Bytes>,
    /// Datagrams from the crate.
    pub(super) outgoing: mpsc::UnboundedReceiver<Bytes>,
    /// The crate has worked off all that came in.
    pub(super) idle: Arc<Notify>,
}

/// What the crate takes for a socket.
pub(super) struct Pipe {
    incoming: Mutex<mpsc::UnboundedReceiver<Bytes>>,
    outgoing: mpsc::UnboundedSender<Bytes>,
    idle: Arc<Notify>,
}

impl Pipe {
    pub(super) fn new() -> (Pipe, PipeEnd) {
        let (to_crate, incoming) = mpsc::unbounded_channel();
        let (outgoing, from_crate) = mpsc::unbounded_channel();
        let idle = Arc::new(Notify::new());
        let end = PipeEnd { incoming: to_crate, outgoing: from_crate, idle: Arc::clone(&idle) };
        (Pipe { incoming: Mutex::new(incoming), outgoing, idle }, end)
    }

    async fn next(&self, buffer: &mut [u8]) -> Result<usize> {
        let mut incoming = self.incoming.lock().await;
        if incoming.is_empty() {
            self.idle.notify_one();
        }
        let Some(datagram) = incoming.recv().await else {
            // The crate calls again at once after an error, for ever. Its task ends with its connection.
            return std::future::pending().await;
        };
        let room = buffer.get_mut(..datagram.len()).ok_or(Error::ErrBufferShort)?;
        room.copy_from_slice(&datagram);
        Ok(datagram.len())
    }
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The trait's methods as its `async` attribute spells them out.
impl Conn for Pipe {
    fn connect<'a, 'b>(&'a self, _: SocketAddr) -> BoxFuture<'b, Result<()>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async { Err(Error::ErrAlreadyClosed) })
    }

    fn recv<'a, 'b, 'c>(&'a self, buffer: &'b mut [u8]) -> BoxFuture<'c, Result<usize>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(self.next(buffer))
    }

    fn recv_from<'a, 'b, 'c>(&'a self, _: &'b mut [u8]) -> BoxFuture<'c, Result<(usize, SocketAddr)>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(async { Err(Error::ErrNoRemAddr) })
    }

    fn send<'a, 'b, 'c>(&'a self, datagram: &'b [u8]) -> BoxFuture<'c, Result<usize>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(async {
            // Nobody listens any more when the handshake was given up.
            let _ = self.outgoing.send(Bytes::copy_from_slice(datagram));
            Ok(datagram.len())
        })
    }

    fn send_to<'a, 'b, 'c>(&'a self, _: &'b [u8], _: SocketAddr) -> BoxFuture<'c, Result<usize>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(async { Err(Error::ErrNoRemAddr) })
    }

    fn local_addr(&self) -> Result<SocketAddr> {
        Err(Error::ErrLocAddr)
    }

    fn remote_addr(&self) -> Option<SocketAddr> {
        None
    }

    fn close<'a, 'b>(&'a self) -> BoxFuture<'b, Result<()>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async { Ok(()) })
    }

    fn as_any(&self) -> &(dyn std::any::Any + Send + Sync) {
        self
    }
}
