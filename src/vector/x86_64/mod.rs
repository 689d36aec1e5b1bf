//! What x86-64 has, entered through a [`Vaes`].

mod aes;
mod cpu;
mod ctr;
mod gcm;
mod ghash;
mod memory;
mod sha1;

pub use cpu::Vaes;
pub use ctr::Ctr;
pub use gcm::Gcm;
pub use memory::{fetch, fetch_start_behind};
pub use sha1::HmacSha1;
