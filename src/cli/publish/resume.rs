//! The resume file of an import: its position in the input file.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::source::Position;
use crate::cli::replace::replace;

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

#[derive(Debug)]
pub(super) struct Resume {
    path: PathBuf,
    /// The input file, to hash the bytes before the position.
    input: File,
    place: Place,
    /// Whether the import was begun before.
    is_resumed: bool,
    saved: Instant,
}

impl Resume {
    /// Reads the resume file, if it exists, and compares it with the input.
    pub(super) fn open(path: &Path, input: Option<&Path>) -> anyhow::Result<Self> {
        let Some(input) = input.filter(|input| *input != Path::new("-")) else {
            bail!("--resume-file requires a regular file; pass it with --file");
        };
        let input =
            File::open(input).with_context(|| format!("cannot open {}", input.display()))?;
        let place = read_place(path, &input)?;
        let is_resumed = place.is_some();
        let place = place.unwrap_or_default();
        Ok(Self { path: path.to_owned(), input, place, is_resumed, saved: Instant::now() })
    }

    /// The position to resume after.
    pub(super) fn position(&self) -> Position {
        Position { line: self.place.line, bytes: self.place.bytes }
    }

    /// The length to which the file of rejected lines belongs to the position, if it is known.
    pub(super) fn rejects_bytes(&self) -> Option<u64> {
        if self.is_resumed { self.place.rejects_bytes } else { Some(0) }
    }

    /// Records that everything up to this position was acknowledged, and saves it periodically.
    pub(super) fn advance(&mut self, to: Position, rejects: Option<&File>) -> io::Result<()> {
        (self.place.line, self.place.bytes) = (to.line, to.bytes);
        match self.saved.elapsed() >= SAVE_INTERVAL {
            true => self.save(rejects),
            false => Ok(()),
        }
    }

    /// Saves the position, after the rejected lines before it.
    pub(super) fn save(&mut self, rejects: Option<&File>) -> io::Result<()> {
        if let Some(rejects) = rejects {
            rejects.sync_data()?;
            self.place.rejects_bytes = Some(rejects.metadata()?.len());
        }
        self.place.fingerprint = fingerprint(&self.input, self.place.bytes)?;
        replace(&self.path, &serde_json::to_vec(&self.place)?)?;
        self.saved = Instant::now();
        Ok(())
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
