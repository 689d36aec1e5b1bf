//! Where the log goes and how it looks.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result};
use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::{Config, LogFormat};

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
        .with(file.map(|file| layer(config.log_format, false, Mutex::new(file))))
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
