//! Behavior of the service on any store: each check is one function, and one test per store.

/// Defines one test per check and store.
macro_rules! on_both_stores {
    ($($check:ident),+ $(,)?) => {
        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $check() {
                    super::$check(crate::harness::Backend::Sqlite).await;
                }
            )+
        }
        mod postgres {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $check() {
                    super::$check(crate::harness::Backend::Postgres).await;
                }
            )+
        }
    };
}
pub(crate) use on_both_stores;

mod bad_http;
mod bad_input;
mod cloudevents;
mod concurrency;
mod feed;
mod grpc_web;
pub mod http;
mod http_forms;
mod list;
mod lookup;
mod metrics;
mod openapi;
mod payload;
mod publish;
mod restart;
mod restored;
mod stats;
mod store;
mod stream;
mod validation;
mod verify;
