//! The real binary as a child process on loopback, on ports that the kernel chooses.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{PATIENCE, now};

/// How long what it wrote last may take from its pipes into its log.
const LAST_LINES_MAX: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Log {
    text: Mutex<String>,
    grew: Condvar,
}

/// A running server. Ends with the value; a panic in its log fails the test that owns it.
pub struct Server {
    child: Child,
    log: Arc<Log>,
    collectors: [JoinHandle<()>; 2],
    /// Where HTTP and WebSocket are served.
    pub http: SocketAddr,
    /// Its first UDP port.
    pub media: u16,
}

impl Server {
    /// Starts the server with these variables over the defaults of tests. `IO_BACKEND` of the test run goes to
    /// it as well: `IO_BACKEND=mmsg cargo test --test loopback` holds the same calls without a ring.
    pub fn spawn(env: &[(&str, &str)]) -> Server {
        Server::spawn_command(sfu(&[]), env)
    }

    /// As [`Server::spawn`], with the binary in this place.
    pub fn spawn_binary(binary: &Path, env: &[(&str, &str)]) -> Server {
        Server::spawn_command(command(binary), env)
    }

    /// As [`Server::spawn`], with a command that becomes the server by `exec`, in a folder of its own.
    pub fn spawn_command(mut command: Command, env: &[(&str, &str)]) -> Server {
        let mut child = start(&mut command, env);
        let log = Arc::new(Log::default());
        let collectors = [
            collect(child.stdout.take().expect("piped"), Arc::clone(&log)),
            collect(child.stderr.take().expect("piped"), Arc::clone(&log)),
        ];
        let http = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut server = Server { child, log, collectors, http, media: 0 };
        let port = server.wait_for_log("an HTTP port", http_port);
        server.http.set_port(port);
        // The line on media comes when the workers stand.
        server.media = server.wait_for_log("a media port", |log| log.lines().find_map(media_port));
        // The last line: whatever it warns of at its start can be read now.
        server.wait_for_log("the demo page", |log| log.contains("  demo page: ").then_some(()));
        server.assert_backend(env);
        server
    }

    /// What was asked for is in use, in case that the variable does not get through.
    fn assert_backend(&self, env: &[(&str, &str)]) {
        let given = env.iter().find(|(name, _)| *name == "IO_BACKEND").map(|(_, value)| (*value).to_owned());
        let banner = match given.or_else(|| std::env::var("IO_BACKEND").ok()).as_deref() {
            Some("mmsg") => "backend:   recvmmsg",
            Some("uring") => "backend:   io_uring",
            _ => return,
        };
        assert!(self.log().contains(banner), "the server uses another backend");
    }

    /// Waits until something can be read from the log.
    pub fn wait_for_log<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let deadline = now() + PATIENCE;
        let log = Arc::clone(&self.log);
        let mut text = log.text.lock().expect("no panic holds it");
        loop {
            if let Some(found) = find(&text) {
                return found;
            }
            let left = deadline.saturating_duration_since(now());
            let ended = self.child.try_wait().expect("our child");
            if left.is_zero() || ended.is_some() {
                drop(text); // Others take it, too.
                if ended.is_some() {
                    self.collect_last_lines();
                }
                let log = self.log();
                return find(&log)
                    .unwrap_or_else(|| panic!("no sign of {what} ({ended:?}); the log:\n{log}"));
            }
            let pause = left.min(Duration::from_millis(200));
            text = log.grew.wait_timeout(text, pause).expect("no panic holds it").0;
        }
    }

    /// Everything that came of what it wrote until now: more may be on its way.
    pub fn log(&self) -> String {
        self.log.text.lock().expect("no panic holds it").clone()
    }

    /// Ends it by SIGTERM. Everything it ever wrote: what is not in there it has not said.
    pub fn whole_log(&mut self) -> String {
        self.terminate();
        let end = self.wait(PATIENCE);
        assert!(end.is_some_and(|status| status.success()), "{end:?}");
        self.log()
    }

    /// Once it has ended: its pipes end with it, but for one that a child of its own holds.
    fn collect_last_lines(&self) {
        let deadline = now() + LAST_LINES_MAX;
        while !self.collectors.iter().all(JoinHandle::is_finished) && now() < deadline {
            std::thread::sleep(Duration::from_millis(1)); // A thread's end cannot be awaited with a deadline.
        }
    }

    /// Lines of a throttled place of which it wrote no more than it may since `begun`; there is one at least.
    pub fn throttled_lines(&self, what: &str, begun: Instant) -> Vec<String> {
        let lines: Vec<_> =
            self.log().lines().filter(|line| line.contains(what)).map(str::to_owned).collect();
        let most = 1 + now().saturating_duration_since(begun).as_secs() as usize / 10;
        assert!((1..=most).contains(&lines.len()), "{} lines, {most} at most: {lines:#?}", lines.len());
        lines
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `GET path`: status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        use std::io::Write;
        let mut stream = std::net::TcpStream::connect(self.http).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a valid time-out");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .expect("it reads");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("it answers");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, body.to_owned())
    }

    /// Sums of metrics over all their labels, as published together.
    pub fn metrics<const N: usize>(&self, names: [&str; N]) -> [f64; N] {
        let page = self.metrics_page();
        names.map(|name| sum_of(&page, name, &[]))
    }

    /// Sum of a metric over all its labels; lines that hold every one of `parts`.
    pub fn metric(&self, name: &str, parts: &[&str]) -> f64 {
        sum_of(&self.metrics_page(), name, parts)
    }

    fn metrics_page(&self) -> String {
        let (status, page) = self.get("/metrics");
        assert_eq!(status, 200, "{page}");
        page
    }

    /// Asks for a metric until it is as great as this.
    pub async fn metric_reaches(&self, name: &str, parts: &[&str], least: f64) {
        let deadline = now() + PATIENCE;
        loop {
            let value = self.metric(name, parts);
            if value >= least {
                return;
            }
            assert!(now() < deadline, "{name} {parts:?} is {value}, not {least}");
            tokio::time::sleep(Duration::from_millis(100)).await; // Nobody tells when it changes.
        }
    }

    /// Waits until each of these gauges, summed over its labels, is at most this.
    pub async fn metrics_fall_to(&self, names: &[&str], most: f64, at_most: Duration) {
        let deadline = now() + at_most;
        for name in names {
            loop {
                let value = self.metric(name, &[]);
                if value <= most {
                    break;
                }
                assert!(now() < deadline, "{name} is {value}, not {most}");
                tokio::time::sleep(Duration::from_millis(100)).await; // Nobody tells when it changes.
            }
        }
    }

    /// Its resident memory in KiB, as the kernel counts it.
    pub fn resident_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(path).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line on memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        let pid = self.pid().to_string();
        let status = Command::new("kill").args(["-TERM", &pid]).status().expect("kill exists");
        assert!(status.success());
    }

    /// Waits for its end, after which its log is whole.
    pub fn wait(&mut self, at_most: Duration) -> Option<ExitStatus> {
        let end = end_of(&mut self.child, at_most)?;
        self.collect_last_lines();
        Some(end)
    }
}

/// The server's binary with these arguments.
pub fn sfu(args: &[&str]) -> Command {
    let Some(binary) = option_env!("CARGO_BIN_EXE_sfu") else {
        panic!("cargo names the binary to tests only")
    };
    let mut command = command(binary.as_ref());
    command.args(args);
    command
}

fn command(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    // Not the house's own folder: a `.env` of whoever works here must not change a test.
    command.current_dir(std::env::temp_dir());
    command
}

/// What a start says that ends by itself, as a refused one and `--check` do. One that serves instead is stopped.
#[track_caller]
pub fn ended_start(mut command: Command, env: &[(&str, &str)]) -> Output {
    let mut child = start(&mut command, env);
    let end = end_of(&mut child, PATIENCE);
    let _ = child.kill(); // Has nothing to do where it ended.
    let output = child.wait_with_output().expect("our child");
    assert!(end.is_some(), "it serves:\n{}", String::from_utf8_lossy(&output.stdout));
    output
}

/// With these variables over the defaults of tests.
fn start(command: &mut Command, env: &[(&str, &str)]) -> Child {
    command
        .env("PORT", "0")
        .env("ICE_UDP_MUX_PORT", "0")
        .env("ICE_LOOPBACK", "true")
        .env("NO_COLOR", "1")
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().expect("the server's binary starts")
}

fn end_of(child: &mut Child, at_most: Duration) -> Option<ExitStatus> {
    let deadline = now() + at_most;
    loop {
        if let Some(status) = child.try_wait().expect("our child") {
            return Some(status);
        }
        if now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10)); // A process's end cannot be awaited with a deadline.
    }
}

/// The server must know the metric: of a name that is spelt wrong, any sum would be 0.
fn sum_of(exposition: &str, name: &str, parts: &[&str]) -> f64 {
    let mut types = exposition.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let is_known = types.any(|(family, kind)| is_sample(name, family, kind));
    assert!(is_known, "the server has no metric {name}");
    let of_name = |line: &&str| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && parts.iter().all(|part| line.contains(part))
    };
    exposition.lines().filter(of_name).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// How samples of a family are named in the text format.
fn is_sample(name: &str, family: &str, kind: &str) -> bool {
    let suffixes: &[&str] = match kind {
        "histogram" => &["_bucket", "_sum", "_count"],
        _ => &[""],
    };
    name.strip_prefix(family).is_some_and(|suffix| suffixes.contains(&suffix))
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.collect_last_lines();
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", tail(&self.log(), 60));
        } else {
            let log = self.log();
            assert!(!log.contains("panicked at"), "the server panicked:\n{}", tail(&log, 100));
        }
    }
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn collect(pipe: impl Read + Send + 'static, log: Arc<Log>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let mut text = log.text.lock().expect("no panic holds it");
            text.push_str(&String::from_utf8_lossy(&line));
            text.push('\n');
            log.grew.notify_all();
        }
    })
}

/// The port in the line that says where HTTP listens.
fn http_port(log: &str) -> Option<u16> {
    let line = log.lines().find(|line| line.contains("listening") && line.contains("http"))?;
    line.rsplit(':').find_map(leading_number)
}

/// The first port in the line on media.
fn media_port(line: &str) -> Option<u16> {
    let rest = &line[line.find("media")?..];
    rest[rest.find("udp")?..].split([' ', ':', '=']).find_map(leading_number)
}

fn leading_number(text: &str) -> Option<u16> {
    let digits: String = text.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok().filter(|&port| port > 0)
}

/// `count` UDP ports in a row that were free a moment ago, as `first-last`, or just one.
pub fn free_udp_ports(count: u16) -> String {
    loop {
        let any = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a free port");
        let first = any.local_addr().expect("bound").port();
        let last = first.saturating_add(count - 1);
        if (first + 1..=last).all(|port| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()) {
            return if count == 1 { first.to_string() } else { format!("{first}-{last}") };
        }
    }
}
