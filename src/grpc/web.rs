//! gRPC-Web, for browsers: its requests are translated to gRPC and back; all others pass by untouched.
//! No header opens the service to pages from elsewhere.

use std::task::{Context, Poll};

use tokio_util::either::Either;
use tonic::{
    body::Body,
    codegen::{
        Service,
        http::{Request, Response, header::CONTENT_TYPE},
    },
};
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower_layer::Layer;

/// The types that are translated. The translator refuses all else over HTTP/1.1, so it sees no others.
const TYPES: [&[u8]; 4] = [
    b"application/grpc-web",
    b"application/grpc-web+proto",
    b"application/grpc-web-text",
    b"application/grpc-web-text+proto",
];

/// Lets browsers call what it is laid around.
#[derive(Debug, Clone, Copy)]
pub(super) struct WebLayer;

impl<S: Clone> Layer<S> for WebLayer {
    type Service = Web<S>;

    fn layer(&self, inner: S) -> Web<S> {
        Web { web: GrpcWebLayer::new().layer(inner.clone()), inner }
    }
}

/// A service that browsers can call, too.
#[derive(Debug, Clone)]
pub struct Web<S> {
    inner: S,
    web: GrpcWebService<S>,
}

impl<S> Service<Request<Body>> for Web<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, <GrpcWebService<S> as Service<Request<Body>>>::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        // Both lead to the same routes, of which each is always ready.
        match self.inner.poll_ready(context) {
            Poll::Ready(Ok(())) => Service::<Request<Body>>::poll_ready(&mut self.web, context),
            other => other,
        }
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let content_type = request.headers().get(CONTENT_TYPE).map(|value| value.as_bytes());
        match content_type.is_some_and(|value| TYPES.contains(&value)) {
            true => Either::Right(self.web.call(request)),
            false => Either::Left(self.inner.call(request)),
        }
    }
}
