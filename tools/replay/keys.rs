//! Keys that the server wrote down (`KEYLOG_DIR`): one of its files, or a folder of them.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use gryt_sfu::dtls::key_log::{Entry, LINE_LEN_MAX, parse};
use zeroize::Zeroizing;

/// Handshakes that are kept: each is tried on each stream.
pub(crate) const KEY_COUNT_MAX: usize = 16_384;
/// As the server names its files.
const EXTENSION: &str = "keys";

/// Every handshake of a file, or of all files of a folder, in the order of their names.
///
/// # Errors
/// What cannot be read, is no line of ours, or is too much; and when there is nothing at all.
pub(crate) fn read(path: &Path) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for file in files(path)? {
        read_file(&file, &mut entries).with_context(|| file.display().to_string())?;
    }
    if entries.is_empty() {
        bail!("there are no keys in {}", path.display());
    }
    Ok(entries)
}

fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let cannot = || format!("cannot read {}", path.display());
    if !std::fs::metadata(path).with_context(cannot)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).with_context(cannot)? {
        let file = entry.with_context(cannot)?.path();
        if file.extension().is_some_and(|extension| extension == EXTENSION) {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn read_file(path: &Path, entries: &mut Vec<Entry>) -> Result<()> {
    let mut input = BufReader::new(File::open(path)?);
    for number in 1.. {
        let mut line = Zeroizing::new(String::with_capacity(LINE_LEN_MAX));
        input.by_ref().take(LINE_LEN_MAX as u64).read_line(&mut line)?;
        if !line.ends_with('\n') {
            // The end of the file, or a line that the server has not finished. No line of its own is longer.
            if line.len() < LINE_LEN_MAX {
                break;
            }
            bail!("line {number} is too long");
        }
        let Some(entry) = parse(&line).with_context(|| format!("line {number}"))? else { continue };
        if entries.len() == KEY_COUNT_MAX {
            bail!(
                "line {number} is one handshake more than the {KEY_COUNT_MAX} that are taken; name fewer files"
            );
        }
        entries.push(entry);
    }
    Ok(())
}
