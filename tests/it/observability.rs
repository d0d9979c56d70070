//! The rules and the dashboard in `observability/` are valid and use only exported metrics.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use serde_json::Value;

use crate::harness::*;

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/observability"))
}

/// Every series name that Prometheus stores, derived from the metric types.
async fn exported() -> BTreeSet<String> {
    let server = TestServer::start(Backend::Sqlite).await;
    let text = get(&server, "/metrics").await.body;
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let names = types.flat_map(|(name, kind)| {
        let endings: &[&str] = match kind {
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_sum", "_count"],
            "info" => &["_info"],
            _ => &[""],
        };
        endings.iter().map(move |ending| format!("{name}{ending}"))
    });
    names.collect()
}

/// Names of our metrics in a text.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let is_ours =
        |word: &&str| word.starts_with("event_aggregator_") || word.starts_with("grpc_server_");
    words.filter(is_ours).collect()
}

fn expressions(dashboard: &Value) -> Vec<&str> {
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().expect("targets"));
    targets.map(|target| target["expr"].as_str().expect("an expression")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_and_dashboard_use_only_exported_metrics() {
    let exported = exported().await;
    for file in ["alerts.yml", "alerts_test.yml", "grafana/event-aggregator.json"] {
        let text = fs::read_to_string(folder().join(file)).expect(file);
        let named = named(&text);
        assert!(!named.is_empty(), "{file} names nothing");
        let unknown: Vec<&&str> = named.iter().filter(|name| !exported.contains(**name)).collect();
        assert!(unknown.is_empty(), "{file} names what is not exported: {unknown:?}");
    }
}

fn promtool(arguments: &[&str], files: &Path) {
    let run = Command::new("promtool").args(arguments).current_dir(files).output();
    let run = run.expect("promtool; tests/run.sh installs it");
    let said =
        format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "promtool {arguments:?}: {said}");
}

#[test]
fn promtool_accepts_rules_and_settings() {
    promtool(&["check", "config", "prometheus.yml"], folder());
    promtool(&["check", "rules", "alerts.yml"], folder());
    promtool(&["test", "rules", "alerts_test.yml"], folder());
}

/// The dashboard's expressions as rules, a format that promtool can check.
#[test]
fn promtool_accepts_dashboard_queries() {
    let text = fs::read_to_string(folder().join("grafana/event-aggregator.json")).expect("text");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let rules: Vec<Value> = expressions(&dashboard)
        .into_iter()
        .enumerate()
        .map(|(number, expression)| {
            let expression =
                expression.replace("$__rate_interval", "1m").replace("$instance", ".*");
            serde_json::json!({ "record": format!("panel:{number}"), "expr": expression })
        })
        .collect();
    let rules = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    let files = tempfile::tempdir().expect("temporary folder");
    // YAML includes JSON.
    fs::write(files.path().join("rules.yml"), rules.to_string()).expect("write");
    promtool(&["check", "rules", "rules.yml"], files.path());
}
