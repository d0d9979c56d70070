//! Response streams that a task produces.

use tokio::task::JoinHandle;
use tokio_stream::{Stream, StreamExt};

use crate::api::Error;

/// A stream of items that a task produces. If the task panics, the stream ends with an internal
/// error.
pub(crate) fn with_task_errors<T, E: From<Error>>(
    items: impl Stream<Item = Result<T, E>>,
    task: JoinHandle<()>,
) -> impl Stream<Item = Result<T, E>> {
    let end = tokio_stream::once(task).then(|task| task);
    items.chain(end.filter_map(|end| end.err().map(|_| Err(Error::internal().into()))))
}
