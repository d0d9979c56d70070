//! The service as a process.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

/// Settings of the service, and of the OpenTelemetry exporter in it.
const SETTINGS: [&str; 16] = [
    "DATABASE_URL",
    "EVENT_AGGREGATOR_ACCESS",
    "EVENT_AGGREGATOR_ADDR",
    "EVENT_AGGREGATOR_CA",
    "EVENT_AGGREGATOR_CLIENT_CERT",
    "EVENT_AGGREGATOR_CLIENT_KEY",
    "EVENT_AGGREGATOR_DATA_DIR",
    "EVENT_AGGREGATOR_INSECURE",
    "EVENT_AGGREGATOR_LISTEN",
    "EVENT_AGGREGATOR_TLS_CERT",
    "EVENT_AGGREGATOR_TLS_CLIENT_CA",
    "EVENT_AGGREGATOR_TLS_KEY",
    "EVENT_AGGREGATOR_TOKEN",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "RUST_LOG",
];

/// The program under test, or one that runs it, without settings from the environment.
pub fn program(path: &str) -> Command {
    let mut command = Command::new(path);
    for variable in SETTINGS {
        command.env_remove(variable);
    }
    command
}

/// Adds the arguments of a service to a command. Port 0 is a free one.
pub fn serve<'a>(command: &'a mut Command, listen: &str, database_url: &str) -> &'a mut Command {
    command.args(["serve", "--listen", listen, "--database-url", database_url])
}

/// A service process that is killed when this is dropped.
pub struct Service {
    pub address: SocketAddr,
    child: Child,
}

impl Service {
    /// Runs a command until it says where it listens.
    pub fn run(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("spawn");
        let stdout = child.stdout.take().expect("piped");
        let banner = BufReader::new(stdout).lines().next().expect("a banner").expect("text");
        let address = banner.rsplit(' ').next().expect("an address").parse();
        Self { address: address.unwrap_or_else(|_| panic!("{banner}")), child }
    }

    pub fn signal(&self, name: &str) {
        signal(name, &[self.child.id().cast_signed()]);
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end. Returns the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().expect("wait").code()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to processes.
pub fn signal(name: &str, pids: &[i32]) {
    let pids = pids.iter().map(i32::to_string).collect::<Vec<_>>().join(" ");
    let kill = format!("kill -{name} {pids}");
    assert!(Command::new("sh").args(["-c", &kill]).status().expect("kill").success());
}
