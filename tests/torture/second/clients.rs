//! How the services are called: gRPC connections, and one HTTP request on one connection.

use std::{net::SocketAddr, time::Duration};

use event_aggregator::proto::v1::event_aggregator_service_client::EventAggregatorServiceClient;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
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

pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// Sends a request. `Ok(None)`: there was no connection, so nothing was sent.
pub async fn http(
    address: SocketAddr,
    call: &str,
    content_type: &str,
    body: &str,
) -> std::io::Result<Option<Answer>> {
    let Ok(Ok(mut connection)) = timeout(CONNECT, TcpStream::connect(address)).await else {
        return Ok(None);
    };
    let length = body.len();
    let request = format!(
        "{call} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: {content_type}\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    connection.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await?;
    let answer = String::from_utf8(answer).map_err(std::io::Error::other)?;
    let broken = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(broken)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(broken)?;
    let mut lines = head.to_ascii_lowercase();
    lines.push_str("\r\n");
    let length = lines.split_once("content-length: ").and_then(|(_, rest)| rest.split_once('\r'));
    // A body that was cut is no answer.
    if let Some((length, _)) = length
        && length.parse() != Ok(body.len())
    {
        return Err(broken());
    }
    Ok(Some(Answer { status, body: body.to_owned() }))
}
