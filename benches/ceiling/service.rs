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
    let serve = ["serve", "--listen", "127.0.0.1:0", "--database-url", database_url];
    start_command(program().args(serve).args(arguments))
}

/// A server whose first line ends with its address.
pub fn start_command(command: &mut Command) -> Service {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("spawn");
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

    /// Processor time that the process has used, in seconds.
    #[allow(dead_code)]
    pub fn processor_seconds(&self) -> f64 {
        const TICKS_PER_SECOND: f64 = 100.0;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).expect("stat");
        let (_, fields) = stat.rsplit_once(") ").expect("a name");
        let field =
            |n| -> f64 { fields.split(' ').nth(n).expect("a field").parse().expect("ticks") };
        (field(11) + field(12)) / TICKS_PER_SECOND
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
