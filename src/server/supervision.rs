//! What a supervisor is told, and what ends the process rather than leave half a server.

use std::future::Future;

use sd_notify::NotifyState;
use tokio::task::spawn_local;

use super::house::House;
use super::logging;
use crate::throttle::throttled;

/// A task that the server cannot be without: a panic in it ends the process, and a supervisor starts it anew.
pub(super) fn essential(name: &'static str, task: impl Future<Output = ()> + 'static) {
    let task = spawn_local(task);
    spawn_local(async move {
        if task.await.is_err_and(|error| error.is_panic()) {
            tracing::error!(task = name, "a part of the server panicked, giving up");
            logging::give_up();
        }
    });
}

/// Says to systemd, if it started us, that we serve, and from now on that we are well: as long as this thread
/// and every worker answer, to the end of the last call.
pub(super) fn report_ready(house: House) {
    report(NotifyState::Ready);
    let Some(period) = sd_notify::watchdog_enabled() else { return };
    essential("the watchdog", async move {
        loop {
            if house.workers_answer() {
                report(NotifyState::Watchdog);
            }
            tokio::time::sleep(period / 3).await;
        }
    });
}

/// Says to systemd that the end has begun.
pub(super) fn report_stopping() {
    report(NotifyState::Stopping);
}

fn report(state: NotifyState<'_>) {
    // Without a supervisor this does nothing.
    if let Err(error) = sd_notify::notify(&[state]) {
        throttled!(warn, %error, "cannot tell the supervisor");
    }
}
