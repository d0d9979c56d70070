//! The gRPC edge: the service of the contract, its health and its reflection. Translates between
//! the wire and the domain and decides nothing about events.

use tonic::{
    Request, Response, Status, Streaming, async_trait,
    codegen::BoxStream,
    service::Routes,
    transport::{Server, server},
};
use tonic_health::pb::health_server::{Health, HealthServer};
use tower_layer::{Identity, Stack};

use crate::{
    limits::{CALLS_PER_CONNECTION, KEEPALIVE, MAX_MESSAGE_BYTES, RESETS_PER_CONNECTION},
    proto::{
        DESCRIPTORS,
        incoming::{
            PublishRequest, PublishStreamRequest,
            event_aggregator_service_server::{
                EventAggregatorService, EventAggregatorServiceServer,
            },
        },
        v1::{
            BatchGetEventsRequest, BatchGetEventsResponse, GetStatsRequest, GetStatsResponse,
            ListEventsRequest, ListEventsResponse, PublishResponse, PublishStreamResponse,
            SubscribeRequest, SubscribeResponse,
        },
    },
    service::Service,
};

use self::observed::{Methods, Observed};
pub use codec::ContractCodec;

mod as_struct;
mod codec;
mod convert;
mod observed;
mod publish;
mod query;
mod status;
mod structure;
mod subscribe;
mod web;

/// Full name of the service, as health and reflection call it.
pub const SERVICE_NAME: &str = "event_aggregator.v1.EventAggregatorService";

/// The service of the contract.
struct EventAggregator(Service);

#[async_trait]
impl EventAggregatorService for EventAggregator {
    async fn publish(
        &self,
        request: Request<PublishRequest>,
    ) -> Result<Response<PublishResponse>, Status> {
        publish::unary(&self.0.ingest, request.into_inner()).await.map(Response::new)
    }

    type PublishStreamStream = BoxStream<PublishStreamResponse>;

    async fn publish_stream(
        &self,
        request: Request<Streaming<PublishStreamRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let requests = request.into_inner();
        Ok(Response::new(publish::stream(self.0.ingest.clone(), requests, self.0.stopping.clone())))
    }

    async fn list_events(
        &self,
        request: Request<ListEventsRequest>,
    ) -> Result<Response<ListEventsResponse>, Status> {
        query::list_events(&*self.0.store, request.into_inner()).await.map(Response::new)
    }

    async fn get_stats(
        &self,
        request: Request<GetStatsRequest>,
    ) -> Result<Response<GetStatsResponse>, Status> {
        let mut response = query::get_stats(&*self.0.store, request.into_inner()).await?;
        response.uptime = Some(convert::duration(self.0.started.elapsed()));
        response.since_start = Some(convert::process_stats(self.0.ingest.counters()));
        Ok(Response::new(response))
    }

    async fn batch_get_events(
        &self,
        request: Request<BatchGetEventsRequest>,
    ) -> Result<Response<BatchGetEventsResponse>, Status> {
        query::batch_get_events(&*self.0.store, request.into_inner()).await.map(Response::new)
    }

    type SubscribeStream = BoxStream<SubscribeResponse>;

    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let (request, stopping) = (request.into_inner(), self.0.stopping.clone());
        let frames = subscribe::subscribe(&self.0.feed, &*self.0.store, request, stopping).await?;
        Ok(Response::new(frames))
    }
}

/// The service of the contract, as it answers calls wherever they come from.
pub fn contract(service: Service) -> EventAggregatorServiceServer<impl EventAggregatorService> {
    EventAggregatorServiceServer::new(EventAggregator(service))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
}

/// The server with all its routes.
pub type Router = server::Router<Stack<web::WebLayer, Identity>>;

/// Everything that answers on the port: the service, what comes with it, and `others`, which answer
/// without gRPC.
pub fn router(
    service: Service,
    health: HealthServer<impl Health>,
    others: axum::Router,
) -> Result<Router, tonic_reflection::server::Error> {
    let descriptors = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let described = [DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET];
    let methods = Methods::new(&service.metrics.calls, &described)?;
    let routes = Routes::from(others)
        .add_service(Observed::new(contract(service), &methods))
        .add_service(Observed::new(health, &methods))
        .add_service(descriptors().build_v1()?)
        // Older tools ask only for this version.
        .add_service(descriptors().build_v1alpha()?);
    Ok(Server::builder()
        .accept_http1(true)
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .max_concurrent_streams(Some(CALLS_PER_CONNECTION))
        .http2_max_local_error_reset_streams(Some(RESETS_PER_CONNECTION))
        .layer(web::WebLayer)
        .add_routes(routes))
}
