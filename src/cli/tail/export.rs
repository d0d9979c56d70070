//! The place of a `tail` in a file, and what is printed in step with it.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

/// What the file says.
#[derive(Debug, Serialize, Deserialize)]
struct Place {
    cursor: String,
    /// How long the output was, if that is a file.
    output_bytes: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Export {
    path: PathBuf,
    cursor: Option<String>,
    /// Standard output, if that is a file.
    output: Option<File>,
}

impl Export {
    /// Reads the file, if it is there, and cuts off what was printed but not kept in it.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let name = path.display();
        let place: Option<Place> = match fs::read(path) {
            Ok(text) => Some(serde_json::from_slice(&text).with_context(|| {
                format!("{name} is no cursor file; name another, or remove it to begin anew")
            })?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => bail!("cannot read {name}: {error}"),
        };
        let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let length = Some(output.metadata()?).filter(|output| output.is_file());
        let length = length.map(|output| output.len());
        match (length, place.as_ref().and_then(|place| place.output_bytes)) {
            (Some(length), Some(kept)) if length < kept => bail!(
                "the output has {length} bytes, but had {kept} when {name} was written; append to \
                 it with >>, or remove {name} to begin anew"
            ),
            (Some(_), Some(kept)) => output.set_len(kept)?,
            _ => (),
        }
        let cursor = place.map(|place| place.cursor);
        Ok(Self { path: path.to_owned(), cursor, output: length.and(Some(output)) })
    }

    /// Where to go on, if this is not the first time.
    pub(super) fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// Keeps the place behind what was printed.
    pub(super) fn save(&self, cursor: &str) -> anyhow::Result<()> {
        let output_bytes = match &self.output {
            Some(output) => {
                output.sync_data()?;
                Some(output.metadata()?.len())
            }
            None => None,
        };
        let place = Place { cursor: cursor.to_owned(), output_bytes };
        // Replaced as a whole: whoever is killed here leaves the old one or the new one.
        let mut new = self.path.clone().into_os_string();
        new.push(".new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(&place)?)?;
        file.sync_data()?;
        Ok(fs::rename(&new, &self.path)?)
    }
}
