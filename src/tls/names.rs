//! Names in a verified client certificate.

use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use webpki::EndEntityCert;

/// The DNS names in the certificate of a client, in lower case. Empty if there is no certificate or
/// no such name. The common name is ignored, because name constraints of CAs do not apply to it.
pub(crate) fn names(stream: &TlsStream<TcpStream>) -> Arc<[String]> {
    let (_, connection) = stream.get_ref();
    let sent = connection.peer_certificates().and_then(|chain| chain.first());
    let certificate = sent.and_then(|sent| EndEntityCert::try_from(sent).ok());
    let names = certificate.iter().flat_map(|certificate| certificate.valid_dns_names());
    names.map(str::to_ascii_lowercase).collect()
}
