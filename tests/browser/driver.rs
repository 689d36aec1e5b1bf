//! Headless Chromium, driven over WebDriver.

#![allow(unreachable_pub, reason = "a module of one test binary")]

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

const CHROMEDRIVER: &str = "/usr/bin/chromedriver";
const CHROMIUM: &str = "/usr/bin/chromium";

const ARGUMENTS: &[&str] = &[
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--allow-loopback-in-peer-connection",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    "--disable-features=WebRtcHideLocalIpsWithMdns",
    // A host name that is neither localhost nor https: to such pages browsers give no microphone.
    "--host-resolver-rules=MAP plain.test 127.0.0.1",
];

/// How long anything on a page may take, on two busy cores.
const PATIENCE: Duration = Duration::from_secs(40);

/// A chromedriver and its browsers, all of which end with it.
pub struct Driver {
    child: Child,
    port: u16,
    sessions: RefCell<Vec<String>>,
    profiles: PathBuf,
}

impl Driver {
    pub fn start(test: &str) -> Rc<Driver> {
        for (program, package) in [(CHROMEDRIVER, "chromium-driver"), (CHROMIUM, "chromium")] {
            assert!(
                Path::new(program).exists(),
                "{program} is missing: install Debian's `{package}` (apt-get install chromium chromium-driver)"
            );
        }
        let mut child = Command::new(CHROMEDRIVER)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver (Debian's `chromium-driver`) starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let port = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.split_once("successfully on port ")?.1.trim_end_matches('.').parse().ok())
            .expect("chromedriver says its port");
        // Whatever else it says must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let profiles = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("browser-{test}-{port}"));
        Rc::new(Driver { child, port, sessions: RefCell::default(), profiles })
    }

    /// A browser of its own, with a fresh profile.
    pub async fn browser(self: &Rc<Driver>) -> Browser {
        self.browser_with(&[]).await
    }

    /// As [`Driver::browser`], with more arguments.
    pub async fn browser_with(self: &Rc<Driver>, more: &[&str]) -> Browser {
        let count = self.sessions.borrow().len();
        let profile = format!("--user-data-dir={}", self.profiles.join(count.to_string()).display());
        let arguments: Vec<&str> = ARGUMENTS.iter().chain(more).copied().chain([&*profile]).collect();
        let capabilities = json!({
            "goog:chromeOptions": { "args": arguments, "binary": CHROMIUM },
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let Value::Object(capabilities) = capabilities else { unreachable!() };
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{}", self.port))
            .await
            .expect("chromedriver starts a browser");
        let session = client.session_id().await.expect("a session").expect("a session");
        self.sessions.borrow_mut().push(session.clone());
        Browser { client, session, driver: Rc::clone(self) }
    }

    /// What fantoccini has no word for. Any status but 200 is an error.
    fn raw(&self, method: &str, path: &str, body: &Value) -> std::io::Result<Value> {
        let body = body.to_string();
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let len = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {len}\r\n\r\n{body}"
        )?;
        // chromedriver keeps the connection open whatever it is asked.
        let mut reader = BufReader::new(stream);
        let mut status = String::new();
        reader.read_line(&mut status)?;
        let mut len = 0;
        for line in reader.by_ref().lines() {
            let line = line?.to_lowercase();
            if line.is_empty() {
                break;
            }
            len = line.strip_prefix("content-length:").and_then(|len| len.trim().parse().ok()).unwrap_or(len);
        }
        let mut answer = vec![0; len];
        reader.read_exact(&mut answer)?;
        if status.split(' ').nth(1) != Some("200") {
            return Err(std::io::Error::other(status + &String::from_utf8_lossy(&answer)));
        }
        Ok(serde_json::from_slice::<Value>(&answer)?["value"].take())
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        for session in self.sessions.borrow().iter() {
            let _ = self.raw("DELETE", &format!("/session/{session}"), &json!({}));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.profiles);
    }
}

/// Width, height and whether it is a phone.
#[derive(Clone, Copy)]
pub enum Screen {
    Desktop,
    Phone,
}

/// One browser with one page.
pub struct Browser {
    client: Client,
    session: String,
    driver: Rc<Driver>,
}

impl Browser {
    pub async fn goto(&self, url: &str) {
        self.client.goto(url).await.unwrap_or_else(|error| panic!("{url}: {error}"));
    }

    pub async fn reload(&self) {
        self.client.refresh().await.expect("the page reloads");
    }

    /// Runs a function's body in the page.
    pub async fn run(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// Waits until the expression is truthy, and returns it.
    pub async fn until(&self, what: &str, expression: &str) -> Value {
        let begun = tokio::time::Instant::now();
        loop {
            let value = self.run(&format!("return {expression};")).await;
            if !matches!(value, Value::Null | Value::Bool(false)) {
                return value;
            }
            if begun.elapsed() > PATIENCE {
                let page = self
                    .run(
                        "return {text: document.body.innerText, ...(window.gryt && {state: gryt.state, members: gryt.members, \
                    voices: gryt.voices().map((v) => [v.mid, v.userId, gryt.peak(v.userId)])})}",
                    )
                    .await;
                panic!("waited in vain for {what}: {expression}\n{page:#}\n{:#?}", self.console());
            }
            // The page has no way to call us.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub async fn click(&self, id: &str) {
        let element =
            self.client.find(Locator::Id(id)).await.unwrap_or_else(|error| panic!("#{id}: {error}"));
        element.click().await.unwrap_or_else(|error| panic!("#{id}: {error}"));
    }

    /// Types into a field, in place of what is there.
    pub async fn fill(&self, id: &str, text: &str) {
        let element =
            self.client.find(Locator::Id(id)).await.unwrap_or_else(|error| panic!("#{id}: {error}"));
        element.clear().await.expect("a field");
        element.send_keys(text).await.expect("a field");
    }

    pub fn set_screen(&self, screen: Screen) {
        let (width, height, mobile) = match screen {
            Screen::Desktop => (1280, 800, false),
            Screen::Phone => (390, 844, true),
        };
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile });
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics);
    }

    /// "light" or "dark".
    pub fn set_scheme(&self, scheme: &str) {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", &features);
    }

    /// Saves what is on the screen as `target/screenshots/<name>.png`.
    pub async fn screenshot(&self, name: &str) {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("screenshots");
        std::fs::create_dir_all(&folder).expect("a folder for screenshots");
        let image = self.client.screenshot().await.expect("a screenshot");
        std::fs::write(folder.join(format!("{name}.png")), image).expect("a screenshot is written");
    }

    /// Errors and warnings of the page since the last look.
    pub fn console(&self) -> Vec<String> {
        let path = format!("/session/{}/se/log", self.session);
        let entries = self.driver.raw("POST", &path, &json!({ "type": "browser" })).expect("a log");
        let entries = entries.as_array().expect("a list of entries");
        let is_trouble = |entry: &&Value| entry["level"] == "SEVERE" || entry["level"] == "WARNING";
        entries.iter().filter(is_trouble).map(|entry| entry["message"].to_string()).collect()
    }

    /// A command of the DevTools protocol.
    pub fn devtools(&self, command: &str, parameters: &Value) {
        let path = format!("/session/{}/goog/cdp/execute", self.session);
        let request = json!({ "cmd": command, "params": parameters });
        self.driver.raw("POST", &path, &request).unwrap_or_else(|error| panic!("{command}: {error}"));
    }
}
