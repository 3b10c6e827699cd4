//! Asking somebody else's server, by HTTP/1.1 over TLS 1.3, one connection for each request.
//!
//! For what is asked seldom: an authority for a certificate, an identity provider for its keys. So nothing is kept between requests.
//! Nothing is sent in the clear, no redirect is followed, no proxy is used, and the body of an answer is bounded. How long a request may take
//! is for its maker to say; but of a name with several addresses one that does not answer must not use up all of that time.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::header::{HOST, HeaderValue};
use http::response::Parts;
use http::{Request, Uri};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls_platform_verifier::Verifier;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::certificate::files::read;
use crate::certificate::{CertificateError, provider};

/// For a connection to one address: some round trips to the other side of the world, and a lost packet.
const CONNECT: Duration = Duration::from_secs(3);
/// Where nothing else is said.
const PORT: u16 = 443;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why there is no answer, and whose it is to mend.
#[derive(Debug, Error)]
pub(crate) enum HttpsError {
    /// A root to trust cannot be read.
    #[error("the root in {0}: {1}")]
    Root(PathBuf, CertificateError),
    /// No connection can be made to anybody.
    #[error("TLS: {0}")]
    Tls(rustls::Error),
    /// What is asked and answered would travel in the clear.
    #[error("{0} is not an https URL")]
    Clear(String),
    /// Nobody is called so.
    #[error("'{0}' is no host")]
    Host(String),
    /// Nobody knows it.
    #[error("the name {host} leads nowhere: {why}")]
    Name { host: String, why: io::Error },
    /// Nobody answers there.
    #[error("no connection to {addr}: {why}")]
    Connect { addr: SocketAddr, why: io::Error },
    /// Its certificate is not trusted, or it is too old for TLS 1.3.
    #[error("TLS with {host}: {why}")]
    Handshake { host: String, why: io::Error },
    /// It does not speak HTTP, or ended in between.
    #[error("HTTP with {host}")]
    Http { host: String, source: hyper::Error },
    /// The request is none.
    #[error("no request can be made of it: {0}")]
    Request(http::Error),
    /// More than anything that is asked for has.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// It ended before it was whole.
    #[error("the answer is not whole")]
    Body(#[source] BoxError),
}

/// Trusts the system's authorities, and some of the operator's own.
#[derive(Clone, Debug)]
pub(crate) struct Https {
    tls: Arc<ClientConfig>,
}

/// An answer whose body has not been read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) parts: Parts,
    body: Incoming,
    /// What moves its connection. Ends with it.
    driver: JoinSet<hyper::Result<()>>,
}

impl Https {
    /// Trusts the system's authorities, and these, as they are now.
    pub(crate) fn new(extra_roots: &[PathBuf]) -> Result<Self, HttpsError> {
        let mut roots = Vec::new();
        for path in extra_roots {
            roots.extend(root(path).map_err(|e| HttpsError::Root(path.clone(), e))?);
        }
        let verifier = Verifier::new_with_extra_roots(roots, provider());
        let verifier = verifier.map_err(HttpsError::Tls)?;
        let mut tls = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(HttpsError::Tls)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: Arc::new(tls) })
    }

    /// Asks. Dropping the future ends it.
    pub(crate) async fn ask<B>(&self, mut request: Request<B>) -> Result<Answer, HttpsError>
    where
        B: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static,
    {
        let uri = request.uri().clone();
        // Settings are checked, but addresses in a directory are its authority's.
        if uri.scheme_str() != Some("https") {
            return Err(HttpsError::Clear(uri.to_string()));
        }
        let authority = uri.authority();
        let authority = authority.ok_or_else(|| HttpsError::Host(String::new()))?;
        let host = authority.host();
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let name = ServerName::try_from(host.clone());
        let name = name.map_err(|_| HttpsError::Host(host.clone()))?;
        let tcp = connect(&host, authority.port_u16().unwrap_or(PORT)).await?;
        let tls = TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp);
        let tls = tls.await.map_err(|why| HttpsError::Handshake {
            host: host.clone(),
            why,
        })?;
        let http = |source| HttpsError::Http {
            host: host.clone(),
            source,
        };
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(tls));
        let (mut sender, connection) = handshake.await.map_err(http)?;
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let value = HeaderValue::from_str(authority.as_str());
        let value = value.map_err(|e| HttpsError::Request(e.into()))?;
        request.headers_mut().insert(HOST, value);
        // Of a URL without a path the query alone is no request target.
        let path = match uri.path_and_query().map_or("/", |path| path.as_str()) {
            query if query.starts_with('?') => format!("/{query}").parse::<Uri>(),
            path => path.parse(),
        };
        *request.uri_mut() = path.map_err(|e| HttpsError::Request(e.into()))?;
        let (parts, body) = sender
            .send_request(request)
            .await
            .map_err(http)?
            .into_parts();
        Ok(Answer {
            parts,
            body,
            driver,
        })
    }
}

impl Answer {
    /// Its body, which is an error if it is longer.
    pub(crate) async fn read(self, most: usize) -> Result<(Parts, Bytes), HttpsError> {
        let read = Limited::new(self.body, most).collect().await;
        drop(self.driver);
        match read {
            Ok(body) => Ok((self.parts, body.to_bytes())),
            Err(e) if e.is::<LengthLimitError>() => Err(HttpsError::TooLong(most)),
            Err(e) => Err(HttpsError::Body(e)),
        }
    }
}

fn root(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let pem = read(path)?;
    let found = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(CertificateError::Chain)?;
    if found.is_empty() {
        return Err(CertificateError::NoCertificate);
    }
    Ok(found)
}

/// One address of a name after the other, of either family in turn: where one of them leads nowhere, all its addresses do.
async fn connect(host: &str, port: u16) -> Result<TcpStream, HttpsError> {
    let nowhere = |why| HttpsError::Name {
        host: host.to_owned(),
        why,
    };
    let addrs = tokio::net::lookup_host((host, port)).await;
    let mut error = nowhere(io::ErrorKind::NotFound.into());
    for addr in in_turn(addrs.map_err(nowhere)?) {
        let connected = tokio::time::timeout(CONNECT, TcpStream::connect(addr)).await;
        let why = match connected {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(why)) => why,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        error = HttpsError::Connect { addr, why };
    }
    Err(error)
}

/// In their order, but those of the first one's family and of the other in turn.
fn in_turn(addrs: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut addrs: Vec<_> = addrs.collect();
    let first = addrs.first().is_some_and(SocketAddr::is_ipv6);
    let (mut same, mut others) = (0, 0);
    addrs.sort_by_cached_key(|addr| {
        let place = match addr.is_ipv6() == first {
            true => &mut same,
            false => &mut others,
        };
        *place += 1;
        (*place, addr.is_ipv6() != first)
    });
    addrs
}

#[cfg(test)]
pub(crate) mod tests {
    use http_body_util::Empty;

    use super::*;

    /// With a root of its own, for a machine that has none.
    pub(crate) fn https() -> Https {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root.pem");
        std::fs::write(&root, crate::certificate::tests::made().0).unwrap();
        Https::new(&[root]).unwrap()
    }

    #[test]
    fn roots_that_are_none_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root.pem");
        for contents in ["", "-----BEGIN CERTIFICATE-----\nMII"] {
            std::fs::write(&root, contents).unwrap();
            let error = Https::new(std::slice::from_ref(&root)).unwrap_err();
            assert!(error.to_string().contains("root.pem"), "{error}");
        }
    }

    #[tokio::test]
    async fn nothing_is_sent_in_the_clear() {
        for uri in ["http://127.0.0.1:1/x", "/x"] {
            let request = Request::builder().uri(uri).body(Empty::<Bytes>::new());
            let refused = https().ask(request.unwrap()).await.unwrap_err();
            assert!(
                refused.to_string().contains("not an https URL"),
                "{refused}"
            );
        }
    }

    #[test]
    fn a_family_that_leads_nowhere_holds_up_one_attempt_and_not_all() {
        let all = ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"];
        let addrs = all.iter().map(|a| a.parse().unwrap());
        let order: Vec<String> = in_turn(addrs).iter().map(ToString::to_string).collect();
        let wanted = ["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"];
        assert_eq!(order, wanted);
        assert!(in_turn(std::iter::empty()).is_empty());
    }
}
