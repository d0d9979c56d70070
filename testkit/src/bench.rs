//! What benchmarks measure: the service as a process, loaded by its own `bench` command, and PostgreSQL on a
//! server that flushes its commits.

use std::{
    net::SocketAddr,
    process::{Command, Stdio},
    sync::OnceLock,
};

use crate::{
    postgres::{Database, Server},
    process::{self, program},
};

/// A service process without its log.
pub struct Service {
    pub address: SocketAddr,
    program: &'static str,
    process: process::Service,
}

impl Service {
    pub fn start(program: &'static str, database_url: &str) -> Self {
        Self::start_with(program, database_url, &[])
    }

    /// A service with more arguments.
    pub fn start_with(path: &'static str, database_url: &str, arguments: &[&str]) -> Self {
        let mut command = program(path);
        process::serve(&mut command, "127.0.0.1:0", database_url);
        Self::run(path, command.args(arguments))
    }

    /// Any server whose first line ends with its address, to be loaded by the service's program.
    pub fn run(program: &'static str, command: &mut Command) -> Self {
        let process = process::Service::run(command.stderr(Stdio::null()));
        Self { address: process.address, program, process }
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Processor time that the process has used, in seconds.
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
        let output = program(self.program)
            .args(["bench", "-o", "json", "--addr", &self.address.to_string()])
            .args(["--events", &events.to_string()])
            .args(arguments)
            .output()
            .expect("bench");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        report.pointer(pointer).and_then(serde_json::Value::as_f64).expect(pointer)
    }
}

/// An empty database for one measurement, on a server that has written out what earlier measurements left.
pub async fn database() -> Database {
    static SERVER: OnceLock<String> = OnceLock::new();
    let server = SERVER.get_or_init(|| match std::env::var("TEST_DATABASE_URL") {
        Ok(url) => url,
        Err(_) => Server::start("-c max_wal_size=8GB -c shared_buffers=512MB").url,
    });
    let database = Database::create(server, "bench").await;
    database.connect().await.batch_execute("CHECKPOINT").await.expect("checkpoint");
    database
}
