//! Keeps the history of a round as text, and the logs of its services.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{judge::history::History, round::Case};

pub fn keep(case: Case, history: &History, folder: &Path) -> io::Result<PathBuf> {
    let name = format!("second-{}-{}", case.store, case.seed).to_lowercase();
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("torture").join(name);
    fs::create_dir_all(&kept)?;
    let mut file = io::BufWriter::new(fs::File::create(kept.join("history.txt"))?);
    let History { keys, attempts, sights, walks, feeds, samples, last, rows, faults } = history;
    for (number, key) in keys.iter().enumerate() {
        writeln!(file, "key {number} {key:?}")?;
    }
    for attempt in attempts {
        writeln!(file, "{attempt:?}")?;
    }
    for sight in sights {
        writeln!(file, "{sight:?}")?;
    }
    for walk in walks {
        writeln!(file, "{walk:?}")?;
    }
    for feed in feeds {
        writeln!(file, "{feed:?}")?;
    }
    for sample in samples.iter().chain([last]) {
        writeln!(file, "{sample:?}")?;
    }
    for row in rows {
        writeln!(file, "{row:?}")?;
    }
    for fault in faults {
        writeln!(file, "fault {fault}")?;
    }
    file.flush()?;
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "log") {
            fs::copy(entry.path(), kept.join(entry.file_name()))?;
        }
    }
    Ok(kept)
}
