//! Counting panics, wherever in the program they happen. Each is a fault of the program.

use std::{panic, sync::LazyLock};

use prometheus_client::metrics::counter::Counter;

/// Those of this process. Whoever was told of panics before is told as well.
static PANICS: LazyLock<Counter> = LazyLock::new(|| {
    let panics = Counter::default();
    let (counted, told) = (panics.clone(), panic::take_hook());
    panic::set_hook(Box::new(move |panicked| {
        counted.inc();
        told(panicked);
    }));
    panics
});

/// The counter, which counts from now on.
pub(super) fn counter() -> Counter {
    PANICS.clone()
}
