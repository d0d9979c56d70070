//! Headless Chromium, driven through chromedriver with the few WebDriver commands that are needed.

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

const ADVICE: &str = "the tests of the dashboard need Chromium and chromedriver: on Debian \
                      `apt-get install chromium chromium-driver`, elsewhere name the two programs \
                      in CHROMIUM and CHROMEDRIVER";

/// A browser with a new profile, closed with its test.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    _profile: TempDir,
}

impl Browser {
    pub fn start() -> Self {
        let program = |name: &str, usual: &str| env::var(name).unwrap_or_else(|_| usual.to_owned());
        let chromium = program("CHROMIUM", "/usr/bin/chromium");
        assert!(std::path::Path::new(&chromium).exists(), "{ADVICE}");
        let mut driver = Command::new(program("CHROMEDRIVER", "/usr/bin/chromedriver"))
            .arg("--port=0")
            .stdout(Stdio::piped())
            .spawn()
            .expect(ADVICE);
        let stdout = BufReader::new(driver.stdout.take().expect("piped"));
        let port = stdout.lines().map_while(Result::ok).find_map(|line| {
            line.strip_suffix('.')?.split_once("successfully on port ")?.1.parse().ok()
        });
        let profile = tempfile::tempdir().expect("temporary folder");
        let data = format!("--user-data-dir={}", profile.path().display());
        let arguments = [
            "--headless",
            // Chromium's sandbox refuses to run as root, as in containers.
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1280,900",
            &data,
        ];
        let mut browser = Self {
            driver,
            port: port.expect("chromedriver tells its port"),
            session: String::new(),
            _profile: profile,
        };
        let session = browser.call(
            "POST",
            "/session",
            &json!({ "capabilities": { "alwaysMatch": {
                "browserName": "chrome",
                // Test certificates are self-signed.
                "acceptInsecureCerts": true,
                "goog:chromeOptions": { "binary": chromium, "args": arguments },
                "goog:loggingPrefs": { "browser": "ALL" },
            } } }),
        );
        let id = session["sessionId"].as_str().expect("a session");
        browser.session = format!("/session/{id}");
        browser
    }

    pub fn open(&self, address: &str) {
        self.command("/url", &json!({ "url": address }));
    }

    /// The result of a script.
    pub fn run(&self, script: &str) -> Value {
        self.command("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Resizes the window to the screen of a phone.
    pub fn resize(&self, width: u32, height: u32) {
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 2, "mobile": true });
        let command = json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": size });
        self.command("/goog/cdp/execute", &command);
    }

    /// Errors that the browser logged since the last call.
    pub fn log(&self) -> Value {
        self.command("/se/log", &json!({ "type": "browser" }))
    }

    fn command(&self, path: &str, body: &Value) -> Value {
        self.call("POST", &format!("{}{path}", self.session), body)
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.try_call(method, path, body).expect("an answer of chromedriver");
        assert!(answer["value"]["error"].is_null(), "{path}: {answer}");
        answer["value"].clone()
    }

    fn try_call(&self, method: &str, path: &str, body: &Value) -> std::io::Result<Value> {
        let mut connection = TcpStream::connect(("127.0.0.1", self.port))?;
        let body = body.to_string();
        write!(
            connection,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = BufReader::new(connection);
        let mut length = 0;
        loop {
            let mut line = String::new();
            answer.read_line(&mut line)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.trim().parse().expect("a length");
                }
                None if line.trim_end().is_empty() => break,
                _ => (),
            }
        }
        let mut text = vec![0; length];
        answer.read_exact(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Also ends Chromium.
        let _ = self.try_call("DELETE", &self.session, &json!({}));
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
