//! A service with an access file, and the identities that call it.

use std::path::Path;

use event_aggregator::proto::v1::event::Content;
use sha2::{Digest, Sha256};
use tonic::{
    Request, Status,
    metadata::AsciiMetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use super::*;

pub type Caller = EventAggregatorServiceClient<InterceptedService<Channel, Bearer>>;

/// Adds the token of an identity to each call.
#[derive(Clone)]
pub struct Bearer(AsciiMetadataValue);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// An entry of the access file: an identity that may publish and read some topics. Its token is the one
/// that [`testkit::http2::begin_as`] sends.
pub fn entry(name: &str, topics: &[&str]) -> String {
    let digest = Sha256::digest(format!("token-of-{name}"));
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "[[identity]]\nname = \"{name}\"\ntoken_sha256 = [\"{digest}\"]\n\
         grants = [{{ verbs = [\"publish\", \"read\"], topics = {topics:?} }}]\n"
    )
}

/// Starts a service that knows these entries.
pub fn start(url: &str, folder: &Path, entries: &str) -> Service {
    let file = folder.join("access.toml");
    fs::write(&file, entries).expect("an access file");
    Service::start_with(PROGRAM, url, &["--access", file.to_str().expect("UTF-8")])
}

/// Connects as an identity.
pub async fn caller(address: SocketAddr, name: &str) -> Caller {
    let endpoint = Channel::from_shared(format!("http://{address}")).expect("an address");
    let channel = endpoint.connect().await.expect("connect");
    let bearer = format!("Bearer token-of-{name}").parse().expect("a header");
    Caller::new(InterceptedService::new(channel, Bearer(bearer)))
}

/// A request with events of one topic, each with an id and a payload.
pub fn request(topic: &str, events: impl IntoIterator<Item = (String, String)>) -> PublishRequest {
    let events = events.into_iter().map(|(event_id, payload)| Event {
        topic: topic.to_owned(),
        event_id,
        source: "bench".to_owned(),
        content: Some(Content::PayloadJson(payload)),
        ..Event::default()
    });
    PublishRequest { events: events.collect(), allow_partial: false }
}
