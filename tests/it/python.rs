//! The example client in Python, made from the contract by Google's own tools.

use std::process::Command;

use crate::harness::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_works() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let server = TestServer::start(backend).await;
        let address = server.address.to_string();
        let run = move || {
            Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/python/run.sh"))
                .arg(address)
                .output()
                .expect("run")
        };
        let output = tokio::task::spawn_blocking(run).await.expect("run");
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
        assert!(stdout.lines().any(|line| line.starts_with("ok: ")), "{stdout}");
        let [received, unique, ..] = counters(&mut server.client().await).await;
        assert!(received > unique && unique > 0);
    }
}
