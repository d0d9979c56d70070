//! The cursor file of `tail`, saved in step with the output.

use std::{
    fs::{self, File},
    io::{self, Seek, SeekFrom},
    os::{fd::AsFd, unix::fs::FileTypeExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::cli::replace::{replace, sync_folder};

/// Contents of the cursor file.
#[derive(Debug, Serialize, Deserialize)]
struct Place {
    cursor: String,
    /// Length of the output, if it is a regular file.
    output_bytes: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Export {
    path: PathBuf,
    /// Saved cursor, or `None` in the first run.
    cursor: Option<String>,
    /// Standard output, if it is a regular file.
    output: Option<File>,
}

impl Export {
    /// Reads the cursor file, if it exists, and truncates output that was printed after the last
    /// save. Fails if standard output is a pipe: how much its reader has processed is unknown, so
    /// the saved cursor could be ahead of it.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let name = path.display();
        let place: Option<Place> = match fs::read(path) {
            Ok(text) => Some(serde_json::from_slice(&text).with_context(|| {
                format!(
                    "{name} is not a cursor file; choose another, or remove it and the output to \
                     start over"
                )
            })?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => bail!("cannot read {name}: {error}"),
        };
        let mut output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let metadata = output.metadata()?;
        if metadata.file_type().is_fifo() || metadata.file_type().is_socket() {
            bail!(
                "--cursor-file requires a regular file as output, but this is a pipe, whose \
                 reader may exit before it has processed its input; append to a file with >>, or \
                 let the reader store the cursor, which is in each line"
            );
        }
        if !metadata.is_file() {
            let cursor = place.map(|place| place.cursor);
            return Ok(Self { path: path.to_owned(), cursor, output: None });
        }
        let length = metadata.len();
        match place.as_ref().and_then(|place| place.output_bytes) {
            Some(kept) if length < kept => bail!(
                "the output has {length} bytes, but had {kept} when {name} was saved; append to \
                 it with >>, or remove {name} to start over"
            ),
            Some(kept) => output.set_len(kept)?,
            None => (),
        }
        // Needed if the output was not opened for appending.
        output.seek(SeekFrom::End(0))?;
        let cursor = place.map(|place| place.cursor);
        Ok(Self { path: path.to_owned(), cursor, output: Some(output) })
    }

    /// The cursor to resume from, if there is one.
    pub(super) fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// Saves the first cursor before anything is printed, so that a killed run always leaves a
    /// length to truncate the output to.
    pub(super) fn begin(&mut self, cursor: &str) -> anyhow::Result<()> {
        if self.cursor.is_some() {
            return Ok(());
        }
        self.save(cursor)?;
        Ok(sync_folder(&self.path)?)
    }

    /// Syncs the output to disk, then saves the cursor after it.
    pub(super) fn save(&mut self, cursor: &str) -> anyhow::Result<()> {
        let output_bytes = match &self.output {
            Some(output) => {
                output.sync_data()?;
                Some(output.metadata()?.len())
            }
            None => None,
        };
        let place = Place { cursor: cursor.to_owned(), output_bytes };
        replace(&self.path, &serde_json::to_vec(&place)?)?;
        self.cursor = Some(place.cursor);
        Ok(())
    }
}
