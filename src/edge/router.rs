//! Routes requests on one port to gRPC, gRPC-Web and HTTP. Pages of other origins cannot call
//! anything: there are no CORS headers.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::Body as HttpBody,
    http::{
        HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
        header::{ALLOW, CONTENT_TYPE},
    },
    response::IntoResponse,
};
use http_body_util::Either;
use hyper::body::Incoming;
use tonic::{body::Body as GrpcBody, codegen::Service};
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower_layer::Layer;

/// The media types of gRPC-Web. The gRPC-Web layer rejects all others over HTTP/1.1, so it gets
/// only these.
const GRPC_WEB: [&[u8]; 4] = [
    b"application/grpc-web",
    b"application/grpc-web+proto",
    b"application/grpc-web-text",
    b"application/grpc-web-text+proto",
];

/// Answers the requests of all protocols. Clones share the routes.
#[derive(Debug, Clone)]
pub(crate) struct Router<G>(Arc<Routes<G>>);

#[derive(Debug)]
struct Routes<G> {
    grpc: G,
    grpc_web: GrpcWebService<G>,
    http: axum::Router,
}

/// The body of a response of either protocol.
type ResponseBody = Either<GrpcBody, HttpBody>;

impl<G> Router<G>
where
    G: Service<Request<GrpcBody>, Response = Response<GrpcBody>, Error = Infallible> + Clone,
    G: Send + 'static,
    G::Future: Send,
{
    /// Creates a router for gRPC services and HTTP routes.
    pub(crate) fn new(grpc: G, http: axum::Router) -> Self {
        let grpc_web = GrpcWebLayer::new().layer(grpc.clone());
        Self(Arc::new(Routes { grpc, grpc_web, http }))
    }

    /// Answers a request.
    pub(crate) async fn answer(self, request: Request<Incoming>) -> Response<ResponseBody> {
        let routes = &*self.0;
        if !is_grpc_path(request.uri().path()) {
            let Ok(response) = routes.http.clone().call(request.map(HttpBody::new)).await;
            return response.map(Either::Right);
        }
        if request.method() != Method::POST {
            let allow = [(ALLOW, "POST")];
            let message = "gRPC calls require the method POST\n";
            let response = (StatusCode::METHOD_NOT_ALLOWED, allow, message).into_response();
            return response.map(Either::Right);
        }
        // CSRF protection: browsers send other types for pages of any origin. These types require
        // a CORS preflight, which fails.
        if !is_grpc_type(request.headers()) {
            let message = "gRPC calls require the content type application/grpc or \
                           application/grpc-web; send JSON to /publish\n";
            let response = (StatusCode::UNSUPPORTED_MEDIA_TYPE, message).into_response();
            return response.map(Either::Right);
        }
        let content_type = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        let is_web = content_type.is_some_and(|value| GRPC_WEB.contains(&value));
        let request = request.map(GrpcBody::new);
        let Ok(response) = match is_web {
            true => routes.grpc_web.clone().call(request).await,
            false => routes.grpc.clone().call(request).await,
        };
        response.map(Either::Left)
    }
}

/// Whether a path is that of a gRPC method, such as `/package.Service/Method`. No HTTP route with
/// several segments has a dot in the first one.
fn is_grpc_path(path: &str) -> bool {
    let service = path.strip_prefix('/').and_then(|path| path.split_once('/'));
    service.is_some_and(|(service, _)| service.contains('.'))
}

/// Whether the content type is one of gRPC or gRPC-Web.
fn is_grpc_type(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
    let media_type = media_type.trim().to_ascii_lowercase();
    let form = media_type.strip_prefix("application/grpc");
    form.is_some_and(|form| form.is_empty() || form.starts_with('+') || form.starts_with("-web"))
}
