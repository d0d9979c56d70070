//! The router of both protocols on one port. Browsers can call gRPC by gRPC-Web; no header lets pages of
//! other origins call anything.

use std::convert::Infallible;

use axum::{
    body::Body as HttpBody,
    http::{
        HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
        header::{ALLOW, CONTENT_TYPE},
    },
    response::IntoResponse,
};
use futures_util::future::BoxFuture;
use http_body_util::Either;
use hyper::body::Incoming;
use tonic::{body::Body as GrpcBody, codegen::Service};
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower_layer::Layer;

/// The gRPC-Web types. The translation refuses all other types over HTTP/1.1, so it gets no others.
const GRPC_WEB: [&[u8]; 4] = [
    b"application/grpc-web",
    b"application/grpc-web+proto",
    b"application/grpc-web-text",
    b"application/grpc-web-text+proto",
];

/// Answers the requests of both protocols.
#[derive(Debug, Clone)]
pub struct Router<G> {
    grpc: G,
    grpc_web: GrpcWebService<G>,
    http: axum::Router,
}

/// The body of a response of either protocol.
pub(super) type ResponseBody = Either<GrpcBody, HttpBody>;

impl<G> Router<G>
where
    G: Service<Request<GrpcBody>, Response = Response<GrpcBody>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    G::Future: Send,
{
    /// A router of gRPC services and HTTP routes.
    pub fn new(grpc: G, http: axum::Router) -> Self {
        let grpc_web = GrpcWebLayer::new().layer(grpc.clone());
        Self { grpc, grpc_web, http }
    }

    async fn answer(mut self, request: Request<Incoming>) -> Response<ResponseBody> {
        if !is_grpc_path(request.uri().path()) {
            let Ok(response) = self.http.call(request.map(HttpBody::new)).await;
            return response.map(Either::Right);
        }
        if request.method() != Method::POST {
            let allow = [(ALLOW, "POST")];
            let message = "gRPC calls are made with POST\n";
            return (StatusCode::METHOD_NOT_ALLOWED, allow, message)
                .into_response()
                .map(Either::Right);
        }
        // A browser sends a request of another type without a preflight, from any page. For these types it
        // asks first, and is refused.
        if !is_grpc_type(request.headers()) {
            let message = "gRPC calls have the content type application/grpc or application/grpc-web; \
                           JSON goes to /publish\n";
            return (StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
                .into_response()
                .map(Either::Right);
        }
        let content_type = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        let is_web = content_type.is_some_and(|value| GRPC_WEB.contains(&value));
        let request = request.map(GrpcBody::new);
        let Ok(response) = match is_web {
            true => self.grpc_web.call(request).await,
            false => self.grpc.call(request).await,
        };
        response.map(Either::Left)
    }
}

impl<G> Service<Request<Incoming>> for Router<G>
where
    G: Service<Request<GrpcBody>, Response = Response<GrpcBody>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    G::Future: Send,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let answer = self.clone().answer(request);
        Box::pin(async { Ok(answer.await) })
    }
}

/// Whether a path is that of a gRPC method, as in `/package.Service/Method`. No HTTP route has a dot in the
/// first of several segments.
fn is_grpc_path(path: &str) -> bool {
    let service = path.strip_prefix('/').and_then(|path| path.split_once('/'));
    service.is_some_and(|(service, _)| service.contains('.'))
}

/// Whether the content type is gRPC in any of its forms.
fn is_grpc_type(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
    let media_type = media_type.trim().to_ascii_lowercase();
    let form = media_type.strip_prefix("application/grpc");
    form.is_some_and(|form| form.is_empty() || form.starts_with('+') || form.starts_with("-web"))
}
