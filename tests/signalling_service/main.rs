//! The signalling service from its front door: text frames and workers' news in, frames and commands out,
//! with a clock that the tests turn. The clients' session descriptions are str0m's.

mod crowd;
mod faults;
mod harness;
mod ice_servers;
mod joining;
mod limits;
mod media;
mod resuming;
mod silent;
mod spanning;
mod storm;
