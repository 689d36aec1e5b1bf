//! Certificates that are renewed while the server runs. A thread of their own reads them, as their disk may be far away
//! and control has others to serve. It looks for changes by itself: in a container nobody can send SIGHUP.

use std::fs;
use std::io;
use std::mem;
use std::os::unix::fs::MetadataExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::rc::Rc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc;

use super::supervision;
use crate::config::TlsFiles;
use crate::http::{Certificate, Tls, TlsError};
use crate::time::Now;

/// What has changed and stays so from one look to the next is whole: chain and key are written one after the other.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Files that cannot be used are read again after so many looks, a minute, unchanged or not: a disk may have been away.
const LOOKS_TO_RETRY: u32 = 12;

/// Keeps the certificate as new as its files are.
pub(super) struct Renewal {
    requests: SyncSender<()>,
}

impl Renewal {
    /// Reads the files when they change, for `tls`. Runs inside a [`tokio::task::LocalSet`].
    ///
    /// # Errors
    /// No thread is to be had.
    pub(super) fn begin(files: &TlsFiles, tls: Rc<Tls>) -> io::Result<Renewal> {
        let (requests, mut readings) = watch(LOOK_INTERVAL, files.clone(), Certificate::read)?;
        supervision::essential("the certificate's renewal", async move {
            let mut is_refused = false;
            while let Some(Reading { result, is_asked_for }) = readings.recv().await {
                let was_refused = mem::replace(&mut is_refused, result.is_err());
                take(&tls, result, is_asked_for || was_refused);
            }
            std::future::pending().await // The server ends.
        });
        Ok(Renewal { requests })
    }

    /// Reads the files as soon as their disk allows.
    pub(super) fn ask(&self) {
        tracing::info!("SIGHUP: reading TLS_CERT and TLS_KEY");
        let _ = self.requests.try_send(()); // One that waits already is as good.
    }
}

/// For connections from now on; a bad one changes nothing. One that is no other is worth a word only where that `is_news`.
fn take(tls: &Tls, result: Result<Certificate, TlsError>, is_news: bool) {
    match result {
        Ok(certificate) => {
            if !tls.renew(certificate) && !is_news {
                return;
            }
            tracing::info!("new connections get the certificate that TLS_CERT holds now");
            if let Some(warning) = warning(tls) {
                tracing::warn!("{warning}");
            }
        }
        Err(error) => tracing::error!("the certificate in use stays: {error}"),
    }
}

/// What is wrong with the certificate in use, if anything, for an operator.
pub(super) fn warning(tls: &Tls) -> Option<String> {
    tls.warning(Now::read().ntp.unix_seconds())
}

/// What the files hold.
struct Reading<T> {
    result: Result<T, TlsError>,
    is_asked_for: bool,
}

/// Reads the files once they are seen twice alike, whenever they have changed since, and whenever that is requested, on a
/// thread that ends when either end of this is dropped.
fn watch<T: Send + 'static>(
    interval: Duration,
    files: TlsFiles,
    read: impl Fn(&TlsFiles) -> Result<T, TlsError> + Send + 'static,
) -> io::Result<(SyncSender<()>, mpsc::Receiver<Reading<T>>)> {
    let (requests, requested) = sync_channel(1);
    let (tell, readings) = mpsc::channel(1);
    let body = move || {
        let mut looks = Looks::default();
        loop {
            let is_asked_for = match requested.recv_timeout(interval) {
                Ok(()) => true,
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let now = [&files.certificate, &files.key].map(|path| Stamp::of(path));
            if !looks.is_due(&now) && !is_asked_for {
                continue;
            }
            // A panic has been said by now; the next reading may do better.
            let Ok(result) = panic::catch_unwind(AssertUnwindSafe(|| read(&files))) else {
                looks.note_read(now, false);
                continue;
            };
            looks.note_read(now, result.is_ok());
            if tell.blocking_send(Reading { result, is_asked_for }).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("certificate".into()).spawn(body)?;
    Ok((requests, readings))
}

/// The stamps of chain and key.
type Stamps = [Option<Stamp>; 2];

/// What was seen of the files, and what of it was read. Read for the first time as soon as it is seen twice alike: it may
/// have changed since the start read it.
#[derive(Default)]
struct Looks {
    seen: Option<Stamps>,
    taken: Option<Stamps>,
    /// `None`: what was read last can be used.
    until_retry: Option<u32>,
}

impl Looks {
    fn is_due(&mut self, now: &Stamps) -> bool {
        let is_settled = self.seen.as_ref() == Some(now);
        self.seen = Some(now.clone());
        if let Some(looks) = &mut self.until_retry {
            *looks = looks.saturating_sub(1);
        }
        is_settled && (self.taken.as_ref() != Some(now) || self.until_retry == Some(0))
    }

    /// Of what the files were before they were read: a change meanwhile is one that follows.
    fn note_read(&mut self, taken: Stamps, is_good: bool) {
        self.taken = Some(taken);
        self.until_retry = (!is_good).then_some(LOOKS_TO_RETRY);
    }
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
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::Sender;
    use std::sync::{Mutex, mpsc as blocking};

    use super::*;

    const INTERVAL: Duration = Duration::from_millis(20);
    const PATIENCE: Duration = Duration::from_secs(20);

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("sfu-renewal-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn files(&self, within: &str) -> TlsFiles {
            let folder = self.0.join(within);
            TlsFiles { certificate: folder.join("chain"), key: folder.join("key") }
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Key and chain are texts here, good unless the chain is not there.
    fn texts(files: &TlsFiles) -> Result<String, TlsError> {
        let text = |path: &Path| fs::read_to_string(path);
        text(&files.certificate).and_then(|chain| Ok(chain + &text(&files.key)?)).map_err(|error| {
            TlsError::File {
                variable: "TLS_CERT",
                path: files.certificate.display().to_string(),
                fault: error.to_string(),
            }
        })
    }

    async fn next<T>(readings: &mut mpsc::Receiver<Reading<T>>) -> Reading<T> {
        tokio::time::timeout(PATIENCE, readings.recv()).await.expect("in time").expect("it goes on")
    }

    /// As Kubernetes renews a Secret: the folder that a link names is another one.
    #[tokio::test]
    async fn what_changes_is_read_once_it_stays_whether_written_anew_or_behind_a_link() {
        let folder = Folder::new("changes");
        let link = folder.0.join("data");
        for version in ["1", "2"] {
            fs::create_dir(folder.0.join(version)).unwrap();
            let files = folder.files(version);
            [&files.certificate, &files.key].into_iter().for_each(|path| fs::write(path, version).unwrap());
        }
        symlink("1", &link).unwrap();
        let files = folder.files("data");
        let (_requests, mut readings) = watch(INTERVAL, files.clone(), texts).unwrap();
        let first = next(&mut readings).await;
        assert_eq!(first.result.unwrap(), "11", "what changed before anybody watched");
        assert!(!first.is_asked_for);

        symlink("2", folder.0.join("next")).unwrap();
        fs::rename(folder.0.join("next"), &link).unwrap();
        assert_eq!(next(&mut readings).await.result.unwrap(), "22", "another folder");
        fs::write(&files.key, "another key").unwrap();
        assert_eq!(next(&mut readings).await.result.unwrap(), "2another key");
        // Once each: what is told next is the next change, and not before it.
        let more = tokio::time::timeout(10 * INTERVAL, readings.recv()).await;
        assert!(more.is_err(), "nothing has changed");
        fs::remove_file(&files.certificate).unwrap();
        assert!(next(&mut readings).await.result.is_err(), "none");
    }

    #[test]
    fn what_is_still_written_is_not_read_and_what_failed_is_read_again_after_a_minute() {
        let stamps = |len| [Some(Stamp { device: 1, inode: 1, len, modified: (0, 0) }), None];
        let mut looks = Looks::default();
        assert!(!looks.is_due(&stamps(1)));
        assert!(!looks.is_due(&stamps(2)), "it grows");
        assert!(looks.is_due(&stamps(2)));
        looks.note_read(stamps(2), false);
        let until_due = (1..=100).find(|_| looks.is_due(&stamps(2))).unwrap_or(0);
        assert_eq!(until_due * LOOK_INTERVAL.as_secs(), 60);
        looks.note_read(stamps(2), true);
        assert!((0..100).all(|_| !looks.is_due(&stamps(2))), "nothing has changed");
    }

    #[tokio::test]
    async fn what_could_not_be_used_is_read_again_though_nothing_has_changed() {
        let folder = Folder::new("retry");
        let (_requests, mut readings) = watch(INTERVAL, folder.files(""), texts).unwrap();
        for _ in 0..2 {
            assert!(next(&mut readings).await.result.is_err());
        }
    }

    #[tokio::test]
    async fn a_panic_while_it_reads_ends_nothing() {
        let folder = Folder::new("panics");
        let is_first = AtomicBool::new(true);
        let read = move |_: &TlsFiles| {
            assert!(!is_first.swap(false, Ordering::Relaxed), "a file that nobody thought of");
            Ok(())
        };
        let (_requests, mut readings) = watch(INTERVAL, folder.files(""), read).unwrap();
        assert!(next(&mut readings).await.result.is_ok());
    }

    #[tokio::test]
    async fn a_request_is_not_lost_while_a_disk_hangs_and_waits_for_nothing() {
        let folder = Folder::new("hangs");
        let (disk, answers) = blocking::channel::<()>();
        let (began, mut begun) = mpsc::unbounded_channel();
        let answers = Mutex::new(answers);
        let read = move |_: &TlsFiles| {
            let _ = began.send(());
            let _ = answers.lock().unwrap().recv();
            Ok(())
        };
        let (requests, mut readings) = watch(PATIENCE, folder.files(""), read).unwrap();
        let renewal = Renewal { requests };
        renewal.ask();
        begun.recv().await.expect("it reads");
        let (done, asked) = blocking::channel();
        thread::spawn(move || {
            (0..3).for_each(|_| renewal.ask());
            let _ = done.send(renewal);
        });
        let renewal = asked.recv_timeout(PATIENCE).expect("it waits for nothing");
        let release = |disk: &Sender<()>| disk.send(()).unwrap();
        (0..2).for_each(|_| release(&disk));
        for _ in 0..2 {
            assert!(next(&mut readings).await.is_asked_for, "the one before, and one for those after");
        }
        begun.recv().await.expect("it has read again");
        let more = tokio::time::timeout(10 * INTERVAL, begun.recv()).await;
        assert!(more.is_err(), "one for all of them");
        drop(renewal);
        let end = tokio::time::timeout(PATIENCE, readings.recv()).await;
        assert!(end.expect("the thread ends").is_none());
    }
}
