//! The whole service without sockets and disk: calls are messages, and the store is in memory.

use std::sync::{Arc, Mutex, OnceLock};

use async_trait::async_trait;
use axum::{
    Router,
    body::{Body, to_bytes},
};
use event_aggregator::{
    event::{Event, EventKey, NewEvent, Outcome, Position, Timestamp, Verdict},
    proto::v1::{
        self as pb, ListEventsRequest, PayloadFormat, PublishResponse,
        event_aggregator_service_client::EventAggregatorServiceClient,
    },
    store::{Batch, Error, FeedQuery, Found, LaneState, ListQuery, Page, Place, Stats, Store},
    testing::{api::Api, edge::Edge, grpc, http, metrics::Metrics},
};
use prost::{
    DecodeError,
    bytes::{Buf, BufMut},
    encoding::{DecodeContext, WireType},
};
use tokio::runtime::{Builder, Runtime};
use tonic::{
    Code, Status,
    codegen::{Service as _, http as wire},
};
use tonic_prost::ProstCodec;

/// Runs a call to its end, on one service per process.
pub fn call<T>(call: impl AsyncFnOnce(&Subject) -> T) -> T {
    static SUBJECT: OnceLock<(Runtime, Subject)> = OnceLock::new();
    let (runtime, subject) = SUBJECT.get_or_init(|| {
        let runtime = Builder::new_current_thread().enable_all().build().expect("runtime");
        let subject = runtime.block_on(async { Subject::start() });
        (runtime, subject)
    });
    runtime.block_on(call(subject))
}

/// A service and the events it has stored.
pub struct Subject {
    grpc: grpc::Services,
    http: Router,
    shelf: Arc<Shelf>,
    /// Serializes the calls, so that each finds its own events.
    turn: tokio::sync::Mutex<()>,
}

/// A message of arbitrary bytes.
#[derive(Debug, Default)]
pub struct Raw(pub Vec<u8>);

impl prost::Message for Raw {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        buffer.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        _: u32,
        _: WireType,
        _: &mut impl Buf,
        _: DecodeContext,
    ) -> Result<(), DecodeError> {
        unreachable!("is only sent")
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

impl Subject {
    fn start() -> Self {
        let shelf = Arc::new(Shelf::default());
        let store: Arc<dyn Store> = Arc::<Shelf>::clone(&shelf);
        let api = Api::start(store, Metrics::default());
        let edge = Edge::new(&api);
        let (_, health) = tonic_health::server::health_reporter();
        let grpc = grpc::services(&api, &edge, health).expect("services");
        let http = http::router(&api, &edge);
        Self { grpc, http, shelf, turn: tokio::sync::Mutex::new(()) }
    }

    /// Sends a Publish message, and returns the response with the stored events.
    pub async fn publish(&self, message: Raw) -> Result<(PublishResponse, Vec<NewEvent>), Status> {
        let _turn = self.turn.lock().await;
        self.shelf.events.lock().expect("lock").clear();
        let path = "/event_aggregator.v1.EventAggregatorService/Publish";
        let codec: ProstCodec<Raw, PublishResponse> = ProstCodec::default();
        let mut client = tonic::client::Grpc::new(self.grpc.clone());
        let path = wire::uri::PathAndQuery::from_static(path);
        let answer = client.unary(tonic::Request::new(message), path, codec).await;
        let stored = self.shelf.events.lock().expect("lock").clone();
        match answer {
            Ok(answer) => {
                self.read_back(&stored).await;
                Ok((answer.into_inner(), stored))
            }
            Err(status) => {
                assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
                assert!(stored.is_empty(), "{status:?}");
                Err(status)
            }
        }
    }

    /// Sends a body to /publish, and returns the status with the stored events.
    pub async fn post(&self, media_type: &str, body: Vec<u8>) -> (u16, Vec<NewEvent>) {
        let _turn = self.turn.lock().await;
        self.shelf.events.lock().expect("lock").clear();
        let request = wire::Request::post("/publish").header("content-type", media_type);
        let request = request.body(Body::from(body)).expect("a request");
        let mut router = self.http.clone();
        let response = router.call(request).await.expect("an answer");
        let (status, body) = (response.status().as_u16(), response.into_body());
        let body = to_bytes(body, usize::MAX).await.expect("a body");
        serde_json::from_slice::<serde_json::Value>(&body).expect("JSON");
        let stored = self.shelf.events.lock().expect("lock").clone();
        match status {
            200 => self.read_back(&stored).await,
            400 | 413 | 415 | 422 => assert!(stored.is_empty(), "{status}"),
            _ => panic!("{status}: {}", String::from_utf8_lossy(&body)),
        }
        (status, stored)
    }

    /// Stored events can be read in either format, with the default limits of a client.
    async fn read_back(&self, stored: &[NewEvent]) {
        let mut client = EventAggregatorServiceClient::new(self.grpc.clone());
        for format in [PayloadFormat::Struct, PayloadFormat::Json] {
            let request = ListEventsRequest {
                page_size: 1_000,
                payload_format: format.into(),
                ..Default::default()
            };
            let page = client.list_events(request).await.expect("can be read").into_inner();
            // A page is cut by size, but has at least one event.
            assert!(!page.events.is_empty() || stored.is_empty());
            assert!(page.events.len() == stored.len() || !page.next_page_token.is_empty());
            for (event, stored) in page.events.iter().zip(stored) {
                assert_eq!(event.event_id, *stored.key.event_id);
                assert_eq!(event.topic, *stored.key.topic);
                assert_eq!(event.source, *stored.source);
                match event.content.as_ref().expect("content") {
                    pb::event::Content::PayloadJson(text) => {
                        assert_eq!(text, stored.payload.as_str());
                    }
                    pb::event::Content::Payload(structure) => {
                        assert_eq!(format, PayloadFormat::Struct);
                        super::structure::agrees(structure, stored.payload.as_str());
                    }
                }
            }
        }
    }
}

/// A store with the events of one call, all of which are new.
#[derive(Default)]
struct Shelf {
    events: Mutex<Vec<NewEvent>>,
}

#[async_trait]
impl Store for Shelf {
    fn id(&self) -> uuid::Uuid {
        uuid::Uuid::nil()
    }

    fn location(&self) -> &str {
        "a shelf"
    }

    fn lanes(&self) -> u16 {
        1
    }

    async fn commit(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Error> {
        self.events.lock().expect("lock").extend(batch.events.iter().cloned());
        let outcome = Outcome {
            verdict: Verdict::Accepted,
            first_received_at: batch.received_at,
            compared_bytes: 0,
        };
        Ok(vec![outcome; batch.events.len()])
    }

    async fn list(&self, query: ListQuery) -> Result<Page, Error> {
        let mut page = Page::default();
        let mut bytes = 0;
        for (stored, seq) in self.events.lock().expect("lock").iter().zip(1..) {
            bytes += stored.payload.as_str().len();
            if bytes > query.max_bytes && !page.events.is_empty() {
                page.more = true;
                break;
            }
            let NewEvent { key, timestamp, source, payload } = stored.clone();
            let received_at = Timestamp::now();
            let timestamp = timestamp.unwrap_or(received_at);
            let position = Position { lane: 0, seq };
            page.events.push(Event { key, timestamp, source, payload, received_at, position });
        }
        Ok(page)
    }

    async fn get(&self, _: Vec<EventKey>, _: usize) -> Result<Found, Error> {
        Ok(Found::default())
    }

    async fn stats(&self, _: Option<String>, _: usize) -> Result<Stats, Error> {
        Ok(Stats::default())
    }

    async fn heads(&self, _: Vec<i64>) -> Result<Vec<LaneState>, Error> {
        Ok(vec![LaneState::default()])
    }

    async fn read(&self, _: FeedQuery) -> Result<Page, Error> {
        Ok(Page::default())
    }

    async fn positions_at(&self, _: Place) -> Result<Vec<i64>, Error> {
        Ok(vec![0])
    }

    async fn ping(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn close(&self) {}
}
