//! Authorization through the real server: who gets in, who is heard, and what a moderator can do. Tokens are
//! signed by something else than the server's own code.

#[path = "../support/mod.rs"]
mod support;

mod command;
mod grants;
mod moderation;
mod signer;
mod tokens;
