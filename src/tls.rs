//! TLS of the service: server certificate, client authentication, and reload of the files. Their
//! paths are defined in `config`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{net::TcpStream, sync::watch};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
        server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    },
    server::TlsStream,
};

use crate::{config::TlsArgs, reload};

pub(crate) use self::{client::ClientChain, names::names};

mod client;
mod names;

/// ALPN protocols, in order of preference.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// How often the certificate files are checked. They are replaced days before they expire.
const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(5);

/// Why TLS cannot be set up. Each message is one line.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A required flag is missing.
    #[error("{given} requires {missing}")]
    Incomplete { given: &'static str, missing: &'static str },
    /// A file cannot be read.
    #[error("cannot read {path}: {reason}; {flag} expects a PEM file")]
    File { flag: &'static str, path: PathBuf, reason: String },
    /// The certificate and the key cannot be used together.
    #[error("cannot use {path} as --tls-cert: {reason}")]
    Certificate { path: PathBuf, reason: rustls::Error },
    /// The client CA certificates cannot be used.
    #[error("cannot use {path} as --tls-client-ca: {reason}")]
    ClientCa { path: PathBuf, reason: String },
}

/// TLS of a service. Clones share one configuration, which is reloaded until they are dropped.
#[derive(Clone)]
pub struct Tls(watch::Receiver<Current>);

/// The configuration from the current files.
#[derive(Clone)]
struct Current {
    acceptor: TlsAcceptor,
    /// Verifies client certificates, if they are required.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// Loads the configured files and keeps watching them. Returns `None` if none are configured.
    pub async fn open(args: &TlsArgs) -> Result<Option<Self>, Error> {
        match Files::named(args)? {
            Some(files) => Ok(Some(Self(reload::watch(files).await?))),
            None => Ok(None),
        }
    }

    /// Performs a handshake with the current certificate.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let acceptor = self.0.borrow().acceptor.clone();
        acceptor.accept(stream).await
    }
}

#[derive(Debug, Clone)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

#[derive(Clone, PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Files {
    fn named(args: &TlsArgs) -> Result<Option<Self>, Error> {
        let incomplete = |given, missing| Err(Error::Incomplete { given, missing });
        match (&args.tls_cert, &args.tls_key, &args.tls_client_ca) {
            (None, None, None) => Ok(None),
            (Some(_), None, _) => incomplete("--tls-cert", "--tls-key"),
            (None, Some(_), _) => incomplete("--tls-key", "--tls-cert"),
            (None, None, Some(_)) => incomplete("--tls-client-ca", "--tls-cert and --tls-key"),
            (Some(certificate), Some(key), client_ca) => Ok(Some(Self {
                certificate: certificate.clone(),
                key: key.clone(),
                client_ca: client_ca.clone(),
            })),
        }
    }
}

impl reload::Files for Files {
    type Contents = Contents;
    type Value = Current;
    type Error = Error;

    const NAME: &'static str = "certificate";
    const INTERVAL: Duration = CERTIFICATE_INTERVAL;

    fn read(&self) -> Result<Contents, Error> {
        let read = |flag, path: &Path| {
            fs::read(path).map_err(|error| unreadable(flag, path, error.to_string()))
        };
        let client_ca = self.client_ca.as_deref().map(|path| read("--tls-client-ca", path));
        Ok(Contents {
            certificate: read("--tls-cert", &self.certificate)?,
            key: read("--tls-key", &self.key)?,
            client_ca: client_ca.transpose()?,
        })
    }

    fn load(&self, contents: &Contents, _: Option<&Current>) -> Result<Current, Error> {
        let provider = Arc::new(ring::default_provider());
        let unusable = |reason| Error::Certificate { path: self.certificate.clone(), reason };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?;
        let verifier = match self.client_ca.as_deref().zip(contents.client_ca.as_deref()) {
            None => None,
            Some((path, pem)) => {
                let mut roots = RootCertStore::empty();
                let wrong = |reason| Error::ClientCa { path: path.to_owned(), reason };
                for authority in certificates("--tls-client-ca", path, pem)? {
                    roots.add(authority).map_err(|error| wrong(error.to_string()))?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                Some(verifier.map_err(|error| wrong(error.to_string()))?)
            }
        };
        let builder = match &verifier {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
        };
        let chain = certificates("--tls-cert", &self.certificate, &contents.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&contents.key)
            .map_err(|error| unreadable("--tls-key", &self.key, said(&error, "private key")))?;
        let mut config = builder.with_single_cert(chain, key).map_err(unusable)?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(Current { acceptor: TlsAcceptor::from(Arc::new(config)), verifier })
    }
}

fn certificates(
    flag: &'static str,
    path: &Path,
    text: &[u8],
) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(text).collect();
    let found = found.and_then(|found| match found.is_empty() {
        true => Err(pem::Error::NoItemsFound),
        false => Ok(found),
    });
    found.map_err(|error| unreadable(flag, path, said(&error, "certificate")))
}

/// Describes an error in a PEM file, without its contents.
fn said(error: &pem::Error, wanted: &str) -> String {
    match error {
        pem::Error::NoItemsFound => format!("no {wanted} found"),
        _ => "malformed PEM".to_owned(),
    }
}

fn unreadable(flag: &'static str, path: &Path, reason: String) -> Error {
    Error::File { flag, path: path.to_owned(), reason }
}
