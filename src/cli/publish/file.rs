//! Events from a file or a pipe.

use std::path::Path;

use anyhow::Context;
use tokio::{
    fs::File,
    io::{AsyncBufReadExt, AsyncRead, BufReader, Lines},
    sync::mpsc,
};

use super::{Outgoing, send::Rejects};
use crate::{cli::ndjson, limits::MAX_REQUEST_BYTES};

type Input = Box<dyn AsyncRead + Send + Unpin>;

/// Opens a file, or standard input if the path is a dash.
pub(super) async fn open(path: &Path) -> anyhow::Result<Lines<BufReader<Input>>> {
    let input: Input = match path.to_str() {
        Some("-") => Box::new(tokio::io::stdin()),
        _ => Box::new(
            File::open(path).await.with_context(|| format!("cannot open {}", path.display()))?,
        ),
    };
    Ok(BufReader::with_capacity(1 << 16, input).lines())
}

/// Reads events until the end, or until nobody takes them any more. Returns the lines that are not
/// events.
pub(super) async fn read(
    mut lines: Lines<BufReader<Input>>,
    events: mpsc::Sender<Outgoing>,
) -> anyhow::Result<Rejects> {
    let mut rejects = Rejects::default();
    let mut line = 0;
    while let Some(text) = lines.next_line().await? {
        line += 1;
        if text.trim().is_empty() {
            continue;
        }
        // A longer one would not fit a request, whatever is in it.
        let read = match text.len() <= MAX_REQUEST_BYTES / 2 {
            true => ndjson::read(&text).map_err(|error| format!("is not an event: {error}")),
            false => Err(format!("is {} bytes long", text.len())),
        };
        match read {
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
