//! The gRPC edge: the service of the contract, its health and its reflection. Translates between
//! the wire and the domain and decides nothing about events.

use tonic::{
    Request, Response, Status, Streaming, async_trait, codegen::BoxStream, service::Routes,
};
use tonic_health::pb::health_server::{Health, HealthServer};
use tower_layer::Layer;

use crate::{
    access::Verb,
    limits::{MAX_MESSAGE_BYTES, SMALL_REQUEST_BYTES},
    proto::{
        DESCRIPTORS,
        incoming::{
            PublishRequest, PublishStreamRequest,
            event_aggregator_service_server::{
                EventAggregatorService, EventAggregatorServiceServer,
            },
        },
        outgoing::{BatchGetEventsResponse, ListEventsResponse, SubscribeResponse},
        v1::{
            BatchGetEventsRequest, GetStatsRequest, GetStatsResponse, ListEventsRequest,
            PublishResponse, PublishStreamResponse, SubscribeRequest,
        },
    },
    service::Service,
};

use self::{
    access::{caller, caller_key},
    observed::{Methods, Observed},
};
pub use codec::ContractCodec;

mod access;
mod as_struct;
mod boundaries;
mod codec;
mod convert;
mod deadline;
mod observed;
mod publish;
mod query;
mod request_body;
mod response_body;
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
        mut request: Request<PublishRequest>,
    ) -> Result<Response<PublishResponse>, Status> {
        let key = caller_key(request.extensions());
        let caller = caller(&self.0.access, &mut request)?;
        publish::unary(&self.0, &caller, key, request.into_inner()).await.map(Response::new)
    }

    type PublishStreamStream = BoxStream<PublishStreamResponse>;

    async fn publish_stream(
        &self,
        mut request: Request<Streaming<PublishStreamRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let key = caller_key(request.extensions());
        let caller = caller(&self.0.access, &mut request)?;
        Ok(Response::new(publish::stream(&self.0, caller, key, request.into_inner())))
    }

    async fn list_events(
        &self,
        mut request: Request<ListEventsRequest>,
    ) -> Result<Response<ListEventsResponse>, Status> {
        let key = caller_key(request.extensions());
        let caller = caller(&self.0.access, &mut request)?;
        query::list_events(&self.0, &caller, &key, request.into_inner()).await
    }

    async fn get_stats(
        &self,
        mut request: Request<GetStatsRequest>,
    ) -> Result<Response<GetStatsResponse>, Status> {
        let caller = caller(&self.0.access, &mut request)?;
        let mut response = query::get_stats(&*self.0.store, &caller, request.into_inner()).await?;
        response.uptime = Some(convert::duration(self.0.started.elapsed()));
        // Those are of all topics.
        if caller.may_all(Verb::Read) {
            response.since_start = Some(convert::process_stats(self.0.ingest.counters()));
        }
        Ok(Response::new(response))
    }

    async fn batch_get_events(
        &self,
        mut request: Request<BatchGetEventsRequest>,
    ) -> Result<Response<BatchGetEventsResponse>, Status> {
        let key = caller_key(request.extensions());
        let caller = caller(&self.0.access, &mut request)?;
        query::batch_get_events(&self.0, &caller, &key, request.into_inner()).await
    }

    type SubscribeStream = BoxStream<SubscribeResponse>;

    async fn subscribe(
        &self,
        mut request: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let key = caller_key(request.extensions());
        let caller = caller(&self.0.access, &mut request)?;
        subscribe::subscribe(&self.0, caller, &key, request.into_inner()).await
    }
}

/// The service of the contract, as it answers calls wherever they come from.
pub fn contract(service: Service) -> EventAggregatorServiceServer<impl EventAggregatorService> {
    EventAggregatorServiceServer::new(EventAggregator(service))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
}

/// All routes.
pub type Router = web::Web<Routes>;

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
    let described = [
        DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let methods = Methods::new(&service.metrics.calls, &described)?;
    let Service { load, access, stopping, .. } = service.clone();
    // Older tools ask only for the second one.
    let (v1, v1alpha) = (descriptors().build_v1()?, descriptors().build_v1alpha()?);
    let v1 = v1.max_decoding_message_size(SMALL_REQUEST_BYTES);
    let v1alpha = v1alpha.max_decoding_message_size(SMALL_REQUEST_BYTES);
    let health = health.max_decoding_message_size(SMALL_REQUEST_BYTES);
    let routes = Routes::from(others)
        .add_service(Observed::new(contract(service), &methods, &load).authenticated(&access))
        .add_service(Observed::new(health, &methods, &load).for_anybody(&stopping))
        .add_service(Observed::new(v1, &methods, &load).for_anybody(&stopping))
        .add_service(Observed::new(v1alpha, &methods, &load).for_anybody(&stopping));
    Ok(web::WebLayer.layer(routes.prepare()))
}
