//! The service as processes: started, killed, stopped and restarted on the same ports, with log
//! files.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use event_aggregator::proto::v1::event_aggregator_service_client::EventAggregatorServiceClient;
use tokio::{
    sync::{Mutex, MutexGuard},
    task::spawn_blocking,
    time::sleep,
};
use tonic::transport::{Channel, Endpoint};

use crate::{
    database::Database, footprint, mutants::Mutant, program::Program, proxy::Proxy,
    recorder::Recorder,
};

pub type Client = EventAggregatorServiceClient<Channel>;

/// Instances that share a PostgreSQL database. A SQLite file has one.
const INSTANCES: usize = 3;

/// Maximum time until an instance is ready.
const START: Duration = Duration::from_secs(30);

/// Maximum time of a shutdown: 15 s for calls in progress, 10 s for queued events, and a margin for
/// a busy machine.
const STOP: Duration = Duration::from_secs(30);

pub struct Cluster {
    pub instances: Vec<Arc<Instance>>,
}

impl Cluster {
    /// Starts all instances concurrently, on an empty database.
    pub async fn start(
        database: &Database,
        folder: &Path,
        mutant: Option<&Mutant>,
    ) -> Result<Self, String> {
        let count = if database.is_shared() { INSTANCES } else { 1 };
        let mut instances = Vec::new();
        for number in 0..count {
            let proxy = match database.socket() {
                Some(socket) => Some(Proxy::start(socket).await),
                None => None,
            };
            instances.push(Arc::new(Instance {
                number,
                address: free_address(),
                url: database.url(proxy.as_ref().map(|proxy| proxy.address)),
                program: Program::of(mutant),
                proxy,
                log: folder.join(format!("instance-{number}.log")),
                pid: AtomicU32::new(0),
                files: AtomicUsize::new(0),
                process: Mutex::default(),
            }));
        }
        let starting: Vec<_> = instances
            .iter()
            .cloned()
            .map(|instance| tokio::spawn(async move { instance.start().await }))
            .collect();
        for start in starting {
            start.await.expect("no panic")?;
        }
        Ok(Self { instances })
    }

    pub fn size(&self) -> usize {
        self.instances.len()
    }

    pub fn address(&self, instance: usize) -> SocketAddr {
        self.instances[instance].address
    }

    /// A lazy channel to an instance, which reconnects.
    pub fn channel(&self, instance: usize) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address(instance)))
            .expect("an address")
            .connect_timeout(Duration::from_secs(1))
            .connect_lazy()
    }
}

/// A free port below the range of ephemeral ports.
fn free_address() -> SocketAddr {
    let mut ports = std::iter::repeat_with(|| fastrand::u16(10_000..30_000));
    let free = ports.find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok());
    free.and_then(|listener| listener.local_addr().ok()).expect("a free port")
}

/// One instance, on the same port across restarts.
pub struct Instance {
    pub number: usize,
    pub address: SocketAddr,
    pub proxy: Option<Proxy>,
    pub log: PathBuf,
    url: String,
    program: Program,
    pid: AtomicU32,
    files: AtomicUsize,
    process: Mutex<Option<Process>>,
}

/// A process, and the task that copies its log.
struct Process {
    child: Child,
    logging: JoinHandle<io::Result<u64>>,
}

impl Instance {
    /// The process, which may have ended in the meantime.
    pub fn pid(&self) -> u32 {
        self.pid.load(Ordering::Relaxed)
    }

    /// Number of open files and connections when it was ready.
    pub fn first_files(&self) -> usize {
        self.files.load(Ordering::Relaxed)
    }

    /// Starts it unless it runs. Retries, like a process supervisor: without its database, a
    /// service exits after a while.
    pub async fn start(&self) -> Result<(), String> {
        let mut process = self.process.lock().await;
        self.start_process(&mut process).await
    }

    async fn start_process(&self, process: &mut Option<Process>) -> Result<(), String> {
        let deadline = Instant::now() + START;
        while process.is_none() {
            let (mut command, log) = (self.command(), self.log.clone());
            let running = spawn_blocking(move || run(&mut command, &log)).await;
            match running.expect("no panic") {
                Ok(running) => {
                    let pid = running.child.id();
                    self.pid.store(pid, Ordering::Relaxed);
                    let files = footprint::open_files(pid).unwrap_or(0);
                    self.files.store(files, Ordering::Relaxed);
                    *process = Some(running);
                }
                Err(error) if Instant::now() > deadline => {
                    return Err(format!("instance {} does not start: {error}", self.number));
                }
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
        Ok(())
    }

    fn command(&self) -> Command {
        // When the file size limit is reached, writes must fail instead of killing the process.
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"]);
        command.arg(&self.program.path).args(&self.program.arguments);
        command.args(["--listen", &self.address.to_string(), "--database-url", &self.url]);
        for variable in ["EVENT_AGGREGATOR_DATA_DIR", "OTEL_EXPORTER_OTLP_ENDPOINT", "RUST_LOG"] {
            command.env_remove(variable);
        }
        command
    }

    /// Prevents other faults from killing, stopping or starting it until the guard is dropped.
    pub async fn hold(&self) -> impl Sized + '_ {
        self.process.lock().await
    }

    /// Kills it, and restarts it after a delay.
    pub async fn kill_and_restart(
        &self,
        recorder: &Recorder,
        pause: Duration,
    ) -> Result<(), String> {
        let mut process = self.running(recorder).await?;
        let mut killed = process.take().ok_or("it does not run")?;
        killed.child.kill().map_err(|error| error.to_string())?;
        killed.ended(STOP).await.ok_or("it cannot be killed")?;
        sleep(pause).await;
        self.start_process(&mut process).await
    }

    /// Shuts it down, which must succeed in time, and restarts it after a delay.
    pub async fn stop_and_restart(
        &self,
        recorder: &Recorder,
        pause: Duration,
    ) -> Result<(), String> {
        let mut process = self.running(recorder).await?;
        self.stop_process(&mut process, recorder).await;
        sleep(pause).await;
        self.start_process(&mut process).await
    }

    /// Sends SIGTERM.
    pub async fn stop(&self, recorder: &Recorder) {
        match self.running(recorder).await {
            Ok(mut process) => self.stop_process(&mut process, recorder).await,
            Err(_) => recorder.stuck(format!("instance {} does not run", self.number)),
        }
    }

    async fn stop_process(&self, process: &mut Option<Process>, recorder: &Recorder) {
        let Some(mut stopped) = process.take() else { return };
        let number = self.number;
        signal("TERM", stopped.child.id());
        match stopped.ended(STOP).await {
            Some(status) if status.success() => (),
            Some(status) => {
                recorder.dirt(format!("instance {number} did not end well: {status}"));
            }
            None => {
                recorder.dirt(format!("instance {number} did not end within {STOP:?}"));
                let _ = stopped.child.kill();
                let _ = stopped.ended(STOP).await;
            }
        }
    }

    /// Locks the process, so that no other fault ends it. An exit by itself is a bug in the
    /// service.
    async fn running(
        &self,
        recorder: &Recorder,
    ) -> Result<MutexGuard<'_, Option<Process>>, String> {
        let mut process = self.process.lock().await;
        if let Some(running) = &mut *process
            && let Ok(Some(status)) = running.child.try_wait()
        {
            recorder.dirt(format!("instance {} ended by itself: {status}", self.number));
            *process = None;
        }
        if process.is_none() { Err("it does not run".to_owned()) } else { Ok(process) }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(Process { child, .. }) = self.process.get_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Starts the service and waits until it is ready. Its log goes through a pipe, so that a file size
/// limit does not affect it.
fn run(command: &mut Command, log: &Path) -> Result<Process, String> {
    let text = |error: io::Error| error.to_string();
    let mut log = File::options().create(true).append(true).open(log).map_err(text)?;
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(text)?;
    let mut stderr = child.stderr.take().expect("piped");
    let logging = thread::spawn(move || io::copy(&mut stderr, &mut log));
    let mut banner = String::new();
    let stdout = child.stdout.take().expect("piped");
    let read = BufReader::new(stdout).read_line(&mut banner).map_err(text)?;
    if read == 0 {
        return Err(format!("it ended with {}", child.wait().map_err(text)?));
    }
    Ok(Process { child, logging })
}

impl Process {
    /// Waits until the process has ended and its log is complete.
    async fn ended(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if self.logging.is_finished()
                && let Some(status) = self.child.try_wait().expect("a child")
            {
                return Some(status);
            }
            if Instant::now() > deadline {
                return None;
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Sends a signal. The process may already have ended.
pub fn signal(name: &str, pid: u32) -> bool {
    let mut kill = Command::new("sh");
    kill.args(["-c", &format!("kill -{name} {pid}")]).stderr(Stdio::null());
    kill.status().is_ok_and(|status| status.success())
}
