//! Asks the workers how their peers are: one snapshot at a time, shared by all who ask meanwhile and for a
//! moment after.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::captures::Captures;
use super::house::House;
use crate::control::workers::Workers;
use crate::http::{CaptureRefused, Capturing, Inspect, Status, View, WorkerSilent};
use crate::ids::WorkerId;
use crate::signalling::Signalling;
use crate::time::Now;
use crate::worker::command::Command;
use crate::worker::snapshot::{PeerSnapshot, Piece};

/// A snapshot is as good as new for so long.
const FRESH: Duration = Duration::from_millis(500);
/// How long whoever asks waits for a worker.
const PATIENCE: Duration = Duration::from_secs(2);
/// A worker that has not answered is not asked again before; a piece may have been lost on the way.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Clones are the same.
#[derive(Clone)]
pub(super) struct Inspector(Rc<Inner>);

struct Inner {
    workers: Workers,
    signalling: Signalling,
    house: House,
    /// Where each worker's media comes in.
    ports: Vec<u16>,
    captures: Captures,
    lanes: RefCell<Vec<Lane>>,
    told: Notify,
}

/// One worker's snapshots.
#[derive(Default)]
struct Lane {
    asked: Option<(u64, Instant)>,
    asked_count: u64,
    gathered: Vec<PeerSnapshot>,
    /// Pieces that came.
    gathered_count: u32,
    latest: Option<(Instant, Rc<[PeerSnapshot]>)>,
}

impl Inspector {
    /// Worker i's UDP port is `ports[i]`.
    pub(super) fn new(
        workers: Workers,
        signalling: Signalling,
        house: House,
        ports: Vec<u16>,
        captures: Captures,
    ) -> Inspector {
        let lanes = RefCell::new(ports.iter().map(|_| Lane::default()).collect());
        Inspector(Rc::new(Inner { workers, signalling, house, ports, captures, lanes, told: Notify::new() }))
    }

    /// A worker told a piece. One of a snapshot that nobody waits for any more is dropped; a snapshot of which a
    /// piece was lost counts for nothing, and whoever waits asks again.
    pub(super) fn take(&self, worker: WorkerId, piece: Piece) {
        let mut lanes = self.0.lanes.borrow_mut();
        let lane = &mut lanes[usize::from(worker.0)];
        if lane.asked.is_none_or(|(request, _)| request != piece.request) {
            return;
        }
        lane.gathered.extend(piece.peers);
        lane.gathered_count += 1;
        if piece.is_last {
            lane.asked = None;
            let gathered = std::mem::take(&mut lane.gathered);
            // They come in their order: as many as the last one's place says, and none is missing.
            if lane.gathered_count == piece.index + 1 {
                lane.latest = Some((Now::read().instant, gathered.into()));
            }
            self.0.told.notify_waiters();
        }
    }
}

impl Inner {
    /// Asks the workers whose last snapshot is stale, unless they are asked already. Everybody's latest once
    /// none is.
    fn ask(&self, now: Instant) -> Result<Vec<Rc<[PeerSnapshot]>>, WorkerSilent> {
        let mut silent = None;
        let mut latest = Vec::new();
        for (index, lane) in self.lanes.borrow_mut().iter_mut().enumerate() {
            let worker = WorkerId(index as u8);
            if let Some((_, peers)) = lane.latest.as_ref().filter(|(at, _)| now.duration_since(*at) < FRESH) {
                latest.push(Rc::clone(peers));
                continue;
            }
            silent = silent.or(Some(WorkerSilent(worker)));
            if lane.asked.is_none_or(|(_, at)| now.duration_since(at) >= ASK_AGAIN) {
                lane.asked_count += 1;
                lane.asked = Some((lane.asked_count, now));
                lane.gathered.clear();
                lane.gathered_count = 0;
                self.workers.send(worker, Command::Snapshot(lane.asked_count));
            }
        }
        silent.map_or(Ok(latest), Err)
    }

    fn view(&self, now: Now, peers: Vec<Rc<[PeerSnapshot]>>) -> View {
        View {
            now,
            rooms: self.signalling.rooms(),
            members: self.signalling.members(),
            peers,
            ports: self.ports.clone(),
            counters: self.house.snapshot(),
        }
    }

    async fn capture(&self, peer: u64, time: Duration) -> Result<Capturing, CaptureRefused> {
        let members = self.signalling.members();
        let member = members.iter().find(|member| member.id.0 == peer).ok_or(CaptureRefused::NoPeer)?;
        let transport = member.transport.filter(|_| member.is_started).ok_or(CaptureRefused::NoTransport)?;
        let rooms = self.signalling.rooms();
        let room = rooms.iter().find(|room| room.id == member.room).ok_or(CaptureRefused::NoPeer)?;
        let port = self.ports.get(usize::from(member.worker.0)).copied().unwrap_or_default();
        let capturing = self.captures.begin(&self.workers, member.worker, transport, port, time).await?;
        let connection = member.connection.map(|connection| connection.0);
        tracing::warn!(
            room = %room.name, user = %member.user, connection, seconds = time.as_secs(), file = capturing.file,
            "an operator captures this peer's packets"
        );
        Ok(capturing)
    }
}

impl Inspect for Inspector {
    fn look(&self) -> Pin<Box<dyn Future<Output = Result<View, WorkerSilent>>>> {
        let inner = Rc::clone(&self.0);
        Box::pin(async move {
            let deadline = Now::read().instant + PATIENCE;
            loop {
                let told = inner.told.notified();
                let silent = match inner.ask(Now::read().instant) {
                    Ok(peers) => return Ok(inner.view(Now::read(), peers)),
                    Err(silent) => silent,
                };
                if tokio::time::timeout_at(deadline.into(), told).await.is_err() {
                    return Err(silent);
                }
            }
        })
    }

    fn capture(
        &self,
        peer: u64,
        time: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<Capturing, CaptureRefused>>>> {
        let inner = Rc::clone(&self.0);
        Box::pin(async move { inner.capture(peer, time).await })
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;

    use super::super::house::tests::house_of;
    use super::*;
    use crate::control::workers::WorkerQueue;

    /// An inspector of a worker that is nothing but its queue.
    fn inspector() -> (Inspector, crossbeam_channel::Receiver<Command>) {
        let (commands, queue) = crossbeam_channel::bounded(8);
        let workers = Workers::new(vec![WorkerQueue { commands, wake: Box::new(|| ()) }]);
        let (house, signalling) = house_of(Now::read().instant, workers.clone());
        let captures = Captures::new(None).unwrap();
        (Inspector::new(workers, signalling, house, vec![9], captures), queue)
    }

    #[tokio::test]
    async fn however_many_ask_a_worker_is_asked_once_and_a_silent_one_is_named() {
        let (inspector, queue) = inspector();
        let crowd = LocalSet::new();
        let asked: Vec<_> = (0..50).map(|_| crowd.spawn_local(inspector.look())).collect();
        crowd
            .run_until(async {
                for asked in asked {
                    assert_eq!(asked.await.unwrap().err(), Some(WorkerSilent(WorkerId(0))));
                }
            })
            .await;
        assert_eq!(queue.len(), 1);
        // It comes to itself: a snapshot that nobody asked for counts for nothing, its own is shared.
        let piece = |request, index, is_last| Piece { request, index, peers: vec![], is_last };
        inspector.take(WorkerId(0), piece(7, 0, true));
        assert!(inspector.0.ask(Now::read().instant).is_err());
        inspector.take(WorkerId(0), piece(1, 0, false));
        assert!(inspector.0.ask(Now::read().instant).is_err(), "half of one is none");
        inspector.take(WorkerId(0), piece(1, 1, true));
        assert!((0..50).all(|_| inspector.0.ask(Now::read().instant).is_ok()));
        assert_eq!(queue.len(), 1, "nobody asks again within the moment");
        assert!(inspector.0.ask(Now::read().instant + FRESH).is_err());
        assert_eq!(queue.len(), 2);
    }

    #[tokio::test]
    async fn a_snapshot_with_a_lost_piece_is_none_and_is_asked_for_again() {
        let (inspector, queue) = inspector();
        let piece = |request, index, is_last| Piece { request, index, peers: vec![], is_last };
        for (request, lost) in [(1, 0), (2, 1)] {
            assert!(inspector.0.ask(Now::read().instant).is_err());
            assert_eq!(queue.len() as u64, request, "asked again at once");
            let pieces = (0..3).filter(|index| *index != lost);
            pieces.for_each(|index| inspector.take(WorkerId(0), piece(request, index, index == 2)));
        }
        assert!(inspector.0.ask(Now::read().instant).is_err());
        (0..3).for_each(|index| inspector.take(WorkerId(0), piece(3, index, index == 2)));
        assert!(inspector.0.ask(Now::read().instant).is_ok());
    }
}
