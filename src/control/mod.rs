//! The control plane's books: who is in which room, on which worker, and what the workers are told.
//!
//! One thread owns all of it. Iteration is by join order or by id, never by hash, so that two runs with
//! the same input behave alike.

pub mod participant;
pub mod placement;
pub mod registry;
pub mod workers;
