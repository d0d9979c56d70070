//! gRPC: the event service, health and reflection. Decodes requests, calls the [`api`] and encodes
//! its results.
//!
//! [`api`]: crate::api

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use tonic::{
    Request, Response, Status, Streaming, async_trait,
    body::Body,
    codegen::{BoxFuture, BoxStream, Service, http},
    service::Routes,
};
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_reflection::server::Builder;

use self::edge_service::{EdgeService, Methods};
use crate::{
    access::Caller,
    api::{Api, Error},
    edge::{Audience, Edge},
    limits::{MAX_MESSAGE_BYTES, SMALL_REQUEST_BYTES},
    proto::{
        DESCRIPTORS,
        v1::{
            BatchGetEventsRequest, GetStatsRequest, GetStatsResponse, ListEventsRequest,
            PublishResponse, PublishStreamResponse, SubscribeRequest,
        },
        wire::{
            BatchGetEventsResponse, ListEventsResponse, PublishRequest, PublishStreamRequest,
            SubscribeResponse,
            event_aggregator_service_server::{
                EventAggregatorService, EventAggregatorServiceServer,
            },
        },
    },
};

mod convert;
mod edge_service;
mod json_to_struct;
mod publish;
mod query;
mod status;
mod struct_to_json;
mod subscribe;
mod timeout;

/// Full name of the service, as used by health and reflection.
pub const SERVICE_NAME: &str = "event_aggregator.v1.EventAggregatorService";

/// The service of `event_aggregator.proto`.
#[derive(Clone)]
struct EventAggregator(Api);

/// The caller of a request, which the edge has authenticated.
fn caller<T>(request: &mut Request<T>) -> Result<Caller, Error> {
    request.extensions_mut().remove::<Caller>().ok_or_else(Error::internal)
}

#[async_trait]
impl EventAggregatorService for EventAggregator {
    async fn publish(
        &self,
        mut request: Request<PublishRequest>,
    ) -> Result<Response<PublishResponse>, Status> {
        let caller = caller(&mut request)?;
        Ok(Response::new(publish::unary(&self.0, &caller, request.into_inner()).await?))
    }

    type PublishStreamStream = BoxStream<PublishStreamResponse>;

    async fn publish_stream(
        &self,
        mut request: Request<Streaming<PublishStreamRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let caller = caller(&mut request)?;
        Ok(Response::new(publish::stream(&self.0, caller, request.into_inner())))
    }

    async fn list_events(
        &self,
        mut request: Request<ListEventsRequest>,
    ) -> Result<Response<ListEventsResponse>, Status> {
        let caller = caller(&mut request)?;
        Ok(query::list_events(&self.0, &caller, request.into_inner()).await?)
    }

    async fn get_stats(
        &self,
        mut request: Request<GetStatsRequest>,
    ) -> Result<Response<GetStatsResponse>, Status> {
        let caller = caller(&mut request)?;
        Ok(Response::new(query::get_stats(&self.0, &caller, request.into_inner()).await?))
    }

    async fn batch_get_events(
        &self,
        mut request: Request<BatchGetEventsRequest>,
    ) -> Result<Response<BatchGetEventsResponse>, Status> {
        let caller = caller(&mut request)?;
        Ok(query::batch_get_events(&self.0, &caller, request.into_inner()).await?)
    }

    type SubscribeStream = BoxStream<SubscribeResponse>;

    async fn subscribe(
        &self,
        mut request: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let caller = caller(&mut request)?;
        Ok(subscribe::subscribe(&self.0, caller, request.into_inner()).await?)
    }
}

/// All gRPC services, each with the edge around its calls.
/// Clones are handles to the same ones.
#[derive(Clone)]
pub struct Services(Arc<Shared>);

struct Shared {
    contract: EdgeService<EventAggregatorServiceServer<EventAggregator>>,
    /// Health, reflection, and the response to unknown services.
    others: Routes,
}

/// The gRPC services of the server.
pub fn services(
    api: &Api,
    edge: &Edge,
    health: HealthServer<impl Health>,
) -> Result<Services, tonic_reflection::server::Error> {
    let described = [
        DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let methods = Methods::new(&api.metrics.calls, &described)?;
    let contract = EventAggregatorServiceServer::new(EventAggregator(api.clone()))
        .max_decoding_message_size(MAX_MESSAGE_BYTES);
    let health = health.max_decoding_message_size(SMALL_REQUEST_BYTES);
    let descriptors = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let reflection = descriptors().build_v1()?.max_decoding_message_size(SMALL_REQUEST_BYTES);
    // v1alpha is for older tools.
    let v1alpha = descriptors().build_v1alpha()?.max_decoding_message_size(SMALL_REQUEST_BYTES);
    let others = Routes::new(EdgeService::new(health, &methods, edge, Audience::Public))
        .add_service(EdgeService::new(reflection, &methods, edge, Audience::Public))
        .add_service(EdgeService::new(v1alpha, &methods, edge, Audience::Public))
        .prepare();
    let contract = EdgeService::new(contract, &methods, edge, Audience::Authenticated);
    Ok(Services(Arc::new(Shared { contract, others })))
}

impl Service<http::Request<Body>> for Services {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        // Fast path: skip the router for the service with the most calls.
        match request.uri().path().split('/').nth(1) == Some(SERVICE_NAME) {
            true => self.0.contract.answer(request),
            false => Box::pin(self.0.others.clone().call(request)),
        }
    }
}
