//! Reads events from a file or a pipe.

use std::{io, path::Path};

use anyhow::Context;
use tokio::{
    fs::File,
    io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncSeekExt, BufReader},
    sync::mpsc,
};

use super::source::{Line, Outgoing, Position};
use crate::{cli::ndjson, limits::MAX_REQUEST_BYTES};

/// Maximum length of a line in bytes. A longer one would not fit in a request.
const MAX_LINE_BYTES: usize = MAX_REQUEST_BYTES / 2;

pub(super) type Input = BufReader<Box<dyn AsyncRead + Send + Unpin>>;

/// Opens a file at a byte offset, or standard input for `-`. Returns the length of a regular file.
pub(super) async fn open(path: &Path, begin: u64) -> anyhow::Result<(Input, Option<u64>)> {
    let mut length = None;
    let input: Box<dyn AsyncRead + Send + Unpin> = match path.to_str() {
        Some("-") => Box::new(tokio::io::stdin()),
        _ => {
            let opened = File::open(path).await;
            let mut file = opened.with_context(|| format!("cannot open {}", path.display()))?;
            length = Some(file.metadata().await?).filter(|file| file.is_file());
            if begin > 0 {
                file.seek(io::SeekFrom::Start(begin)).await?;
            }
            Box::new(file)
        }
    };
    Ok((BufReader::with_capacity(1 << 16, input), length.map(|file| file.len())))
}

/// Reads lines until the end of the input, or until the receiver is dropped. The input continues at
/// `position`. Includes the text of each line if it may have to be saved.
pub(super) async fn read(
    mut input: Input,
    mut position: Position,
    keeps_text: bool,
    events: mpsc::Sender<Outgoing>,
) -> anyhow::Result<()> {
    let mut text = Vec::new();
    while let Some((bytes, is_complete)) = next_line(&mut input, &mut text).await? {
        position.line += 1;
        position.bytes += bytes;
        if text.trim_ascii().is_empty() {
            continue;
        }
        let event = match std::str::from_utf8(&text) {
            _ if text.len() > MAX_LINE_BYTES => {
                Err(format!("is longer than {MAX_LINE_BYTES} bytes"))
            }
            Ok(text) => ndjson::read(text).map_err(|error| error.to_string()),
            Err(_) => Err("is not UTF-8".to_owned()),
        };
        let text = keeps_text.then(|| text.clone());
        let line = Line { end: position, is_complete, text };
        if events.send(Outgoing { line, event }).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Reads the next line into `text`; a line that is too long is truncated. Returns its length in
/// bytes and whether it ends with a line break, or `None` at the end of the input.
async fn next_line(
    input: &mut (impl AsyncBufRead + Unpin),
    text: &mut Vec<u8>,
) -> io::Result<Option<(u64, bool)>> {
    text.clear();
    let mut bytes = 0;
    loop {
        let read = input.fill_buf().await?;
        if read.is_empty() {
            return Ok((bytes > 0).then_some((bytes, false)));
        }
        let end = read.iter().position(|&byte| byte == b'\n');
        let taken = end.unwrap_or(read.len());
        let room = (MAX_LINE_BYTES + 1).saturating_sub(text.len());
        text.extend_from_slice(&read[..taken.min(room)]);
        let consumed = taken + usize::from(end.is_some());
        input.consume(consumed);
        bytes += consumed as u64;
        if end.is_some() {
            return Ok(Some((bytes, true)));
        }
    }
}
