//! Response streams that a task fills.

use tokio::task::JoinHandle;
use tokio_stream::{Stream, StreamExt};

use crate::api::Error;

/// The items of a stream that a task fills, and an internal error at the end if the task panicked.
pub fn filled_by<T, E: From<Error>>(
    items: impl Stream<Item = Result<T, E>>,
    task: JoinHandle<()>,
) -> impl Stream<Item = Result<T, E>> {
    let end = tokio_stream::once(task).then(|task| task);
    items.chain(end.filter_map(|end| end.err().map(|_| Err(Error::internal().into()))))
}
