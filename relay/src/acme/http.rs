//! Talking to the authority: HTTP/1.1 over TLS, one connection for each request.
//!
//! An order has a dozen requests every two months, so nothing is kept between them. What the authority says is bounded in
//! size and time. When it wants to be left alone it says for how long.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::header::{HOST, HeaderValue, RETRY_AFTER};
use hyper::http::response::Parts;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls_platform_verifier::Verifier;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::AcmeError;
use crate::certificate::files::read;
use crate::certificate::{CertificateError, provider};

/// For one request with its answer.
const REQUEST: Duration = Duration::from_secs(30);
/// A certificate chain has some kilobytes, and nothing else is longer.
const MAX_BODY: usize = 256 * 1024;
/// When it is busy and says no seconds: Let's Encrypt's limits are by the hour.
const UNKNOWN_PAUSE: u64 = 60 * 60;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone, Debug)]
pub(super) struct Https {
    tls: Arc<ClientConfig>,
    /// Seconds that the authority wants to be left alone for; 0: it did not say so.
    pause: Arc<AtomicU64>,
}

impl Https {
    /// Trusts the system's authorities, and these.
    pub(super) fn new(extra_roots: &[PathBuf]) -> Result<Self, AcmeError> {
        let mut roots = Vec::new();
        for path in extra_roots {
            let failed = |e| AcmeError::Root(path.clone(), e);
            let pem = read(path).map_err(failed)?;
            let found = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
            let found = found.map_err(|e| failed(CertificateError::Chain(e)))?;
            if found.is_empty() {
                return Err(failed(CertificateError::NoCertificate));
            }
            roots.extend(found);
        }
        let verifier = Verifier::new_with_extra_roots(roots, provider())?;
        let mut tls = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            tls: Arc::new(tls),
            pause: Arc::default(),
        })
    }

    /// How long the authority wants to be left alone, if it said so since the last time.
    pub(super) fn take_pause(&self) -> Option<Duration> {
        let seconds = self.pause.swap(0, Ordering::Relaxed);
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }

    async fn send(
        &self,
        mut request: Request<BodyWrapper<bytes::Bytes>>,
    ) -> Result<BytesResponse, BoxError> {
        let uri = request.uri().clone();
        // The directory was checked, but the addresses in it are the authority's.
        if uri.scheme_str() != Some("https") {
            return Err(format!("{uri} is not an https URL").into());
        }
        let authority = uri.authority().ok_or("a URL without a host")?;
        let host = authority.host();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let tcp = TcpStream::connect((bare, authority.port_u16().unwrap_or(443))).await?;
        let name = ServerName::try_from(bare.to_owned())?;
        let tls = TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, tcp)
            .await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(tls)).await?;
        // Ends when this returns.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let host = HeaderValue::from_str(authority.as_str())?;
        request.headers_mut().insert(HOST, host);
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse::<Uri>()?;
        let response = sender.send_request(request).await?;
        let (parts, body) = response.into_parts();
        self.note_pause(&parts);
        let body = Limited::new(body, MAX_BODY).collect().await?.to_bytes();
        Ok(BytesResponse {
            parts,
            body: Box::new(body),
        })
    }

    /// RFC 8555 section 6.6: who is over a limit is told with 429 and, mostly, how long.
    fn note_pause(&self, answer: &Parts) {
        let busy = [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::SERVICE_UNAVAILABLE,
        ];
        if busy.contains(&answer.status) {
            let value = answer.headers.get(RETRY_AFTER);
            let seconds = value.and_then(|v| v.to_str().ok()?.trim().parse().ok());
            let seconds = seconds.unwrap_or(UNKNOWN_PAUSE);
            self.pause.fetch_max(seconds, Ordering::Relaxed);
        }
    }
}

impl HttpClient for Https {
    fn request(
        &self,
        request: Request<BodyWrapper<bytes::Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let this = self.clone();
        Box::pin(async move {
            let uri = request.uri().clone();
            let sent = match tokio::time::timeout(REQUEST, this.send(request)).await {
                Ok(sent) => sent,
                Err(_) => Err("no answer in time".into()),
            };
            sent.map_err(|e| Error::Other(format!("{uri}: {e}").into()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With a root of its own, for a machine that has none.
    fn https() -> Https {
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
            let request = Request::builder().uri(uri).body(BodyWrapper::default());
            let refused = https().send(request.unwrap()).await.err().unwrap();
            assert!(
                refused.to_string().contains("not an https URL"),
                "{refused}"
            );
        }
    }

    #[test]
    fn a_busy_authority_says_how_long_or_is_left_alone_for_an_hour() {
        for (status, value, expected) in [
            (429, Some("120"), Some(120)),
            (503, Some(" 7 "), Some(7)),
            (429, Some("Fri, 31 Dec 2027 23:59:59 GMT"), Some(3_600)),
            (429, None, Some(3_600)),
            // When to look again, after an answer that is none of refusal.
            (200, Some("120"), None),
            (500, Some("120"), None),
        ] {
            let mut answer = hyper::Response::builder().status(status);
            if let Some(value) = value {
                answer = answer.header(RETRY_AFTER, value);
            }
            let https = https();
            https.note_pause(&answer.body(()).unwrap().into_parts().0);
            let expected = expected.map(Duration::from_secs);
            assert_eq!(https.take_pause(), expected, "{status} {value:?}");
            assert_eq!(https.take_pause(), None);
        }
    }
}
