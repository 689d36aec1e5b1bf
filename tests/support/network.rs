//! A network namespace of a test's own, so that no route of the machine is touched. Needs root, and Debian's `iproute2`.

use std::process::Command;

/// Runs `test` on a thread that has, as everything that it starts, a network of its own: loopback, and nothing else.
pub fn in_a_network_of_its_own(test: impl FnOnce() + Send + 'static) {
    // The namespace ends with the thread.
    let thread = std::thread::spawn(|| {
        // SAFETY: takes a number only, and changes the calling thread alone.
        let left = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(left, 0, "a network namespace needs root: {}", std::io::Error::last_os_error());
        ip("link set lo up");
        test();
    });
    if let Err(cause) = thread.join() {
        std::panic::resume_unwind(cause);
    }
}

/// Runs `ip` with these arguments in the namespace of the calling thread.
pub fn ip(arguments: &str) {
    let output =
        Command::new("ip").args(arguments.split(' ')).output().expect("ip (Debian's `iproute2`) runs");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}
