//! What is shipped around the server, as far as it can be tried without a container engine, a cluster and
//! a service manager: linters and parsers read each file, and the server runs as the files would have it.

#[path = "../support/mod.rs"]
mod support;

mod compose;
mod house;
mod image;
mod kubernetes;
mod machine;
mod seccomp;
mod systemd;
