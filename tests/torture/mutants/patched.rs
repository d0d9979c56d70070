//! Builds the mutants that are patches: in a copy of the source, one after the other, with a target
//! directory of its own. They share it, so that dependencies are built once, and then only what a
//! patch changes. The build is a debug build, which is quick.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

/// Folders that a build does not need, beside hidden ones. They can be large.
const SKIPPED: [&str; 3] = ["target", "data", "fuzz"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutants")
}

/// The program of a patch, once it is built.
pub fn program(name: &str) -> PathBuf {
    folder().join(name)
}

/// Builds the programs of these patches.
pub fn build(names: &[&str]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let tree = folder().join("source");
    copy_source(&tree).context("cannot copy the source")?;
    for name in names {
        println!("building the mutant {name}");
        patch(&tree, name, "--forward")?;
        cargo_build(&tree).with_context(|| format!("the mutant {name} does not build"))?;
        let built = folder().join("target/debug/event-aggregator");
        fs::copy(built, program(name)).context("cannot copy the program")?;
        patch(&tree, name, "--reverse")?;
    }
    Ok(())
}

fn copy_source(tree: &Path) -> Result<()> {
    if tree.exists() {
        // An interrupted run has left its patch in it.
        fs::remove_dir_all(tree)?;
    }
    fs::create_dir_all(tree)?;
    let mut copy = Command::new("cp");
    copy.arg("-R");
    for entry in fs::read_dir(env!("CARGO_MANIFEST_DIR"))? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with('.') && !SKIPPED.contains(&&*name) {
            copy.arg(entry.path());
        }
    }
    run(copy.arg(tree))
}

/// Applies a patch, exactly as it is: with fuzz, it could end up in a wrong place.
fn patch(tree: &Path, name: &str, direction: &str) -> Result<()> {
    let mut patch = Command::new("patch");
    patch.args(["-p1", "--fuzz=0", "--batch", direction, "--input"]);
    patch.arg(format!("tests/torture/mutants/{name}.patch")).current_dir(tree);
    run(patch.stdout(Stdio::null())).with_context(|| format!("{name}.patch does not apply"))
}

fn cargo_build(tree: &Path) -> Result<()> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args(["build", "--quiet", "--locked", "--bin", "event-aggregator"]);
    run(cargo.current_dir(tree).env("CARGO_TARGET_DIR", folder().join("target")))
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("cannot run {:?}", command.get_program()))?;
    ensure!(status.success(), "{:?} ended with {status}", command.get_program());
    Ok(())
}
