//! A folder with files that are nobody's business but the operator's.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};

/// Looks whether there is such a folder.
///
/// # Errors
/// It cannot be read. Names the variable and the folder.
pub(super) fn check(variable: &str, folder: &Path) -> Result<()> {
    fs::read_dir(folder).with_context(|| format!("{variable}={folder:?} cannot be read"))?;
    Ok(())
}

/// How many files of ours there are: all others in the folder are left alone.
pub(super) fn count(folder: &Path, extension: &str) -> io::Result<usize> {
    let is_ours = |name: &std::ffi::OsStr| {
        let rest = name.to_str().and_then(|name| name.strip_prefix("sfu-"));
        rest.is_some_and(|rest| rest.ends_with(extension))
    };
    Ok(fs::read_dir(folder)?.filter_map(Result::ok).filter(|entry| is_ours(&entry.file_name())).count())
}

/// A new file, for its owner's eyes only; never one that is there, nor what a link leads to.
pub(super) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)
}
