//! Services as processes, each on the same port across restarts.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use tokio::{sync::Mutex, task::spawn_blocking, time::sleep};

use crate::{cluster::signal, mutants::Mutant, program::Program, proxy::Proxy};

/// Maximum time of a start and of a shutdown.
const LIMIT: Duration = Duration::from_secs(40);

pub struct Service {
    pub address: SocketAddr,
    /// The proxy between it and PostgreSQL.
    pub proxy: Option<Proxy>,
    url: String,
    log: PathBuf,
    program: Program,
    process: Mutex<Option<Child>>,
}

impl Service {
    pub fn new(
        number: usize,
        url: String,
        proxy: Option<Proxy>,
        folder: &Path,
        mutant: Option<&Mutant>,
    ) -> Self {
        let mut ports = std::iter::repeat_with(|| fastrand::u16(10_000..30_000));
        let free = ports.find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok());
        let address = free.and_then(|free| free.local_addr().ok()).expect("a free port");
        Self {
            address,
            proxy,
            url,
            log: folder.join(format!("service-{number}.log")),
            program: Program::of(mutant),
            process: Mutex::default(),
        }
    }

    /// Starts it unless it runs. Retries, because its database may be unavailable.
    pub async fn start(&self) -> Result<(), String> {
        let mut process = self.process.lock().await;
        self.start_process(&mut process).await
    }

    async fn start_process(&self, process: &mut Option<Child>) -> Result<(), String> {
        let deadline = Instant::now() + LIMIT;
        while process.is_none() {
            let mut command = Command::new(&self.program.path);
            command.args(&self.program.arguments);
            command.args(["--listen", &self.address.to_string()]);
            command.args(["--database-url", &self.url]);
            for variable in ["EVENT_AGGREGATOR_DATA_DIR", "OTEL_EXPORTER_OTLP_ENDPOINT", "RUST_LOG"]
            {
                command.env_remove(variable);
            }
            let log = self.log.clone();
            let started = spawn_blocking(move || begin(&mut command, &log)).await;
            match started.expect("no panic") {
                Ok(child) => *process = Some(child),
                Err(error) if Instant::now() > deadline => {
                    return Err(format!("a service does not start: {error}"));
                }
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
        Ok(())
    }

    /// Kills it with SIGKILL, and restarts it.
    pub async fn kill_and_restart(&self, pause: Duration) -> Result<(), String> {
        let mut process = self.process.lock().await;
        if let Some(mut child) = process.take() {
            let exited = child.try_wait().map_err(|error| error.to_string())?;
            child.kill().and_then(|()| child.wait()).map_err(|error| error.to_string())?;
            if let Some(status) = exited {
                return Err(format!("a service ended by itself: {status}"));
            }
        }
        sleep(pause).await;
        self.start_process(&mut process).await
    }

    /// Shuts it down, which must succeed in time, and restarts it.
    pub async fn stop_and_restart(&self, pause: Duration) -> Result<(), String> {
        let mut process = self.process.lock().await;
        Self::stop_process(&mut process).await?;
        sleep(pause).await;
        self.start_process(&mut process).await
    }

    pub async fn stop(&self) -> Result<(), String> {
        Self::stop_process(&mut *self.process.lock().await).await
    }

    async fn stop_process(process: &mut Option<Child>) -> Result<(), String> {
        let Some(mut child) = process.take() else { return Err("it does not run".to_owned()) };
        let is_over = |child: &mut Child| child.try_wait().ok().flatten();
        if let Some(status) = is_over(&mut child) {
            return Err(format!("a service ended by itself: {status}"));
        }
        signal("TERM", child.id());
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            if let Some(status) = is_over(&mut child) {
                return ended_well(status);
            }
            sleep(Duration::from_millis(10)).await;
        }
        let _ = child.kill().and_then(|()| child.wait());
        Err(format!("a service did not end within {LIMIT:?}"))
    }

    /// Whether its log has a panic.
    pub fn panicked(&self) -> bool {
        std::fs::read_to_string(&self.log).is_ok_and(|log| log.contains("panicked"))
    }
}

fn ended_well(status: ExitStatus) -> Result<(), String> {
    match status.success() {
        true => Ok(()),
        false => Err(format!("a service that was asked to end ended with {status}")),
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(child) = self.process.get_mut() {
            let _ = child.kill().and_then(|()| child.wait());
        }
    }
}

/// Starts the program and waits until it is ready.
fn begin(command: &mut Command, log: &Path) -> Result<Child, String> {
    let log = File::options().create(true).append(true).open(log);
    let log = log.map_err(|error| error.to_string())?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let stdout = child.stdout.take().expect("piped");
    let mut banner = String::new();
    match BufReader::new(stdout).read_line(&mut banner) {
        Ok(1..) => Ok(child),
        _ => {
            let _ = child.kill();
            let status = child.wait().map_err(|error| error.to_string())?;
            Err(format!("it ended with {status}"))
        }
    }
}
