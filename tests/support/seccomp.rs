//! Filters of system calls, as container engines set them.

use std::io;

/// Lets these system calls end with `action` (`SECCOMP_RET_…`) for the calling thread and whatever it starts.
pub fn forbid(calls: &[libc::c_long], action: u32) -> io::Result<()> {
    let instruction = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let ret = libc::BPF_RET | libc::BPF_K;
    // The number of the system call comes first in `seccomp_data`. Of a fixed size, since a child between fork
    // and exec must not allocate.
    let mut filter = [instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0); 16];
    let mut len = 1;
    for call in calls {
        filter[len] = instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, *call as u32);
        filter[len + 1] = instruction(ret, 0, 0, action);
        len += 2;
    }
    filter[len] = instruction(ret, 0, 0, libc::SECCOMP_RET_ALLOW);
    let program = libc::sock_fprog { len: len as u16 + 1, filter: filter.as_mut_ptr() };
    // SAFETY: takes numbers only; the thread can gain no privileges from here on.
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
