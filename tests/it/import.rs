//! `publish --file` as a process: rejected lines, resuming after a kill, Ctrl-C.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::harness::*;

fn import(address: &str, file: &Path, more: &[(&str, &Path)]) -> Command {
    let mut command = program();
    command.args(["publish", "--addr", address, "--file"]).arg(file);
    for (flag, path) in more {
        command.arg(flag).arg(path);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn finish(child: Child) -> (Option<i32>, Value, String) {
    let output = tokio::task::spawn_blocking(|| child.wait_with_output().expect("output"));
    let output = output.await.expect("join");
    let tally = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), tally, String::from_utf8(output.stderr).expect("UTF-8"))
}

fn line(id: usize) -> String {
    format!("{{\"topic\":\"t{}\",\"event_id\":\"{id:06}\",\"source\":\"s\"}}\n", id % 5)
}

fn records(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("rejects");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_lines_are_saved_and_can_be_fixed() {
    let server = TestServer::start(Backend::Sqlite).await;
    let address = server.address.to_string();
    let (file, rejects) = (server.database.path("in"), server.database.path("rejects"));
    let bad = r#"{"topic":"t", "event_id":"bad"}"#;
    fs::write(&file, format!("not \"json\"\n{}{bad}\n\n{}also not", line(1), line(2)))
        .expect("write");
    let (code, tally, errors) =
        finish(import(&address, &file, &[("--rejects", &rejects)]).spawn().expect("spawn")).await;
    assert_eq!(code, Some(1), "{errors}");
    assert_eq!((&tally["accepted"], &tally["rejected"]), (&2.into(), &3.into()));
    let refused = records(&rejects);
    let found: Vec<_> = refused.iter().map(|r| (r["line"].as_u64(), r["event"].as_str())).collect();
    let text = [(Some(1), Some("not \"json\"")), (Some(3), Some(bad)), (Some(6), Some("also not"))];
    assert_eq!(found, text);
    assert!(refused[1]["reason"].as_str().expect("text").contains("source"), "{refused:?}");

    let mended = refused[1]["event"].as_str().expect("text").replace('}', ",\"source\":\"s\"}");
    fs::write(&file, mended).expect("write");
    let (code, tally, _) = finish(import(&address, &file, &[]).spawn().expect("spawn")).await;
    assert_eq!((code, &tally["accepted"]), (Some(0), &1.into()));
    let (code, tally, _) = finish(import(&address, &file, &[]).spawn().expect("spawn")).await;
    assert_eq!((code, &tally["duplicate"]), (Some(0), &1.into()), "again is a no-op");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_import_resumes_without_gaps() {
    const LINES: usize = 60_000;
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let server = TestServer::start(backend).await;
        let address = server.address.to_string();
        let [file, place, rejects] = ["in", "resume", "rejects"].map(|f| server.database.path(f));
        let mut input = fs::File::create(&file).expect("create");
        for id in 0..LINES {
            let line = if id % 1_000 == 7 { "bad\n".to_owned() } else { line(id) };
            input.write_all(line.as_bytes()).expect("write");
        }
        let files: &[(&str, &Path)] = &[("--resume-file", &place), ("--rejects", &rejects)];
        let start = || import(&address, &file, files).spawn().expect("spawn");
        let mut client = server.client().await;
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..5 {
            let enough = counters(&mut client).await[0] + random.i64(1..6_000);
            let mut importing = start();
            while counters(&mut client).await[0] < enough
                && importing.try_wait().expect("wait").is_none()
            {}
            importing.kill().expect("kill");
            importing.wait().expect("killed");
        }
        let (_, tally, errors) = finish(start()).await;
        assert!(tally["total"].is_number(), "{errors}");
        assert_eq!(server.stored().await as usize, LINES - LINES / 1_000, "{tally}");
        let lines: Vec<_> = records(&rejects).iter().map(|r| r["line"].as_u64()).collect();
        let expected: Vec<_> = (0..LINES as u64 / 1_000).map(|n| Some(n * 1_000 + 8)).collect();
        assert_eq!(lines, expected, "each refused line once");

        let (code, tally, _) = finish(start()).await;
        assert_eq!((code, &tally["total"]), (Some(0), &0.into()), "there is nothing left");
        input.write_all(line(LINES).as_bytes()).expect("write");
        let (code, tally, _) = finish(start()).await;
        assert_eq!((code, &tally["accepted"]), (Some(0), &1.into()), "only what was added");

        fs::write(&file, line(0).repeat(LINES * 2)).expect("write");
        let (code, _, errors) = finish(start()).await;
        assert!(code == Some(1) && errors.contains("does not match the input"), "{errors}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_import_explains_how_to_resume() {
    let server = TestServer::start(Backend::Sqlite).await;
    let address = server.address.to_string();
    let mut child = program()
        .args(["publish", "--addr", &address, "--file", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("spawn");
    // Stays open, as with a producer that is idle.
    let mut input = child.stdin.take().expect("piped");
    input.write_all(line(1).as_bytes()).expect("write");
    while server.stored().await < 1 {}
    let interrupt = format!("kill -INT {}", child.id());
    assert!(Command::new("sh").args(["-c", &interrupt]).status().expect("kill").success());
    let (code, tally, errors) = finish(child).await;
    assert_eq!(code, Some(130), "{errors}");
    assert!(tally["total"].is_number(), "{tally}");
    assert!(errors.contains("Interrupted"), "{errors}");
    drop(input);
}

#[test]
fn invalid_resume_arguments_are_explained() {
    for (arguments, code, text) in [
        (&["--file", "-", "--resume-file", "x"][..], 1, "regular file"),
        (&["--simulate", "1", "--resume-file", "x"], 2, "cannot be used"),
        (&["--simulate", "1", "--rejects", "x"], 2, "cannot be used"),
        (&["--file", "Cargo.toml", "--rejects", "./Cargo.toml"], 1, "must not be the input file"),
    ] {
        let output = program().arg("publish").args(arguments).output().expect("run");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{errors}");
        assert!(errors.contains(text), "{errors}");
    }
}
