//! A client's frames as they come (RFC 6455 §5.2), without a buffer for as long as none comes.
//!
//! The library's reader begins with 8 KiB and keeps as much as the longest message so far took, for the life of the
//! connection; a client says little after its first second. So a reader lives from a frame's first byte to the last byte
//! that came with it, and a few bytes wait for the first.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use fastwebsockets::{
    Frame as LibraryFrame, OpCode, Role, WebSocketError, WebSocketRead, after_handshake_split,
};
use tokio::io::{AsyncRead, ReadBuf, sink};

/// Pings, pongs and short messages come in one read.
const HELD_LEN: usize = 128;

/// One frame, unmasked.
pub(super) struct Frame {
    pub(super) opcode: OpCode,
    pub(super) is_last: bool,
    pub(super) is_masked: bool,
    pub(super) payload: Vec<u8>,
}

/// What reads them. A read that has begun must not be dropped in favour of something else.
pub(super) struct Frames<R> {
    tap: Tap<R>,
    reader: Option<WebSocketRead<Tap<R>>>,
    /// Bytes of all frames so far, the shortest way that each could be written.
    taken: u64,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub(super) fn new(stream: R) -> Frames<R> {
        let held = Held { stream, bytes: [0; HELD_LEN], start: 0, end: 0, given: 0 };
        Frames { tap: Tap(Rc::new(RefCell::new(held))), reader: None, taken: 0 }
    }

    /// The next frame.
    ///
    /// # Errors
    /// What the library has against it, a payload longer than `len_max` at its header, or the end of the stream.
    pub(super) async fn next(&mut self, len_max: usize) -> Result<Frame, WebSocketError> {
        if self.reader.is_none() {
            poll_fn(|context| self.tap.0.borrow_mut().poll_hold(context)).await?;
        }
        let tap = &self.tap;
        let reader = self.reader.get_or_insert_with(|| open(tap));
        reader.set_max_message_size(len_max + 1); // It refuses what is as long as this.
        // Never called, as nothing is answered automatically.
        let mut no_answer = async |_: LibraryFrame<'_>| Ok::<(), Infallible>(());
        let mut frame = reader.read_frame(&mut no_answer).await?;
        let frame = Frame {
            opcode: frame.opcode,
            is_last: frame.fin,
            is_masked: is_masked(&mut frame),
            payload: frame.payload.to_vec(),
        };
        self.taken += len_min(frame.payload.len());
        // Never equal again after a frame with a longer header than it needs; then the reader stays.
        if self.tap.0.borrow().given == self.taken {
            self.reader = None;
        }
        Ok(frame)
    }
}

fn open<R: AsyncRead + Unpin>(tap: &Tap<R>) -> WebSocketRead<Tap<R>> {
    let (mut reader, _) = after_handshake_split(Tap(Rc::clone(&tap.0)), sink(), Role::Server);
    reader.set_auto_close(false);
    reader.set_auto_pong(false);
    reader
}

/// §5.1: a client masks every frame. The library unmasks what is masked and takes the rest as it is;
/// only the header that it would write for the frame still shows which it was.
fn is_masked(frame: &mut LibraryFrame<'_>) -> bool {
    let mut head = [0; 16];
    frame.fmt_head(&mut head);
    head[1] & 0x80 != 0
}

/// Bytes of a client's frame, its length written as §5.2 wants it.
fn len_min(payload_len: usize) -> u64 {
    let length_len = match payload_len {
        0..=125 => 0,
        126..=0xFFFF => 2,
        _ => 8,
    };
    (2 + length_len + 4 + payload_len) as u64
}

/// The stream, with what was read of it ahead. Clones are the same.
struct Tap<R>(Rc<RefCell<Held<R>>>);

struct Held<R> {
    stream: R,
    bytes: [u8; HELD_LEN],
    /// Of `bytes`, what is still to be given.
    start: usize,
    end: usize,
    /// Bytes that the reader has had, in all.
    given: u64,
}

impl<R: AsyncRead + Unpin> Held<R> {
    /// Waits until there is something to give.
    fn poll_hold(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.start == self.end {
            let mut buffer = ReadBuf::new(&mut self.bytes);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            (self.start, self.end) = (0, buffer.filled().len());
        }
        Poll::Ready(if self.end == 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) })
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Tap<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let held = &mut *self.0.borrow_mut();
        let before = buffer.filled().len();
        if held.start < held.end {
            let len = buffer.remaining().min(held.end - held.start);
            buffer.put_slice(&held.bytes[held.start..held.start + len]);
            held.start += len;
        } else {
            ready!(Pin::new(&mut held.stream).poll_read(context, buffer))?;
        }
        held.given += (buffer.filled().len() - before) as u64;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    /// A client's text frame; `is_wasteful`: with a longer length than it needs.
    fn frame(payload: &[u8], is_wasteful: bool) -> Vec<u8> {
        let len = payload.len();
        let mut bytes = vec![0x81];
        match len {
            0..=125 if !is_wasteful => bytes.push(0x80 | len as u8),
            0..=0xFFFF if !is_wasteful || len <= 125 => {
                bytes.push(0x80 | 126);
                bytes.extend((len as u16).to_be_bytes());
            }
            _ => {
                bytes.push(0x80 | 127);
                bytes.extend((len as u64).to_be_bytes());
            }
        }
        bytes.extend([1, 2, 3, 4]);
        bytes.extend(payload.iter().zip([1, 2, 3, 4].iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    proptest! {
        #[test]
        fn frames_come_whole_however_the_stream_is_cut(
            lens in prop::collection::vec((0..70_000_usize, any::<bool>()), 1..8),
            cuts in prop::collection::vec(1..9_000_usize, 1..8),
        ) {
            run(async {
                let texts: Vec<Vec<u8>> = lens.iter().map(|(len, _)| vec![b'a' + (len % 26) as u8; *len]).collect();
                let stream: Vec<u8> =
                    texts.iter().zip(&lens).flat_map(|(text, (_, waste))| frame(text, *waste)).collect();
                let (mut client, server) = duplex(1 << 20);
                let mut frames = Frames::new(server);
                let writing = async {
                    let mut rest = &stream[..];
                    for cut in cuts.iter().cycle() {
                        let (piece, more) = rest.split_at(rest.len().min(*cut));
                        client.write_all(piece).await.unwrap();
                        tokio::task::yield_now().await;
                        rest = more;
                        if rest.is_empty() { break }
                    }
                };
                let reading = async {
                    for text in &texts {
                        let frame = frames.next(100_000).await.ok().unwrap();
                        assert!(frame.payload == *text && frame.is_masked && frame.is_last);
                    }
                };
                tokio::join!(writing, reading);
                let is_thrifty = lens.iter().all(|(len, waste)| !waste || *len > 0xFFFF);
                assert_eq!(frames.reader.is_none(), is_thrifty);
                drop(client);
                assert!(matches!(frames.next(100_000).await, Err(WebSocketError::UnexpectedEOF | WebSocketError::IoError(_))));
            });
        }
    }

    #[test]
    fn between_frames_there_is_no_reader() {
        run(async {
            let (mut client, server) = duplex(1 << 20);
            let mut frames = Frames::new(server);
            let long = frame(&[b'x'; 60_000], false);
            client.write_all(&[&long[..], &frame(b"short", false)].concat()).await.unwrap();
            assert_eq!(frames.next(100_000).await.ok().unwrap().payload.len(), 60_000);
            assert!(frames.reader.is_some(), "the next has begun");
            assert_eq!(frames.next(100_000).await.ok().unwrap().payload, b"short");
            assert!(frames.reader.is_none());
        });
    }
}
