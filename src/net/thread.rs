//! A thread's place: the CPUs that this process may use, and how to stay on one of them.

use std::fs::{self, File};
use std::io;
use std::mem;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// CPUs that an affinity mask here can name.
const CPU_COUNT_MAX: usize = 8192;

const WORD_BITS: usize = u64::BITS as usize;

/// A media worker asks for this; it must not wait behind batch jobs for its turn.
const NICENESS: libc::c_int = -10;

/// The lowest of realtime: what the kernel itself has there, such as interrupts' threads, still comes first.
const REALTIME_PRIORITY: libc::c_int = 1;

/// Three numbers of 64 bits.
const SCHEDSTAT_LEN_MAX: usize = 3 * 21;

/// Where control groups of version 2 are mounted, also beside version 1.
const CGROUP_ROOTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// The CPUs that the calling thread may run on, ascending.
///
/// # Errors
/// When the kernel does not say.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    let mut mask = [0_u64; CPU_COUNT_MAX / WORD_BITS];
    // SAFETY: the kernel writes at most the mask's length.
    let result = unsafe { libc::sched_getaffinity(0, mem::size_of_val(&mask), mask.as_mut_ptr().cast()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((0..CPU_COUNT_MAX).filter(|cpu| mask[cpu / WORD_BITS] >> (cpu % WORD_BITS) & 1 == 1).collect())
}

/// Keeps the calling thread on `cpus`.
///
/// # Errors
/// When none of them may be used.
pub fn pin_to(cpus: &[usize]) -> io::Result<()> {
    pin(0, cpus)
}

/// Keeps all threads of this process on `cpus`: the calling one and those that were started before.
///
/// # Errors
/// When none of them may be used, or the kernel does not tell the threads; then the calling one at least is there, if it
/// may be.
pub fn pin_all_to(cpus: &[usize]) -> io::Result<()> {
    pin_to(cpus)?;
    for task in fs::read_dir("/proc/self/task")? {
        let name = task?.file_name();
        if let Some(thread) = name.to_str().and_then(|name| name.parse().ok()) {
            // It may have ended meanwhile.
            let _ = pin(thread, cpus);
        }
    }
    Ok(())
}

/// Keeps a thread on `cpus`; 0 is the calling one.
fn pin(thread: libc::pid_t, cpus: &[usize]) -> io::Result<()> {
    let mut mask = [0_u64; CPU_COUNT_MAX / WORD_BITS];
    for cpu in cpus.iter().filter(|cpu| **cpu < CPU_COUNT_MAX) {
        mask[cpu / WORD_BITS] |= 1 << (cpu % WORD_BITS);
    }
    // SAFETY: the kernel reads the mask only.
    let result = unsafe { libc::sched_setaffinity(thread, mem::size_of_val(&mask), mask.as_ptr().cast()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Asks for the calling thread to be scheduled before ordinary ones.
///
/// # Errors
/// Without `CAP_SYS_NICE` or a raised `RLIMIT_NICE`; then the thread is as good as any other.
pub fn raise_priority() -> io::Result<()> {
    // SAFETY: takes no pointer. 0 is the calling thread.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// CPU time that the calling thread has used, in the kernel included.
pub fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one `timespec`.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    if result == 0 { Duration::new(time.tv_sec as u64, time.tv_nsec as u32) } else { Duration::ZERO }
}

/// How long the calling thread waited for a CPU while others had it, or while its control group had used up its share.
#[derive(Debug)]
pub struct CpuWait(Option<File>);

impl CpuWait {
    /// Of the calling thread, also where another one reads it.
    pub fn of_this_thread() -> CpuWait {
        CpuWait(File::open("/proc/thread-self/schedstat").ok())
    }

    /// Until now. Zero where the kernel does not say.
    pub fn read(&self) -> Duration {
        let mut text = [0; SCHEDSTAT_LEN_MAX];
        let len = self.0.as_ref().and_then(|file| file.read_at(&mut text, 0).ok());
        Duration::from_nanos(parse_wait(&text[..len.unwrap_or(0)]).unwrap_or(0))
    }
}

/// Of a line of nanoseconds on a CPU, nanoseconds of waiting for one, times on one.
fn parse_wait(schedstat: &[u8]) -> Option<u64> {
    std::str::from_utf8(schedstat).ok()?.split(' ').nth(1)?.parse().ok()
}

/// Asks for the calling thread to run whenever it can, before all that is not realtime (`SCHED_FIFO`). What it starts
/// is scheduled as usual.
///
/// # Errors
/// Without `CAP_SYS_NICE` or a raised `RLIMIT_RTPRIO`; then nothing has changed.
pub fn run_first() -> io::Result<()> {
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    let parameters = libc::sched_param { sched_priority: REALTIME_PRIORITY };
    // SAFETY: the kernel reads the parameters only. 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How many CPUs' worth of time the control group of this process and those above it grant (cgroup v2
/// `cpu.max`); `None` without a limit.
pub fn cpu_quota() -> Option<f64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = own_group(&groups)?;
    let quotas = CGROUP_ROOTS.iter().flat_map(|root| group_and_ancestors(Path::new(root), group));
    quotas.filter_map(|path| parse_cpu_max(&fs::read_to_string(path.join("cpu.max")).ok()?)).reduce(f64::min)
}

/// CPUs that can be kept busy: by the affinity mask and the quota, at least 1.
pub fn cpu_count() -> usize {
    let allowed = allowed_cpus().map_or(1, |cpus| cpus.len());
    let granted = cpu_quota().map_or(usize::MAX, |quota| quota as usize);
    allowed.min(granted).max(1)
}

/// The version 2 line of `/proc/self/cgroup`: `0::/path`.
fn own_group(groups: &str) -> Option<&str> {
    groups.lines().find_map(|line| line.strip_prefix("0::/"))
}

fn group_and_ancestors(root: &Path, group: &str) -> Vec<PathBuf> {
    let own = root.join(group);
    own.ancestors().take_while(|path| path.starts_with(root)).map(Path::to_path_buf).collect()
}

/// `cpu.max`: quota and period in microseconds, or the word `max`.
fn parse_cpu_max(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period) = (quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?);
    (period > 0).then(|| quota as f64 / period as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quota_is_a_share_of_its_period() {
        assert_eq!(parse_cpu_max("150000 100000\n"), Some(1.5));
        for unlimited in ["max 100000\n", "", "1", "1 0", "x y"] {
            assert_eq!(parse_cpu_max(unlimited), None, "{unlimited:?}");
        }
    }

    #[test]
    fn limits_of_all_groups_above_count() {
        let groups = "5:cpu:/other\n0::/user.slice/sfu.service\n";
        let paths = group_and_ancestors(Path::new("/root"), own_group(groups).unwrap());
        assert_eq!(paths, ["/root/user.slice/sfu.service", "/root/user.slice", "/root"].map(PathBuf::from));
        assert_eq!(group_and_ancestors(Path::new("/root"), ""), [PathBuf::from("/root/")]);
        assert_eq!(own_group("1:name=systemd:/x\n"), None);
    }

    #[test]
    fn cpu_time_is_of_the_thread_that_works() {
        let begun = cpu_time();
        let idle = std::thread::spawn(cpu_time);
        while cpu_time() < begun + Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        assert!(idle.join().unwrap() < Duration::from_millis(20));
    }

    #[test]
    fn one_that_shares_a_cpu_waits_for_it() {
        const WORK: Duration = Duration::from_millis(60);
        let last = *allowed_cpus().unwrap().last().unwrap();
        let work = move || {
            pin_to(&[last]).unwrap();
            let wait = CpuWait::of_this_thread();
            while cpu_time() < WORK {
                std::hint::spin_loop();
            }
            wait.read()
        };
        let waited =
            [std::thread::spawn(work), std::thread::spawn(work)].map(|thread| thread.join().unwrap());
        assert!(waited.iter().sum::<Duration>() > WORK / 2, "{waited:?}");
    }

    #[test]
    fn a_wait_is_the_second_number() {
        assert_eq!(parse_wait(b"438372 49353 3\n"), Some(49353));
        let longest = format!("{max} {max} {max}\n", max = u64::MAX);
        assert_eq!(longest.len(), SCHEDSTAT_LEN_MAX);
        assert_eq!(parse_wait(longest.as_bytes()), Some(u64::MAX));
        for strange in [&b""[..], b"1", b"1 ", b"1 x 3", b"\xff 1 2"] {
            assert_eq!(parse_wait(strange), None, "{strange:?}");
        }
    }

    #[test]
    fn a_pinned_thread_stays() {
        std::thread::spawn(|| {
            let all = allowed_cpus().unwrap();
            let last = *all.last().unwrap();
            pin_to(&[last]).unwrap();
            assert_eq!(allowed_cpus().unwrap(), [last]);
            assert!(pin_to(&[]).is_err());
            assert_eq!(cpu_count(), 1);
            // Granted or not, it must not disturb.
            let _ = raise_priority();
        })
        .join()
        .unwrap();
    }
}
