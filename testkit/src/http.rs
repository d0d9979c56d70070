//! A plain HTTP/1.1 client without a library in between, so that tests see what the service sends.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const HEAD_END: &[u8] = b"\r\n\r\n";

/// A response. A chunked body is left as it came.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Response {
    fn parse(response: Vec<u8>) -> io::Result<Self> {
        let text = String::from_utf8(response).map_err(io::Error::other)?;
        let (head, body) = text.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status: {head}")))?;
        Ok(Self { status, head: head.to_owned(), body: body.to_owned() })
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then_some(value.trim_ascii())
    })
}

fn content_length(head: &str) -> Option<usize> {
    header(head, "content-length")?.parse().ok()
}

/// A connection for one request after the other.
pub struct Connection(TcpStream);

impl Connection {
    pub async fn open(address: impl Into<SocketAddr>) -> io::Result<Self> {
        let connection = TcpStream::connect(address.into()).await?;
        connection.set_nodelay(true)?;
        Ok(Self(connection))
    }

    /// Sends a request that keeps the connection open. Its response must have a length.
    pub async fn call(&mut self, request: &[u8]) -> io::Result<Response> {
        self.0.write_all(request).await?;
        let mut response = Vec::new();
        loop {
            if self.0.read_buf(&mut response).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let head = response.windows(HEAD_END.len()).position(|window| window == HEAD_END);
            let Some(end) = head else { continue };
            let head = String::from_utf8_lossy(&response[..end]);
            let length = content_length(&head)
                .ok_or_else(|| io::Error::other(format!("no length: {head}")))?;
            if response.len() >= end + HEAD_END.len() + length {
                return Response::parse(response);
            }
        }
    }

    /// Sends a request that closes the connection. A response that is cut off is an error.
    pub async fn last_call(mut self, request: &[u8]) -> io::Result<Response> {
        self.0.write_all(request).await?;
        let mut response = Vec::new();
        self.0.read_to_end(&mut response).await?;
        let response = Response::parse(response)?;
        let has_body = response.status != 304 && !request.starts_with(b"HEAD ");
        let length = content_length(&response.head).filter(|_| has_body);
        match length.is_none_or(|length| length == response.body.len()) {
            true => Ok(response),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Sends a request that closes its connection.
pub async fn call(address: impl Into<SocketAddr>, request: &str) -> io::Result<Response> {
    Connection::open(address).await?.last_call(request.as_bytes()).await
}

pub async fn get(address: impl Into<SocketAddr>, path: &str) -> io::Result<Response> {
    call(address, &format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")).await
}

/// Posts a body of JSON.
pub async fn post(address: impl Into<SocketAddr>, path: &str, body: &str) -> io::Result<Response> {
    call(address, &request_with_body(&format!("POST {path}"), "application/json", body)).await
}

/// A request with a body, which closes its connection.
pub fn request_with_body(call: &str, media_type: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{call} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Type: {media_type}\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
}
