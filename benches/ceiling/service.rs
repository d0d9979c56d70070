//! The service as a process of its own, and its `bench` command as another.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

pub struct Service {
    pub address: String,
    child: Child,
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_event-aggregator"))
}

pub fn start(database_url: &str) -> Service {
    start_with(database_url, &[])
}

/// The service with more arguments.
pub fn start_with(database_url: &str, arguments: &[&str]) -> Service {
    let mut child = program()
        .args(["serve", "--listen", "127.0.0.1:0", "--database-url", database_url])
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("spawn");
    let stdout = child.stdout.take().expect("piped");
    let banner = BufReader::new(stdout).lines().next().expect("a banner").expect("text");
    let address = banner.rsplit(' ').next().expect("an address").to_owned();
    Service { address, child }
}

impl Service {
    #[allow(dead_code)]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Loads the service with so many events, and picks one number from the report.
    pub fn bench(&self, arguments: &[&str], events: usize, pointer: &str) -> f64 {
        let output = program()
            .args(["bench", "-o", "json", "--addr", &self.address])
            .args(["--events", &events.to_string()])
            .args(arguments)
            .output()
            .expect("bench");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        report.pointer(pointer).and_then(serde_json::Value::as_f64).expect(pointer)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
