//! What is counted, and its Prometheus text.

pub mod counters;
pub mod exposition;
pub mod histogram;
