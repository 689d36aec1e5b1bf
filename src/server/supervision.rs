//! What a supervisor is told, and what ends the process rather than leave half a server.

use std::env;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crossbeam_channel::{Sender, bounded};
use sd_notify::NotifyState;
use tokio::task::spawn_local;

use super::house::House;
use super::logging;
use crate::throttle::throttled;

/// A task that the server cannot be without: a panic in it ends the process, and a supervisor starts it anew.
pub(super) fn essential(name: &'static str, task: impl Future<Output = ()> + 'static) {
    watch(name, task, || logging::give_up());
}

fn watch(name: &'static str, task: impl Future<Output = ()> + 'static, give_up: impl FnOnce() + 'static) {
    let task = spawn_local(task);
    spawn_local(async move {
        if task.await.is_err_and(|error| error.is_panic()) {
            tracing::error!(task = name, "a part of the server panicked, giving up");
            give_up();
        }
    });
}

/// Words that may wait: that we serve, that we are well, and that the end has begun.
const WORD_COUNT_MAX: usize = 3;

/// Who watches over the process: systemd, if it started us. A thread of its own speaks to it, which is all that one who
/// does not listen holds up; the end of the process is the end of that thread. Clones are the same.
#[derive(Clone)]
pub(super) struct Supervisor(Option<Words>);

#[derive(Clone)]
struct Words {
    queue: Sender<NotifyState<'static>>,
    /// Those that it has not taken, the one under way included.
    untaken: Arc<AtomicUsize>,
}

impl Supervisor {
    /// Begins to speak, if there is somebody to be told.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(super) fn start() -> io::Result<Supervisor> {
        if env::var_os("NOTIFY_SOCKET").is_none() {
            return Ok(Supervisor(None));
        }
        let (queue, words) = bounded(WORD_COUNT_MAX);
        let untaken = Arc::new(AtomicUsize::new(0));
        let taken = Arc::clone(&untaken);
        let body = move || {
            for word in words {
                // Waits for ever if nobody reads.
                if let Err(error) = sd_notify::notify(&[word]) {
                    throttled!(warn, %error, "cannot tell the supervisor");
                }
                taken.fetch_sub(1, Ordering::AcqRel);
            }
        };
        thread::Builder::new().name("supervisor".into()).spawn(body)?;
        Ok(Supervisor(Some(Words { queue, untaken })))
    }

    /// Says that we serve, and from now on that we are well: as long as this thread and every worker answer, to the
    /// end of the last call.
    pub(super) fn report_ready(&self, house: House) {
        self.say(NotifyState::Ready);
        let Some(period) = sd_notify::watchdog_enabled() else { return };
        let supervisor = self.clone();
        essential("the watchdog", async move {
            loop {
                tokio::time::sleep(period / 3).await;
                if !house.workers_answer() {
                    continue;
                }
                // Nothing is lost with it: the word before says the same. It leaves room for those that come once.
                if supervisor.has_untaken() {
                    throttled!(warn, "the supervisor does not take what it is told");
                } else {
                    supervisor.say(NotifyState::Watchdog);
                }
            }
        });
    }

    /// Says that the end has begun.
    pub(super) fn report_stopping(&self) {
        self.say(NotifyState::Stopping);
    }

    /// Something was said that it has not taken yet.
    pub(super) fn has_untaken(&self) -> bool {
        self.0.as_ref().is_some_and(|words| words.untaken.load(Ordering::Acquire) > 0)
    }

    fn say(&self, word: NotifyState<'static>) {
        let Some(words) = &self.0 else { return };
        words.untaken.fetch_add(1, Ordering::AcqRel);
        if let Err(error) = words.queue.try_send(word) {
            words.untaken.fetch_sub(1, Ordering::AcqRel);
            throttled!(warn, %error, "a word to the supervisor is lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use tokio::task::LocalSet;

    use super::*;

    /// Whether the server gave up, once the task and who watches over it are through.
    async fn gives_up(task: impl Future<Output = ()> + 'static) -> bool {
        let gave_up = Rc::new(Cell::new(false));
        let tasks = LocalSet::new();
        let told = Rc::clone(&gave_up);
        tasks.run_until(async move { watch("a test's", task, move || told.set(true)) }).await;
        tasks.await;
        gave_up.get()
    }

    #[tokio::test]
    async fn a_panic_in_an_essential_task_and_nothing_else_ends_the_process() {
        assert!(gives_up(async { panic!("a fault of ours") }).await);
        assert!(!gives_up(async {}).await);
    }
}
