//! What a completion is about: the one place where `user_data` is written and read.

use crate::packet::SocketId;

/// An operation of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// Multishot receive on a socket.
    Receive(SocketId),
    /// Multishot poll of the waker.
    Wake,
}

const KIND_RECEIVE: u64 = 1;
const KIND_WAKE: u64 = 2;

impl Op {
    /// Kind in the top byte, the index in the lowest.
    pub(super) fn to_user_data(self) -> u64 {
        match self {
            Op::Receive(socket) => KIND_RECEIVE << 56 | u64::from(socket.0),
            Op::Wake => KIND_WAKE << 56,
        }
    }

    /// `None` for what this ring never submitted.
    pub(super) fn from_user_data(user_data: u64) -> Option<Op> {
        match user_data >> 56 {
            KIND_RECEIVE => Some(Op::Receive(SocketId(user_data as u8))),
            KIND_WAKE => Some(Op::Wake),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_kernel() {
        for op in [Op::Receive(SocketId(0)), Op::Receive(SocketId(7)), Op::Wake] {
            assert_eq!(Op::from_user_data(op.to_user_data()), Some(op));
        }
        assert_eq!(Op::from_user_data(0), None);
    }
}
