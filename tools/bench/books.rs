//! What the kernel books of the machine's time while a case runs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use gryt_sfu::net::thread::pin_to;
use gryt_sfu::time::Now;

use super::network::Network;

/// The machine's own books at one moment.
pub(crate) struct Sample {
    /// In seconds, as all that follows.
    pub(crate) read_at: f64,
    pub(crate) server: Booked,
    pub(crate) load: Booked,
    /// That was stolen of all CPUs.
    pub(crate) stolen: f64,
    /// Taken by the load's CPU, ever.
    pub(crate) interrupts: f64,
}

/// What is booked of one CPU, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Booked {
    /// Up to when: it went to sleep then, or awoke.
    pub(crate) at: f64,
    /// Time for which it was idle, ever.
    pub(crate) idle: f64,
}

/// A CPU to which anything is sent and that neither sleeps nor wakes for so long does not sleep at all.
const AWAKE: f64 = 0.1;

impl Sample {
    /// Of the time until `end`, or nearly, the part for which a CPU was busy, from 0 to 1.
    pub(crate) fn busy_until(&self, end: &Sample, cpu: fn(&Sample) -> Booked) -> f64 {
        let known_until = |sample: &Sample| {
            let booked_at = cpu(sample).at;
            if sample.read_at - booked_at > AWAKE { sample.read_at } else { booked_at }
        };
        let passed = (known_until(end) - known_until(self)).max(0.001);
        (1.0 - (cpu(end).idle - cpu(self).idle) / passed).max(0.0)
    }
}

/// Taken on the load's CPU: reading them is work, too.
pub(crate) fn samples(network: &Network, began: Instant, is_over: impl Fn() -> bool) -> Result<Vec<Sample>> {
    pin_to(&[network.load_cpu])?;
    let mut samples = Vec::new();
    while !is_over() {
        let stat = std::fs::read_to_string("/proc/stat")?;
        // user nice system idle iowait irq softirq steal, in 1/100 s.
        let ticks = |name: &str| -> Vec<f64> {
            let line = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_default().split_whitespace().filter_map(|ticks| ticks.parse().ok()).collect()
        };
        // What is not idle is busy: time that was spent idle is measured, the rest is guessed from what ran at each
        // tick, and voices keep step with ticks.
        let timers = std::fs::read_to_string("/proc/timer_list").unwrap_or_default();
        let read_at = began.elapsed().as_secs_f64();
        let booked = |cpu: usize| match idle_of(&timers, cpu) {
            Some(Idle { ago, time }) => Booked { at: read_at - ago, idle: time },
            None => {
                let own = ticks(&format!("cpu{cpu}"));
                Booked { at: read_at, idle: own.iter().skip(3).take(2).sum::<f64>() / 100.0 }
            }
        };
        let (server, load) = (booked(network.server_cpu), booked(network.load_cpu));
        let stolen = ticks("cpu").get(7).copied().unwrap_or_default() / 100.0;
        let interrupts = function_calls(&std::fs::read_to_string("/proc/interrupts")?, network.load_cpu);
        samples.push(Sample { read_at, server, load, stolen, interrupts });
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(samples)
}

/// How long a CPU had been idle, ever, when it last began to be or ceased, in seconds.
#[derive(Debug, PartialEq)]
struct Idle {
    ago: f64,
    time: f64,
}

/// From the kernel's list of timers: to the nanosecond, where `/proc/stat` knows hundredths of a second, of which a
/// server that hardly works takes less than one each second. `None` of a kernel that has no such list, or not for us.
fn idle_of(timers: &str, cpu: usize) -> Option<Idle> {
    let seconds = |text: &str| -> Option<f64> {
        let nanoseconds: u64 = text.strip_suffix(" nsecs")?.trim_start_matches([' ', ':']).parse().ok()?;
        Some(Duration::from_nanos(nanoseconds).as_secs_f64())
    };
    let now = seconds(timers.lines().find_map(|line| line.strip_prefix("now at"))?)?;
    let own = timers.split("\ncpu: ").find_map(|part| part.strip_prefix(&format!("{cpu}\n")))?;
    let of = |name: &str| seconds(own.lines().find_map(|line| line.trim_start().strip_prefix(name))?);
    let time = of(".idle_sleeptime")? + of(".iowait_sleeptime")?;
    Some(Idle { ago: now - of(".idle_entrytime")?, time })
}

/// Interrupts by which other CPUs asked this one to do something; none where the kernel does not count them.
fn function_calls(table: &str, cpu: usize) -> f64 {
    let mut lines = table.lines();
    let heads = lines.next().unwrap_or_default();
    let column = heads.split_whitespace().position(|head| head == format!("CPU{cpu}"));
    let row = lines.find(|line| line.ends_with("Function call interrupts"));
    let count =
        row.zip(column).and_then(|(row, column)| row.split_whitespace().nth(1 + column)?.parse().ok());
    count.unwrap_or_default()
}

/// How busy the server's CPU is without server and load, in percent.
pub(crate) fn at_rest(network: &Network, seconds: u32) -> Result<f64> {
    let (began, length) = (Now::read().instant, Duration::from_secs(seconds.into()));
    let sampler = || samples(network, began, || began.elapsed() > length);
    // A thread of its own, as it is pinned.
    let samples = std::thread::scope(|scope| scope.spawn(sampler).join());
    let samples = samples.map_err(|_| anyhow::anyhow!("the sampler panicked"))??;
    let (first, last) = samples.first().zip(samples.last()).context("no samples")?;
    Ok(first.server.busy_percent_until(&last.server))
}

impl Booked {
    /// Of a CPU that may sleep for long: what is booked is all that is known, and nothing of one that slept all the time.
    fn busy_percent_until(&self, last: &Booked) -> f64 {
        let passed = last.at - self.at;
        if passed > 0.0 { 100.0 * (1.0 - (last.idle - self.idle) / passed).max(0.0) } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_that_never_woke_was_at_rest() {
        let (slept, woke) = (Booked { at: 5.0, idle: 4.0 }, Booked { at: 7.0, idle: 5.5 });
        assert_eq!(slept.busy_percent_until(&woke), 25.0);
        assert_eq!(slept.busy_percent_until(&Booked { at: 5.0, idle: 4.0 }), 0.0);
    }

    #[test]
    fn idle_time_is_of_the_cpu_and_of_the_moment_it_was_booked() {
        let timers = "Timer List Version: v0.10\nnow at 9500000000 nsecs\n\ncpu: 0\n  .idle_entrytime : 1 nsecs\n\
            jiffies: 7\n\ncpu: 1\n clock 0:\n  .offset:     0 nsecs\n  .idle_entrytime : 9250000000 nsecs\n  \
            .idle_sleeptime : 4000000125 nsecs\n  .iowait_sleeptime: 1000000000 nsecs\n\ncpu: 11\n";
        assert_eq!(idle_of(timers, 1), Some(Idle { ago: 0.25, time: 5.000_000_125 }));
        assert_eq!([0, 2, 11].map(|cpu| idle_of(timers, cpu)), [None, None, None]);
        assert_eq!(idle_of("", 0), None);
    }

    #[test]
    fn a_cpu_that_never_sleeps_is_busy() {
        let sample = |read_at, at, idle| {
            let (server, load) = (Booked { at, idle }, Booked { at: read_at, idle: 0.0 });
            Sample { read_at, server, load, stolen: 0.0, interrupts: 0.0 }
        };
        let busy = |from: &Sample, to: &Sample| from.busy_until(to, |sample| sample.server);
        let asleep = sample(10.0, 9.999, 5.0);
        let other = asleep.busy_until(&sample(11.0, 10.999, 5.25), |sample| sample.load);
        assert!((other - 1.0).abs() < 1e-9, "the other CPU is another");
        assert!((busy(&asleep, &sample(11.0, 10.999, 5.25)) - 0.75).abs() < 1e-9);
        // Awake for the last four tenths of a second, and for good.
        assert!((busy(&asleep, &sample(11.0, 10.6, 5.2)) - 0.8).abs() < 1e-3);
        assert!((busy(&sample(11.0, 10.6, 5.2), &sample(12.0, 10.6, 5.2)) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn interrupts_are_read_in_their_cpus_column() {
        let table = "           CPU0       CPU2\n  1:   7   8   IO-APIC   1-edge   i8042\n\
            RES:   3   4   Rescheduling interrupts\nCAL:   11   1200345   Function call interrupts\n";
        assert_eq!([0, 1, 2].map(|cpu| function_calls(table, cpu)), [11.0, 0.0, 1_200_345.0]);
        assert_eq!(function_calls("", 0), 0.0);
    }
}
