//! What browsers may call: gRPC-Web is translated to gRPC and back, and what only looks like a call is
//! refused. No header opens the service to pages from elsewhere.

use std::{
    future::{Ready, ready},
    task::{Context, Poll},
};

use tokio_util::either::Either;
use tonic::{
    body::Body,
    codegen::{
        Service,
        http::{
            HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
            header::{ALLOW, CONTENT_TYPE},
        },
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
    type Future = Either<
        Either<S::Future, <GrpcWebService<S> as Service<Request<Body>>>::Future>,
        Ready<Result<Self::Response, S::Error>>,
    >;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        // Both lead to the same routes, of which each is always ready.
        match self.inner.poll_ready(context) {
            Poll::Ready(Ok(())) => Service::<Request<Body>>::poll_ready(&mut self.web, context),
            other => other,
        }
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if is_call(request.uri().path()) {
            if request.method() != Method::POST {
                return Either::Right(ready(Ok(not_post())));
            }
            // A browser sends other types from any page without asking; these it asks about, in vain.
            if !is_grpc(request.headers()) {
                return Either::Right(ready(Ok(not_grpc())));
            }
        }
        let content_type = request.headers().get(CONTENT_TYPE).map(|value| value.as_bytes());
        Either::Left(match content_type.is_some_and(|value| TYPES.contains(&value)) {
            true => Either::Right(self.web.call(request)),
            false => Either::Left(self.inner.call(request)),
        })
    }
}

/// Whether this is the path of a gRPC call, as in `/package.Service/Method`. No other path that leads
/// anywhere has a dot in the first of several parts.
fn is_call(path: &str) -> bool {
    let service = path.strip_prefix('/').and_then(|path| path.split_once('/'));
    service.is_some_and(|(service, _)| service.contains('.'))
}

/// Whether the body is said to be gRPC in any of its forms.
fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
    let media_type = media_type.trim().to_ascii_lowercase();
    let form = media_type.strip_prefix("application/grpc");
    form.is_some_and(|form| form.is_empty() || form.starts_with('+') || form.starts_with("-web"))
}

/// 405.
fn not_post() -> Response<Body> {
    let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, "gRPC calls are made with POST\n");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    response
}

/// 415.
fn not_grpc() -> Response<Body> {
    let advice = "gRPC calls have the content type application/grpc or application/grpc-web; JSON goes \
                  to /publish\n";
    refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, advice)
}

fn refusal(status: StatusCode, advice: &str) -> Response<Body> {
    let mut response = Response::new(Body::new(advice.to_owned()));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}
