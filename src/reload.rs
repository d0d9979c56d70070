//! Watches files and reloads them when they change, and on SIGHUP. Invalid files never replace a
//! valid value.

use std::{fmt::Display, panic::resume_unwind, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::spawn_blocking,
    time::sleep,
};
use tracing::{info, warn};

/// Files and the value that is loaded from them. Both functions run on a thread for blocking work.
pub(crate) trait Files: Send + Sized + 'static {
    type Contents: PartialEq + Send;
    type Value: Send + Sync + 'static;
    type Error: Display + Send + 'static;

    /// What the files are called in the log.
    const NAME: &'static str;

    /// How often they are read to look for a change.
    const INTERVAL: Duration;

    fn read(&self) -> Result<Self::Contents, Self::Error>;

    /// The value of these contents. `previous` is the value that it replaces.
    fn load(
        &self,
        contents: &Self::Contents,
        previous: Option<&Self::Value>,
    ) -> Result<Self::Value, Self::Error>;
}

/// Loads the files, and reloads them for as long as there is a receiver.
pub(crate) async fn watch<F: Files>(files: F) -> Result<watch::Receiver<F::Value>, F::Error> {
    let hangup = signal(SignalKind::hangup());
    if let Err(error) = &hangup {
        warn!(%error, "cannot handle SIGHUP; changes of the {} are still noticed", F::NAME);
    }
    let loading = spawn_blocking(move || {
        let contents = files.read()?;
        let (values, receiver) = watch::channel(files.load(&contents, None)?);
        Ok((Reloader { files, contents, values, logged: None }, receiver))
    });
    match loading.await {
        Ok(loaded) => {
            let (reloader, receiver) = loaded?;
            tokio::spawn(reloader.run(hangup.ok()));
            Ok(receiver)
        }
        Err(error) => resume_unwind(error.into_panic()),
    }
}

struct Reloader<F: Files> {
    files: F,
    /// Contents when they were last read, valid or not.
    contents: F::Contents,
    values: watch::Sender<F::Value>,
    /// The last error that was logged, if the files are still invalid.
    logged: Option<String>,
}

impl<F: Files> Reloader<F> {
    async fn run(mut self, mut hangup: Option<Signal>) {
        loop {
            let is_forced = tokio::select! {
                () = self.values.closed() => return,
                () = sleep(F::INTERVAL) => false,
                Some(()) = async { hangup.as_mut()?.recv().await } => true,
            };
            let reloading = spawn_blocking(move || {
                self.reload(is_forced);
                self
            });
            let Ok(reloader) = reloading.await else { return };
            self = reloader;
        }
    }

    /// Applies changed contents. Logs each error once, unless the reload is forced.
    fn reload(&mut self, is_forced: bool) {
        let read = self.files.read();
        if !is_forced && read.as_ref().is_ok_and(|contents| *contents == self.contents) {
            self.logged = None;
            return;
        }
        let loaded = read.and_then(|contents| {
            self.contents = contents;
            self.files.load(&self.contents, Some(&self.values.borrow()))
        });
        match loaded {
            Ok(value) => {
                self.values.send_replace(value);
                self.logged = None;
                info!("{} reloaded", F::NAME);
            }
            Err(error) => {
                let error = error.to_string();
                if is_forced || self.logged.as_ref() != Some(&error) {
                    warn!(error, "failed to reload {}; keeping the previous one", F::NAME);
                }
                self.logged = Some(error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io, path::PathBuf};

    use super::*;

    struct Number(PathBuf);

    impl Files for Number {
        type Contents = String;
        type Value = u32;
        type Error = io::Error;

        const NAME: &'static str = "number";
        const INTERVAL: Duration = Duration::from_millis(1);

        fn read(&self) -> io::Result<String> {
            fs::read_to_string(&self.0)
        }

        fn load(&self, contents: &String, previous: Option<&u32>) -> io::Result<u32> {
            let number: u32 = contents.parse().map_err(io::Error::other)?;
            Ok(number + previous.unwrap_or(&0))
        }
    }

    #[tokio::test]
    async fn only_changed_and_valid_contents_are_applied() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("number");
        watch(Number(path.clone())).await.expect_err("no file");
        // As a rename, since a file may be read while it is written.
        let replace = |text: &str| {
            fs::write(folder.path().join("new"), text).expect("write");
            fs::rename(folder.path().join("new"), &path).expect("rename");
        };
        replace("1");
        let mut numbers = watch(Number(path.clone())).await.expect("loaded");
        assert_eq!(*numbers.borrow_and_update(), 1);
        for text in ["none", "20"] {
            sleep(Duration::from_millis(20)).await;
            assert!(!numbers.has_changed().expect("watched"));
            replace(text);
        }
        numbers.changed().await.expect("watched");
        assert_eq!(*numbers.borrow_and_update(), 21);
    }
}
