//! Where the ring is forbidden, as under a container engine's default profile, that is said and nothing
//! worse happens.

use gryt_sfu::net::uring::{Uring, UringError, UringOptions, probe};
use gryt_sfu::net::{socket, wake};

/// Lets `io_uring_setup` fail with EPERM for the calling thread, as seccomp profiles do.
fn forbid_rings() {
    let instruction = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let setup = libc::SYS_io_uring_setup as u32;
    let filter = [
        // The number of the system call comes first in `seccomp_data`.
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, setup),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: takes numbers only; the thread can gain no privileges from here on.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: the program and its instructions are alive; the kernel copies them.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) }, 0);
}

#[test]
fn a_forbidden_ring_is_an_error_that_says_so() {
    forbid_rings();
    let error = probe().unwrap_err();
    assert!(matches!(error, UringError::Refused(_)), "{error:?}");
    assert!(error.to_string().starts_with("io_uring is not allowed here"), "{error}");
    let sockets = socket::bind(0..=0, 1, true).unwrap().remove(0);
    let (_waker, reader) = wake::waker().unwrap();
    assert!(matches!(Uring::new(sockets, reader, UringOptions::default()), Err(UringError::Refused(_))));
}
