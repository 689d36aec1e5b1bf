//! Offer and answer with one peer (RFC 8829, RFC 3264), without I/O.
//!
//! Each side may offer. We never have two offers outstanding, and changes coalesce while one is. A client's
//! offer that arrives meanwhile is *held*: browsers roll their own back and answer ours, then offer again;
//! a client that keeps its own instead gets, after [`GLARE_WAIT`], ours rolled back and its answer.
//! Both kinds exist, and neither can be told from the other at once: a server that always yields leaves a
//! browser and itself both rolled back, one that never does deadlocks with the other kind.
//!
//! A *voice* is heard through a *slot*: an m-line, tag and SSRC that stay for the life of the transport, while
//! what they carry changes. As long as voices are no more than slots, each has a slot of its own and the
//! `a=msid` there names it; beyond that the worker gives the slots to the loudest and `slots` messages name
//! them. An m-line never goes from one voice to another without being inactive in between: only on the way
//! from there do browsers fire `track`.

mod action;
mod exchange;
mod line;
mod machine;
mod plan;
mod settle;

pub use action::{Action, ErrorCode, Parameters, Voice};
pub use machine::{
    FIRST_OFFER_WAIT, GLARE_WAIT, LATE_ANSWER_WAIT, Negotiation, OFFER_BURST, OFFER_INTERVAL, REOFFER_WAIT,
};
