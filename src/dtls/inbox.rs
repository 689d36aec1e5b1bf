//! Datagrams that wait for an endpoint: a few during a handshake, none before and after it, and nothing is kept for
//! them then.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use tokio::sync::Notify;

/// What comes beyond is dropped and sent again by the peer.
const LEN_MAX: usize = 32;

/// A queue from the endpoint's owner to its task, which ends with the owner. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Inbox(Rc<Waiting>);

#[derive(Default)]
struct Waiting {
    datagrams: RefCell<VecDeque<Bytes>>,
    came: Notify,
}

impl Inbox {
    /// Dropped when there are too many.
    pub(super) fn put(&self, datagram: Bytes) {
        let mut datagrams = self.0.datagrams.borrow_mut();
        if datagrams.len() < LEN_MAX {
            datagrams.push_back(datagram);
            self.0.came.notify_one();
        }
    }

    /// The oldest; waits for one. Loses none when it is dropped half-way.
    pub(super) async fn next(&self) -> Bytes {
        loop {
            if let Some(datagram) = self.take() {
                return datagram;
            }
            self.0.came.notified().await;
        }
    }

    fn take(&self) -> Option<Bytes> {
        let mut datagrams = self.0.datagrams.borrow_mut();
        let datagram = datagrams.pop_front();
        if datagrams.is_empty() {
            *datagrams = VecDeque::new();
        }
        datagram
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_order_up_to_a_bound_and_without_memory_when_empty() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let inbox = Inbox::default();
            for number in 0..100_u8 {
                inbox.put(Bytes::copy_from_slice(&[number]));
            }
            for number in 0..LEN_MAX as u8 {
                assert_eq!(inbox.next().await, [number][..]);
            }
            assert_eq!(inbox.0.datagrams.borrow().capacity(), 0);
            tokio::join!(async { assert_eq!(inbox.next().await, [7][..]) }, async {
                inbox.put(Bytes::from_static(&[7]));
            });
        });
    }
}
