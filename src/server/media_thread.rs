//! One worker and its backend on one thread: the loop of the house.
//!
//! A wake-up does, in this order: 1 orders of control, 2 what other workers relay, 3 datagrams, 4 relaying, so that
//! others seal while we do, 5 sealing and sending, 6 what is due, 7 news. Each is bounded, so that none starves the next.

use std::collections::VecDeque;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError};

use super::backlog::Backlog;
use super::batch_wait::{BatchWait, Seen};
use super::overload::Overload;
use crate::ids::{WORKER_COUNT_MAX, WorkerId};
use crate::net::backend::{Backend, Wake};
use crate::net::thread::{self, CpuWait};
use crate::net::wake::Waker;
use crate::packet::DropReason;
use crate::throttle::throttled;
use crate::time::Now;
use crate::worker::Worker;
use crate::worker::command::Command;
use crate::worker::event::Event;
use crate::worker::relay::Relay;

/// Orders taken in one wake-up.
const COMMAND_COUNT_MAX: usize = 256;
/// Relayed datagrams taken in one wake-up, from each worker.
const RELAY_COUNT_MAX: usize = 256;
/// When news that found no room are tried again.
const RETRY: Duration = Duration::from_millis(1);
/// How often the backend is asked what it counted, which takes system calls.
const COUNT_INTERVAL: Duration = Duration::from_millis(100);
/// After fewer datagrams than that, in and out, it is soon enough when counters are published: at some tens of µs each they
/// bring no worker near its limit.
const COUNT_DATAGRAMS_MIN: u64 = 500;
/// What may wait for a worker in the queues of all others together: 6 MiB.
const RELAY_COUNT_TOTAL: usize = 4096;
/// What may wait for a worker in one other's queue, where there are few.
const RELAY_QUEUE_LEN_MAX: usize = 1024;

const _: () = assert!(RELAY_COUNT_TOTAL / WORKER_COUNT_MAX >= 64);

/// What may wait for a worker in the queue of one of `worker_count - 1` others.
pub(super) fn relay_queue_len(worker_count: usize) -> usize {
    (RELAY_COUNT_TOTAL / worker_count).min(RELAY_QUEUE_LEN_MAX)
}

/// A worker's ends of all queues.
pub(super) struct Queues {
    /// Orders.
    pub commands: Receiver<Command>,
    /// News.
    pub events: Sender<Event>,
    /// Wakes control.
    pub control: Waker,
    /// From each other worker.
    pub relays_in: Vec<(WorkerId, Receiver<Relay>)>,
    /// To each other worker.
    pub relays_out: Vec<RelayOut>,
}

/// The way to another worker.
pub(super) struct RelayOut {
    /// Who.
    pub worker: WorkerId,
    /// Its queue.
    pub queue: Sender<Relay>,
    /// Wakes it.
    pub waker: Waker,
    /// What carries state and did not fit.
    pub backlog: VecDeque<Relay>,
}

/// Runs until [`Command::Stop`].
///
/// # Errors
/// When the backend is lost.
pub(super) fn run<B: Backend>(
    mut backend: B,
    mut worker: Worker,
    mut queues: Queues,
    mut batch_wait: BatchWait,
    mut overload: Option<Overload>,
) -> std::io::Result<()> {
    let mut backlog = Backlog::default();
    let cpu_wait = CpuWait::of_this_thread();
    worker.counters.backend = Some(B::NAME);
    let mut now = Now::read();
    let mut end = now;
    let mut is_behind = false;
    let (mut count_at, mut counted) = (now.instant, 0);
    let mut orders = 0;
    while !worker.is_stopped() {
        let due = worker.next_timeout().saturating_duration_since(end.instant);
        let has_backlog =
            !backlog.is_empty() || queues.relays_out.iter().any(|lane| !lane.backlog.is_empty());
        let timeout = match (is_behind, has_backlog) {
            (true, _) => Duration::ZERO,
            (false, true) => due.min(RETRY),
            (false, false) => due,
        };
        let Wake { woken, coalescing } = backend.wait(Some(timeout))?;
        now = Now::read();
        worker.set_coalescing(coalescing);
        let datagrams_before = worker.counters.datagrams_in;

        // A queue is looked into when there is something in it: each look is at memory that another thread wrote last.
        let has_orders = woken || is_behind;
        is_behind = false;
        let mut is_shared = queues.relays_in.iter().any(|(_, queue)| !queue.is_empty());
        // Each part is taken up again after a fault that ended a room in it.
        while has_orders
            && worker.contain(|worker| is_behind |= obey(worker, now, &queues, &mut backend, &mut orders))
        {
        }
        while worker.contain(|worker| is_behind |= take_relays(worker, now, &queues, &mut backend)) {}
        while worker.contain(|worker| {
            while let Some((datagram, egress)) = backend.next() {
                worker.handle_datagram(now, datagram, egress);
            }
        }) {}
        let relays = worker.take_relays();
        is_shared |= relays.len() > 0;
        let dropped = send_relays(relays, &mut queues.relays_out);
        worker.counters.drop_many(DropReason::RelayFull, dropped);
        // After a fault in either the others are to hear of the peers that went with the room.
        while worker.contain(|worker| worker.flush(now, backend.egress())) {
            is_behind = true;
        }
        backend.submit();
        let handled = worker.counters.datagrams_in + worker.counters.datagrams_out;
        let is_worth_it = handled - counted >= COUNT_DATAGRAMS_MIN || worker.publishes_counters(now);
        if now.instant >= count_at && is_worth_it {
            (count_at, counted) = (now.instant + COUNT_INTERVAL, handled);
            count(&mut worker, &mut backend, &cpu_wait);
            if let Some(overload) = &mut overload {
                let wanted = worker.counters.cpu_ns + worker.counters.cpu_wait_ns;
                worker.set_tick(overload.look(now.instant, Duration::from_nanos(wanted)));
                worker.counters.overload_ns = overload.lasted().as_nanos() as u64;
            }
        }
        while worker.contain(|worker| worker.handle_timeout(now, backend.egress())) {
            is_behind = true;
        }

        let batch_len = worker.counters.datagrams_in - datagrams_before;
        if batch_len > 0 {
            worker.counters.batches.record(batch_len);
        }
        send_events(&mut worker, &queues, &mut backlog);
        end = Now::read();
        let worked = end.instant.duration_since(now.instant);
        let seen = Seen::of(&worker, orders);
        backend.set_batch_wait(batch_wait.look(now.instant, worked, worker.tick(), seen, is_shared));
        worker.record_latencies(end);
        worker.counters.busy_ns += worked.as_nanos() as u64;
        worker.counters.wakeups += 1;
    }
    // What says goodbye is on its way before the sockets close.
    backend.wait(Some(Duration::ZERO))?;
    Ok(())
}

/// Orders of control; `true` when more may wait.
fn obey<B: Backend>(
    worker: &mut Worker,
    now: Now,
    queues: &Queues,
    backend: &mut B,
    orders: &mut u64,
) -> bool {
    for _ in 0..COMMAND_COUNT_MAX {
        let Ok(command) = queues.commands.try_recv() else { return false };
        *orders += 1;
        worker.handle_command(now, command, backend.egress());
    }
    true
}

/// What other workers relay; `true` when more may wait.
fn take_relays<B: Backend>(worker: &mut Worker, now: Now, queues: &Queues, backend: &mut B) -> bool {
    let mut is_behind = false;
    for (from, queue) in &queues.relays_in {
        let mut count = 0;
        while let Ok(mut relay) = queue.try_recv() {
            worker.handle_relay(now, *from, &mut relay, backend.egress());
            count += 1;
            if count == RELAY_COUNT_MAX {
                is_behind = true;
                break;
            }
        }
    }
    is_behind
}

/// Adds what the backend saw. What it received and sent the worker has counted itself.
fn count<B: Backend>(worker: &mut Worker, backend: &mut B, cpu_wait: &CpuWait) {
    let counted = backend.take_counters();
    let counters = &mut worker.counters;
    counters.cpu_ns = thread::cpu_time().as_nanos() as u64;
    counters.cpu_wait_ns = cpu_wait.read().as_nanos() as u64;
    counters.enters += counted.enters;
    counters.sends += counted.sends();
    counters.segmentation_refused += counted.segmentation_refused;
    counters.receive_starved += counted.receive_starved;
    counters.receive_errors += counted.receive_errors;
    counters.receive_overflows += counted.receive_overflows;
    counters.completions_held_back += counted.completions_held_back;
    if counted.segmentation_refused > 0 {
        let count = counted.segmentation_refused;
        throttled!(
            warn,
            count,
            "the kernel refused sends of several datagrams, which left one by one instead"
        );
    }
    for (len, count) in counted.trains.iter().enumerate().filter(|(_, count)| **count > 0) {
        counters.trains.record_many(len as u64, *count);
    }
    for &reason in DropReason::ALL {
        worker.counters.drop_many(reason, counted.dropped(reason));
    }
    for unsent in backend.take_unsent() {
        worker.handle_unsent(&unsent.path, unsent.reason, unsent.count);
    }
}

/// Returns how many datagrams and packets found no room.
fn send_relays(relays: impl Iterator<Item = (WorkerId, Relay)>, lanes: &mut [RelayOut]) -> u64 {
    let mut dropped = 0;
    for (to, relay) in relays {
        let Some(lane) = lanes.iter_mut().find(|lane| lane.worker == to) else { continue };
        lane.flush();
        dropped += lane.send(relay);
    }
    for lane in lanes {
        lane.flush();
        if !lane.queue.is_empty() {
            lane.waker.wake();
        }
    }
    dropped
}

impl RelayOut {
    /// Returns how many datagrams or packets were dropped: 0 or 1.
    fn send(&mut self, relay: Relay) -> u64 {
        let queue_len = self.queue.capacity().unwrap_or_default();
        let room_for = match &relay {
            Relay::Datagram { is_stun: true, .. } => queue_len / 4,
            // Messages that carry state always find a place.
            Relay::Datagram { .. } | Relay::Voice(_) | Relay::Clock { .. } => queue_len * 3 / 4,
            Relay::Learn(_) | Relay::Keep { .. } | Relay::Forget(_) => queue_len,
        };
        let carries_state = matches!(relay, Relay::Learn(_) | Relay::Keep { .. } | Relay::Forget(_));
        if !self.backlog.is_empty() || self.queue.len() >= room_for {
            if carries_state {
                self.backlog.push_back(relay);
                return 0;
            }
            return 1;
        }
        match self.queue.try_send(relay) {
            Ok(()) => {
                // So much at once: it begins with the first while the rest still comes, or there is no room for it.
                if self.queue.len() == queue_len / 4 {
                    self.waker.wake();
                }
                0
            }
            Err(TrySendError::Full(relay) | TrySendError::Disconnected(relay)) => {
                if carries_state {
                    self.backlog.push_back(relay);
                    return 0;
                }
                1
            }
        }
    }

    fn flush(&mut self) {
        while let Some(relay) = self.backlog.pop_front() {
            if let Err(TrySendError::Full(relay)) = self.queue.try_send(relay) {
                self.backlog.push_front(relay);
                return;
            }
        }
    }
}

fn send_events(worker: &mut Worker, queues: &Queues, backlog: &mut Backlog) {
    let before = queues.events.len();
    let news = worker.take_events();
    let has_news = news.len() > 0 || !backlog.is_empty();
    let dropped = backlog.hand_over(news, &queues.events);
    worker.counters.drop_many(DropReason::ControlFull, dropped);
    if queues.events.len() > before || has_news {
        queues.control.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
    use std::vec::Drain;

    use crossbeam_channel::{bounded, unbounded};
    use stun::agent::TransactionId;
    use stun::attributes::ATTR_USERNAME;
    use stun::fingerprint::FINGERPRINT;
    use stun::integrity::MessageIntegrity;
    use stun::message::{BINDING_REQUEST, Message, Setter};
    use stun::textattrs::TextAttribute;

    use super::*;
    use crate::ice::credentials::{LocalCredentials, RemoteCredentials, Secret};
    use crate::ids::{RoomId, TrackId, TransportId};
    use crate::net::backend::Unsent;
    use crate::net::busy_poll::BusyPollError;
    use crate::net::mmsg::Mmsg;
    use crate::net::socket::{self, WorkerSockets};
    use crate::net::wake::{WakeListener, WakeReader, waker};
    use crate::net::{Counters, Options, Wake};
    use crate::packet::{Datagram, Path, SocketId};
    use crate::room::rewrite::Stretch;
    use crate::rtp::extension::Values;
    use crate::srtp::index::PacketIndex;
    use crate::time::RtpTime;
    use crate::worker::Settings;
    use crate::worker::relay::{RelayBytes, Voice};

    const THERE: WorkerId = WorkerId(1);

    fn voice(index: u64) -> Relay {
        Relay::Voice(Voice {
            track: TrackId(1),
            stretch: Stretch(1),
            index: PacketIndex(index),
            timestamp: RtpTime(0),
            marker: false,
            values: Values::default(),
            arrived: None,
            payload: RelayBytes::new(b"voice"),
        })
    }

    fn learn(port: u16) -> Relay {
        let address = IpAddr::from([192, 0, 2, 1]);
        Relay::Learn(Path { socket: SocketId(0), local: address, remote: SocketAddr::new(address, port) })
    }

    /// A thread's ends, and the others.
    struct Scene {
        secret: Secret,
        sockets: WorkerSockets,
        reader: WakeReader,
        worker: Worker,
        queues: Queues,
        commands: Sender<Command>,
        waker: Waker,
        _events: Receiver<Event>,
        _control: WakeReader,
    }

    impl Scene {
        fn new(relays_out: Vec<RelayOut>) -> Scene {
            let secret = Secret::from_bytes(&[1; 32]);
            let settings = Settings {
                id: WorkerId(0),
                port_sharers: 1,
                secret: secret.clone(),
                audio_slots: 8,
                tick: Duration::ZERO,
                pad_max: 0,
                seed: [7; 32],
            };
            let (commands, orders) = unbounded();
            let (news, events) = unbounded();
            let (control, control_reader) = waker().unwrap();
            let (waker, reader) = waker().unwrap();
            Scene {
                secret,
                sockets: socket::bind(0..=0, 1, &[Ipv4Addr::LOCALHOST.into()]).unwrap().remove(0),
                reader,
                worker: Worker::new(Now::read(), settings),
                queues: Queues { commands: orders, events: news, control, relays_in: Vec::new(), relays_out },
                commands,
                waker,
                _events: events,
                _control: control_reader,
            }
        }
    }

    fn without_batch_wait() -> BatchWait {
        BatchWait::new(Now::read().instant, Duration::ZERO)
    }

    fn binding_request(local: &LocalCredentials) -> Vec<u8> {
        let mut message = Message::new();
        let setters: [Box<dyn Setter>; 5] = [
            Box::new(BINDING_REQUEST),
            Box::new(TransactionId::new()),
            Box::new(TextAttribute::new(ATTR_USERNAME, format!("{}:peer", local.ufrag.as_str()))),
            Box::new(MessageIntegrity::new_short_term_integrity(local.password.as_str().to_owned())),
            Box::new(FINGERPRINT),
        ];
        message.build(&setters).unwrap();
        message.raw
    }

    /// Tells before each wait how long it may last.
    struct Watched<F> {
        backend: Mmsg,
        before_wait: F,
    }

    impl<F: FnMut(Duration)> Backend for Watched<F> {
        type Egress = <Mmsg as Backend>::Egress;

        const NAME: &'static str = Mmsg::NAME;

        fn wait(&mut self, timeout: Option<Duration>) -> std::io::Result<Wake> {
            (self.before_wait)(timeout.unwrap_or(Duration::MAX));
            self.backend.wait(timeout)
        }

        fn next(&mut self) -> Option<(Datagram<'_>, &mut Self::Egress)> {
            self.backend.next()
        }

        fn egress(&mut self) -> &mut Self::Egress {
            self.backend.egress()
        }

        fn submit(&mut self) {
            self.backend.submit();
        }

        fn set_busy_poll(&mut self, time: Duration) -> Result<(), BusyPollError> {
            self.backend.set_busy_poll(time)
        }

        fn set_batch_wait(&mut self, batch_wait: Duration) {
            self.backend.set_batch_wait(batch_wait);
        }

        fn sockets(&self) -> &WorkerSockets {
            self.backend.sockets()
        }

        fn take_counters(&mut self) -> Counters {
            self.backend.take_counters()
        }

        fn take_unsent(&mut self) -> Drain<'_, Unsent> {
            self.backend.take_unsent()
        }
    }

    /// Else it would wait for all that is due besides.
    #[test]
    fn what_a_wake_up_has_to_send_leaves_in_that_wake_up() {
        let scene = Scene::new(Vec::new());
        let local = scene.secret.credentials(WorkerId(0));
        let remote = RemoteCredentials::parse("peer", "aPasswordOf22Characters").unwrap();
        let (room, transport) = (RoomId(1), TransportId(1));
        scene.commands.send(Command::AddRoom(room)).unwrap();
        scene.commands.send(Command::AddTransport { transport, room, local, remote }).unwrap();
        scene.waker.wake();
        let peer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        peer.set_nonblocking(true).unwrap();
        peer.send_to(&binding_request(&local), (Ipv4Addr::LOCALHOST, scene.sockets.port())).unwrap();
        let (mut waits, mut answered_before) = (0, None);
        let before_wait = |_| {
            waits += 1;
            if answered_before.is_none() && peer.recv(&mut [0; 1_500]).is_ok() {
                answered_before = Some(waits);
                scene.commands.send(Command::Stop).unwrap();
                scene.waker.wake();
            }
        };
        let backend = Mmsg::new(scene.sockets, scene.reader, Options::default()).unwrap();
        let backend = Watched { backend, before_wait };
        run(backend, scene.worker, scene.queues, without_batch_wait(), None).unwrap();
        assert_eq!(answered_before, Some(2));
    }

    /// Without anything that would wake the thread.
    #[test]
    fn what_carries_state_and_found_no_room_is_tried_again_soon() {
        let (queue, there) = bounded(4);
        (0..4).for_each(|index| queue.send(voice(index)).unwrap());
        let (waker, _reader) = waker().unwrap();
        let lane = RelayOut { worker: THERE, queue, waker, backlog: [learn(7)].into() };
        let scene = Scene::new(vec![lane]);
        let (mut waits, mut taken) = (Vec::new(), 0);
        let before_wait = |at_most| {
            waits.push(at_most);
            match waits.len() {
                2 => taken = there.try_iter().count(), // It was tried in vain by then.
                3 => {
                    scene.commands.send(Command::Stop).unwrap();
                    scene.waker.wake();
                }
                _ => {}
            }
        };
        let backend = Mmsg::new(scene.sockets, scene.reader, Options::default()).unwrap();
        let backend = Watched { backend, before_wait };
        run(backend, scene.worker, scene.queues, without_batch_wait(), None).unwrap();
        assert_eq!(taken, 4, "no more than found room");
        assert!(matches!(there.try_recv(), Ok(Relay::Learn(path)) if path.remote.port() == 7));
        assert!(waits[..2].iter().all(|at_most| *at_most <= RETRY), "{waits:?}");
    }

    #[test]
    fn a_full_queue_costs_packets_that_are_counted_and_nothing_that_carries_state() {
        let (queue, there) = bounded(8);
        let (waker, _reader) = waker().unwrap();
        let mut lanes = [RelayOut { worker: THERE, queue, waker, backlog: VecDeque::new() }];
        let relays = (0..10).map(|index| (THERE, voice(index)));
        assert_eq!(send_relays(relays, &mut lanes), 4, "a quarter is kept for what may not be lost");
        let relays = [(THERE, learn(1)), (THERE, learn(2)), (THERE, learn(3)), (WorkerId(9), voice(0))];
        assert_eq!(send_relays(relays.into_iter(), &mut lanes), 0);
        assert_eq!(lanes[0].backlog.len(), 1);
        let came: Vec<u64> = there
            .try_iter()
            .filter_map(|relay| match relay {
                Relay::Voice(voice) => Some(voice.index.0),
                _ => None,
            })
            .collect();
        assert_eq!(came, [0, 1, 2, 3, 4, 5], "in their order");
        assert_eq!(send_relays([(THERE, voice(10))].into_iter(), &mut lanes), 0);
        assert!(
            matches!(there.try_recv(), Ok(Relay::Learn(path)) if path.remote.port() == 3),
            "the oldest first"
        );
        assert_eq!((there.len(), lanes[0].backlog.len()), (1, 0));
    }

    /// It waits for nothing more: who listens here hears it later the longer this worker waits.
    #[test]
    fn a_voice_from_another_worker_is_no_lull() {
        let Scene { sockets, reader, mut worker, .. } = Scene::new(Vec::new());
        let mut backend = Mmsg::new(sockets, reader, Options::default()).unwrap();
        worker.handle_relay(Now::read(), THERE, &mut voice(0), backend.egress());
        assert_eq!(Seen::of(&worker, 3), Seen { voice: 1, orders: 3, datagrams: 0 });
    }

    /// Else what came while this worker had no CPU found no room there, where nobody had begun yet.
    #[test]
    fn a_worker_that_is_handed_much_at_once_begins_before_that_is_over() {
        let (queue, there) = bounded(16);
        let (waker, reader) = waker().unwrap();
        let mut lanes = [RelayOut { worker: THERE, queue, waker, backlog: VecDeque::new() }];
        let (tell, told) = bounded(1);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
            runtime.block_on(async { WakeListener::new(reader).unwrap().woken().await }).unwrap();
            tell.send(there.len()).unwrap();
            there
        });
        let relays = (0..8).map(|index| {
            if index == 4 {
                assert_eq!(told.recv_timeout(Duration::from_secs(10)), Ok(4));
            }
            (THERE, voice(index))
        });
        assert_eq!(send_relays(relays, &mut lanes), 0);
        assert_eq!(thread.join().unwrap().len(), 8);
    }

    #[test]
    fn what_waits_for_a_worker_is_bounded_however_many_there_are() {
        for count in 2..=WORKER_COUNT_MAX {
            let len = relay_queue_len(count);
            assert!((64..=RELAY_QUEUE_LEN_MAX).contains(&len) && len * (count - 1) <= RELAY_COUNT_TOTAL);
        }
    }
}
