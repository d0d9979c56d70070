//! Client certificates of open connections. They are verified again, because certificates expire
//! and CA certificates change.

use tokio::{net::TcpStream, time::sleep};
use tokio_rustls::{
    rustls::{
        self,
        pki_types::{CertificateDer, UnixTime},
    },
    server::TlsStream,
};

use super::{Current, Tls};
use crate::limits::CLIENT_CERTIFICATE_INTERVAL;

/// The certificate chain of a client, its own certificate first. Empty if none was requested.
pub(crate) struct ClientChain(Vec<CertificateDer<'static>>);

impl ClientChain {
    /// The chain of a connection after its handshake.
    pub(crate) fn of(stream: &TlsStream<TcpStream>) -> Self {
        let (_, connection) = stream.get_ref();
        let shown = connection.peer_certificates().unwrap_or_default();
        Self(shown.iter().map(|certificate| certificate.clone().into_owned()).collect())
    }

    fn verify(&self, current: &Current) -> Result<(), rustls::Error> {
        match (&current.verifier, self.0.split_first()) {
            (None, _) => Ok(()),
            (Some(_), None) => Err(rustls::Error::NoCertificatesPresented),
            (Some(verifier), Some((certificate, intermediates))) => {
                verifier.verify_client_cert(certificate, intermediates, UnixTime::now()).map(drop)
            }
        }
    }
}

impl Tls {
    /// Waits until the certificate of a client becomes invalid and returns why: it expired, or the
    /// CA certificates changed.
    pub(crate) async fn expired(&self, chain: ClientChain) -> rustls::Error {
        let mut current = self.0.clone();
        loop {
            let verified = chain.verify(&current.borrow_and_update());
            if let Err(error) = verified {
                return error;
            }
            tokio::select! {
                () = sleep(CLIENT_CERTIFICATE_INTERVAL) => (),
                Ok(()) = current.changed() => (),
            }
        }
    }
}
