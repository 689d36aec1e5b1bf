//! The shipped Prometheus configuration, alert rules and Grafana dashboard, against what the server really exports:
//! checked by Debian's `promtool`, and run by a real Prometheus that scrapes a live server.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gryt_sfu::packet::DropReason;
use serde_json::Value;
use support::folder::Folder;
use support::{Client, Options, PATIENCE, Server, now};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/deploy");
/// For `promtool test rules`.
const ALERT_TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/monitoring/alerts.yml");
const TOKEN: &str = "shown-by-whoever-scrapes";
const PREFIX: &str = "gryt_sfu_";

fn shipped(file: &str) -> String {
    fs::read_to_string(Path::new(FOLDER).join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Every query of the dashboard, with what it is called in the legend.
fn dashboard_targets() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&shipped("grafana/dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().expect("targets"));
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    targets.map(|target| (text(&target["expr"]), text(&target["legendFormat"]))).collect()
}

/// All that Grafana would ask for, its variables replaced as it does.
fn dashboard_queries() -> Vec<String> {
    let queries = dashboard_targets().into_iter().map(|(query, _)| query);
    queries.map(|query| query.replace("$__rate_interval", "1m").replace("$instance", ".*")).collect()
}

/// The server's metrics that a text names.
fn named(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let names = text.match_indices(PREFIX).map(|(at, _)| text[at..].split(|c| !is_part(c)).next());
    names.flatten().map(str::to_owned).collect()
}

/// The body of an answer; `None` while there is none.
fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.split_once("\r\n\r\n")?.1.to_owned())
}

/// Where a server serves its metrics apart from everything else.
fn metrics_address(server: &mut Server) -> SocketAddr {
    let address =
        |line: &str| line.strip_prefix("  metrics:   http://")?.strip_suffix("/metrics")?.parse().ok();
    server.wait_for_log("the metrics' address", |log| log.lines().find_map(address))
}

/// Prometheus as a child process. Ends with the value.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    folder: PathBuf,
}

impl Prometheus {
    /// With the shipped configuration and rules; only whom it scrapes and how often is another's.
    fn start(server: &Server, token: &str) -> Prometheus {
        let folder =
            std::env::temp_dir().join(format!("prometheus-{}-{}", std::process::id(), server.http.port()));
        fs::create_dir_all(&folder).expect("a folder");
        let config = shipped("prometheus/prometheus.yml");
        let here = config.replace("sfu:5005", &server.http.to_string()).replace(": 5s", ": 1s");
        let here = format!("{here}    authorization:\n      credentials: {token}\n");
        assert_ne!(here, config);
        fs::write(folder.join("prometheus.yml"), here).expect("our own folder");
        fs::write(folder.join("alerts.yml"), shipped("prometheus/alerts.yml")).expect("our own folder");
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
        let address = port.expect("a free port");
        let log = fs::File::create(folder.join("log")).expect("our own folder");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("Debian's `prometheus` is installed");
        Prometheus { child, address, folder }
    }

    /// `None` while it does not answer.
    fn get(&self, path: &str) -> Option<Value> {
        serde_json::from_str(&get(self.address, path)?).ok()
    }

    fn query(&self, query: &str) -> Option<Value> {
        let escaped: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        self.get(&format!("/api/v1/query?query={escaped}"))
    }

    /// Asks until the answer is as wanted: nobody tells when it has scraped.
    async fn until<T>(&self, what: &str, mut find: impl FnMut(&Prometheus) -> Option<T>) -> T {
        let deadline = now() + 2 * PATIENCE;
        loop {
            if let Some(found) = find(self) {
                return found;
            }
            // Another may have taken the port since it was found free.
            let log = || fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(now() < deadline, "no sign of {what}; Prometheus's log:\n{}", log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn promtool_finds_nothing_wrong() {
    for (what, file) in [("config", "prometheus/prometheus.yml"), ("rules", "prometheus/alerts.yml")] {
        let mut promtool = Command::new("promtool");
        promtool.args(["check", what]).arg(Path::new(FOLDER).join(file));
        let output = promtool.output().expect("Debian's `prometheus` is installed");
        assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// As readers do that know nothing newer.
#[test]
fn promtool_finds_nothing_wrong_with_the_older_format_of_metrics() {
    let folder = Folder::new();
    let certified = folder.certify();
    let mut server = Server::spawn(&[&certified.env()[..], &[("METRICS_ADDR", "127.0.0.1:0")]].concat());
    let metrics = get(metrics_address(&mut server), "/metrics").expect("it answers");
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = promtool.spawn().expect("Debian's `prometheus` is installed");
    promtool.stdin.take().expect("piped").write_all(metrics.as_bytes()).expect("it reads");
    let output = promtool.wait_with_output().expect("our child");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}\n{metrics}", String::from_utf8_lossy(&said));
}

#[test]
fn alerts_fire_when_they_should() {
    let output = Command::new("promtool").args(["test", "rules", ALERT_TESTS]).output();
    let output = output.expect("Debian's `prometheus` is installed");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn each_alert_is_among_those_that_fire_there() {
    let rules = shipped("prometheus/alerts.yml");
    let alerts: BTreeSet<_> =
        rules.lines().filter_map(|line| line.trim_start().strip_prefix("- alert: ")).collect();
    let tests = fs::read_to_string(ALERT_TESTS).expect("our own file");
    let looks = tests.split("- eval_time: ").filter(|look| look.contains("exp_alerts:"));
    let names = looks.map(|look| look.lines().find_map(|line| line.trim_start().strip_prefix("alertname: ")));
    assert_eq!(names.map(|name| name.expect("an alert")).collect::<BTreeSet<_>>(), alerts);
}

#[test]
fn reasons_of_drops_that_they_name_exist() {
    let exists = |pattern: &str| {
        let mut labels = DropReason::ALL.iter().map(|reason| reason.label());
        match pattern.strip_suffix(".*") {
            Some(prefix) => labels.any(|label| label.starts_with(prefix)),
            None => labels.any(|label| label == pattern),
        }
    };
    for text in [shipped("prometheus/alerts.yml"), dashboard_queries().join("\n")] {
        let matchers = text.split("reason=").skip(1).map(|rest| rest.split('"').nth(1).expect("a string"));
        let patterns: Vec<_> = matchers.flat_map(|matcher| matcher.split('|')).collect();
        assert!(!patterns.is_empty(), "{text}");
        let unknown: Vec<_> = patterns.into_iter().filter(|pattern| !exists(pattern)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}

#[test]
fn lines_of_several_servers_are_told_apart() {
    let sums_up = |query: &str| ["sum", "max", "histogram_quantile"].iter().any(|it| query.starts_with(it));
    for (query, legend) in dashboard_targets() {
        assert!(sums_up(&query) || legend.contains("{{instance}}"), "{legend}: {query}");
    }
}

#[test]
fn what_they_name_is_exported() {
    // With everything that adds metrics.
    let folder = Folder::new();
    let certified = folder.certify();
    let mut server = Server::spawn(&[&certified.env()[..], &[("METRICS_ADDR", "127.0.0.1:0")]].concat());
    let metrics = metrics_address(&mut server);
    let metrics = get(metrics, "/metrics").expect("it answers");
    let exported = named(&metrics);
    for file in ["grafana/dashboard.json", "prometheus/alerts.yml"] {
        let names = named(&shipped(file));
        assert!(names.len() > 8, "{file}: {names:?}");
        let unknown: Vec<_> = names.difference(&exported).collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}, which the server does not export");
    }
}

#[tokio::test]
async fn a_real_prometheus_scrapes_a_live_room_and_understands_every_query() {
    let server = Server::spawn(&[("METRICS_TOKEN", TOKEN)]);
    assert_eq!(server.get("/metrics").0, 401, "not without the token");
    assert_eq!(server.get("/health").0, 200);
    let ann = Client::join(&server, "hall", "ann", Options::default()).await;
    let ben = Client::join(&server, "hall", "ben", Options::default()).await;
    ann.speak(20);
    ben.hears(&ann, 10).await;
    let prometheus = Prometheus::start(&server, TOKEN);

    let value = |answer: &Value| answer["data"]["result"][0]["value"][1].as_str()?.parse::<f64>().ok();
    let of =
        |query: &'static str| move |it: &Prometheus| value(&it.query(query)?).filter(|value| *value > 0.0);
    assert_eq!(prometheus.until("a scrape", of("up{job=\"gryt-sfu\"}")).await, 1.0);
    assert_eq!(prometheus.until("peers", of("sum(gryt_sfu_peers_active)")).await, 2.0);
    let age = prometheus.until("its age", of("time() - gryt_sfu_start_time_seconds")).await;
    assert!(age < 600.0, "{age} s");
    let rate = prometheus.until("voice packets", of("sum(rate(gryt_sfu_rtp_out_total[1m]))")).await;
    assert!((1.0..100.0).contains(&rate), "one voice for one listener: {rate}");
    // The p99 of what a packet waits for here: a figure, and not one of minutes.
    let quantile =
        "histogram_quantile(0.99, sum by (le) (rate(gryt_sfu_forwarding_latency_seconds_bucket[1m])))";
    let latency = prometheus.until("latencies", of(quantile)).await;
    assert!(latency > 0.0 && latency < 1.0, "{latency}");
    let joins = prometheus.until("joins", of("sum(gryt_sfu_join_to_media_seconds_count)")).await;
    assert_eq!(joins, 2.0);

    for query in dashboard_queries() {
        let answer = prometheus.query(&query).unwrap_or_else(|| panic!("no answer to {query}"));
        assert_eq!(answer["status"], "success", "{query}: {answer}");
    }
    // A busy machine may be slow for a moment, which is too short to fire; or miss a scrape, which the next one mends.
    let is_calm = |rule: &Value| {
        let measures_time = rule["name"].as_str().is_some_and(|name| name.ends_with("Slow"));
        rule["state"] == "inactive" || (measures_time && rule["state"] == "pending")
    };
    let rules = |it: &Prometheus| {
        let answer = it.get("/api/v1/rules")?;
        let rules = answer["data"]["groups"][0]["rules"].as_array()?;
        let is_well = |rule: &Value| rule["health"] == "ok" && is_calm(rule);
        rules.iter().all(is_well).then_some(rules.len())
    };
    assert!(prometheus.until("rules that are evaluated and calm", rules).await >= 10);

    // And one that fires: the server dies.
    drop(server);
    let pending = |it: &Prometheus| {
        let answer = it.get("/api/v1/alerts")?;
        let alerts = answer["data"]["alerts"].as_array()?.clone();
        alerts.iter().any(|alert| alert["labels"]["alertname"] == "SfuDown").then_some(())
    };
    prometheus.until("the alert", pending).await;
}

#[tokio::test]
async fn a_certificate_that_ends_soon_is_an_alert() {
    let folder = Folder::new();
    let certified = folder.certify(); // For two days.
    let mut server = Server::spawn(&[&certified.env()[..], &[("METRICS_ADDR", "127.0.0.1:0")]].concat());
    server.http = metrics_address(&mut server);
    let prometheus = Prometheus::start(&server, TOKEN);
    let firing = |it: &Prometheus| {
        let answer = it.get("/api/v1/alerts")?;
        let alerts = answer["data"]["alerts"].as_array()?;
        let is_firing = |alert: &&Value| alert["state"] == "firing";
        let names: Vec<_> =
            alerts.iter().filter(is_firing).map(|alert| &alert["labels"]["alertname"]).collect();
        (!names.is_empty()).then(|| names.into_iter().cloned().collect::<Vec<_>>())
    };
    assert_eq!(
        prometheus.until("an alert", firing).await,
        ["SfuCertificateEnds"],
        "and not that it has ended"
    );
}
