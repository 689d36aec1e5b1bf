//! A server whose kernel has no BPF for sockets that share a port: a filter of system calls refuses that one option.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Where `seccomp_data` (`linux/seccomp.h`) has the number of the call, and the low half of its third argument.
const NUMBER_AT: u32 = 0;
const OPTION_AT: u32 = if cfg!(target_endian = "little") { 32 } else { 36 };

/// Lets the command, and what it starts, be refused `SO_ATTACH_REUSEPORT_CBPF`.
pub(crate) fn refuse(command: &mut Command) {
    // SAFETY: between fork and exec it makes two system calls and allocates nothing.
    unsafe { command.pre_exec(set_filter) };
}

fn set_filter() -> io::Result<()> {
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let jump = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let ret = (libc::BPF_RET | libc::BPF_K) as u16;
    let mut filter = [
        libc::sock_filter { code: load, jt: 0, jf: 0, k: NUMBER_AT },
        libc::sock_filter { code: jump, jt: 0, jf: 3, k: libc::SYS_setsockopt as u32 },
        libc::sock_filter { code: load, jt: 0, jf: 0, k: OPTION_AT },
        libc::sock_filter { code: jump, jt: 0, jf: 1, k: libc::SO_ATTACH_REUSEPORT_CBPF as u32 },
        libc::sock_filter { code: ret, jt: 0, jf: 0, k: libc::SECCOMP_RET_ERRNO | libc::EPERM as u32 },
        libc::sock_filter { code: ret, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: takes numbers only.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: the program and its instructions are alive; the kernel copies them.
    if unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
