//! A PostgreSQL server for the tests: the one in TEST_DATABASE_URL, or else a private one from the
//! programs on this machine.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use tokio_postgres::{Client, NoTls};

use crate::process::signal;

/// PostgreSQL refuses to run as root, so root runs it as `nobody`.
const NOBODY: u32 = 65_534;

/// URL of a database on the server, next to which others can be created.
pub fn url() -> &'static str {
    static URL: OnceLock<String> = OnceLock::new();
    URL.get_or_init(|| match std::env::var("TEST_DATABASE_URL") {
        Ok(url) => url,
        Err(_) => Server::start("-c fsync=off -c full_page_writes=off").url,
    })
}

/// Whether databases outlive the tests unless they are dropped.
pub fn is_shared() -> bool {
    std::env::var_os("TEST_DATABASE_URL").is_some()
}

/// A connection that bypasses the service.
pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("connect");
    tokio::spawn(connection);
    client
}

/// A database on a server.
pub struct Database {
    pub url: String,
    name: String,
    server: String,
}

impl Database {
    /// Creates an empty one, whose name begins with `prefix`.
    pub async fn create(server: &str, prefix: &str) -> Self {
        let name = format!("{prefix}_{}", uuid::Uuid::new_v4().simple());
        let sql = format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'");
        connect(server).await.batch_execute(&sql).await.expect("create");
        let (place, parameters) = match server.split_once('?') {
            Some((place, parameters)) => (place, format!("?{parameters}")),
            None => (server, String::new()),
        };
        let (place, _) = place.rsplit_once('/').expect("a URL with a database");
        Self { url: format!("{place}/{name}{parameters}"), name, server: server.to_owned() }
    }

    pub async fn connect(&self) -> Client {
        connect(&self.url).await
    }

    /// Removes it, and closes its connections.
    pub async fn drop(self) {
        let sql = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        connect(&self.server).await.batch_execute(&sql).await.expect("drop");
    }
}

/// A private server in a temporary directory. Lives as long as this process.
pub struct Server {
    /// URL of a database on it, over its socket.
    pub url: String,
    /// Its directory.
    pub folder: PathBuf,
    programs: PathBuf,
    settings: String,
}

impl Server {
    pub fn start(settings: &str) -> Self {
        Self::new(None, settings).made()
    }

    /// A server that also listens on a TCP port.
    pub fn start_on(port: u16) -> Self {
        Self::new(Some(port), "").made()
    }

    /// A standby of this server.
    pub fn standby(&self) -> Self {
        let standby = Self::new(None, "-c fsync=off");
        let folder = self.folder.to_str().expect("UTF-8");
        let copy = ["-h", folder, "-U", "postgres", "-D", "data", "-R", "-c", "fast", "--no-sync"];
        standby.run("pg_basebackup", &copy);
        standby.launch();
        standby
    }

    fn new(port: Option<u16>, settings: &str) -> Self {
        let programs = programs().expect(
            "the tests need PostgreSQL: install it (apt-get install postgresql), or name a server \
             with TEST_DATABASE_URL=postgres://user:password@host/database",
        );
        let folder = tempfile::Builder::new()
            .prefix("event-aggregator-postgres-")
            .tempdir()
            .expect("temporary folder")
            .keep();
        if is_root() {
            chown(&folder, Some(NOBODY), Some(NOBODY)).expect("chown");
        }
        let socket = folder.to_str().expect("UTF-8");
        let host = socket.replace('/', "%2F");
        let (url, addresses) = match port {
            Some(port) => (
                format!("postgres://postgres@{host}:{port}/postgres"),
                format!("127.0.0.1 -c port={port}"),
            ),
            None => (format!("postgres://postgres@{host}/postgres"), String::new()),
        };
        let settings = format!(
            "-k {socket} -c listen_addresses={addresses} -c max_connections=300 {settings}"
        );
        Self { url, folder, programs, settings }
    }

    fn made(self) -> Self {
        self.run(
            "initdb",
            &[
                "--no-sync",
                "-A",
                "trust",
                "-U",
                "postgres",
                "--locale=C",
                "-E",
                "UTF8",
                "-D",
                "data",
            ],
        );
        self.launch();
        self
    }

    /// Runs a PostgreSQL program in the server's directory.
    pub fn run(&self, program: &str, arguments: &[&str]) {
        let mut command = self.command(&self.programs.join(program));
        let output = command.args(arguments).output().expect(program);
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn launch(&self) {
        // The shell holds the other end of our pipe: when this process ends in any way, the server
        // is stopped and its directory removed.
        let script = "trap '' INT TERM; \"$1\" start -w -D data -l log -o \"$2\" >/dev/null || cat log; \
                      echo; cat >/dev/null; \"$1\" stop -m immediate -D data; rm -rf \"$PWD\"";
        let mut shell = self
            .command(Path::new("/bin/sh"))
            .args(["-c", script, "sh"])
            .arg(self.programs.join("pg_ctl"))
            .arg(&self.settings)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("sh");
        let mut started = String::new();
        let stdout = shell.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut started).expect("read");
        assert_eq!(started, "\n", "PostgreSQL does not start");
        std::mem::forget(shell);
    }

    /// Writes a file that only the server can read.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.folder.join(name);
        fs::write(&path, text).expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
        if is_root() {
            chown(&path, Some(NOBODY), Some(NOBODY)).expect("chown");
        }
    }

    /// Changes a setting of the running server.
    pub async fn set(&self, setting: &str) {
        let admin = connect(&self.url).await;
        admin.batch_execute(&format!("ALTER SYSTEM SET {setting}")).await.expect(setting);
        admin.batch_execute("SELECT pg_reload_conf()").await.expect("reload");
        let (name, value) = setting.split_once(" = ").expect("a value");
        let show = format!("SHOW {name}");
        // A session applies a new setting between two statements.
        while admin.query_one(&show, &[]).await.expect("show").get::<_, &str>(0)
            != value.trim_matches('\'')
        {}
    }

    /// The postmaster's process id.
    pub fn pid(&self) -> i32 {
        let pid_file = fs::read_to_string(self.folder.join("data/postmaster.pid")).expect("pid");
        pid_file.lines().next().expect("pid").parse().expect("pid")
    }

    /// Kills the server and restarts it: it recovers from the WAL.
    pub fn kill_and_restart(&self) {
        signal("KILL", &[self.pid()]);
        self.restart();
    }

    /// Kills all its processes at once, and restarts it.
    pub fn crash_and_restart(&self) {
        let mut stop = self.command(&self.programs.join("pg_ctl"));
        stop.args(["stop", "-m", "immediate", "-D", "data"]);
        stop.stdout(Stdio::null()).stderr(Stdio::null());
        assert!(stop.status().expect("pg_ctl").success(), "PostgreSQL stops");
        self.restart();
    }

    fn restart(&self) {
        // It can only start once the previous processes are gone.
        let mut start = self.command(&self.programs.join("pg_ctl"));
        start.args(["start", "-w", "-D", "data", "-l", "log", "-o", &self.settings]);
        start.stdout(Stdio::null()).stderr(Stdio::null());
        let tries = (0..100).find(|_| start.status().expect("pg_ctl").success());
        tries.expect("PostgreSQL starts again");
    }

    /// A command in the server's directory, as a user that may run it.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.folder);
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }
}

/// The directory with the server's programs.
fn programs() -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"))
        .collect();
    // The newest version first.
    folders.sort();
    folders.reverse();
    if let Some(path) = std::env::var_os("PATH") {
        folders.extend(std::env::split_paths(&path));
    }
    folders
        .into_iter()
        .find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists())
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().expect("id");
    output.stdout.trim_ascii() == b"0"
}
