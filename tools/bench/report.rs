//! What was found, as Markdown and as a page in one file.

use std::fmt::Write;

use super::host::Absence;
use super::measurement::{Figures, Row, or_dash};
use super::network::{LoadCpu, Receive, Segment};
use super::plan::Table;
use super::plot::{Line, Plot, escaped};

const STYLE: &str = include_str!("../load/report.css");

/// Where and how it was measured.
pub(crate) struct About {
    commit: String,
    machine: String,
    runs: u32,
    seconds: u32,
    receive: Receive,
    segment: Segment,
    load_cpu: LoadCpu,
    /// What was to be measured and could not be, a sentence each.
    pub(crate) missing: Vec<String>,
}

impl About {
    pub(crate) fn read(
        runs: u32,
        seconds: u32,
        receive: Receive,
        segment: Segment,
        load_cpu: LoadCpu,
    ) -> About {
        let output = |program: &str, arguments: &[&str]| {
            let output = std::process::Command::new(program).args(arguments).output();
            output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
        };
        let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
        let model = model.map_or("unknown", |(_, model)| model);
        About {
            commit: output("git", &["describe", "--always", "--dirty"]),
            machine: format!("{}, {count} CPUs ({model})", output("uname", &["-sr"])),
            runs,
            seconds,
            receive,
            segment,
            load_cpu,
            missing: Vec::new(),
        }
    }

    fn words(&self) -> String {
        let receive = match self.receive {
            Receive::Receiver => "and takes in there what is for it, as two machines would",
            Receive::Sender => "and takes in there what it sends to the other, as veth does by itself",
        };
        let segment = match self.segment {
            Segment::Receiver => "",
            Segment::Sender => " Trains are cut up by their sender.",
        };
        let load_cpu = match self.load_cpu {
            LoadCpu::Asleep => "",
            LoadCpu::Awake => " The load's CPU is kept from sleeping.",
        };
        let missing: String = self.missing.iter().map(|sentence| format!(" {sentence}")).collect();
        let About { commit, machine, seconds, .. } = self;
        let runs = match self.runs {
            1 => format!("one run of {seconds} s"),
            runs => format!(
                "medians of {runs} runs of {seconds} s by turns, of ratios and differences those of each turn"
            ),
        };
        format!(
            "Commit {commit}, {machine}; {runs}; server and load in network namespaces of their own, \
             joined by veth. Each has one CPU, {receive}; both have all where several workers are compared.{segment}{load_cpu}{missing}"
        )
    }
}

/// Heads and cells of a table.
fn cells(table: &Table, rows: &[Row]) -> (Vec<String>, Vec<Vec<String>>) {
    let heads = [
        table.x,
        "subject",
        "packets/s",
        "loss (while it counts)",
        "not read by the load",
        "µs a packet, process",
        "µs, its CPU",
        "× the first, the worse",
        "µs, both CPUs (× the first's)",
        "p50 (− the first's)",
        "p99",
        "p99.9",
        "the load's own CPU",
        "interrupts of it a packet",
        "overload tick on",
        "receive queue p50, p99",
    ];
    let mut cells = Vec::new();
    for row in rows {
        for ((figures, beside), (name, _)) in row.subjects.iter().zip(&table.subjects) {
            cells.push(vec![
                row.label.clone(),
                (*name).to_owned(),
                format!("{:.0}", figures.delivered_per_second),
                format!("{:.3} % ({})", figures.loss_percent, or_dash(figures.counted_loss_percent, 3)),
                format!("{:.0}", figures.overflowed),
                format!("{:.2}", figures.process_us),
                or_dash(figures.machine_us, 2),
                format!("{:.2}", beside.cost),
                of_both(figures.both_us, beside.both),
                format!("{:.2} ms ({:+.2})", figures.p50_ms, beside.p50_ms),
                format!("{:.2} ms ({:+.2})", figures.p99_ms, beside.p99_ms),
                format!("{:.2} ms ({:+.2})", figures.p999_ms, beside.p999_ms),
                format!("{:.0} %", figures.load_cpu_percent),
                or_dash(figures.interrupts, 3),
                format!("{:.0} s", figures.overload_s),
                if figures.queue_p50_ms.is_nan() {
                    "–".to_owned()
                } else {
                    format!("{:.2}, {:.2} ms", figures.queue_p50_ms, figures.queue_p99_ms)
                },
            ]);
        }
    }
    (heads.map(str::to_owned).into(), cells)
}

fn of_both(us: f64, ratio: f64) -> String {
    if us.is_nan() { "–".to_owned() } else { format!("{us:.2} ({ratio:.2})") }
}

/// Under a table.
fn remarks(rows: &[Row]) -> String {
    let count: u32 = rows.iter().map(|row| row.thrown_away).sum();
    let kept = match rows.iter().map(|row| row.kept_stolen).sum::<u32>() {
        0 => String::new(),
        kept => format!(" {kept} with as much of it count, as no others were to be had."),
    };
    let at_rest = rows.iter().map(|row| row.at_rest).fold(0.0, f64::max);
    let Absence { percent, longest_ms } =
        rows.iter().map(|row| row.absence).fold(Absence::default(), Absence::or_worse);
    let host = format!(
        "Runs thrown away for stolen time: {count}.{kept} While both CPUs spun for a second before each turn, the host or another \
         process took up to {percent:.1} % of one, up to {longest_ms:.1} ms at once, booked as stolen or not."
    );
    // Where several share the CPUs, nobody's is looked at.
    if at_rest == 0.0 {
        return host;
    }
    format!(
        "{host} What the server's CPU does in each turn while nobody is there, up to {at_rest:.1} % of it, is taken off."
    )
}

/// For a README.
pub(crate) fn markdown(about: &About, found: &[(&Table, Vec<Row>)]) -> String {
    let mut text = format!("# Cost of a delivered packet\n\n{}\n", about.words());
    for (table, rows) in found {
        let (heads, cells) = cells(table, rows);
        let rule = heads.iter().enumerate().map(|(i, _)| if i < 2 { "---" } else { "--:" });
        let rule = rule.collect::<Vec<_>>().join(" | ");
        // A `String` takes everything.
        let _ = write!(text, "\n## {}\n\n| {} |\n| {rule} |\n", table.title, heads.join(" | "));
        for line in cells {
            let _ = writeln!(text, "| {} |", line.join(" | "));
        }
        let _ = writeln!(text, "\n{}", remarks(rows));
    }
    text
}

/// For a browser.
pub(crate) fn page(about: &About, found: &[(&Table, Vec<Row>)]) -> String {
    let mut body = String::new();
    for (table, rows) in found {
        let (heads, cells) = cells(table, rows);
        let cell = |tag: &str, text: &String| format!("<{tag}>{}</{tag}>", escaped(text));
        let line = |tag: &str, line: &Vec<String>| {
            format!("<tr>{}</tr>", line.iter().map(|text| cell(tag, text)).collect::<String>())
        };
        // One row makes no line: the figures are all there is to see.
        let (plots, open) = if rows.len() > 1 {
            let cost = plot(table, rows, "µs a packet, the worse of process and CPU", " µs", worse_us);
            let delay = |what, of| plot(table, rows, what, " ms", of);
            let p50 = delay("p50 of the whole way", |figures| figures.p50_ms);
            let p99 = delay("p99 of the whole way", |figures| figures.p99_ms);
            let p999 = delay("p99.9 of the whole way", |figures| figures.p999_ms);
            (format!("<div class=\"plots\">\n{cost}{p50}{p99}{p999}</div>\n"), "")
        } else {
            (String::new(), " open")
        };
        let _ = write!(
            body,
            "<h2>{}</h2>\n{plots}<details{open}><summary>Figures</summary>\
             <div class=\"scroll\"><table>{}{}</table></div><p>{}</p></details>\n",
            escaped(table.title),
            line("th", &heads),
            cells.iter().map(|cells| line("td", cells)).collect::<String>(),
            remarks(rows),
        );
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>Cost of a delivered packet</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header><h1>Cost of a delivered packet</h1><p>{}</p></header>\n{body}</body>\n</html>\n",
        escaped(&about.words())
    )
}

fn worse_us(figures: &Figures) -> f64 {
    figures.process_us.max(figures.machine_us)
}

fn plot(table: &Table, rows: &[Row], what: &str, unit: &str, of: fn(&Figures) -> f64) -> String {
    let lines = table.subjects.iter().enumerate().map(|(i, (name, _))| Line {
        name,
        points: rows.iter().map(|row| (row.x, row.subjects.get(i).map(|(figures, _)| of(figures)))).collect(),
    });
    let title = format!("{what}, against {}", table.x);
    Plot { title: &title, note: "", y_unit: unit, x_unit: "", y_least: 0.0, lines: lines.collect() }.html()
}
