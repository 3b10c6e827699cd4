//! Counters and gauges as Prometheus reads them.
//!
//! Every counter of the relay comes out, whichever it is: by its name it counts what was dropped, what was refused, what passed, or what
//! happened. So one that is added later is seen as well, under its own name as a label. `docs/operations/metrics.md` explains them.

use std::fmt;
use std::time::{Instant, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::Observed;
use super::process::Process;
use crate::delays::Reading;
use crate::hub::Links;
use crate::identity::CertificateStatus;

/// OpenMetrics 1.0, which Prometheus asks for and everybody reads.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) fn render(observed: &Observed) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Snapshot::of(observed)));
    let mut out = String::new();
    match text::encode(&mut out, &registry) {
        Ok(()) => out,
        // Writing into a string does not fail.
        Err(fmt::Error) => String::new(),
    }
}

/// None of a stand-in: its far end would hide that nodes cannot come.
fn expires(certificate: &CertificateStatus) -> Option<u64> {
    let at = Some(certificate.expires).filter(|_| !certificate.stand_in)?;
    Some(at.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// What a counter counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Family {
    /// Datagrams that passed, by direction and carrier.
    Datagrams(&'static str, &'static str),
    /// Their bytes.
    Bytes(&'static str, &'static str),
    Dropped,
    Refused,
    Event,
}

/// By its name: a counter's family, and its name there.
fn family(name: &'static str) -> (Family, &'static str) {
    let whole = (Family::Event, name);
    match name {
        "udp_in" => (Family::Datagrams("in", "udp"), name),
        "udp_out" => (Family::Datagrams("out", "udp"), name),
        "tls_in" => (Family::Datagrams("in", "tls"), name),
        "tls_out" => (Family::Datagrams("out", "tls"), name),
        "udp_in_bytes" => (Family::Bytes("in", "udp"), name),
        "udp_out_bytes" => (Family::Bytes("out", "udp"), name),
        "tls_in_bytes" => (Family::Bytes("in", "tls"), name),
        "tls_out_bytes" => (Family::Bytes("out", "tls"), name),
        "tls_dropped_full" => (Family::Dropped, "tls_full"),
        "tls_dropped_old" => (Family::Dropped, "tls_old"),
        "quic_dropped" => (Family::Dropped, "quic"),
        "signals_dropped" => (Family::Dropped, "signals"),
        "stun_ignored" | "audit_dropped" => (Family::Dropped, name),
        "tokens_refused" | "tokens_expired" | "no_longer_admitted" | "bad_cookies"
        | "not_yours" | "proofs_refused" | "handshakes_failed" | "stalled" | "lingered" => {
            (Family::Refused, name)
        }
        _ => {
            if let Some(reason) = name.strip_prefix("dropped_") {
                (Family::Dropped, reason)
            } else if let Some(what) = name.strip_prefix("refused_") {
                (Family::Refused, what)
            } else if name.ends_with("_limited") || name.starts_with("open_") {
                (Family::Refused, name)
            } else {
                whole
            }
        }
    }
}

/// The state at one moment.
#[derive(Debug)]
struct Snapshot {
    counters: Vec<(Family, &'static str, u64)>,
    links: Vec<Links>,
    sessions: u64,
    channels: u64,
    ready: bool,
    info: [(&'static str, String); 3],
    started: f64,
    certificate: CertificateStatus,
    admission_age: u64,
    process: Process,
    handshakes: [(
        &'static str,
        prometheus_client::metrics::histogram::Histogram,
    ); 2],
    queued: Reading,
    forwarded: Reading,
}

impl Snapshot {
    fn of(observed: &Observed) -> Self {
        let (control, load) = observed.hub.snapshot();
        let data = observed.data();
        let counters = control.iter().chain(data.iter()).map(|(name, n)| {
            let (family, name) = family(name);
            (family, name, n)
        });
        let handshakes = observed.hub.handshakes();
        Self {
            counters: counters.collect(),
            links: observed.hub.links(),
            sessions: load.sessions as u64,
            channels: load.channels as u64,
            ready: observed.hub.is_ready(),
            info: [
                ("version", env!("CARGO_PKG_VERSION").to_owned()),
                ("name", observed.name.clone()),
                ("region", observed.region.clone()),
            ],
            started: observed
                .began
                .1
                .duration_since(UNIX_EPOCH)
                .map_or(0.0, |d| d.as_secs_f64()),
            certificate: observed.identity.status(),
            admission_age: observed
                .admission
                .at(Instant::now())
                .map_or(0, |age| age.as_secs()),
            process: Process::read(),
            handshakes: [
                ("udp", handshakes.udp.clone()),
                ("tls", handshakes.tls.clone()),
            ],
            queued: observed.delays.queued.read(),
            forwarded: observed.delays.forwarded.read(),
        }
    }

    /// All counters of one family, under one name.
    fn counter(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        label: &'static str,
        of: Family,
    ) -> fmt::Result {
        let mut out = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (family, which, n) in self.counters.iter().filter(|(family, ..)| *family == of) {
            debug_assert_eq!(*family, of);
            out.encode_family(&[(label, *which)])?
                .encode_counter::<NoLabelSet, u64, u64>(n, None)?;
        }
        Ok(())
    }

    fn traffic(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        bytes: bool,
    ) -> fmt::Result {
        let mut out = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (family, _, n) in &self.counters {
            let (direction, carrier) = match family {
                Family::Bytes(direction, carrier) if bytes => (*direction, *carrier),
                Family::Datagrams(direction, carrier) if !bytes => (*direction, *carrier),
                _ => continue,
            };
            out.encode_family(&[("direction", direction), ("carrier", carrier)])?
                .encode_counter::<NoLabelSet, u64, u64>(n, None)?;
        }
        Ok(())
    }
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: Option<u64>,
) -> fmt::Result {
    let Some(value) = value else { return Ok(()) };
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    let mut out = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    out.encode_gauge(&value)
}

fn count(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let mut out = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    out.encode_counter::<NoLabelSet, u64, u64>(&value, None)
}

fn delays(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    delays: &Reading,
) -> fmt::Result {
    let mut out = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    out.encode_histogram::<NoLabelSet>(delays.sum, delays.count, &delays.buckets, None)
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let e = &mut encoder;
        let info: Vec<(&str, &str)> = self.info.iter().map(|(k, v)| (*k, v.as_str())).collect();
        e.encode_descriptor("byway_relay", "What this relay is", None, MetricType::Info)?
            .encode_info(&info.as_slice())?;
        gauge(
            e,
            "byway_relay_ready",
            "1 while new nodes are taken",
            Some(self.ready.into()),
        )?;
        let mut out = e.encode_descriptor(
            "byway_relay_links",
            "Links of nodes",
            None,
            MetricType::Gauge,
        )?;
        for links in &self.links {
            out.encode_family(&[("carrier", links.carrier), ("role", links.role)])?
                .encode_gauge(&(links.count as i64))?;
        }
        gauge(
            e,
            "byway_relay_sessions",
            "Node processes with a link, or that may come back",
            Some(self.sessions),
        )?;
        gauge(
            e,
            "byway_relay_channels",
            "Channels between nodes, awaited ones among them",
            Some(self.channels),
        )?;
        self.traffic(
            e,
            "byway_relay_datagrams",
            "Datagrams of UDP and of TLS links' frames",
            false,
        )?;
        self.traffic(e, "byway_relay_bytes", "Their bytes", true)?;
        self.counter(
            e,
            "byway_relay_dropped",
            "What was dropped, by reason",
            "reason",
            Family::Dropped,
        )?;
        self.counter(
            e,
            "byway_relay_refused",
            "What was refused or ended, by rule or limit",
            "rule",
            Family::Refused,
        )?;
        self.counter(
            e,
            "byway_relay_events",
            "What happened besides",
            "event",
            Family::Event,
        )?;
        let mut out = e.encode_descriptor(
            "byway_relay_handshake_seconds",
            "From a link's first packet to Welcome",
            None,
            MetricType::Histogram,
        )?;
        for (carrier, histogram) in &self.handshakes {
            use prometheus_client::encoding::EncodeMetric;
            histogram.encode(out.encode_family(&[("carrier", *carrier)])?)?;
        }
        delays(
            e,
            "byway_relay_tls_queue_seconds",
            "How long data waited for TLS links, by frame",
            &self.queued,
        )?;
        delays(
            e,
            "byway_relay_forward_seconds",
            "From a batch of datagrams read to all of it sent, one batch in 1,024",
            &self.forwarded,
        )?;
        gauge(
            e,
            "byway_relay_certificate_not_after_seconds",
            "When the certificate expires, Unix time",
            expires(&self.certificate),
        )?;
        count(
            e,
            "byway_relay_certificate_renewals",
            "Times that another certificate took its predecessor's place",
            self.certificate.renewed,
        )?;
        count(
            e,
            "byway_relay_certificate_failures",
            "Times that another certificate was refused or could not be had",
            self.certificate.refused,
        )?;
        gauge(
            e,
            "byway_relay_admission_age_seconds",
            "For how long what is in force may not be what the admission files and URLs say",
            Some(self.admission_age),
        )?;
        gauge(
            e,
            "process_open_fds",
            "Open file descriptors",
            self.process.open_fds,
        )?;
        gauge(
            e,
            "process_max_fds",
            "Most file descriptors there may be",
            self.process.max_fds,
        )?;
        gauge(
            e,
            "process_resident_memory_bytes",
            "Resident memory",
            self.process.resident_bytes,
        )?;
        let mut out = e.encode_descriptor(
            "process_start_time_seconds",
            "When the relay started, Unix time",
            None,
            MetricType::Gauge,
        )?;
        out.encode_gauge(&self.started)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stand_in_does_not_say_when_it_expires() {
        let mut status = CertificateStatus {
            pin: byway_wire::relay::Pin([0; 32]),
            expires: UNIX_EPOCH + std::time::Duration::from_secs(7),
            stand_in: false,
            renewed: 0,
            refused: 0,
        };
        assert_eq!(expires(&status), Some(7));
        status.stand_in = true;
        assert_eq!(expires(&status), None);
    }

    #[test]
    fn a_counter_is_known_by_its_name() {
        assert_eq!(family("dropped_mtu"), (Family::Dropped, "mtu"));
        assert_eq!(family("refused_version"), (Family::Refused, "version"));
        assert_eq!(family("stun_limited"), (Family::Refused, "stun_limited"));
        assert_eq!(family("open_offline"), (Family::Refused, "open_offline"));
        assert_eq!(family("welcomed"), (Family::Event, "welcomed"));
        assert_eq!(family("udp_in"), (Family::Datagrams("in", "udp"), "udp_in"));
    }

    /// Two counters under one name would be one to whoever reads them, and Prometheus refuses the whole page.
    #[test]
    fn no_two_counters_have_one_name() {
        let control = byway_relay_core::Counters::default();
        let data = crate::stats::DataStats::default();
        let names = control.iter().chain(data.iter()).map(|(name, _)| name);
        let mut seen = std::collections::HashSet::new();
        for name in names {
            let key = format!("{:?}", family(name));
            assert!(seen.insert(key.clone()), "{key}");
        }
    }
}
