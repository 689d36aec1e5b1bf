//! What a run found, as a page in one file: no script, nothing loaded from anywhere.

use super::outcome::{Latency, Outcome, Second, Setting, ms, thousands};
use super::plot::{Line, Plot, escaped};

const STYLE: &str = include_str!("report.css");

/// The whole page.
pub(crate) fn page(outcome: &Outcome) -> String {
    let setting = &outcome.setting;
    let plots: String = plots(outcome).iter().map(Plot::html).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>sfu-load: {url}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header><h1>Load on {url}</h1><p>{who}; {voice}; {seconds:.0} s</p></header>\n{verdict}{tiles}\
         <div class=\"plots\">\n{plots}</div>\n{details}</body>\n</html>\n",
        url = escaped(&setting.url),
        who = escaped(&who(setting)),
        voice = escaped(&setting.voice),
        seconds = outcome.duration_seconds,
        verdict = verdict(outcome),
        tiles = tiles(outcome),
        details = details(outcome),
    )
}

/// Who was there, in words.
pub(crate) fn who(setting: &Setting) -> String {
    let count =
        |number: u32, what: &str| if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") };
    let each = if setting.rooms == 1 { "" } else { " each" };
    let light = if setting.light { ", light" } else { "" };
    let hearing = match setting.hear_every {
        0 | 1 => String::new(),
        every => format!(", one in {every} of whom hears"),
    };
    let deaf = if setting.deaf_speakers { "deaf " } else { "" };
    format!(
        "{} with {} and {}{each}{hearing}{light}",
        count(setting.rooms, "room"),
        count(setting.speakers, &format!("{deaf}speaker")),
        count(setting.listeners, "listener")
    )
}

fn verdict(outcome: &Outcome) -> String {
    let mut html = String::new();
    let mut block = |class: &str, head: &str, lines: &[String]| {
        let items: String = lines.iter().map(|line| format!("<li>{}</li>", escaped(line))).collect();
        let list = if items.is_empty() { items } else { format!("<ul>{items}</ul>") };
        html.push_str(&format!("<div class=\"verdict {class}\"><b>{head}</b>{list}</div>\n"));
    };
    if outcome.broken.is_empty() {
        block("good", "All within the thresholds", &[]);
    } else {
        block("bad", "Broken", &outcome.broken);
    }
    if let Some(why) = &outcome.own.bottleneck {
        block("warn", "Read with caution", std::slice::from_ref(why));
    }
    if outcome.interrupted {
        block("warn", "Ended early by a signal", &[]);
    }
    html
}

fn tiles(outcome: &Outcome) -> String {
    let (joins, packets) = (&outcome.joins, &outcome.packets);
    let mut tiles = Vec::new();
    if let Some(at) = outcome.latency_ms {
        tiles.push((
            ms(at.p99),
            "latency, 99th percentile",
            format!("median {}, max {}", ms(at.p50), ms(at.max)),
        ));
    }
    let missing =
        format!("{} of {}", thousands(packets.missing), thousands(packets.missing + packets.received));
    tiles.push((format!("{:.3} %", packets.loss_percent), "packets lost", missing));
    let pairs = packets.pairs_heard + packets.pairs_unheard;
    tiles.push((
        format!("{} / {pairs}", packets.pairs_heard),
        "pairs heard",
        "listener and speaker, at the end".into(),
    ));
    let gone = format!("{} failed, {} lost", joins.failed, joins.lost);
    tiles.push((format!("{} / {}", joins.connected, joins.started), "joins connected", gone));
    if let Some(at) = joins.to_first_audio_ms {
        tiles.push((ms(at.p50), "to first audio, median", format!("95th percentile {}", ms(at.p95))));
    }
    if let Some(server) = &outcome.server {
        let most = format!("at most {:.0} %", server.cpu_percent_max);
        tiles.push((format!("{:.1} %", server.cpu_percent_mean), "server CPU, mean", most));
        let grew = format!("{:+.1} MiB since the start", server.mib_last - server.mib_first);
        tiles.push((format!("{:.1} MiB", server.mib_last), "server memory", grew));
    }
    let tile = |(value, name, more): &(String, &str, String)| {
        format!("<div class=\"tile\"><b>{}</b>{name}<small>{}</small></div>\n", escaped(value), escaped(more))
    };
    format!("<div class=\"tiles\">\n{}</div>\n", tiles.iter().map(tile).collect::<String>())
}

fn plots(outcome: &Outcome) -> Vec<Plot<'_>> {
    let over_time = |name, of: &dyn Fn(&Second) -> Option<f64>| {
        let points = outcome.seconds.iter().map(|second| (second.at, of(second))).collect();
        Line { name, points }
    };
    let latency = |name, of: fn(&Latency) -> f64| {
        over_time(name, &move |second: &Second| second.latency_ms.as_ref().map(of))
    };
    let curve = |name, values: &[f64]| {
        let points =
            values.iter().enumerate().map(|(percent, &value)| (percent as f64, Some(value))).collect();
        Line { name, points }
    };
    let plot =
        |title, note, y_unit, y_least, lines| Plot { title, note, y_unit, x_unit: " s", y_least, lines };
    let joins = Plot {
        title: "Joining",
        note: "How long a join took, by the share of joins that took no longer.",
        y_unit: " ms",
        x_unit: " %",
        y_least: 1.0,
        lines: vec![
            curve("to connected (ICE and DTLS)", &outcome.joins.connected_curve),
            curve("to first audio", &outcome.joins.audio_curve),
        ],
    };
    vec![
        plot(
            "Latency",
            "From the speaker's hand to the listener's socket, by second.",
            " ms",
            0.1,
            vec![
                latency("median", |at| at.p50),
                latency("95th percentile", |at| at.p95),
                latency("99th percentile", |at| at.p99),
            ],
        ),
        plot(
            "Loss",
            "Packets that did not come, by second.",
            " %",
            1.0,
            vec![over_time("loss", &|second| second.loss_percent)],
        ),
        joins,
        plot(
            "Members",
            "Connected at a time.",
            "",
            4.0,
            vec![over_time("connected", &|second| Some(second.connected as f64))],
        ),
        plot(
            "Packets",
            "Delivered a second, all listeners.",
            "",
            4.0,
            vec![over_time("received", &|second| Some(second.received_per_second))],
        ),
        plot(
            "CPU",
            "In percent of one core. When sfu-load's busiest of --threads is near 100 %, the figures are about sfu-load.",
            " %",
            100.0,
            match outcome.server {
                Some(_) => vec![
                    over_time("server", &|second| second.server_cpu_percent),
                    over_time("sfu-load", &|second| Some(second.own_cpu_percent)),
                ],
                None => vec![over_time("sfu-load", &|second| Some(second.own_cpu_percent))],
            },
        ),
        plot(
            "Server memory",
            "Resident, as the kernel counts it.",
            " MiB",
            4.0,
            vec![over_time("resident", &|second| second.server_mib)],
        ),
    ]
}

fn details(outcome: &Outcome) -> String {
    let rows: String = outcome
        .table()
        .lines()
        .filter_map(|line| line.trim().split_once("  "))
        .map(|(name, value)| format!("<dt>{}</dt><dd>{}</dd>\n", escaped(name), escaped(value.trim())))
        .collect();
    format!("<section><h2>All figures</h2><dl>\n{rows}</dl></section>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_is_text() {
        let mut outcome = Outcome::default();
        outcome.setting.url = "ws://x/<script>".into();
        outcome.count_failure("refused: <img src=x onerror=alert(1)>".into());
        let page = page(&outcome);
        assert!(!page.contains("<script") && !page.contains("<img"), "{page}");
        assert!(page.contains("&lt;img"));
    }
}
