//! The rules of ARCHITECTURE.md that can be checked automatically.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use event_aggregator::testing::api::Reason;

use self::references::References;

mod references;

/// What a module may refer to.
struct Module {
    name: &'static str,
    /// Other modules. The backends are modules of their own beside the rest of `store`.
    modules: &'static [&'static str],
    /// External crates, of those in [`RESTRICTED`].
    crates: &'static [&'static str],
}

const fn module(
    name: &'static str,
    modules: &'static [&'static str],
    crates: &'static [&'static str],
) -> Module {
    Module { name, modules, crates }
}

/// External crates that only some modules may use.
const RESTRICTED: &[&str] = &[
    "axum",
    "clap",
    "hyper",
    "postgres_types",
    "prost",
    "prost_types",
    "rusqlite",
    "rustls",
    "serde",
    "serde_json",
    "tokio",
    "tokio_postgres",
    "tonic",
];

/// All modules, from the inside outwards: each may only refer to modules above it, except those in [`KNOWN`].
const MODULES: &[Module] = &[
    module("limits", &[], &[]),
    module("token", &[], &[]),
    module("peer", &[], &[]),
    module("reload", &[], &["tokio"]),
    module("trace", &[], &["axum"]),
    // serde_json splits a document into tokens.
    module("json", &["limits"], &["serde", "serde_json"]),
    module("event", &["json", "limits"], &[]),
    module("metrics", &["limits"], &[]),
    module("access", &["event", "limits", "peer", "reload"], &["rustls", "serde", "tokio"]),
    module("admission", &["access", "limits"], &["tokio"]),
    module("store", &["event", "json", "limits", "metrics"], &["tokio"]),
    module(
        "store/postgres",
        &["event", "limits", "store", "token"],
        &["postgres_types", "rustls", "tokio", "tokio_postgres"],
    ),
    module(
        "store/sqlite",
        &["event", "limits", "store", "token"],
        &["rusqlite", "serde_json", "tokio"],
    ),
    module("page", &["event", "store", "token"], &[]),
    module("cursor", &["event", "page", "store", "token"], &[]),
    module("ingest", &["access", "admission", "event", "limits", "store", "trace"], &["tokio"]),
    module(
        "feed",
        &["access", "admission", "cursor", "event", "limits", "store", "token"],
        &["tokio"],
    ),
    module(
        "api",
        &[
            "access",
            "admission",
            "cursor",
            "event",
            "feed",
            "ingest",
            "limits",
            "metrics",
            "page",
            "store",
            "token",
        ],
        &["tokio"],
    ),
    module("proto", &["api", "event", "limits"], &["prost", "prost_types", "tonic"]),
    module(
        "edge",
        &["access", "admission", "api", "event", "limits", "peer"],
        &["axum", "hyper", "tokio", "tonic"],
    ),
    module(
        "grpc",
        &[
            "access",
            "admission",
            "api",
            "cursor",
            "edge",
            "event",
            "feed",
            "ingest",
            "limits",
            "metrics",
            "proto",
            "store",
            "trace",
        ],
        &["prost", "prost_types", "serde", "serde_json", "tokio", "tonic"],
    ),
    module(
        "http",
        &[
            "access",
            "admission",
            "api",
            "cursor",
            "edge",
            "event",
            "feed",
            "ingest",
            "limits",
            "metrics",
            "store",
            "trace",
        ],
        &["axum", "serde", "serde_json", "tokio"],
    ),
    module("config", &["access"], &["clap"]),
    module("tls", &["config", "limits", "reload"], &["rustls", "tokio"]),
    module("listener", &["limits", "metrics", "peer", "tls"], &["hyper", "tokio"]),
    module(
        "app",
        &[
            "access",
            "api",
            "config",
            "edge",
            "grpc",
            "http",
            "limits",
            "listener",
            "metrics",
            "store",
            "store/postgres",
            "store/sqlite",
            "tls",
        ],
        &["tokio"],
    ),
    module(
        "cli",
        &["access", "app", "config", "event", "grpc", "limits", "listener", "proto", "trace"],
        &["clap", "prost", "prost_types", "serde", "serde_json", "tokio", "tonic"],
    ),
];

/// Crates that only a part of a module may use.
const PARTS: &[(&str, &str)] = &[("access/file", "serde")];

/// References that close a circle. Remove them here with the circle; a test fails until then.
const KNOWN: &[(&str, &str)] = &[
    ("page", "cursor"),
    ("cli/publish/source", "cli/publish/file"),
    ("cli/publish/source", "cli/publish/simulate"),
];

/// A longer file has more than one purpose.
const MAX_LINES: usize = 400;

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    fn visit(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("folder") {
            let path = entry.expect("entry").path();
            match path.is_dir() {
                true => visit(&path, files),
                false => files.push(path),
            }
        }
    }
    let mut files = Vec::new();
    visit(folder, &mut files);
    files.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    assert!(!files.is_empty());
    files
}

/// The files of src by their names, with their texts.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = rust_files(&root);
    let name = |path: &Path| path.strip_prefix(&root).expect("below").display().to_string();
    files.iter().map(|path| (name(path), fs::read_to_string(path).expect("text"))).collect()
}

/// Files by the path of their module: `src/store/judge.rs` is `[store, judge]`.
fn files() -> BTreeMap<Vec<String>, String> {
    let path = |name: &str| -> Vec<String> {
        name.trim_end_matches(".rs").split('/').map(str::to_owned).collect()
    };
    let files = sources().into_iter().filter(|(name, _)| name != "lib.rs" && name != "main.rs");
    files.map(|(name, text)| (path(&name), text)).collect()
}

/// What a path refers to.
enum Target {
    /// An item or module of this crate.
    Ours(Vec<String>),
    /// A path that begins with an external crate, or with a name in scope.
    Other(String),
}

/// Resolves a path that stands in `module`.
fn resolve(
    module: &[String],
    segments: &[String],
    files: &BTreeMap<Vec<String>, String>,
) -> Target {
    let ups = segments.iter().take_while(|segment| *segment == "super").count();
    let child = [module, &segments[..1]].concat();
    match &*segments[0] {
        "crate" => Target::Ours(segments[1..].to_vec()),
        "self" => Target::Ours([module, &segments[1..]].concat()),
        "super" => Target::Ours([&module[..module.len() - ups], &segments[ups..]].concat()),
        _ if files.contains_key(&child) => Target::Ours([module, segments].concat()),
        first => Target::Other(first.to_owned()),
    }
}

/// The module of the table that a path belongs to.
fn owner(path: &[String]) -> String {
    match path {
        [store, backend, ..]
            if store == "store" && (backend == "postgres" || backend == "sqlite") =>
        {
            format!("{store}/{backend}")
        }
        [first, ..] => first.clone(),
        [] => "the crate".to_owned(),
    }
}

/// Calls `visit` with the module of each path and its target.
fn visit_paths(mut visit: impl FnMut(&[String], Target)) {
    let files = files();
    for (path, text) in &files {
        for reference in References::of(text).paths {
            let inside = [&path[..], &reference.inside].concat();
            visit(path, resolve(&inside, &reference.segments, &files));
        }
    }
}

#[test]
fn modules_refer_only_to_what_they_may() {
    let rows: BTreeMap<&str, &Module> = MODULES.iter().map(|row| (row.name, row)).collect();
    let mut wrong = BTreeSet::new();
    visit_paths(|path, target| {
        let (file, name) = (path.join("/"), owner(path));
        let Some(row) = rows.get(&*name) else {
            wrong.insert(format!("{name} is not in MODULES"));
            return;
        };
        match target {
            Target::Ours(target) => {
                let target = owner(&target);
                let is_known = KNOWN.contains(&(&name, &target));
                if target != name && !row.modules.contains(&&*target) && !is_known {
                    wrong.insert(format!("{name} may not refer to {target}: src/{file}.rs"));
                }
            }
            Target::Other(first) => {
                let is_part = |(part, of): &(&str, &str)| {
                    *of == first
                        && Path::new(part).starts_with(&name)
                        && !Path::new(&file).starts_with(part)
                };
                let is_elsewhere = PARTS.iter().any(is_part);
                if RESTRICTED.contains(&&*first) && (is_elsewhere || !row.crates.contains(&&*first))
                {
                    wrong.insert(format!("{name} may not use the crate {first}: src/{file}.rs"));
                }
            }
        }
    });
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_table_of_modules_is_in_order() {
    let mut before = BTreeSet::new();
    for row in MODULES {
        for name in row.modules {
            assert!(
                before.contains(name),
                "{} may refer to {name}, which is not above it",
                row.name
            );
        }
        for name in row.crates {
            assert!(RESTRICTED.contains(name), "{}: {name} is not in RESTRICTED", row.name);
        }
        assert!(before.insert(row.name), "{} is there twice", row.name);
    }
    let names: BTreeSet<String> = files().keys().map(|path| owner(path)).collect();
    for name in before {
        assert!(names.contains(name), "there is no module {name}");
    }
}

/// The references between modules with the same parent, and between those of the table.
fn edges() -> BTreeMap<String, BTreeSet<String>> {
    let files = files();
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    visit_paths(|path, target| {
        let Target::Ours(target) = target else { return };
        let common = path.iter().zip(&target).take_while(|(from, to)| from == to).count();
        if common < path.len() && common < target.len() && files.contains_key(&target[..=common]) {
            let (from, to) = (path[..=common].join("/"), target[..=common].join("/"));
            edges.entry(from).or_default().insert(to);
        }
        let (from, to) = (owner(path), owner(&target));
        if from != to {
            edges.entry(from).or_default().insert(to);
        }
    });
    edges
}

/// Whether there is a way from one module to another.
fn reaches(edges: &BTreeMap<String, BTreeSet<String>>, from: &str, to: &str) -> bool {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(module) = next.pop() {
        for target in edges.get(module).into_iter().flatten() {
            if target == to {
                return true;
            }
            if seen.insert(target) {
                next.push(target);
            }
        }
    }
    false
}

#[test]
fn modules_do_not_import_each_other_in_circles() {
    let mut edges = edges();
    for (from, to) in KNOWN {
        let was = edges.get_mut(*from).is_some_and(|targets| targets.remove(*to));
        assert!(was, "{from} does not refer to {to} any more: remove it from KNOWN");
    }
    let pairs = edges.iter().flat_map(|(from, targets)| targets.iter().map(move |to| (from, to)));
    let circles: Vec<_> = pairs.filter(|(from, to)| reaches(&edges, to, from)).collect();
    assert!(circles.is_empty(), "references that are parts of circles: {circles:#?}");
    for (from, to) in KNOWN {
        assert!(reaches(&edges, to, from), "{from} to {to} is no circle: remove it from KNOWN");
    }
}

/// The checkers of the torture test share nothing, so that they do not share a wrong assumption.
#[test]
fn checkers_are_independent() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("testkit/src");
    for (own, other) in [("checker", &["judge"][..]), ("judge", &["checker", "history"])] {
        let mut files = rust_files(&source.join(own));
        files.extend(Some(source.join(own).with_extension("rs")).filter(|file| file.exists()));
        assert!(files.len() > 1);
        for file in files {
            for path in References::of(&fs::read_to_string(&file).expect("text")).paths {
                let is_other = path.segments[0] == "crate" && other.contains(&&*path.segments[1]);
                assert!(!is_other, "{}: {path:?}", file.display());
            }
        }
    }
}

#[test]
fn only_commands_print() {
    for (path, text) in files() {
        let prints = References::of(&text)
            .macros
            .into_iter()
            .any(|name| matches!(&*name, "print" | "println" | "eprint" | "eprintln" | "dbg"));
        assert!(!prints || path[0] == "cli", "src/{}.rs prints", path.join("/"));
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
fn contract_documents_every_error_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path| fs::read_to_string(root.join(path)).expect("text");
    let contract = read("proto/event_aggregator/v1/event_aggregator.proto");
    let words: Vec<&str> = contract.split(|c: char| !c.is_ascii_uppercase() && c != '_').collect();
    let openapi: serde_json::Value =
        serde_json::from_str(&read("src/http/openapi.json")).expect("JSON");
    let listed = openapi.pointer("/components/schemas/Error/properties/reason/enum");
    for reason in Reason::ALL.iter().map(|reason| reason.name()) {
        assert!(words.contains(&reason), "{reason} is not in the proto file");
        let is_listed = listed
            .and_then(|listed| listed.as_array())
            .is_none_or(|listed| listed.iter().any(|name| name == reason));
        assert!(is_listed, "{reason} is not in openapi.json");
    }
}

#[test]
fn operations_doc_states_the_memory_limit() {
    let page = include_str!("../../docs/operations.md");
    let told = format!(
        "**{} GiB**",
        event_aggregator::testing::limits::MAX_MEMORY_BYTES.div_ceil(1 << 30)
    );
    assert!(page.contains(&told), "docs/operations.md does not say {told}");
}
