//! The workers' threads: started with their queues, heard, and stopped.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, bounded};

use super::batch_wait::BatchWait;
use super::handshakes::Handshakes;
use super::house::House;
use super::inspector::Inspector;
use super::io::Io;
use super::logging;
use super::media_thread::{self, Queues, RelayOut};
use super::overload::Overload;
use super::placement::Placement;
use super::refused::Refused;
use crate::config::{Config, Limits, Scheduling};
use crate::control::workers::{WorkerQueue, Workers};
use crate::ice::credentials::Secret;
use crate::ids::WorkerId;
use crate::net::mmsg::Mmsg;
use crate::net::socket::WorkerSockets;
use crate::net::thread as net_thread;
use crate::net::uring::Uring;
use crate::net::wake::{WakeListener, WakeReader, waker};
use crate::net::{Backend, Options};
use crate::signalling::Signalling;
use crate::time::Now;
use crate::worker::command::Command;
use crate::worker::event::Event;
use crate::worker::{Settings, Worker};

/// How soon orders that found no room are tried again.
const RETRY: Duration = Duration::from_millis(1);
/// News taken before other tasks of control have their turn.
const EVENT_COUNT_MAX: usize = 256;

/// All workers.
pub(super) struct Fleet {
    workers: Workers,
    threads: Vec<JoinHandle<()>>,
    placement: String,
    refused: Refused,
}

/// What comes from all workers.
pub(super) struct News {
    wake: WakeReader,
    queues: Vec<Receiver<Event>>,
    workers: Workers,
    /// They look into the card's queue while they wait.
    is_polling: bool,
}

impl Fleet {
    /// Starts a thread a worker. Its sockets are bound already, in the workers' order.
    ///
    /// # Errors
    /// When a thread or its way to the kernel is not to be had.
    pub(super) fn start(
        config: &Config,
        io: &Io,
        sockets: Vec<WorkerSockets>,
        secret: &Secret,
    ) -> Result<(Fleet, News)> {
        let count = sockets.len();
        let shares_port = count > 1 && sockets[0].port() == sockets[count - 1].port();
        let placement = Placement::new(config, count)?;
        placement.keep_control_off();
        let (control, wake) = waker().context("cannot make an eventfd")?;
        let ends =
            (0..count).map(|_| waker()).collect::<Result<Vec<_>, _>>().context("cannot make an eventfd")?;
        let (wakers, readers): (Vec<_>, Vec<_>) = ends.into_iter().unzip();
        // Towards each worker, one queue from each other.
        let relay_len = media_thread::relay_queue_len(count);
        let relays: Vec<Vec<_>> = (0..count)
            .map(|to| (0..count).map(|from| bounded(if to == from { 0 } else { relay_len })).collect())
            .collect();
        let state_len = Limits::state_queue_len(config.max_connections);
        let mut queues = Vec::new();
        let mut lanes = Vec::new();
        let mut threads = Vec::new();
        let mut refused = Refused::default();
        for (index, (sockets, reader)) in sockets.into_iter().zip(readers).enumerate() {
            let id = WorkerId(index as u8);
            let others = (0..count).filter(|&other| other != index);
            let (commands, commands_out) = bounded::<Command>(state_len);
            let (events, events_out) = bounded::<Event>(state_len);
            let ends = Queues {
                commands: commands_out,
                events,
                control: control.clone(),
                relays_in: others
                    .clone()
                    .map(|from| (WorkerId(from as u8), relays[index][from].1.clone()))
                    .collect(),
                relays_out: others
                    .map(|to| RelayOut {
                        worker: WorkerId(to as u8),
                        queue: relays[to][index].0.clone(),
                        waker: wakers[to].clone(),
                        backlog: VecDeque::new(),
                    })
                    .collect(),
            };
            let settings = Settings {
                id,
                port_sharers: if shares_port { count as u8 } else { 1 },
                secret: secret.clone(),
                audio_slots: config.audio_slots,
                tick: config.egress_tick,
                pad_max: config.gso_pad_max,
                seed: random_seed()?,
            };
            let waker = wakers[index].clone();
            lanes.push(WorkerQueue { commands, wake: Box::new(move || waker.wake()) });
            queues.push(events_out);
            let options = Options { batch_wait: config.batch_wait, ..Options::default() };
            let (overload_tick, busy_poll) = (config.overload_tick, config.busy_poll);
            let (scheduling, cpu) = (config.worker_scheduling, placement.cpu(index));
            let thread =
                Thread { settings, sockets, reader, options, overload_tick, busy_poll, scheduling, cpu };
            // Decided once: the loop is compiled for each.
            let (thread, not_granted) = match io {
                Io::Uring(_) => thread.start(ends, |sockets, reader, options| {
                    Uring::new(sockets, reader, options).context("cannot make a worker's ring")
                })?,
                Io::Mmsg { .. } => thread.start(ends, |sockets, reader, options| {
                    Mmsg::new(sockets, reader, options).context("cannot make a worker's epoll")
                })?,
            };
            threads.push(thread);
            refused = refused.or(not_granted);
        }
        let workers = Workers::new(lanes);
        let fleet = Fleet { workers: workers.clone(), threads, placement: placement.to_string(), refused };
        let is_polling = !config.busy_poll.is_zero();
        Ok((fleet, News { wake, queues, workers, is_polling }))
    }

    /// The way to them.
    pub(super) fn workers(&self) -> Workers {
        self.workers.clone()
    }

    /// How many, and on which CPUs.
    pub(super) fn placement(&self) -> &str {
        &self.placement
    }

    /// What they asked for and did not get.
    pub(super) fn refused(&self) -> &Refused {
        &self.refused
    }

    /// Stops all, and waits for them at most `timeout`.
    pub(super) async fn stop(self, timeout: Duration) {
        for index in 0..self.workers.count() {
            self.workers.send(WorkerId(index as u8), Command::Stop);
        }
        let deadline = Now::read().instant + timeout;
        while !self.threads.iter().all(JoinHandle::is_finished) && Now::read().instant < deadline {
            self.workers.retry();
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// What a worker's thread is made of.
struct Thread {
    settings: Settings,
    sockets: WorkerSockets,
    reader: WakeReader,
    options: Options,
    overload_tick: Duration,
    busy_poll: Duration,
    scheduling: Scheduling,
    cpu: Option<usize>,
}

/// Makes a backend, on the thread that is to use it.
type Make<B> = fn(WorkerSockets, WakeReader, Options) -> Result<B>;

impl Thread {
    /// Returns once the backend is there, with what the thread did not get.
    fn start<B: Backend + 'static>(self, queues: Queues, make: Make<B>) -> Result<(JoinHandle<()>, Refused)> {
        let (started, is_started) = bounded(1);
        let (id, asked) = (self.settings.id, self.options.batch_wait);
        let body = move || {
            let mut refused = Refused::default();
            // Before anything is allocated: memory is of the node where it is touched first.
            if let Some(cpu) = self.cpu {
                refused.affinity = net_thread::pin_to(&[cpu]).err();
                if self.settings.port_sharers == 1 {
                    self.sockets.prefer_cpu(cpu);
                }
            }
            if self.scheduling == Scheduling::Fifo {
                refused.scheduling = net_thread::run_first().err();
            }
            // Without the right to it a worker is a thread like any other. One that runs first has no use for it.
            let _ = net_thread::raise_priority();
            let mut backend = match make(self.sockets, self.reader, self.options) {
                Ok(backend) => backend,
                Err(error) => {
                    let _ = started.send(Err(error));
                    return;
                }
            };
            let now = Now::read();
            let batch_wait = BatchWait::new(now.instant, asked);
            // Polling takes all the CPU time there is.
            let overload = self.busy_poll.is_zero().then(|| {
                let (cpu, tick) = (net_thread::cpu_time(), self.settings.tick);
                Overload::new(id, now.instant, cpu, tick, self.overload_tick)
            });
            let worker = Worker::new(now, self.settings);
            if !self.busy_poll.is_zero() {
                refused.busy_poll = backend.set_busy_poll(self.busy_poll).err();
            }
            let _ = started.send(Ok(refused));
            // Rooms would be silent for ever without it: a supervisor restarts the whole.
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                media_thread::run(backend, worker, queues, batch_wait, overload)
            }));
            match outcome {
                Ok(Ok(())) => return,
                Ok(Err(error)) => tracing::error!(worker = %id, %error, "worker lost its sockets, giving up"),
                Err(_) => tracing::error!(worker = %id, "worker panicked, giving up"),
            }
            logging::give_up();
        };
        let thread = thread::Builder::new()
            .name(format!("worker-{id}"))
            .spawn(body)
            .context("cannot start a worker's thread")?;
        let refused = is_started.recv().context("a worker's thread ended at its start")??;
        Ok((thread, refused))
    }
}

impl News {
    /// Takes news for ever and hands them to whom they concern.
    pub(super) async fn pass_on(
        self,
        signalling: Signalling,
        handshakes: Handshakes,
        house: House,
        inspector: Inspector,
    ) {
        let News { wake, queues, workers, is_polling } = self;
        let wake = match WakeListener::new(wake) {
            Ok(wake) => wake,
            Err(error) => {
                tracing::error!(%error, "cannot wait for the workers, giving up");
                logging::give_up();
            }
        };
        let mut has_more = false;
        loop {
            let is_queued = workers.retry();
            if has_more {
                tokio::task::yield_now().await;
            } else if is_queued {
                if wake.woken().await.is_err() {
                    return; // The runtime ends.
                }
            } else {
                // Woken or not, there is something to do then.
                let _ = tokio::time::timeout(RETRY, wake.woken()).await;
            }
            let now = Now::read().instant;
            has_more = false;
            for (index, queue) in queues.iter().enumerate() {
                let worker = WorkerId(index as u8);
                // Of one that has more than can be taken at once, the others are not to wait for the end.
                for event in queue.try_iter().take(EVENT_COUNT_MAX) {
                    match event {
                        Event::Dtls { transport, datagram } => {
                            handshakes.handle_datagram(now, transport, datagram)
                        }
                        Event::Counters(counters) => {
                            // Polling takes CPU time too; what a worker handled tells them apart still.
                            let work = if is_polling { counters.busy_ns } else { counters.cpu_ns };
                            // What an overloaded worker saves is paid for with delay: others are to have new rooms.
                            let load = work + counters.overload_ns / 2;
                            signalling.handle_load(now, worker, Duration::from_nanos(load));
                            house.take(now, worker, *counters);
                        }
                        Event::Snapshot(piece) => inspector.take(worker, *piece),
                        event => signalling.handle_event(now, worker, event),
                    }
                }
                if !queue.is_empty() {
                    has_more = true;
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

fn random_seed() -> Result<[u8; 32]> {
    let mut seed = [0; 32];
    aws_lc_rs::rand::fill(&mut seed).ok().context("the system has no randomness")?;
    Ok(seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::socket;

    /// Rings, buffers and slots are of the node of whoever touches them first.
    #[test]
    fn a_worker_is_on_its_cpu_before_it_has_any_memory() {
        let cpu = *net_thread::allowed_cpus().unwrap().last().unwrap();
        let (wake, reader) = waker().unwrap();
        let settings = Settings {
            id: WorkerId(0),
            port_sharers: 1,
            secret: Secret::random(),
            audio_slots: 1,
            tick: Duration::ZERO,
            pad_max: 0,
            seed: [0; 32],
        };
        let thread = Thread {
            settings,
            sockets: socket::bind(0..=0, 1, &socket::WILDCARDS[..1]).unwrap().remove(0),
            reader,
            options: Options::default(),
            overload_tick: Duration::ZERO,
            busy_poll: Duration::ZERO,
            scheduling: Scheduling::Nice,
            cpu: Some(cpu),
        };
        let queues = Queues {
            commands: bounded(1).1,
            events: bounded(1).0,
            control: wake,
            relays_in: Vec::new(),
            relays_out: Vec::new(),
        };
        let error = thread.start::<Mmsg>(queues, |_, _, _| {
            anyhow::bail!("made on CPUs {:?} of {}", net_thread::allowed_cpus()?, thread_name())
        });
        let said = error.err().map(|error| error.to_string());
        assert_eq!(said, Some(format!("made on CPUs [{cpu}] of worker-0")));
    }

    fn thread_name() -> String {
        thread::current().name().unwrap_or_default().to_owned()
    }
}
