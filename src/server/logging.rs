//! Where the log goes and how it looks.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::PanicHookInfo;
use std::path::Path;
use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use tracing::Subscriber;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::log_queue::{LogQueue, Notices};
use crate::config::{Config, LogFormat};
use crate::throttle::{Throttle, throttled};
use crate::time::Now;

/// How long the end waits for the last lines to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long a panic's line may hold up the thread that it struck: another panic on its way out would end the process
/// without a word.
const PANIC_WORDS: Duration = Duration::from_millis(100);

/// Standard error, and `LOG_FILE` behind it. Of the whole process.
static QUEUES: OnceLock<Vec<LogQueue>> = OnceLock::new();

static PANICS: AtomicU64 = AtomicU64::new(0);

/// Writes what is still to be written when dropped, also by a panic.
#[must_use]
pub struct Logging(());

impl Drop for Logging {
    fn drop(&mut self) {
        flush();
    }
}

/// Sends the log of the whole process to standard error, and to `LOG_FILE` besides. Once a process.
///
/// # Errors
/// When the file cannot be opened.
pub fn start(config: &Config) -> Result<Logging> {
    // Our own lines only: what the crates below say is for those who work on them.
    // The binary is a crate by itself, and has the panics.
    let filter = EnvFilter::new(format!("off,gryt_sfu={0},sfu={0}", config.log_level));
    let format = config.log_format;
    // A descriptor of our own: who writes to standard error past the log shall not wait for its lock either.
    let own = io::stderr().as_fd().try_clone_to_owned().context("standard error cannot be written to")?;
    let missing = match format {
        LogFormat::Human => missing_human,
        LogFormat::Json => missing_json,
    };
    let stderr = LogQueue::start("log", own.into(), Notices { missing, failed: |_| () })?;
    let file = match config.log_file.as_deref().map(open).transpose()? {
        Some(file) => Some(LogQueue::start("log-file", file, Notices { missing, failed: file_failed })?),
        None => None,
    };
    let _ = QUEUES.set([Some(stderr.clone()), file.clone()].into_iter().flatten().collect());
    let registry = tracing_subscriber::registry().with(filter);
    registry
        .with(layer(format, io::stderr().is_terminal(), stderr))
        .with(file.map(|file| layer(format, false, file)))
        .init();
    Ok(Logging(()))
}

/// Says on standard error alone why the process ends, behind all that the log has said.
pub fn last_words(words: &str) {
    let Some(stderr) = queues().first() else { return eprintln!("{words}") };
    stderr.push(format!("{words}\n").as_bytes());
    stderr.flush(LAST_WORDS);
}

/// Ends the process, when what led to it has been said.
pub fn give_up() -> ! {
    flush();
    process::exit(1)
}

/// A fault of ours, for [`std::panic::set_hook`]: counted, and in the log like everything else, whatever its format. A
/// peer that knows how to cause one may do so again and again: each place in the code is throttled, few of them
/// together.
pub fn note_panic(info: &PanicHookInfo<'_>) {
    static PLACES: [Throttle; 64] = [const { Throttle::new() }; 64];
    PANICS.fetch_add(1, Ordering::Relaxed);
    let place = info.location().map_or(0, |place| place.file().len() + place.line() as usize);
    if let Some(left_out) = PLACES[place % PLACES.len()].admit(Now::read().instant) {
        let repeated = (left_out > 0).then_some(left_out);
        tracing::error!(repeated, thread = thread::current().name(), "{info}");
        // Whom it struck is held up for a moment only.
        queues().iter().for_each(|queue| queue.flush(PANIC_WORDS));
    }
}

/// Panics that [`note_panic`] was told of, since the start.
pub(super) fn panic_total() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// Lets the last lines be written, if whoever reads them does so within a moment.
pub(super) fn flush() {
    queues().iter().for_each(|queue| queue.flush(LAST_WORDS));
}

/// Lines that could not be written, since the start, of all places where they go.
pub(super) fn lost_total() -> u64 {
    queues().iter().map(LogQueue::lost_total).sum()
}

fn queues() -> &'static [LogQueue] {
    QUEUES.get().map_or(&[], Vec::as_slice)
}

fn open(path: &Path) -> Result<File> {
    // Appended to, so that whoever rotates it by copying and truncating loses nothing.
    OpenOptions::new().create(true).append(true).open(path).with_context(|| no_file(path))
}

/// Whether there is such a file or could be one. Makes none.
///
/// # Errors
/// As [`start`] would say.
pub(super) fn check(path: &Path) -> Result<()> {
    let found = match fs::metadata(path) {
        Ok(about) if about.is_file() || about.is_dir() => {
            OpenOptions::new().append(true).open(path).map(drop)
        }
        Ok(_) => Ok(()), // A pipe: to open it may wait for who reads it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            check_folder(folder.unwrap_or(Path::new(".")))
        }
        Err(error) => Err(error),
    };
    found.with_context(|| no_file(path))
}

/// Whether a file could be made there: one without a name is.
fn check_folder(folder: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).open(folder) {
        Ok(_) => Ok(()),
        // What a file system answers that has none without a name.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => Ok(()),
        Err(error) => Err(error),
    }
}

fn no_file(path: &Path) -> String {
    format!("LOG_FILE={path:?} cannot be opened for writing")
}

fn layer<S, W>(format: LogFormat, has_colours: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> tracing_subscriber::fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_target(false).with_writer(writer);
    match format {
        LogFormat::Human => layer.with_ansi(has_colours).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    }
}

/// A disk that is full is said on standard error, and costs the server nothing else.
fn file_failed(error: &io::Error) {
    // This one cannot be written there either: it is left out, and that is the end of it.
    throttled!(error, %error, "LOG_FILE cannot be written to; lines are missing there");
}

const MISSING: &str = "lines of the log are missing here: it could not be written as fast as it came";

/// Not by way of the log, which would put it behind lines that came later.
fn missing_human(lost: u64) -> String {
    format!("{}  WARN {MISSING} lost={lost}\n", timestamp())
}

fn missing_json(lost: u64) -> String {
    let line =
        serde_json::json!({ "timestamp": timestamp(), "level": "WARN", "message": MISSING, "lost": lost });
    format!("{line}\n")
}

/// As the log's other lines have it.
fn timestamp() -> String {
    let mut text = String::new();
    // A `String` takes everything.
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}

#[cfg(test)]
mod tests {
    use std::panic;

    use super::*;

    #[test]
    fn each_panic_is_counted() {
        let before = panic_total();
        let others = panic::take_hook();
        panic::set_hook(Box::new(note_panic));
        let caught = panic::catch_unwind(|| panic!("as a fault of ours would"));
        panic::set_hook(others);
        assert!(caught.is_err() && panic_total() > before);
    }
}
