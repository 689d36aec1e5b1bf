//! The keys of every handshake, written down where `KEYLOG_DIR` says so. A thread of its own writes: control never waits
//! for a disk, and no worker knows of it. What cannot be written is counted and warned about; calls go on.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::thread;

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, Sender, bounded};
use zeroize::Zeroizing;

use super::private_folder::{self, count, create};
use crate::dtls::key_log::line;
use crate::dtls::keying::KeyingMaterial;
use crate::ids::TransportId;
use crate::time::Now;

/// Files of ours in the folder; more are not made.
const FILE_COUNT_MAX: usize = 32;
/// Largest file: some 5,000 handshakes.
const FILE_LEN_MAX: u64 = 1 << 20;
/// Lines that wait for the disk.
const QUEUE_LEN: usize = 1024;

const EXTENSION: &str = ".keys";
const HEADER: &str = "# SRTP time transport profile client-key client-salt server-key server-salt\n";

/// Where keys go, if anywhere.
pub(super) struct KeyLog {
    lines: Option<Sender<Zeroizing<String>>>,
    /// Lines that found no room since the last that did.
    refused: Cell<u64>,
}

impl KeyLog {
    /// Begins, with a warning, if there is a folder.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(super) fn start(folder: Option<PathBuf>) -> Result<KeyLog> {
        let Some(folder) = folder else { return Ok(KeyLog { lines: None, refused: Cell::new(0) }) };
        private_folder::check("KEYLOG_DIR", &folder)?;
        tracing::warn!(
            folder = %folder.display(),
            "KEYLOG_DIR is set: the keys of every call are written down, and whoever has them and a recording of the \
             network hears what is said"
        );
        let (queue, lines) = bounded(QUEUE_LEN);
        let files = Files { folder, current: None, number: 0 };
        thread::Builder::new()
            .name("key-log".into())
            .spawn(move || write(files, &lines))
            .context("KEYLOG_DIR")?;
        Ok(KeyLog { lines: Some(queue), refused: Cell::new(0) })
    }

    /// A handshake gave these keys.
    pub(super) fn take(&self, transport: TransportId, keys: &KeyingMaterial) {
        let Some(lines) = &self.lines else { return };
        let time = Now::read().ntp.unix_seconds();
        if lines.try_send(line(time.into(), transport, keys)).is_ok() {
            let refused = self.refused.take();
            if refused > 0 {
                tracing::warn!(refused, "keys are written again; those of so many handshakes are missing");
            }
            return;
        }
        if self.refused.get() == 0 {
            tracing::warn!("keys are not written: the disk does not keep up; calls go on");
        }
        self.refused.set(self.refused.get() + 1);
    }
}

/// Until the server ends.
fn write(mut files: Files, lines: &Receiver<Zeroizing<String>>) {
    let mut missed = 0_u64;
    for line in lines {
        match files.write(line.as_bytes()) {
            Ok(()) if missed > 0 => {
                tracing::warn!(missed, "keys are written again; those of so many handshakes are missing");
                missed = 0;
            }
            Ok(()) => {}
            Err(error) => {
                // Once: a full disk would say it at each handshake.
                if missed == 0 {
                    tracing::warn!(%error, "keys are not written; calls go on");
                }
                missed += 1;
            }
        }
    }
}

struct Files {
    folder: PathBuf,
    current: Option<Current>,
    /// Of the next file.
    number: u32,
}

struct Current {
    file: File,
    len: u64,
}

impl Files {
    /// A whole line, or nothing.
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let has_room = |current: &Current| {
            let is_there = current.file.metadata().is_ok_and(|metadata| metadata.nlink() > 0);
            is_there && current.len + line.len() as u64 <= FILE_LEN_MAX
        };
        let current = match self.current.take().filter(has_room) {
            Some(current) => self.current.insert(current),
            None => {
                let opened = self.open()?;
                self.current.insert(opened)
            }
        };
        current.append(line)
    }

    fn open(&mut self) -> io::Result<Current> {
        if count(&self.folder, EXTENSION)? >= FILE_COUNT_MAX {
            return Err(io::Error::other("KEYLOG_DIR holds as many files as it may; take some away"));
        }
        let (seconds, process) = (Now::read().ntp.unix_seconds(), std::process::id());
        let name = format!("sfu-{seconds}-{process}-{}{EXTENSION}", self.number);
        let file = create(&self.folder.join(&name))?;
        self.number += 1;
        tracing::warn!(file = name, "the keys of calls go to this file from now on");
        let mut current = Current { file, len: 0 };
        current.append(HEADER.as_bytes())?;
        Ok(current)
    }
}

impl Current {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(bytes) {
            // Half a line is none: the next one begins where this one did.
            self.file.set_len(self.len)?;
            return Err(error);
        }
        self.len += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_bounded_in_size_and_number_and_a_lost_one_is_made_anew() {
        let folder = std::env::temp_dir().join(format!("sfu-key-log-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let mut files = Files { folder: folder.clone(), current: None, number: 0 };
        let line = [b'x'; 300 << 10];
        let written = (0..).take_while(|_| files.write(&line).is_ok()).count();
        assert_eq!(written, 3 * FILE_COUNT_MAX);
        let lens: Vec<_> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .collect();
        assert_eq!(lens.len(), FILE_COUNT_MAX);
        assert!(lens.iter().all(|len| *len <= FILE_LEN_MAX));
        // Somebody takes all of them away.
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(files.write(&line).is_err());
        std::fs::create_dir(&folder).unwrap();
        files.write(&line).unwrap();
        files.write(&line).unwrap();
        let count = std::fs::read_dir(&folder).unwrap().count();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(count, 1);
    }
}
