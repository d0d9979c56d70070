//! Replaces a file as a whole, for positions that must survive a kill.

use std::{
    fs::{File, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

/// Replaces the contents of a file, or creates it. The contents are on the disk before they get the
/// name of the file, so that a crash leaves either the old or the new ones.
pub(super) fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    // The mode of a file that is created as usual, which the umask restricts.
    let mode = Permissions::from_mode(0o666);
    let mut file = tempfile::Builder::new().permissions(mode).tempfile_in(folder_of(path))?;
    file.write_all(contents)?;
    file.as_file().sync_data()?;
    file.persist(path)?;
    Ok(())
}

/// Makes the name of a new file durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn replaced_file_has_usual_permissions() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let [path, usual] = ["new", "usual"].map(|name| folder.path().join(name));
        fs::write(&usual, "").expect("write");
        for contents in ["a", "b"] {
            replace(&path, contents.as_bytes()).expect("replaced");
            assert_eq!(fs::read_to_string(&path).expect("read"), contents);
        }
        let mode = |path: &Path| fs::metadata(path).expect("metadata").permissions().mode();
        assert_eq!(mode(&path), mode(&usual));
        assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 2);
        assert_eq!(folder_of(Path::new("new")), Path::new("."));
    }
}
