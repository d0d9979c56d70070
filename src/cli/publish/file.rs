//! Events from a file or a pipe.

use std::{io, path::Path};

use anyhow::Context;
use tokio::{
    fs::File,
    io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, BufReader},
    sync::mpsc,
};

use super::{Outgoing, send::Lines};
use crate::{cli::ndjson, limits::MAX_REQUEST_BYTES};

/// Bytes of a line. A longer one would not fit a request, whatever is in it.
const MAX_LINE_BYTES: usize = MAX_REQUEST_BYTES / 2;

pub(super) type Input = BufReader<Box<dyn AsyncRead + Send + Unpin>>;

/// Opens a file, or standard input if the path is a dash.
pub(super) async fn open(path: &Path) -> anyhow::Result<Input> {
    let input: Box<dyn AsyncRead + Send + Unpin> = match path.to_str() {
        Some("-") => Box::new(tokio::io::stdin()),
        _ => Box::new(
            File::open(path).await.with_context(|| format!("cannot open {}", path.display()))?,
        ),
    };
    Ok(BufReader::with_capacity(1 << 16, input))
}

/// Reads events until the end, or until nobody takes them any more. Returns the lines that are not
/// events.
pub(super) async fn read(
    mut input: Input,
    events: mpsc::Sender<Outgoing>,
) -> anyhow::Result<Lines> {
    let mut rejects = Lines::default();
    let mut text = Vec::new();
    let mut line = 0;
    while next_line(&mut input, &mut text).await? {
        line += 1;
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
        match event {
            Ok(event) => {
                if events.send(Outgoing { line, event }).await.is_err() {
                    break;
                }
            }
            Err(reason) => rejects.add(line, reason),
        }
    }
    Ok(rejects)
}

/// Reads the next line into `text`, of one that is too long only as much as shows that. Says whether
/// there was one.
async fn next_line(
    input: &mut (impl AsyncBufRead + Unpin),
    text: &mut Vec<u8>,
) -> io::Result<bool> {
    text.clear();
    let mut any = false;
    loop {
        let read = input.fill_buf().await?;
        if read.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = read.iter().position(|&byte| byte == b'\n');
        let taken = end.unwrap_or(read.len());
        let room = (MAX_LINE_BYTES + 1).saturating_sub(text.len());
        text.extend_from_slice(&read[..taken.min(room)]);
        input.consume(taken + usize::from(end.is_some()));
        if end.is_some() {
            return Ok(true);
        }
    }
}
