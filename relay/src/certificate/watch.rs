//! Certificate files that are renewed while the relay runs.
//!
//! Every few seconds, and on SIGHUP, the files are read again, and other contents than the last are shown from the next
//! handshake on; no link notices. Contents are compared, not times: a secret mounted into a container changes by a
//! symbolic link, copies keep their times, and both files are a few kilobytes. Chain and key are two files, so a look
//! may come between two writes: what does not fit together is refused with one line in the log, the old certificate
//! stays, and the next look finds the rest.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior};

use super::files::{Contents, warn_if_open_to_others};
use super::{Certificate, CertificateError};
use crate::CertFiles;
use crate::identity::Identity;

/// A certificate that expires sooner should have been renewed: the common ones are renewed with a month left.
const SOON: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Looking more often than this would be all that the relay does.
const OFTEN: Duration = Duration::from_millis(1);
/// How often it is said again.
const AGAIN: Duration = Duration::from_secs(24 * 60 * 60);

/// Watches two files.
#[derive(Debug)]
pub(crate) struct Watch {
    files: CertFiles,
    /// The host by which nodes know the relay, if they do by a name.
    host: Option<String>,
    identity: Arc<Identity>,
    /// The contents that are shown.
    shown: [u8; 32],
    /// What the last look found: contents, or why there were none.
    seen: Result<[u8; 32], String>,
    /// When contents that are good, but too early, are to be looked at again.
    early: Option<SystemTime>,
    expiry: Expiry,
    hangup: Option<Signal>,
}

impl Watch {
    /// Reads the files for the first time. Must be called inside a tokio runtime.
    pub(crate) fn start(files: &CertFiles, host: Option<&str>) -> Result<Self, CertificateError> {
        let contents = Contents::read(files)?;
        let certificate = contents.certificate()?;
        if let Some(host) = host {
            certificate.check_host(host)?;
        }
        warn_if_open_to_others(&files.key);
        if certificate.not_before() > SystemTime::now() {
            tracing::warn!(
                "the certificate does not hold yet, or this machine's clock is wrong: nodes that know the relay by name \
                 cannot reach it"
            );
        }
        Ok(Self {
            files: files.clone(),
            host: host.map(str::to_owned),
            early: None,
            identity: Arc::new(Identity::new(certificate)?),
            shown: contents.digest(),
            seen: Ok(contents.digest()),
            expiry: Expiry::default(),
            // From the start: before this, it would end the process.
            hangup: signal(SignalKind::hangup())
                .inspect_err(|e| tracing::warn!(%e, "SIGHUP is not listened for"))
                .ok(),
        })
    }
    pub(crate) fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity)
    }

    /// Looks `every` so often. Never returns.
    pub(crate) async fn run(mut self, every: Duration) {
        let every = every.max(OFTEN);
        let mut ticks = tokio::time::interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.expiry
                .warn(SystemTime::now(), self.identity.shown().certificate());
            let hung_up = async {
                match &mut self.hangup {
                    Some(hangup) => hangup.recv().await,
                    None => None,
                }
            };
            tokio::select! {
                _ = ticks.tick() => {}
                Some(()) = hung_up => tracing::info!("SIGHUP: looking at the certificate files"),
            }
            let files = self.files.clone();
            // A file system may be slow, or be elsewhere.
            let read = tokio::task::spawn_blocking(move || Contents::read(&files));
            if let Ok(read) = read.await {
                self.look(read);
            }
        }
    }

    /// For one that is fit to be shown in place of the one that is.
    fn check(&mut self, certificate: Certificate) -> Result<Certificate, CertificateError> {
        if let Some(host) = &self.host {
            certificate.check_host(host)?;
        }
        let now = SystemTime::now();
        let shown = self.identity.shown();
        let old = shown.certificate();
        let old_holds = old.not_before() <= now && now < old.not_after();
        if certificate.not_before() > now && old_holds {
            self.early = Some(certificate.not_before().min(old.not_after()));
            return Err(CertificateError::NotYet);
        }
        Ok(certificate)
    }

    fn look(&mut self, read: Result<Contents, CertificateError>) {
        let found = match &read {
            Ok(contents) => Ok(contents.digest()),
            Err(e) => Err(e.to_string()),
        };
        let waited = self.early.is_some_and(|at| at <= SystemTime::now());
        if found == self.seen && !waited {
            return;
        }
        self.seen = found;
        self.early = None;
        if self.seen == Ok(self.shown) {
            tracing::info!(cert = %self.files.cert.display(), "the certificate files are what they were");
            return;
        }
        let renewed = read
            .and_then(|contents| self.check(contents.certificate()?))
            .and_then(|certificate| self.identity.renew(certificate));
        match renewed {
            Ok(shown) => {
                if let Ok(digest) = self.seen {
                    self.shown = digest;
                }
                warn_if_open_to_others(&self.files.key);
                tracing::info!(
                    cert = %self.files.cert.display(),
                    pin = %shown.certificate().pin(),
                    "another certificate is shown from now on"
                );
            }
            Err(e) => {
                self.identity.note_refused();
                tracing::warn!(
                    cert = %self.files.cert.display(),
                    key = %self.files.key.display(),
                    %e,
                    "the changed certificate files are of no use, or not yet; the old certificate stays"
                );
            }
        }
    }
}

/// When to complain about a certificate that expires.
#[derive(Debug, Default)]
struct Expiry {
    said: Option<SystemTime>,
}

impl Expiry {
    fn warn(&mut self, now: SystemTime, certificate: &Certificate) {
        let not_after = certificate.not_after();
        if !self.is_due(now, not_after) {
            return;
        }
        match not_after.duration_since(now) {
            Ok(left) => tracing::warn!(
                hours = left.as_secs() / 3_600,
                "the certificate expires soon; renew it, the relay takes the new files by itself"
            ),
            Err(_) => tracing::warn!(
                "the certificate has expired: nodes that know the relay by name cannot reach it"
            ),
        }
    }
    fn is_due(&mut self, now: SystemTime, not_after: SystemTime) -> bool {
        if not_after > now + SOON {
            self.said = None;
            return false;
        }
        // A clock that was set back is no reason to be silent.
        let quiet = self
            .said
            .is_some_and(|said| now.duration_since(said).is_ok_and(|since| since < AGAIN));
        if !quiet {
            self.said = Some(now);
        }
        !quiet
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::certificate::tests::made;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn expiry_is_said_once_a_day_and_only_when_it_is_near() {
        let mut expiry = Expiry::default();
        let now = UNIX_EPOCH + HOUR * 500_000;
        assert!(!expiry.is_due(now, now + HOUR * 24 * 7 + HOUR));
        let end = now + HOUR * 24 * 6;
        assert!(expiry.is_due(now, end));
        assert!(!expiry.is_due(now + HOUR, end));
        assert!(expiry.is_due(now + HOUR * 24, end));
        assert!(!expiry.is_due(now + HOUR * 47, end));
        // Also when it is over, and when the clock went back.
        assert!(expiry.is_due(end + HOUR, end));
        assert!(expiry.is_due(end - HOUR, end));
        // A new one is another story.
        assert!(!expiry.is_due(end, end + HOUR * 24 * 80));
        assert!(expiry.is_due(end, end));
    }

    #[tokio::test]
    async fn bad_contents_are_refused_once_and_good_ones_shown_once() {
        let dir = tempfile::tempdir().unwrap();
        let files = CertFiles {
            cert: dir.path().join("cert.pem"),
            key: dir.path().join("key.pem"),
        };
        let write = |(chain, key): &(String, String)| {
            std::fs::write(&files.cert, chain).unwrap();
            std::fs::write(&files.key, key).unwrap();
        };
        let (first, second) = (made(), made());
        write(&first);
        let mut watch = Watch::start(&files, None).unwrap();
        let counts = |watch: &Watch| {
            let status = watch.identity.status();
            (status.renewed, status.refused)
        };
        let mut look = |expected| {
            // Twice: the second finds nothing new.
            watch.look(Contents::read(&files));
            watch.look(Contents::read(&files));
            assert_eq!(counts(&watch), expected);
        };
        look((0, 0));
        // Between two writes.
        write(&(second.0.clone(), first.1.clone()));
        look((0, 1));
        write(&second);
        look((1, 1));
        std::fs::remove_file(&files.key).unwrap();
        look((1, 2));
        // What is back is what is shown already.
        write(&second);
        look((1, 2));
        write(&first);
        look((2, 2));
    }

    /// A certificate that holds from then on.
    fn holding_from(from: SystemTime, host: &str) -> (String, String) {
        let mut params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.not_before = from.into();
        let key = rcgen::KeyPair::generate().unwrap();
        let made = params.self_signed(&key).unwrap();
        (made.pem(), key.serialize_pem())
    }

    #[tokio::test]
    async fn one_of_another_host_and_one_too_early_do_not_replace_one_that_holds() {
        let dir = tempfile::tempdir().unwrap();
        let files = CertFiles {
            cert: dir.path().join("cert.pem"),
            key: dir.path().join("key.pem"),
        };
        let write = |(chain, key): &(String, String)| {
            std::fs::write(&files.cert, chain).unwrap();
            std::fs::write(&files.key, key).unwrap();
        };
        write(&made());
        let error = Watch::start(&files, Some("other.example")).unwrap_err();
        assert!(
            matches!(error, CertificateError::OtherHost { .. }),
            "{error}"
        );
        let mut watch = Watch::start(&files, Some("r.example")).unwrap();
        let pin = watch.identity.status().pin;
        let now = SystemTime::now();
        write(&holding_from(now - HOUR, "other.example"));
        watch.look(Contents::read(&files));
        assert_eq!(watch.identity.status().refused, 1);
        write(&holding_from(now + HOUR, "r.example"));
        watch.look(Contents::read(&files));
        watch.look(Contents::read(&files));
        let status = watch.identity.status();
        assert_eq!((status.pin, status.renewed, status.refused), (pin, 0, 2));
        // It is not forgotten: when its time has come it is looked at again.
        let at = watch.early.unwrap();
        assert!(at > now + HOUR / 2);
        watch.early = Some(now);
        watch.look(Contents::read(&files));
        assert_eq!(watch.identity.status().refused, 3);
        // One that holds is taken.
        write(&holding_from(now - HOUR, "r.example"));
        watch.look(Contents::read(&files));
        assert_eq!(watch.identity.status().renewed, 1);
        assert_eq!(watch.early, None);
    }

    #[test]
    fn an_expired_certificate_does_not_replace_one_that_holds() {
        let (chain, key) = made();
        let pair = |chain: &str, key: &str| {
            Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap()
        };
        let mut params = rcgen::CertificateParams::new(vec!["r.example".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        let old_key = rcgen::KeyPair::generate().unwrap();
        let old = params.self_signed(&old_key).unwrap();
        let expired = || pair(&old.pem(), &old_key.serialize_pem());
        let identity = Identity::new(pair(&chain, &key)).unwrap();
        let pin = identity.shown().certificate().pin();
        let error = identity.renew(expired()).unwrap_err();
        assert!(matches!(error, CertificateError::Expired), "{error}");
        assert_eq!(identity.shown().certificate().pin(), pin);
        // In place of one that has expired it is no worse.
        let identity = Identity::new(expired()).unwrap();
        identity.renew(expired()).unwrap();
    }
}
