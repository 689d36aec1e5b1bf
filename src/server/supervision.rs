//! What a supervisor is told, and what ends the process rather than leave half a server.

use std::future::Future;
use std::io;

use sd_notify::NotifyState;
use tokio::task::spawn_local;

use super::house::House;
use crate::config::Config;
use crate::http::Status;
use crate::net::limits;

/// A task that the server cannot be without: a panic in it ends the process, and a supervisor starts it anew.
pub(super) fn essential(name: &'static str, task: impl Future<Output = ()> + 'static) {
    let task = spawn_local(task);
    spawn_local(async move {
        if task.await.is_err_and(|error| error.is_panic()) {
            tracing::error!(task = name, "a part of the server panicked, giving up");
            std::process::exit(1);
        }
    });
}

/// Says to systemd, if it started us, that we serve, and from now on that we are well: as long as this thread
/// and every worker answer.
pub(super) fn report_ready(house: House) {
    report(NotifyState::Ready);
    let Some(period) = sd_notify::watchdog_enabled() else { return };
    essential("the watchdog", async move {
        loop {
            if house.ready().is_ok() || house.is_draining() {
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
        tracing::warn!(%error, "cannot tell the supervisor");
    }
}

/// Descriptors besides those of connections: rings, sockets, queues, the log, captures.
const DESCRIPTORS_BESIDES: u64 = 256;
/// WebSockets for each participant: one that comes back is not turned away for its own dead connection.
const DESCRIPTORS_PER_CONNECTION: u64 = 2;

/// What in this machine's set-up will hurt, with what to do. Raises the limit of descriptors as far as it may.
pub(super) fn self_check(config: &Config) -> Vec<String> {
    let mut advice = vec![];
    let wanted = config.max_connections as u64 * DESCRIPTORS_PER_CONNECTION + DESCRIPTORS_BESIDES;
    match limits::raise_descriptors(wanted) {
        Ok(limit) => advice.extend(descriptor_advice(limit, wanted, config.max_connections)),
        Err(error) => advice.push(format!("cannot read the limit of file descriptors: {error}")),
    }
    advice.extend(clock_advice(limits::clock_source()));
    advice
}

fn descriptor_advice(limit: u64, wanted: u64, max_connections: usize) -> Option<String> {
    (limit < wanted).then(|| {
        format!(
            "{limit} file descriptors are too few for MAX_CONNECTIONS={max_connections}; raise the hard limit to \
             {wanted} (ulimit -Hn, LimitNOFILE)"
        )
    })
}

/// A clock that the kernel must be asked for, instead of the CPU, costs a system call a wake-up.
fn clock_advice(source: io::Result<String>) -> Option<String> {
    let source = source.ok()?; // Not every container shows it.
    let is_fast =
        matches!(source.as_str(), "tsc" | "kvm-clock" | "arch_sys_counter" | "hyperv_clocksource_tsc_page");
    (!is_fast)
        .then(|| format!("the clock source is {source}, which is slow to read; tsc or kvm-clock is not"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_given_where_there_is_something_to_do() {
        assert_eq!(descriptor_advice(2256, 2256, 1000), None);
        assert!(descriptor_advice(1024, 2256, 1000).unwrap().contains("2256"));
        assert_eq!(clock_advice(Ok("tsc".into())), None);
        assert!(clock_advice(Ok("hpet".into())).unwrap().contains("hpet"));
        assert_eq!(clock_advice(Err(io::ErrorKind::NotFound.into())), None);
    }
}
