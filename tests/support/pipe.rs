//! What a child process says, for as long as there is patience.

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::{self, Receiver};

use super::{PATIENCE, now};

/// The lines of a pipe as they come. A thread reads it, as who reads cannot stop waiting; it stays behind until the next
/// line when nobody listens any more.
pub fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    lines
}

/// The first line that is as wanted; `None` where none comes in time.
pub fn line(pipe: impl Read + Send + 'static, is_it: impl Fn(&str) -> bool) -> Option<String> {
    let deadline = now() + PATIENCE;
    let lines = lines(pipe);
    let next = || lines.recv_timeout(deadline.saturating_duration_since(now())).ok();
    std::iter::from_fn(next).find(|line| is_it(line))
}
