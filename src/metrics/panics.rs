//! Counts panics anywhere in the process.

use std::{panic, sync::LazyLock};

use prometheus_client::metrics::counter::Counter;

/// Panics of this process. The previous panic hook still runs.
static PANICS: LazyLock<Counter> = LazyLock::new(|| {
    let panics = Counter::default();
    let (counted, told) = (panics.clone(), panic::take_hook());
    panic::set_hook(Box::new(move |panicked| {
        counted.inc();
        told(panicked);
    }));
    panics
});

/// The counter. The first call installs the panic hook.
pub(super) fn counter() -> Counter {
    PANICS.clone()
}
