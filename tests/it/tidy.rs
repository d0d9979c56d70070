//! The rules of ARCHITECTURE.md that can be checked automatically.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Identifiers that a module must not use.
const NEVER: &[(&str, &[&str])] = &[
    ("limits.rs", &["crate::", "serde", "prost", "tokio"]),
    (
        "event.rs",
        &["crate::store", "crate::ingest", "crate::proto", "serde", "prost", "tokio", "rusqlite"],
    ),
    ("reload.rs", &["crate::"]),
    ("peer.rs", &["crate::", "serde", "prost", "tonic", "axum", "hyper", "rustls"]),
    (
        "load",
        &[
            "crate::store",
            "crate::ingest",
            "crate::service",
            "crate::grpc",
            "crate::http",
            "crate::door",
            "crate::cli",
            "prost",
            "tonic",
            "axum",
        ],
    ),
    (
        "tls",
        &[
            "crate::store",
            "crate::ingest",
            "crate::service",
            "crate::grpc",
            "crate::http",
            "crate::door",
            "crate::access",
            "crate::app",
            "crate::cli",
            "crate::proto",
            "prost",
            "tonic",
            "axum",
        ],
    ),
    (
        "door",
        &[
            "crate::store",
            "crate::event",
            "crate::ingest",
            "crate::feed",
            "crate::service",
            "crate::access",
            "crate::http",
            "crate::config",
            "crate::app",
            "crate::cli",
            "crate::proto",
            "prost",
            "axum",
        ],
    ),
    ("json.rs", &["crate::store", "crate::ingest", "crate::proto", "prost", "tokio"]),
    (
        "access",
        &[
            "crate::store",
            "crate::ingest",
            "crate::feed",
            "crate::service",
            "crate::grpc",
            "crate::http",
            "crate::door",
            "crate::cli",
            "crate::config",
            "crate::proto",
            "prost",
            "tonic",
            "axum",
        ],
    ),
    // Serde stays in `access/file`.
    ("access.rs", &["serde"]),
    ("access/caller.rs", &["serde"]),
    ("access/policy.rs", &["serde"]),
    ("access/rate.rs", &["serde"]),
    ("access/token.rs", &["serde"]),
    ("store", &["crate::ingest", "crate::grpc", "crate::proto", "crate::page", "prost", "tonic"]),
    ("store/postgres", &["sqlite::", "rusqlite"]),
    ("store/sqlite", &["postgres::", "tokio_postgres"]),
    ("metrics", &["crate::store", "crate::ingest", "crate::event", "prost", "tonic"]),
    ("ingest", &["crate::grpc", "crate::proto", "prost", "tonic", "postgres::", "sqlite::"]),
    (
        "feed",
        &[
            "crate::grpc",
            "crate::proto",
            "crate::ingest",
            "prost",
            "tonic",
            "postgres::",
            "sqlite::",
        ],
    ),
    ("cursor.rs", &["crate::grpc", "crate::proto", "prost", "tonic", "postgres::", "sqlite::"]),
    ("token.rs", &["crate::grpc", "crate::proto", "crate::store", "prost", "tonic"]),
    ("page.rs", &["crate::grpc", "crate::proto", "prost", "tonic", "postgres::", "sqlite::"]),
    (
        "grpc",
        &[
            "crate::http",
            "crate::cli",
            "crate::app",
            "crate::config",
            "postgres::",
            "sqlite::",
            "println!",
        ],
    ),
    (
        "http",
        &[
            "crate::cli",
            "crate::app",
            "crate::config",
            "crate::grpc",
            "crate::proto",
            "prost",
            "tonic",
            "postgres::",
            "sqlite::",
        ],
    ),
    ("app.rs", &["crate::cli", "println!"]),
    ("cli", &["crate::store", "crate::ingest"]),
];

/// A longer file has more than one purpose.
const MAX_LINES: usize = 400;

fn sources() -> Vec<(String, String)> {
    fn visit(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("folder") {
            let path = entry.expect("entry").path();
            match path.is_dir() {
                true => visit(&path, files),
                false => files.push(path),
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    visit(&root, &mut files);
    files.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    assert!(!files.is_empty());
    let name = |path: &Path| path.strip_prefix(&root).expect("below").display().to_string();
    files.iter().map(|path| (name(path), fs::read_to_string(path).expect("text"))).collect()
}

#[test]
fn modules_use_only_what_they_may() {
    for (name, text) in sources() {
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let mut is_list = false;
        for (number, line) in code.enumerate() {
            // A `use crate::{...}` list, on one line or with one item per line.
            is_list = line == "use crate::{" || (is_list && line != "};");
            let line = &*match line.strip_prefix("    ") {
                Some(name) if is_list => format!("crate::{name}"),
                _ if line.starts_with("use crate::{") => line.replace(['{', ' '], " crate::"),
                _ => line.to_owned(),
            };
            for (part, never) in NEVER {
                let module = name.strip_suffix(".rs").unwrap_or(&name);
                let inside = name == *part || Path::new(module).starts_with(part);
                // A module may name its own submodules.
                let names_parts = line.contains("mod ");
                for word in never.iter().filter(|word| line.contains(**word)) {
                    assert!(!inside || names_parts, "{name}, code line {number}: {word}: {line}");
                }
            }
        }
    }
}

#[test]
fn files_have_module_docs_and_are_short() {
    for (name, text) in sources() {
        assert!(text.starts_with("//! "), "{name} has no module docs");
        let lines = text.lines().count();
        assert!(lines <= MAX_LINES, "{name} has {lines} lines");
    }
}

#[test]
fn proto_documents_every_error_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("proto/event_aggregator/v1/event_aggregator.proto");
    let contract = fs::read_to_string(path).expect("text");
    let words: Vec<&str> = contract.split(|c: char| !c.is_ascii_uppercase() && c != '_').collect();
    for reason in event_aggregator::api::Reason::ALL {
        assert!(words.contains(&reason.name()), "{} is not in the contract", reason.name());
    }
}

#[test]
fn operations_doc_states_the_memory_limit() {
    let page = include_str!("../../docs/operations.md");
    let told =
        format!("**{} GiB**", event_aggregator::testing::limits::MEMORY_BYTES.div_ceil(1 << 30));
    assert!(page.contains(&told), "docs/operations.md does not say {told}");
}
