//! Certificates that are renewed while the server runs and nobody sends SIGHUP: in a container there is no `kill`.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::Notify;

use crate::config::TlsFiles;

/// What has changed and stays so from one look to the next is whole: chain and key are written one after the other.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Notifies whenever the files have changed, from a thread of its own: their disk may be far away.
///
/// # Errors
/// No thread is to be had.
pub(super) fn watch(files: &TlsFiles) -> io::Result<Arc<Notify>> {
    watch_every(LOOK_INTERVAL, files)
}

fn watch_every(interval: Duration, files: &TlsFiles) -> io::Result<Arc<Notify>> {
    let (files, renewed) = (files.clone(), Arc::new(Notify::new()));
    let told = Arc::downgrade(&renewed);
    let look = move || [&files.certificate, &files.key].map(|path| Stamp::of(path));
    let mut taken = look();
    let mut seen = taken.clone();
    let body = move || {
        while let Some(told) = told.upgrade() {
            let now = look();
            if now == seen && now != taken {
                taken = now;
                told.notify_one();
            } else {
                seen = now;
            }
            drop(told);
            thread::sleep(interval);
        }
    };
    thread::Builder::new().name("certificate".into()).spawn(body)?;
    Ok(renewed)
}

/// Which file is there, behind however many links, and since when it says what it says.
#[derive(Clone, PartialEq)]
struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// `None` while there is no such file.
    fn of(path: &Path) -> Option<Stamp> {
        let about = fs::metadata(path).ok()?;
        Some(Stamp {
            device: about.dev(),
            inode: about.ino(),
            len: about.len(),
            modified: (about.mtime(), about.mtime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(20);

    fn write(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
    }

    /// As Kubernetes renews a Secret: the folder that a link names is another one.
    #[tokio::test]
    async fn what_changes_is_told_once_it_stays_whether_written_anew_or_behind_a_link() {
        let folder = std::env::temp_dir().join(format!("sfu-renewal-{}", std::process::id()));
        let link = folder.join("data");
        for version in ["1", "2"] {
            fs::create_dir_all(folder.join(version)).unwrap();
            ["chain", "key"].iter().for_each(|name| write(&folder.join(version).join(name), version));
        }
        std::os::unix::fs::symlink("1", &link).unwrap();
        let files = TlsFiles { certificate: link.join("chain"), key: link.join("key") };
        let renewed = watch_every(INTERVAL, &files).unwrap();
        let told = || tokio::time::timeout(Duration::from_secs(20), renewed.notified());

        std::os::unix::fs::symlink("2", folder.join("next")).unwrap();
        fs::rename(folder.join("next"), &link).unwrap();
        told().await.expect("another folder");
        write(&files.key, "another key");
        told().await.expect("another key");
        // Once each: what is told next is the next change, and not before it.
        let more = tokio::time::timeout(10 * INTERVAL, renewed.notified()).await;
        assert!(more.is_err(), "nothing has changed");
        fs::remove_file(&files.certificate).unwrap();
        told().await.expect("none");
        fs::remove_dir_all(&folder).unwrap();
    }
}
