//! As much of an HTTP client as the torture test needs: one request on one connection.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

pub struct Answer {
    pub status: u16,
    pub body: String,
}

pub async fn get(address: SocketAddr, path: &str) -> io::Result<Answer> {
    send(address, &format!("GET {path} HTTP/1.1\r\nhost: it\r\nconnection: close\r\n\r\n")).await
}

/// Sends a body of JSON.
pub async fn post(address: SocketAddr, path: &str, body: &str) -> io::Result<Answer> {
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: it\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    send(address, &request).await
}

async fn send(address: SocketAddr, request: &str) -> io::Result<Answer> {
    let mut connection = TcpStream::connect(address).await?;
    connection.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    let broken = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(broken)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok(Answer { status: status.ok_or_else(broken)?, body: body.to_owned() })
}
