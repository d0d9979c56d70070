//! Where events come from: a file, or a simulation.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    file::{self, Input},
    simulate::{Expected, Simulation},
};
use crate::proto::v1::Event;

/// Events between the reader or simulator and the sender. Each may have up to 1 MiB.
const CHANNEL_EVENTS: usize = 500;

/// A position in the input.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Position {
    /// Number of lines, or of simulated events, before it.
    pub(super) line: u64,
    /// Byte offset in the file. Simulated events count as one byte.
    pub(super) bytes: u64,
}

/// A line of the input.
#[derive(Debug)]
pub(super) struct Line {
    /// The position after it. Its `line` is the number of this line.
    pub(super) end: Position,
    /// Whether the line ended with a line break.
    pub(super) is_complete: bool,
    /// Text of the line, if rejected lines are saved.
    pub(super) text: Option<Vec<u8>>,
}

impl Line {
    pub(super) fn simulated(number: u64) -> Self {
        Self { end: Position { line: number, bytes: number }, is_complete: true, text: None }
    }
}

/// A line with its event, or with the reason why it is invalid.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) line: Line,
    pub(super) event: Result<Event, String>,
}

pub(super) enum Source {
    Simulate(Simulation),
    File {
        path: PathBuf,
        input: Input,
        /// Length of a regular file.
        length: Option<u64>,
        begin: Position,
        /// Whether lines include their text.
        keeps_text: bool,
    },
}

impl Source {
    /// Opens a file at a position, or standard input for `-`.
    pub(super) async fn open(
        path: &Path,
        begin: Position,
        keeps_text: bool,
    ) -> anyhow::Result<Self> {
        let (input, length) = file::open(path, begin.bytes).await?;
        Ok(Self::File { path: path.to_owned(), input, length, begin, keeps_text })
    }

    /// The counts that the service should report.
    pub(super) fn expected(&self) -> Option<Expected> {
        match self {
            Self::Simulate(simulation) => Some(simulation.expected()),
            Self::File { .. } => None,
        }
    }

    /// A progress bar in events or in bytes.
    pub(super) fn progress(&self) -> anyhow::Result<ProgressBar> {
        let (length, template) = match self {
            Self::Simulate(simulation) => {
                let template = "{wide_bar} {human_pos} of {human_len} events, {eta} left";
                (Some(simulation.total()), template)
            }
            Self::File { length: Some(length), .. } => {
                (Some(*length), "{wide_bar} {bytes} of {total_bytes}, {eta} left")
            }
            Self::File { length: None, .. } => (None, "{spinner} {bytes} in {elapsed}"),
        };
        let progress = ProgressBar::no_length();
        progress.set_style(ProgressStyle::with_template(template).context("progress bar")?);
        if let Some(length) = length {
            progress.set_length(length);
        }
        Ok(progress)
    }

    /// Starts to read or generate the events.
    pub(super) fn start(self) -> Events {
        let (sender, receiver) = mpsc::channel(CHANNEL_EVENTS);
        let task = match self {
            Self::Simulate(simulation) => tokio::spawn(async {
                simulation.run(sender).await;
                Ok(())
            }),
            Self::File { path, input, begin, keeps_text, .. } => tokio::spawn(async move {
                let read = file::read(input, begin, keeps_text, sender).await;
                read.with_context(|| path.display().to_string())
            }),
        };
        Events { receiver, task }
    }
}

/// Events from a task that reads or generates them.
pub(super) struct Events {
    receiver: mpsc::Receiver<Outgoing>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Events {
    /// Simulated events at a steady rate, without an end.
    pub(super) fn steady(simulation: Simulation, rate: u32) -> Self {
        let Self { receiver: mut simulated, .. } = Source::Simulate(simulation).start();
        let (sender, receiver) = mpsc::channel(CHANNEL_EVENTS);
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
            while let Some(event) = simulated.recv().await {
                ticks.tick().await;
                if sender.send(event).await.is_err() {
                    break;
                }
            }
            Ok(())
        });
        Self { receiver, task }
    }

    /// Waits for events and appends up to `limit` of them. Returns their number, which is 0 at the
    /// end. Cancel safe.
    pub(super) async fn recv_many(&mut self, events: &mut Vec<Outgoing>, limit: usize) -> usize {
        self.receiver.recv_many(events, limit).await
    }

    /// The result of the task, once all events were received.
    pub(super) async fn finish(self) -> anyhow::Result<()> {
        drop(self.receiver);
        self.task.await?
    }
}
