//! A row of a table: each subject several times, by turns, and the medians.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail, ensure};
use gryt_sfu::time::Now;
use serde_json::Value;

use super::books::{Sample, at_rest, samples};
use super::host::Absence;
use super::network::Network;
use super::plan::{Case, Table};
use super::queue::{self, Queue, queues};
use super::subject::{Load, Running, Subject};

/// Seconds after the last join that are not counted: reports of a start, cold caches.
const SKIPPED: usize = 1;
/// A run in which another machine took more of ours says nothing.
const STEAL_MAX: f64 = 1.0;
/// Runs that are thrown away, for each that is kept.
const THROWN_AWAY_MAX: u32 = 2;

/// What one run, or the median of several, found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    /// CPU time of the process for each delivered packet, in µs.
    pub(crate) process_us: f64,
    /// The same for the server's CPU as a whole, whoever used it, above what it does at rest; not a number where it has
    /// none of its own.
    pub(crate) machine_us: f64,
    /// The same for both CPUs, the load's own work included; not a number where they are shared.
    pub(crate) both_us: f64,
    /// Of the process, in percent of a CPU.
    pub(crate) cpu_percent: f64,
    pub(crate) delivered_per_second: f64,
    /// Of the whole run, its beginning included; of several the worst.
    pub(crate) loss_percent: f64,
    /// Of the seconds that count, of several the worst.
    pub(crate) counted_loss_percent: f64,
    /// Datagrams that came and that the load tool did not read in time, among those that are lost; of several runs the
    /// worst.
    pub(crate) overflowed: f64,
    /// For how many seconds of the run a worker's packets waited for others, as its CPU was used up.
    pub(crate) overload_s: f64,
    /// Of the load tool's busiest thread, in percent of a CPU: near 100 its voices come late and in bursts.
    pub(crate) load_cpu_percent: f64,
    /// By which another CPU handed the load's what it had for it, for each delivered packet: each costs the sender
    /// what several datagrams do. Not a number where the load has no CPU of its own.
    pub(crate) interrupts: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    /// For how long voices lay in the server's receive queue; not a number where nobody asked.
    pub(crate) queue_p50_ms: f64,
    pub(crate) queue_p99_ms: f64,
}

/// With so many decimals; a dash where there is no such figure.
pub(crate) fn or_dash(figure: f64, decimals: usize) -> String {
    if figure.is_nan() { "–".to_owned() } else { format!("{figure:.decimals$}") }
}

/// What a case found, subject by subject.
pub(crate) struct Row {
    pub(crate) x: f64,
    pub(crate) label: String,
    pub(crate) subjects: Vec<(Figures, Beside)>,
    pub(crate) thrown_away: u32,
    /// Runs that count in spite of stolen time: by then too many had been thrown away.
    pub(crate) kept_stolen: u32,
    /// In percent of the server's CPU: its work while neither server nor load is there.
    pub(crate) at_rest: f64,
    /// Before each turn, the worst of it.
    pub(crate) absence: Absence,
}

/// Measures a case.
pub(crate) fn measure(network: &Network, table: &Table, case: &Case, runs: u32, seconds: u32) -> Result<Row> {
    let mut all: Vec<Vec<Figures>> = vec![Vec::new(); table.subjects.len()];
    let (mut thrown_away, mut kept_stolen) = (0, 0);
    let (mut rests, mut absence) = (Vec::new(), Absence::default());
    for _ in 0..runs {
        absence = absence.or_worse(Absence::measure(&[network.server_cpu, network.load_cpu])?);
        let at_rest = if table.is_spread { 0.0 } else { at_rest(network, seconds)? };
        rests.push(at_rest);
        for ((name, subject), kept) in table.subjects.iter().zip(&mut all) {
            loop {
                let (figures, steal) = run(network, table, subject, &case.load, seconds, at_rest)
                    .with_context(|| format!("{}, {}, {name}", table.name, case.label))?;
                let is_stolen = steal > STEAL_MAX;
                if !is_stolen || thrown_away >= THROWN_AWAY_MAX * runs {
                    kept_stolen += u32::from(is_stolen);
                    kept.push(figures);
                    break;
                }
                thrown_away += 1;
            }
        }
    }
    let subjects: Vec<(Figures, Beside)> = all.iter().map(|runs| found(runs, &all[0])).collect();
    for ((name, _), (figures, beside)) in table.subjects.iter().zip(&subjects) {
        println!(
            "  {:<16} {name:<22} {:6.2} µs process {:>6} µs machine {:5.2} ×  {:7.0}/s  loss {:.3} %  p50 {:.3} p99 {:.3} ms",
            case.label,
            figures.process_us,
            or_dash(figures.machine_us, 2),
            beside.cost,
            figures.delivered_per_second,
            figures.loss_percent,
            figures.p50_ms,
            figures.p99_ms,
        );
    }
    let (x, label, at_rest) = (case.x.into(), case.label.clone(), median(rests));
    Ok(Row { x, label, subjects, thrown_away, kept_stolen, at_rest, absence })
}

/// Held against the first subject's run of the same turn: a machine that is slower for a minute is so for both.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Beside {
    /// The worse of the two ways to count CPU time, as a multiple.
    pub(crate) cost: f64,
    /// Both CPUs, as a multiple.
    pub(crate) both: f64,
    /// What it takes longer.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
}

impl Beside {
    fn of(run: &Figures, first: &Figures) -> Beside {
        let ratio = |mine: f64, first: f64| if first > 0.0 { mine / first } else { 0.0 };
        Beside {
            // Where there is no such figure, the other one is the greater.
            cost: ratio(run.process_us, first.process_us).max(ratio(run.machine_us, first.machine_us)),
            both: ratio(run.both_us, first.both_us),
            p50_ms: run.p50_ms - first.p50_ms,
            p99_ms: run.p99_ms - first.p99_ms,
            p999_ms: run.p999_ms - first.p999_ms,
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Each figure's own.
fn medians<T, const N: usize>(runs: &[T], figures: [fn(&T) -> f64; N]) -> [f64; N] {
    figures.map(|figure| median(runs.iter().map(figure).collect()))
}

/// The medians of a subject's runs, and of what they are beside the first subject's.
fn found(runs: &[Figures], first: &[Figures]) -> (Figures, Beside) {
    let [process_us, machine_us, both_us, cpu_percent] =
        medians(runs, [|run| run.process_us, |run| run.machine_us, |run| run.both_us, |run| run.cpu_percent]);
    let [delivered_per_second, load_cpu_percent, interrupts] =
        medians(runs, [|run| run.delivered_per_second, |run| run.load_cpu_percent, |run| run.interrupts]);
    let [overload_s] = medians(runs, [|run| run.overload_s]);
    let worst = |figure: fn(&Figures) -> f64| runs.iter().map(figure).reduce(f64::max).unwrap_or_default();
    let (loss_percent, overflowed) = (worst(|run| run.loss_percent), worst(|run| run.overflowed));
    let counted_loss_percent = worst(|run| run.counted_loss_percent);
    let [queue_p50_ms, queue_p99_ms] = medians(runs, [|run| run.queue_p50_ms, |run| run.queue_p99_ms]);
    let [p50_ms, p99_ms, p999_ms] = medians(runs, [|run| run.p50_ms, |run| run.p99_ms, |run| run.p999_ms]);
    let figures = Figures {
        process_us,
        machine_us,
        both_us,
        cpu_percent,
        delivered_per_second,
        loss_percent,
        counted_loss_percent,
        overflowed,
        overload_s,
        load_cpu_percent,
        interrupts,
        p50_ms,
        p99_ms,
        p999_ms,
        queue_p50_ms,
        queue_p99_ms,
    };
    let pairs: Vec<Beside> = runs.iter().zip(first).map(|(run, first)| Beside::of(run, first)).collect();
    let [cost, both] = medians(&pairs, [|pair| pair.cost, |pair| pair.both]);
    let [p50_ms, p99_ms, p999_ms] =
        medians(&pairs, [|pair| pair.p50_ms, |pair| pair.p99_ms, |pair| pair.p999_ms]);
    (figures, Beside { cost, both, p50_ms, p99_ms, p999_ms })
}

/// What one run found, and the percentage of its time that was stolen.
fn run(
    network: &Network,
    table: &Table,
    subject: &Subject,
    load: &Load,
    seconds: u32,
    at_rest: f64,
) -> Result<(Figures, f64)> {
    let running = Running::start(subject, network, table.is_spread)?;
    let json = std::env::temp_dir().join(format!("sfu-bench-{}.json", std::process::id()));
    let path = json.to_str().context("a name that is text")?;
    // Two more than are counted: the first, and the one that the end cuts off.
    let mut command = running.load(subject, network, load, seconds + SKIPPED as u32 + 1, path)?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let began = Now::read().instant;
    let end = AtomicBool::new(false);
    let is_over = || end.load(Ordering::Relaxed);
    let (output, machine, queues) = std::thread::scope(|scope| -> Result<_> {
        let sampler = scope.spawn(|| samples(network, began, is_over));
        let asker = table.tells_queue.then(|| scope.spawn(|| queues(&running, network, began, is_over)));
        let output = command.output().context("sfu-load cannot be run");
        end.store(true, Ordering::Relaxed);
        let machine = sampler.join().map_err(|_| anyhow::anyhow!("the sampler panicked"))??;
        let queues = asker.map(|asker| asker.join().map_err(|_| anyhow::anyhow!("who asked panicked"))?);
        Ok((output?, machine, queues.transpose()?.unwrap_or_default()))
    })?;
    let text = String::from_utf8_lossy(&output.stderr);
    let outcome = std::fs::read_to_string(&json);
    let _ = std::fs::remove_file(&json); // It may not have come so far.
    if !output.status.success() {
        let why = outcome.map(|found| failures(&found)).unwrap_or_default();
        bail!("sfu-load ended with {}: {why}\n{}", output.status, text.trim());
    }
    let outcome: Value = serde_json::from_str(&outcome?)?;
    let (mut figures, steal) = figures(&outcome, load, &machine, &queues, at_rest)?;
    figures.overload_s = running.overload_seconds(network)?;
    if table.is_spread {
        (figures.machine_us, figures.both_us, figures.interrupts) = (f64::NAN, f64::NAN, f64::NAN);
    }
    Ok((figures, steal))
}

/// What sfu-load's table says of a run that failed, which nobody sees here.
fn failures(found: &str) -> String {
    let found: Value = serde_json::from_str(found).unwrap_or_default();
    let broken =
        found["broken"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    let failures = found["failures"].as_object().into_iter().flatten();
    broken.chain(failures.map(|(why, count)| format!("{count} × {why}"))).collect::<Vec<_>>().join("; ")
}

fn figures(
    outcome: &Value,
    load: &Load,
    machine: &[Sample],
    queues: &[(f64, Queue)],
    at_rest: f64,
) -> Result<(Figures, f64)> {
    let seconds = outcome["seconds"].as_array().context("no seconds")?;
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    let full = f64::from(load.members());
    let all: Vec<&Value> =
        seconds.iter().skip_while(|second| number(&second["connected"]) < full).skip(SKIPPED).collect();
    // The last one ends when the run does.
    let (_, counted) = all.split_last().context("not all members joined")?;
    let (first, last) = (counted.first().context("too short")?, counted.last().context("too short")?);
    let (from, to) = (number(&first["at"]) - 1.0, number(&last["at"]));
    let count = counted.len() as f64;
    let sum = |key: &str| counted.iter().map(|second| number(&second[key])).sum::<f64>();
    let delivered = sum("received_per_second") * load.sent_for_heard();
    ensure!(delivered > 0.0, "nothing was delivered");
    let missing = |second: &Value| {
        let lost = second["loss_percent"].as_f64().unwrap_or(f64::NAN) / 100.0;
        number(&second["received_per_second"]) * lost / (1.0 - lost).max(0.001)
    };
    let missing = counted.iter().map(|second| missing(second)).sum::<f64>();
    let queue = queue::between(queues, from, to);
    let queued_ms = |part| queue.as_ref().map_or(f64::NAN, |queue| queue.quantile_ms(part));
    let within =
        |at: f64| machine.iter().min_by(|a, b| (a.read_at - at).abs().total_cmp(&(b.read_at - at).abs()));
    let (begins, ends) = within(from).zip(within(to)).context("no samples")?;
    let passed = (ends.read_at - begins.read_at).max(0.001);
    let delays = Delays::of(counted)?;
    let servers = (begins.busy_until(ends, |sample| sample.server) - at_rest / 100.0).max(0.0);
    let both = servers + begins.busy_until(ends, |sample| sample.load);
    let figures = Figures {
        process_us: sum("server_cpu_percent") * 1e4 / delivered,
        machine_us: servers * count * 1e6 / delivered,
        both_us: both * count * 1e6 / delivered,
        cpu_percent: sum("server_cpu_percent") / count,
        delivered_per_second: delivered / count,
        loss_percent: number(&outcome["packets"]["loss_percent"]),
        counted_loss_percent: 100.0 * missing / (missing + sum("received_per_second")),
        overflowed: number(&outcome["own"]["overflowed"]),
        overload_s: 0.0,
        load_cpu_percent: sum("own_cpu_percent") / count,
        interrupts: (ends.interrupts - begins.interrupts) / passed * count / delivered,
        p50_ms: delays.quantile(0.5),
        p99_ms: delays.quantile(0.99),
        p999_ms: delays.quantile(0.999),
        queue_p50_ms: queued_ms(0.5),
        queue_p99_ms: queued_ms(0.99),
    };
    Ok((figures, 100.0 * (ends.stolen - begins.stolen) / passed))
}

/// All delays of some seconds, taken together: µs, and how often.
struct Delays(BTreeMap<u64, u64>);

impl Delays {
    fn of(seconds: &[&Value]) -> Result<Delays> {
        let mut all = BTreeMap::new();
        for second in seconds {
            let counts: Vec<(u64, u64)> = serde_json::from_value(second["latency_counts"].clone())?;
            counts.into_iter().for_each(|(micros, count)| *all.entry(micros).or_default() += count);
        }
        Ok(Delays(all))
    }

    /// In ms; of nothing, nothing.
    fn quantile(&self, part: f64) -> f64 {
        let rank = (self.0.values().sum::<u64>() as f64 * part).ceil() as u64;
        let mut seen = 0;
        let found = self.0.iter().find(|(_, count)| {
            seen += **count;
            seen >= rank
        });
        found.map_or(0.0, |(micros, _)| *micros as f64 / 1_000.0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::books::Booked;
    use super::*;

    fn run(process_us: f64, p99_ms: f64) -> Figures {
        Figures { process_us, machine_us: f64::NAN, p99_ms, ..Figures::default() }
    }

    #[test]
    fn runs_are_held_against_those_of_their_turn() {
        // In the second turn the machine is half as fast.
        let first = [run(4.0, 1.0), run(8.0, 2.0), run(4.4, 1.0)];
        let mine = [run(6.0, 1.5), run(11.2, 3.0), run(6.6, 1.7)];
        let (figures, beside) = found(&mine, &first);
        assert_eq!((figures.process_us, figures.p99_ms), (6.6, 1.7));
        assert!((beside.cost - 1.5).abs() < 1e-9 && (beside.p99_ms - 0.7).abs() < 1e-9, "{beside:?}");
        assert_eq!(found(&first, &first).1.cost, 1.0);
    }

    #[test]
    fn only_whole_seconds_with_everybody_count_and_idle_time_is_not_busy() {
        let second = |at: f64, connected: u32, cpu: f64, worst: u64| {
            json!({"at": at, "connected": connected, "received_per_second": 1_000.0, "server_cpu_percent": cpu,
                "own_cpu_percent": 10.0, "loss_percent": if worst == 30_000 { 10.0 } else { 0.0 },
                "latency_counts": [[100, 990], [worst, 10]]})
        };
        let outcome = json!({"packets": {"loss_percent": 0.5}, "own": {"overflowed": 7}, "seconds": [
            second(1.0, 3, 90.0, 90_000), second(2.0, 6, 90.0, 90_000), second(3.0, 6, 1.0, 1_000),
            second(4.0, 6, 2.0, 30_000), second(5.0, 6, 3.0, 2_000), second(5.2, 6, 90.0, 90_000)]});
        // A quarter of the server's CPU is busy, a twentieth at rest, half of the load's; of all time, 3 ms were stolen while it counted.
        let machine: Vec<Sample> = (0..=60)
            .map(|tenth| f64::from(tenth) / 10.0)
            .map(|at| Sample {
                read_at: at,
                server: Booked { at, idle: at * 0.75 },
                load: Booked { at, idle: at * 0.5 },
                stolen: at / 1_000.0,
                interrupts: at * 50.0,
            })
            .collect();
        let voice = super::super::subject::Voice::Constant;
        let load = Load { rooms: 2, speakers: 1, listeners: 2, voice, hear_every: 1, deaf_speakers: false };
        let whole = |load: &Load| figures(&outcome, load, &machine, &[], 5.0).unwrap();
        let mut relay = outcome.clone(); // Whose seconds do not tell what they lost.
        relay["seconds"][3].as_object_mut().and_then(|second| second.remove("loss_percent"));
        let (figures_of_relay, _) = figures(&relay, &load, &machine, &[], 5.0).unwrap();
        assert!(figures_of_relay.counted_loss_percent.is_nan(), "{figures_of_relay:?}");
        assert_eq!(
            whole(&Load { hear_every: 2, ..load }).0.process_us,
            10.0,
            "one of two hears what both are sent"
        );
        let (figures, steal) = whole(&load);
        assert_eq!(figures.process_us, 20.0, "2 % of a CPU, by 1,000 packets a second");
        assert!((figures.machine_us - 200.0).abs() < 1e-6, "{figures:?}");
        assert!((figures.both_us - 700.0).abs() < 1e-6, "{figures:?}");
        assert_eq!((figures.loss_percent, figures.overflowed, figures.load_cpu_percent), (0.5, 7.0, 10.0));
        assert!((figures.counted_loss_percent - 100.0 / 28.0).abs() < 1e-9, "111 of 3,111: {figures:?}");
        // Of three thousand the tenth worst is 30 ms, whatever the other seconds had.
        assert_eq!((figures.p50_ms, figures.p99_ms, figures.p999_ms), (0.1, 0.1, 30.0));
        assert!((steal - 0.1).abs() < 1e-6, "{steal}");
        assert!((figures.interrupts - 0.05).abs() < 1e-6, "{figures:?}");
    }

    #[test]
    fn what_a_run_does_not_count_is_no_number_of_several_either() {
        let uncounted = Figures { counted_loss_percent: f64::NAN, ..run(4.0, 1.0) };
        let runs = [uncounted; 2];
        assert!(found(&runs, &runs).0.counted_loss_percent.is_nan());
    }
}
