//! How the services are called: gRPC connections, and one HTTP request on one connection.

use std::{net::SocketAddr, time::Duration};

use event_aggregator::proto::v1::event_aggregator_service_client::EventAggregatorServiceClient;
use testkit::http::{Connection, Response, request_with_body};
use tokio::time::timeout;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

use super::judge::history::Outcome;

pub type Client = EventAggregatorServiceClient<Channel>;

/// Timeouts of connections and of calls. A service retries a commit for 60 s.
const CONNECT: Duration = Duration::from_secs(1);
pub const CALL: Duration = Duration::from_secs(90);

/// Connects immediately. If it fails, nothing was sent.
pub async fn connect(address: SocketAddr) -> Option<Client> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
    let channel = endpoint.connect_timeout(CONNECT).connect().await.ok()?;
    Some(Client::new(channel).max_decoding_message_size(8 << 20))
}

/// The outcome of the events of a failed call, according to the contract.
pub fn of_status(status: &Status, is_stream: bool) -> Outcome {
    let details = status.get_error_details();
    let text = format!("{:?}: {}", status.code(), status.message());
    match details.error_info().map(|info| &*info.reason) {
        Some("QUEUE_FULL" | "TOO_MANY_CALLS" | "REQUEST_TOO_SLOW") => Outcome::NotDone,
        // A service that shuts down responds to all stream requests that it accepted.
        Some("SHUTTING_DOWN") if is_stream => Outcome::NotDone,
        Some("SHUTTING_DOWN" | "STORE_UNAVAILABLE" | "DEADLINE_EXCEEDED") => Outcome::Lost(text),
        Some(_) => Outcome::Wrong(text),
        // The connection failed, and tonic created the status.
        None if matches!(status.code(), Code::InvalidArgument | Code::OutOfRange) => {
            Outcome::Wrong(text)
        }
        None => Outcome::Lost(text),
    }
}

/// Sends a request. `Ok(None)`: there was no connection, so nothing was sent.
pub async fn http(
    address: SocketAddr,
    call: &str,
    content_type: &str,
    body: &str,
) -> std::io::Result<Option<Response>> {
    let Ok(Ok(connection)) = timeout(CONNECT, Connection::open(address)).await else {
        return Ok(None);
    };
    let request = request_with_body(call, content_type, body);
    connection.last_call(request.as_bytes()).await.map(Some)
}
