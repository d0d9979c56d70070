//! Progress of an import: its position in the input file, and the rejected lines.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use super::Line;

/// How often the position is saved. Events acknowledged since the last save are sent again after a
/// kill, and then count as duplicates.
const SAVE_INTERVAL: Duration = Duration::from_millis(200);

/// Number of bytes before the position that identify the input file.
const KNOWN_BYTES: u64 = 4 << 10;

/// Contents of the resume file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    /// Last acknowledged line.
    line: u64,
    /// Byte offset after that line.
    bytes: u64,
    /// Hash of the bytes before the offset.
    fingerprint: u64,
    /// Length of the file of rejected lines.
    rejects_bytes: Option<u64>,
}

/// Saves the progress of a resumable import. By default nothing is saved.
#[derive(Debug, Default)]
pub(super) struct Import {
    rejects: Option<File>,
    kept: Option<Kept>,
    place: Place,
}

#[derive(Debug)]
struct Kept {
    path: PathBuf,
    /// The input file, to hash the bytes before the position.
    input: File,
    saved: Instant,
}

impl Import {
    /// Opens the files. When an import is resumed, rejected lines up to the saved position are
    /// kept.
    pub(super) fn open(
        input: Option<&Path>,
        resume: Option<&Path>,
        rejects: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let mut place = None;
        let mut kept = None;
        if let Some(path) = resume {
            let Some(input) = input.filter(|input| *input != Path::new("-")) else {
                bail!("--resume-file requires a regular file; pass it with --file");
            };
            let input =
                File::open(input).with_context(|| format!("cannot open {}", input.display()))?;
            place = read_place(path, &input)?;
            kept = Some(Kept { path: path.to_owned(), input, saved: Instant::now() });
        }
        if let (Some(input), Some(rejects)) = (input, rejects)
            && is_same(input, rejects)
        {
            bail!("--rejects must not be the input file");
        }
        let length = place.as_ref().map_or(Some(0), |place| place.rejects_bytes);
        let rejects = rejects.map(|path| open_rejects(path, length)).transpose()?;
        Ok(Self { rejects, kept, place: place.unwrap_or_default() })
    }

    /// Whether the text of lines is needed.
    pub(super) fn keeps_rejects(&self) -> bool {
        self.rejects.is_some()
    }

    /// The line and the byte offset to resume after.
    pub(super) fn start(&self) -> (u64, u64) {
        (self.place.line, self.place.bytes)
    }

    /// Records a rejected line.
    pub(super) fn refuse(&mut self, line: &Line, reason: &str) -> io::Result<()> {
        let Some(rejects) = &mut self.rejects else { return Ok(()) };
        let text = line.text.as_deref().map(String::from_utf8_lossy);
        let mut record =
            json!({ "line": line.number, "reason": reason, "event": text }).to_string();
        record.push('\n');
        rejects.write_all(record.as_bytes())
    }

    /// Records that everything up to this line was acknowledged, and saves the position
    /// periodically.
    pub(super) fn answered(&mut self, line: &Line) -> io::Result<()> {
        // The last line may still be growing if it has no line break.
        if line.ended {
            (self.place.line, self.place.bytes) = (line.number, line.end);
        }
        match &self.kept {
            Some(kept) if kept.saved.elapsed() >= SAVE_INTERVAL => self.save(),
            _ => Ok(()),
        }
    }

    /// Saves the position.
    pub(super) fn save(&mut self) -> io::Result<()> {
        let Some(kept) = &mut self.kept else { return Ok(()) };
        if let Some(rejects) = &self.rejects {
            rejects.sync_data()?;
            self.place.rejects_bytes = Some(rejects.metadata()?.len());
        }
        self.place.fingerprint = fingerprint(&kept.input, self.place.bytes)?;
        // A rename is atomic: a kill leaves either the old file or the new one.
        let mut new = kept.path.clone().into_os_string();
        new.push(".new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(&self.place)?)?;
        file.sync_data()?;
        fs::rename(&new, &kept.path)?;
        kept.saved = Instant::now();
        Ok(())
    }
}

/// Whether two paths lead to the same existing file.
fn is_same(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

fn read_place(path: &Path, input: &File) -> anyhow::Result<Option<Place>> {
    let name = path.display();
    let place: Place = match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| {
            format!("{name} is not a resume file; choose another, or remove it to start over")
        })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => bail!("cannot read {name}: {error}"),
    };
    let length = input.metadata()?.len();
    if length < place.bytes || fingerprint(input, place.bytes)? != place.fingerprint {
        bail!(
            "{name} does not match the input, which is another file or was modified; remove it to \
             start over"
        );
    }
    Ok(Some(place))
}

fn fingerprint(input: &File, end: u64) -> io::Result<u64> {
    let mut known = vec![0; end.min(KNOWN_BYTES) as usize];
    let begin = end - known.len() as u64;
    input.read_exact_at(&mut known, begin)?;
    Ok(xxh3_64(&known))
}

/// Opens the file of rejected lines and truncates it to `length`, if that is known.
fn open_rejects(path: &Path, length: Option<u64>) -> anyhow::Result<File> {
    let name = path.display();
    let open = OpenOptions::new().create(true).append(true).open(path);
    let file = open.with_context(|| format!("cannot write {name}"))?;
    let has = file.metadata()?.len();
    if let Some(length) = length {
        if has < length {
            bail!("{name} has {has} bytes, but had {length} when the import was interrupted");
        }
        file.set_len(length).with_context(|| format!("cannot truncate {name}"))?;
    }
    Ok(file)
}
