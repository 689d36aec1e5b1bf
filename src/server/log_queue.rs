//! Lines of the log on their way to where they go. A thread of its own writes them, so that a reader that stalls or a
//! disk that does not keep up costs lines, which are counted, and never holds up whoever says one.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use tracing_subscriber::fmt::MakeWriter;

use crate::time::Now;

/// Lines that wait to be written.
const LINE_COUNT_MAX: usize = 4096;
/// Their bytes, with those of the one that is being written.
const LEN_MAX: usize = 1 << 20;
/// A descriptor that somebody made non-blocking is tried again after this.
const RETRY: Duration = Duration::from_millis(10);
const FLUSH_POLL: Duration = Duration::from_millis(1);

/// Where lines wait. Clones are the same queue.
#[derive(Clone)]
pub(super) struct LogQueue(Arc<Inner>);

struct Inner {
    lines: Sender<Line>,
    /// Bytes of lines that are not written yet.
    waiting_len: AtomicUsize,
    /// Lines lost since that was said last.
    lost: AtomicU64,
    lost_total: AtomicU64,
}

struct Line {
    text: Vec<u8>,
    /// So many are missing before it.
    lost: u64,
}

/// What to do besides writing.
pub(super) struct Notices {
    /// A line that says how many are missing, as the log's format wants it.
    pub(super) missing: fn(u64) -> String,
    /// A line could not be written.
    pub(super) failed: fn(&io::Error),
}

impl LogQueue {
    /// Begins to write into `out`, which may block.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(super) fn start(name: &str, out: File, notices: Notices) -> io::Result<LogQueue> {
        let (sender, lines) = bounded(LINE_COUNT_MAX);
        let queue = LogQueue(Arc::new(Inner {
            lines: sender,
            waiting_len: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            lost_total: AtomicU64::new(0),
        }));
        let writer = queue.clone();
        thread::Builder::new().name(name.into()).spawn(move || writer.write_all(out, &lines, &notices))?;
        Ok(queue)
    }

    /// Takes a line, its end included, or counts it as lost.
    pub(super) fn push(&self, text: &[u8]) {
        let inner = &self.0;
        let waiting_len = inner.waiting_len.fetch_add(text.len(), Ordering::AcqRel);
        if waiting_len + text.len() > LEN_MAX {
            inner.waiting_len.fetch_sub(text.len(), Ordering::AcqRel);
            return self.lose(1);
        }
        let line = Line { text: text.to_vec(), lost: inner.lost.swap(0, Ordering::Relaxed) };
        if let Err(refused) = inner.lines.try_send(line) {
            inner.waiting_len.fetch_sub(text.len(), Ordering::AcqRel);
            inner.lost.fetch_add(refused.into_inner().lost, Ordering::Relaxed);
            self.lose(1);
        }
    }

    /// Waits until everything is written that was pushed, but no longer than this.
    pub(super) fn flush(&self, at_most: Duration) {
        let deadline = Now::read().instant + at_most;
        while self.0.waiting_len.load(Ordering::Acquire) > 0 && Now::read().instant < deadline {
            thread::sleep(FLUSH_POLL); // A condition would be a lock that whoever logs waits for.
        }
    }

    /// Lines lost since the start.
    pub(super) fn lost_total(&self) -> u64 {
        self.0.lost_total.load(Ordering::Relaxed)
    }

    fn lose(&self, count: u64) {
        self.0.lost.fetch_add(count, Ordering::Relaxed);
        self.0.lost_total.fetch_add(count, Ordering::Relaxed);
    }

    /// Until the process ends.
    fn write_all(&self, mut out: File, lines: &Receiver<Line>, notices: &Notices) {
        for line in lines {
            self.say_missing(&mut out, line.lost, notices);
            if let Err(error) = write_whole(&mut out, &line.text) {
                self.lose(1);
                (notices.failed)(&error);
            } else if lines.is_empty() {
                // Perhaps no other comes for hours.
                self.say_missing(&mut out, self.0.lost.swap(0, Ordering::Relaxed), notices);
            }
            self.0.waiting_len.fetch_sub(line.text.len(), Ordering::AcqRel);
        }
    }

    fn say_missing(&self, out: &mut File, lost: u64, notices: &Notices) {
        if lost > 0 && write_whole(out, (notices.missing)(lost).as_bytes()).is_err() {
            self.0.lost.fetch_add(lost, Ordering::Relaxed); // To be said by the next that can be written.
        }
    }
}

impl<'a> MakeWriter<'a> for LogQueue {
    type Writer = &'a LogQueue;

    fn make_writer(&'a self) -> &'a LogQueue {
        self
    }
}

impl Write for &LogQueue {
    /// A line at once, as the formatter writes it, whatever becomes of it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_whole(out: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(len) => bytes = &bytes[len..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, PipeReader};
    use std::os::fd::OwnedFd;

    use super::*;

    fn queue() -> (LogQueue, PipeReader) {
        let (reader, writer) = io::pipe().unwrap();
        let notices = Notices { missing: |lost| format!("lost {lost}\n"), failed: |_| () };
        (LogQueue::start("test", OwnedFd::from(writer).into(), notices).unwrap(), reader)
    }

    /// What the reader finds, up to this line.
    fn read(reader: PipeReader, last: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for line in BufReader::new(reader).lines() {
            lines.push(line.unwrap());
            if lines.last().is_some_and(|line| line == last) {
                break;
            }
        }
        lines
    }

    #[test]
    fn a_reader_that_stalls_costs_lines_which_are_counted_where_they_are_missing_and_nobody_waits() {
        const COUNT: u64 = 10_000;
        for len in [100, 10_000] {
            let (queue, reader) = queue();
            let text = "x".repeat(len);
            let begun = Now::read().instant;
            (0..COUNT).for_each(|number| queue.push(format!("{number} {text}\n").as_bytes()));
            queue.flush(Duration::from_millis(100));
            assert!(begun.elapsed() < Duration::from_secs(5), "nobody waits for long");
            assert!(queue.0.waiting_len.load(Ordering::Relaxed) <= LEN_MAX);
            assert!(queue.lost_total() >= COUNT - LINE_COUNT_MAX as u64 - 1_000, "{}", queue.lost_total());
            let reading = thread::spawn(|| read(reader, "end"));
            queue.flush(Duration::from_secs(20));
            queue.push(b"end\n");
            let mut next = 0;
            for line in reading.join().unwrap().iter().filter(|line| *line != "end") {
                match line.strip_prefix("lost ") {
                    Some(lost) => next += lost.parse::<u64>().unwrap(),
                    None => {
                        assert!(line.starts_with(&format!("{next} ")), "{next} is missing");
                        next += 1;
                    }
                }
            }
            assert_eq!(next, COUNT, "the last that are missing are counted too");
        }
    }

    #[test]
    fn a_flush_waits_for_the_last_line() {
        let (queue, reader) = queue();
        let reading = thread::spawn(|| read(reader, "end"));
        (0..3_000).for_each(|_| queue.push(&[b"y".repeat(99), b"\n".to_vec()].concat()));
        queue.push(b"end\n");
        queue.flush(Duration::from_secs(20));
        assert_eq!((queue.0.waiting_len.load(Ordering::Relaxed), queue.lost_total()), (0, 0));
        assert_eq!(reading.join().unwrap().len(), 3_001);
    }
}
