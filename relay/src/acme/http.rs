//! Talking to the authority: what it says is bounded in size and time, and when it wants to be left alone it says for how long.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::header::RETRY_AFTER;
use hyper::http::response::Parts;
use hyper::{Request, StatusCode};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};

use crate::https::{self, HttpsError};

/// For one request with its answer.
const REQUEST: Duration = Duration::from_secs(30);
/// A certificate chain has some kilobytes, and nothing else is longer.
const MAX_BODY: usize = 256 * 1024;
/// When it is busy and says no seconds: Let's Encrypt's limits are by the hour.
const UNKNOWN_PAUSE: u64 = 60 * 60;

#[derive(Clone, Debug)]
pub(super) struct Https {
    client: https::Https,
    /// Seconds that the authority wants to be left alone for; 0: it did not say so.
    pause: Arc<AtomicU64>,
}

impl Https {
    /// Trusts the system's authorities, and these.
    pub(super) fn new(extra_roots: &[PathBuf]) -> Result<Self, HttpsError> {
        Ok(Self {
            client: https::Https::new(extra_roots)?,
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
        request: Request<BodyWrapper<bytes::Bytes>>,
    ) -> Result<BytesResponse, HttpsError> {
        let answer = self.client.ask(request).await?;
        self.note_pause(&answer.parts);
        let (parts, body) = answer.read(MAX_BODY).await?;
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
                Ok(sent) => sent.map_err(|e| format!("{:#}", anyhow::Error::new(e))),
                Err(_) => Err("no answer in time".to_owned()),
            };
            sent.map_err(|e| Error::Other(format!("{uri}: {e}").into()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn https() -> Https {
        Https {
            client: https::tests::https(),
            pause: Arc::default(),
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
