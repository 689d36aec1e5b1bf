//! Session descriptions, and offer and answer, against clients of several makes.

mod fixtures;
mod glare;
mod join;
mod parse;
mod script;
mod sim;
mod slots;
mod str0m_client;
