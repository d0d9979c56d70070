//! The mutants that are patches are known to the torture test and apply to the source. Building them is
//! left to the mutation test.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

const TABLE: &str = include_str!("../torture/mutants.rs");

#[test]
fn patches_apply() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let entries = fs::read_dir(root.join("tests/torture/mutants")).expect("folder");
    let mut patches: Vec<_> = entries.map(|entry| entry.expect("entry").path()).collect();
    patches.retain(|path| path.extension().is_some_and(|extension| extension == "patch"));
    assert_eq!(patches.len(), TABLE.matches("by_patch(\"").count(), "{patches:?}");
    for path in patches {
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
        assert!(TABLE.contains(&format!("by_patch({name:?})")), "{name}");
        let mut patch = Command::new("patch");
        patch.args(["-p1", "--fuzz=0", "--batch", "--forward", "--dry-run", "--input"]);
        let output = patch.arg(&path).current_dir(root).stdin(Stdio::null()).output();
        let output = output.expect("patch is installed");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{name}: {text}");
    }
}
