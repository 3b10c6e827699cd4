//! What an operator's programs see of a relay: whether it lives, whether it takes new nodes, what it does and what it drops.
//!
//! A listener of its own, meant for the inside of a network, answers `/metrics` (the text format of Prometheus), `/status` (one JSON
//! object), `/healthz` and `/readyz`. The last two are answered where nodes come in as well, for whoever balances or watches from outside.
//!
//! | file | idea |
//! |---|---|
//! | `metrics` | counters and gauges as Prometheus reads them |
//! | `process` | what the kernel knows of this process |

mod metrics;
pub(crate) mod process;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use prometheus_client::metrics::histogram::Histogram;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use crate::admission::Age;
use crate::delays::Delays;
use crate::hub::{Health, Hub};
use crate::identity::Identity;
use crate::stats::{Counters, DataStats};
use crate::tls::http::{self, Route};

/// Requests answered at once. A scrape takes milliseconds; whoever opens more waits.
const AT_ONCE: usize = 32;
/// Of one address. Who opens more ends its oldest: whoever is silent must not keep those out who share its address.
const OF_ADDRESS: usize = 4;
/// For the head of a request, which is one packet.
const HEAD: Duration = Duration::from_secs(1);
/// For a request and its answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// Upper bounds of handshakes' durations, in seconds: from a round trip nearby to the deadline.
const HANDSHAKES: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// How long links took from their first packet to `Welcome`, by what carries them.
#[derive(Debug)]
pub(crate) struct Handshakes {
    pub(crate) udp: Histogram,
    pub(crate) tls: Histogram,
}

impl Default for Handshakes {
    fn default() -> Self {
        Self {
            udp: Histogram::new(HANDSHAKES),
            tls: Histogram::new(HANDSHAKES),
        }
    }
}

/// Everything there is to see.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) hub: Arc<Hub>,
    pub(crate) counters: Vec<Arc<Counters>>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) delays: Arc<Delays>,
    pub(crate) admission: Arc<Age>,
    pub(crate) name: String,
    pub(crate) region: String,
    pub(crate) began: (Instant, SystemTime),
}

impl Observed {
    fn data(&self) -> DataStats {
        let mut data = DataStats::default();
        self.counters.iter().for_each(|counters| data.add(counters));
        data
    }

    /// How it stands with the keys at URLs.
    fn jwks(&self) -> Vec<serde_json::Value> {
        let sources = self.admission.urls().into_iter();
        let source = sources.map(|source| {
            json!({
                "url": source.url.to_string(),
                "keys": source.keys.map_or(0, |keys| keys.len()),
                "fetched_s": source.fetched.map(|at| at.elapsed().as_secs()),
                "error": source.error.or(source.refused),
            })
        });
        source.collect()
    }

    /// One JSON object for `byway-relay status`, and for whoever has no Prometheus.
    fn status(&self) -> String {
        let (control, load) = self.hub.snapshot();
        let links = self.hub.links();
        let links_by = |carrier| -> u64 {
            let of = links.iter().filter(|links| links.carrier == carrier);
            of.map(|links| links.count).sum()
        };
        let data = self.data();
        let counts = control.iter().chain(data.iter());
        let counts: serde_json::Map<_, _> = counts
            .filter(|(_, n)| *n > 0)
            .map(|(name, n)| (name.to_owned(), n.into()))
            .collect();
        let process = process::Process::read();
        let certificate = self.identity.status();
        let expires = humantime::format_rfc3339_seconds(certificate.expires).to_string();
        let status = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "name": self.name,
            "region": self.region,
            "ready": self.hub.is_ready(),
            "health": match self.hub.health() {
                Health::Ready => "ready",
                Health::NoKeys => "no_keys",
                Health::Leaving => "leaving",
                Health::Failed => "failed",
            },
            "uptime_s": self.began.0.elapsed().as_secs(),
            "links": { "udp": links_by("udp"), "tls": links_by("tls") },
            "sessions": load.sessions,
            "channels": load.channels,
            "open_fds": process.open_fds,
            "max_fds": process.max_fds,
            "resident_bytes": process.resident_bytes,
            "certificate": {
                "pin": certificate.pin.to_string(),
                "stand_in": certificate.stand_in,
                "expires": (!certificate.stand_in).then_some(expires),
                "renewed": certificate.renewed,
                "failed": certificate.refused,
            },
            "admission_age_s": self.admission.at(Instant::now()).map(|age| age.as_secs()),
            "jwks": self.jwks(),
            "counts": counts,
        });
        format!("{status:#}\n")
    }
}

/// Answers for ever. Dropping the future ends it.
pub(crate) async fn serve(listener: TcpListener, observed: Arc<Observed>) {
    let mut answering = JoinSet::new();
    let mut of_address: HashMap<IpAddr, VecDeque<AbortHandle>> = HashMap::new();
    loop {
        while answering.len() >= AT_ONCE {
            answering.join_next().await;
        }
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                tracing::warn!(%e, "accept fails where the relay is observed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let observed = Arc::clone(&observed);
        of_address.retain(|_, own| {
            own.retain(|one| !one.is_finished());
            !own.is_empty()
        });
        let own = of_address.entry(from.ip()).or_default();
        if own.len() >= OF_ADDRESS
            && let Some(oldest) = own.pop_front()
        {
            oldest.abort();
        }
        own.push_back(answering.spawn(async move {
            let answered = tokio::time::timeout(DEADLINE, answer(stream, &observed)).await;
            if let Ok(Err(e)) = answered {
                tracing::debug!(%from, %e, "request failed");
            }
        }));
        while answering.try_join_next().is_some() {}
    }
}

async fn answer(mut stream: TcpStream, observed: &Observed) -> io::Result<()> {
    let (route, head) = tokio::time::timeout(HEAD, http::read_head(&mut stream)).await??;
    let route = match route {
        Route::Metrics => {
            let text = metrics::render(observed);
            return http::respond(&mut stream, metrics::CONTENT_TYPE, &text).await;
        }
        Route::Status => {
            let text = observed.status();
            return http::respond(&mut stream, "application/json", &text).await;
        }
        Route::Link | Route::NotUpgrade => Route::NotFound,
        route => route,
    };
    http::answer(&mut stream, route, &head, observed.hub.health()).await
}

/// Binds the listener.
pub(crate) fn bind(addr: SocketAddr) -> anyhow::Result<(SocketAddr, std::net::TcpListener)> {
    crate::listen::bind_tcp(addr, "metrics")
}
