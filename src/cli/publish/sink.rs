//! Records what became of the events: counts outcomes, and saves rejected lines and the position.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::Path,
};

use anyhow::{Context, bail};
use serde_json::json;

use super::{
    resume::Resume,
    source::{Line, Position},
    tally::{Outcome, Tally},
    window::Request,
};
use crate::proto::v1::PublishStreamResponse;

/// By default nothing is saved.
#[derive(Debug, Default)]
pub(super) struct Sink {
    pub(super) tally: Tally,
    /// File of rejected lines.
    rejects: Option<File>,
    resume: Option<Resume>,
}

impl Sink {
    /// Opens the files. When an import is resumed, rejected lines up to the saved position are
    /// kept.
    pub(super) fn open(
        input: Option<&Path>,
        resume: Option<&Path>,
        rejects: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let resume = resume.map(|path| Resume::open(path, input)).transpose()?;
        if let (Some(input), Some(rejects)) = (input, rejects)
            && is_same(input, rejects)
        {
            bail!("--rejects must not be the input file");
        }
        let length = resume.as_ref().map_or(Some(0), Resume::rejects_bytes);
        let rejects = rejects.map(|path| open_rejects(path, length)).transpose()?;
        Ok(Self { tally: Tally::default(), rejects, resume })
    }

    /// Whether rejected lines are saved with their text.
    pub(super) fn keeps_text(&self) -> bool {
        self.rejects.is_some()
    }

    /// The position up to which everything was acknowledged.
    pub(super) fn position(&self) -> Position {
        self.resume.as_ref().map_or_else(Position::default, Resume::position)
    }

    /// Records the outcomes of a request.
    pub(super) fn record(
        &mut self,
        request: Request,
        response: PublishStreamResponse,
    ) -> io::Result<()> {
        let end = request.end();
        let mut results = response.results.into_iter();
        for (line, fault) in request.lines {
            let outcome = match fault {
                Some(fault) => Outcome::Rejected(fault),
                None => Outcome::from(results.next().unwrap_or_default()),
            };
            if let (Some(rejects), Outcome::Rejected(reason)) = (&mut self.rejects, &outcome) {
                rejects.write_all(record_of(&line, reason).as_bytes())?;
            }
            self.tally.add(line.end.line, outcome);
        }
        match (&mut self.resume, end) {
            (Some(resume), Some(end)) => resume.advance(end, self.rejects.as_ref()),
            _ => Ok(()),
        }
    }

    /// Saves the position.
    pub(super) fn save(&mut self) -> io::Result<()> {
        match &mut self.resume {
            Some(resume) => resume.save(self.rejects.as_ref()),
            None => Ok(()),
        }
    }
}

fn record_of(line: &Line, reason: &str) -> String {
    let text = line.text.as_deref().map(String::from_utf8_lossy);
    let record = json!({ "line": line.end.line, "reason": reason, "event": text });
    format!("{record}\n")
}

/// Whether two paths lead to the same existing file.
fn is_same(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
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
