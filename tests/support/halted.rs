//! A thread that hangs.

use std::fs;
use std::path::PathBuf;

/// A thread of a child that stands still, as one that the machine gives no time; goes on when dropped. Belongs to the
/// thread that made it.
pub struct Halted(libc::pid_t);

impl Halted {
    /// The thread of this name.
    pub fn thread(process: u32, name: &str) -> Halted {
        let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
        let is_it =
            |path: &PathBuf| fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name);
        let task =
            tasks.map(|task| task.expect("it runs").path()).find(is_it).expect("a thread of this name");
        let id =
            task.file_name().and_then(|id| id.to_str()).and_then(|id| id.parse().ok()).expect("a number");
        let halted = Halted(id);
        halted.trace(libc::PTRACE_SEIZE);
        halted.trace(libc::PTRACE_INTERRUPT);
        let mut status = 0;
        // SAFETY: the pointer is to a live number.
        let waited = unsafe { libc::waitpid(id, &raw mut status, libc::__WALL) };
        assert!(waited == id && libc::WIFSTOPPED(status), "{status}");
        halted
    }

    fn trace(&self, what: libc::c_uint) {
        assert!(self.asks(what), "a child may be traced: {}", std::io::Error::last_os_error());
    }

    fn asks(&self, what: libc::c_uint) -> bool {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: these requests read and write no memory of ours.
        unsafe { libc::ptrace(what, self.0, none, none) == 0 }
    }
}

impl Drop for Halted {
    fn drop(&mut self) {
        // Also where the test has failed: a traced thread would keep its process from ending.
        self.asks(libc::PTRACE_DETACH);
    }
}
