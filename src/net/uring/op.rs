//! What a completion is about: the one place where `user_data` is written and read.

use crate::packet::SocketId;

/// An operation of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// Multishot receive on a socket.
    Receive(SocketId),
    /// Multishot poll of the waker.
    Wake,
    /// One send.
    Send {
        /// The message it was made from.
        message: u16,
        /// Which use of that message: completions of an earlier one may come late.
        generation: u32,
    },
}

const KIND_RECEIVE: u64 = 1;
const KIND_WAKE: u64 = 2;
const KIND_SEND: u64 = 3;

impl Op {
    /// Kind in the top byte, generation in the next four, then the index.
    pub(super) fn to_user_data(self) -> u64 {
        match self {
            Op::Receive(socket) => KIND_RECEIVE << 56 | u64::from(socket.0),
            Op::Wake => KIND_WAKE << 56,
            Op::Send { message, generation } => {
                KIND_SEND << 56 | u64::from(generation) << 16 | u64::from(message)
            }
        }
    }

    /// `None` for what this ring never submitted.
    pub(super) fn from_user_data(user_data: u64) -> Option<Op> {
        match user_data >> 56 {
            KIND_RECEIVE => Some(Op::Receive(SocketId(user_data as u8))),
            KIND_WAKE => Some(Op::Wake),
            KIND_SEND => Some(Op::Send { message: user_data as u16, generation: (user_data >> 16) as u32 }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_kernel() {
        for op in [
            Op::Receive(SocketId(0)),
            Op::Receive(SocketId(7)),
            Op::Wake,
            Op::Send { message: 0, generation: 0 },
            Op::Send { message: 511, generation: u32::MAX },
        ] {
            assert_eq!(Op::from_user_data(op.to_user_data()), Some(op));
        }
        assert_eq!(Op::from_user_data(0), None);
    }
}
