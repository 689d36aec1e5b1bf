//! What whoever runs this machine takes of it, booked as stolen or not: some hosts never say. Another process that runs
//! meanwhile counts as well, as does what keeps the load's CPU awake.

use std::time::{Duration, Instant};

use anyhow::Result;
use gryt_sfu::net::thread::pin_to;
use gryt_sfu::time::Now;

/// For which every CPU spins: alone, one often gets what two at once do not.
const LENGTH: Duration = Duration::from_secs(1);
/// A timer's tick or an interrupt is over much earlier.
const GAP_MIN: Duration = Duration::from_micros(500);

/// Time in which a CPU that had something to do was not there.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Absence {
    /// Of the CPU that lacked most, in percent.
    pub(crate) percent: f64,
    pub(crate) longest_ms: f64,
}

impl Absence {
    /// Of all CPUs while all of them spin.
    pub(crate) fn measure(cpus: &[usize]) -> Result<Absence> {
        let found: Vec<Result<Absence>> = std::thread::scope(|scope| {
            let spin = |cpu: usize| move || pin_to(&[cpu]).map(|()| of_clock(|| Now::read().instant, LENGTH));
            let threads: Vec<_> = cpus.iter().map(|cpu| scope.spawn(spin(*cpu))).collect();
            threads
                .into_iter()
                .map(|thread| Ok(thread.join().map_err(|_| anyhow::anyhow!("what spins panicked"))??))
                .collect()
        });
        found.into_iter().try_fold(Absence::default(), |all, one| Ok(all.or_worse(one?)))
    }

    pub(crate) fn or_worse(self, other: Absence) -> Absence {
        Absence {
            percent: self.percent.max(other.percent),
            longest_ms: self.longest_ms.max(other.longest_ms),
        }
    }
}

fn of_clock(mut now: impl FnMut() -> Instant, length: Duration) -> Absence {
    let began = now();
    let (mut last, mut lost, mut longest) = (began, Duration::ZERO, Duration::ZERO);
    while last.duration_since(began) < length {
        let gap = now().duration_since(last);
        last += gap;
        if gap >= GAP_MIN {
            lost += gap;
            longest = longest.max(gap);
        }
    }
    let passed = last.duration_since(began);
    Absence {
        percent: 100.0 * lost.as_secs_f64() / passed.as_secs_f64(),
        longest_ms: longest.as_secs_f64() * 1e3,
    }
}

#[test]
fn only_what_no_interrupt_explains_is_an_absence() {
    let start = Now::read().instant;
    let clock = |micros: &'static [u64]| {
        let mut at = start;
        let mut steps = micros.iter().cycle();
        move || {
            let now = at;
            at += Duration::from_micros(*steps.next().unwrap());
            now
        }
    };
    // Ticks of 400 µs are the machine's own.
    assert_eq!(of_clock(clock(&[1, 99, 400]), LENGTH), Absence::default());
    let absent = of_clock(clock(&[1_000, 7_000, 400, 400, 600, 600]), LENGTH);
    assert!((absent.percent - 92.0).abs() < 0.5 && absent.longest_ms == 7.0, "{absent:?}");
    let longer = Absence { percent: 1.0, longest_ms: 9.0 };
    assert_eq!(absent.or_worse(longer), Absence { percent: absent.percent, longest_ms: 9.0 });
}
