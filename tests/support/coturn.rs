//! A real TURN server (Debian's `coturn`) as a child process on loopback.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{PATIENCE, now};

const TURNSERVER: &str = "/usr/bin/turnserver";

/// What the tests' TURN servers share with those who hand out credentials.
pub const SECRET: &str = "a secret that two servers share";

/// A running coturn. Ends with the value.
pub struct Coturn {
    child: Child,
    folder: PathBuf,
    /// Where it speaks UDP and TCP.
    pub address: SocketAddr,
    /// Where it speaks TLS, if it is told to.
    pub tls_port: u16,
}

impl Coturn {
    /// Starts one on 127.0.0.1 that relays to loopback addresses too. `settings` are further lines of its
    /// configuration.
    pub fn on_loopback(name: &str, settings: &str) -> Coturn {
        let settings = format!(
            "realm=loopback.test\nuse-auth-secret\nstatic-auth-secret={SECRET}\nallow-loopback-peers\nno-cli\n\
             no-multicast-peers\nlistening-ip=127.0.0.1\nrelay-ip=127.0.0.1\n{settings}\n"
        );
        Coturn::with(name, |ports| format!("{settings}{ports}"))
    }

    /// Starts one with a configuration made from the lines that give it its ports.
    pub fn with(name: &str, settings: impl FnOnce(&str) -> String) -> Coturn {
        assert!(
            Path::new(TURNSERVER).exists(),
            "{TURNSERVER} is missing: install Debian's `coturn` (apt-get install coturn)"
        );
        let folder = std::env::temp_dir().join(format!("coturn-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder for coturn");
        let (port, tls_port) = (free_port(), free_port());
        let ports = format!("listening-port={port}\ntls-listening-port={tls_port}\n");
        let file = folder.join("turnserver.conf");
        fs::write(&file, settings(&ports)).expect("its configuration is written");
        let log = fs::File::create(folder.join("log")).expect("a log");
        // Line by line: what it says is wanted while it runs, and after it was killed.
        let child = Command::new("stdbuf")
            .args(["-oL", TURNSERVER, "--log-file", "stdout", "-c"])
            .arg(&file)
            .arg("--pidfile")
            .arg(folder.join("pid"))
            .arg("--userdb")
            .arg(folder.join("db"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("coturn (Debian's `coturn`) starts");
        let mut coturn =
            Coturn { child, folder, address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), tls_port };
        coturn.wait();
        coturn
    }

    /// Asks until it answers.
    fn wait(&mut self) {
        let deadline = now() + PATIENCE;
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.connect(self.address).expect("loopback");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a valid time-out");
        let question = [&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42][..], &[7; 12]].concat();
        loop {
            // Refused while nobody listens yet.
            let is_answered = socket.send(&question).is_ok() && socket.recv(&mut [0; 500]).is_ok();
            if is_answered {
                return;
            }
            let ended = self.child.try_wait().expect("our child");
            assert!(
                now() < deadline && ended.is_none(),
                "coturn does not answer ({ended:?}):\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20)); // A refusal comes at once, and nobody tells more.
        }
    }

    /// Where it keeps its files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.folder.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("coturn's log:\n{}", self.log());
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A port that was free a moment ago, for UDP and for TCP.
fn free_port() -> u16 {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = tcp.local_addr().expect("bound").port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
