//! Where the log goes and how it looks.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::{Config, LogFormat};
use crate::throttle::throttled;

/// Sends the log of the whole process to standard error, and to `LOG_FILE` besides. Once a process.
///
/// # Errors
/// When the file cannot be opened.
pub fn start(config: &Config) -> Result<()> {
    // Our own lines only: what the crates below say is for those who work on them.
    let filter = EnvFilter::new(format!("off,gryt_sfu={}", config.log_level));
    let file = config.log_file.as_deref().map(open).transpose()?;
    let registry = tracing_subscriber::registry().with(filter);
    registry
        .with(layer(config.log_format, io::stderr().is_terminal(), io::stderr))
        .with(file.map(|file| layer(config.log_format, false, LogFile(Mutex::new(file)))))
        .init();
    Ok(())
}

fn open(path: &Path) -> Result<File> {
    // Appended to, so that whoever rotates it by copying and truncating loses nothing.
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.with_context(|| format!("LOG_FILE={:?} cannot be opened for writing", path.display().to_string()))
}

fn layer<S, W>(format: LogFormat, has_colours: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_target(false).with_writer(writer);
    match format {
        LogFormat::Human => layer.with_ansi(has_colours).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    }
}

/// The file of `LOG_FILE`. A disk that is full is said on standard error, and costs the server nothing else.
struct LogFile(Mutex<File>);

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = &'a LogFile;

    fn make_writer(&'a self) -> &'a LogFile {
        self
    }
}

impl Write for &LogFile {
    /// Takes the line whatever becomes of it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let written = self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(line);
        if let Err(error) = written {
            // This one cannot be written here either: it is left out, and that is the end of it.
            throttled!(error, %error, "LOG_FILE cannot be written to; lines are missing there");
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
