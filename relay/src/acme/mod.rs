//! A certificate that the relay orders and renews by itself (RFC 8555).
//!
//! The keeper has one certificate for all domains. It is kept in the cache with its key, shown at the start if it still
//! holds, and renewed after two thirds of its lifetime. Until the first one comes, handshakes see a certificate signed by
//! itself, which satisfies nobody who goes by the name but lets the authority in. A renewal that fails changes nothing:
//! the old certificate is shown on, and the next try waits twice as long, or as long as the authority says.
//!
//! The key stays the same from one certificate to the next: the relay's pin, and its word that links of a former process
//! have ended, rest on it. To have another, remove the certificate from the cache.
//!
//! | file | idea |
//! |---|---|
//! | `schedule` | when to renew, and when to try again |
//! | `order` | one order, from the domains to the chain |
//! | `cache` | what outlives the process |
//! | `http` | talking to the authority |

mod cache;
mod http;
mod order;
mod schedule;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use thiserror::Error;
use zeroize::Zeroizing;

use crate::Acme;
use crate::certificate::{Certificate, CertificateError, can_be_ordered, is_directory};
use crate::challenge::Challenges;
use crate::https::HttpsError;
use crate::identity::Identity;
use crate::pause::Part;
use cache::{Cache, Kept};
use http::Https;
use schedule::{back_off, renewal};

/// One order takes seconds; an authority that takes longer than this has lost it.
const ORDER: Duration = Duration::from_secs(5 * 60);
/// However the settings are: a mistake there must not become a flood at the authority.
const LEAST_PAUSE: Duration = Duration::from_millis(10);
/// A sleeping machine's timers stand still: look at the clock so often.
const LOOK: Duration = Duration::from_secs(60 * 60);
/// The longest that an authority may make us wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Why there is no certificate, and whose it is to mend.
#[derive(Debug, Error)]
pub(crate) enum AcmeError {
    /// The settings name nothing.
    #[error("there is no domain to get a certificate for: give 'domains'")]
    NoDomain,
    /// TLS-ALPN-01 cannot show that a wildcard or an address leads here.
    #[error(
        "'{0}' is not a host name that a certificate can be ordered for (no wildcards, no addresses)"
    )]
    Domain(String),
    /// The account's key would travel in the clear.
    #[error("the directory '{0}' is not an https URL")]
    Directory(String),
    /// The file is not what this wrote.
    #[error("{0} is not an account: {1}; remove it to make another")]
    Account(std::path::PathBuf, serde_json::Error),
    /// The cache, or a certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// No connection to the authority can be made at all.
    #[error(transparent)]
    Https(#[from] HttpsError),
    /// The authority refuses, or cannot be reached.
    #[error("the authority: {0}")]
    Authority(#[from] instant_acme::Error),
    /// The authority came here for a domain, and did not find what it wanted.
    #[error(
        "the authority did not find this relay at {domain}:443: {why}; does the name lead here, and does TLS end here?"
    )]
    NotFound {
        /// Which.
        domain: String,
        /// In the authority's words.
        why: String,
    },
    /// It wants a proof that the relay cannot give.
    #[error("the authority does not offer TLS-ALPN-01 for {0}")]
    NoChallenge(String),
    /// What came is not what was ordered.
    #[error("the authority's certificate is not for the domains that were ordered")]
    OtherNames,
    /// Nothing came.
    #[error("the order took too long")]
    TooLong,
}

/// Keeps the relay's certificate fresh.
pub(crate) struct Keeper {
    settings: Acme,
    cache: Cache,
    http: Https,
    identity: Arc<Identity>,
    challenges: Arc<Challenges>,
    /// When the next order is due.
    due: SystemTime,
    /// The account, while it could not be kept.
    account: Option<instant_acme::Account>,
    /// Key and chain of the certificate that is shown, while they could not be kept.
    unkept: Option<(Zeroizing<String>, String)>,
}

/// Without keys.
impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("Keeper");
        out.field("settings", &self.settings)
            .field("due", &self.due);
        out.finish_non_exhaustive()
    }
}

impl Keeper {
    /// Shows what the cache has, or else a certificate signed by itself for `names`.
    pub(crate) fn start(settings: &Acme, names: Vec<String>) -> Result<Self, AcmeError> {
        let settings = checked(settings)?;
        let cache = Cache::open(&settings.cache, &settings.directory_url)?;
        let http = Https::new(&settings.extra_roots)?;
        let kept = match cache.certificate() {
            Ok(kept) => kept.filter(|kept| kept.certificate.is_for(&settings.domains)),
            Err(e) => {
                tracing::warn!(%e, "the certificate in the cache is of no use; another is ordered");
                None
            }
        };
        let now = SystemTime::now();
        let stands_in = kept.is_none();
        let (certificate, due) = match kept {
            Some(Kept { certificate, .. }) => {
                let due = renewal(&certificate, Part::random());
                (certificate, due)
            }
            None => (Certificate::self_signed(names)?, now),
        };
        // A restart is no reason to come sooner than the authority asked.
        let due = cache
            .pause(now + LONGEST_PAUSE)
            .map_or(due, |pause| due.max(pause));
        let challenges = Arc::new(Challenges::default());
        let mut identity = Identity::with_challenges(certificate, Some(Arc::clone(&challenges)))?;
        if stands_in {
            identity = identity.stands_in();
        }
        Ok(Self {
            settings,
            cache,
            http,
            identity: Arc::new(identity),
            challenges,
            due,
            account: None,
            unkept: None,
        })
    }
    pub(crate) fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity)
    }

    /// Orders whenever it is time. Never returns.
    pub(crate) async fn run(mut self) {
        let first = self.settings.first_retry;
        let mut failures = 0;
        loop {
            let wait = self
                .due
                .duration_since(SystemTime::now())
                .unwrap_or_default();
            if !wait.is_zero() {
                let look = if self.unkept.is_some() { first } else { LOOK };
                tokio::time::sleep(wait.min(look)).await;
                self.keep().await;
                continue;
            }
            let ordered = tokio::time::timeout(ORDER, self.renew()).await;
            let now = SystemTime::now();
            self.due = match ordered.unwrap_or(Err(AcmeError::TooLong)) {
                Ok(due) => {
                    failures = 0;
                    // However short its lifetime: no authority wants to be asked all the time.
                    due.max(now + first)
                }
                Err(e) => {
                    failures += 1;
                    let mut pause = back_off(first, failures, Part::random());
                    if let Some(asked) = self.http.take_pause() {
                        pause = pause.max(asked.min(LONGEST_PAUSE));
                        self.cache.keep_pause(now + pause);
                    }
                    self.say_failed(&e, failures, pause);
                    now + pause
                }
            };
        }
    }

    fn say_failed(&self, error: &AcmeError, failures: u32, pause: Duration) {
        self.identity.note_refused();
        let status = self.identity.status();
        let left = status.expires.duration_since(SystemTime::now());
        // A stand-in has no end that matters: there is no time left.
        let left = left.ok().filter(|_| !status.stand_in).unwrap_or_default();
        tracing::warn!(
            %error,
            failures,
            again_in_s = pause.as_secs(),
            hours_left = left.as_secs() / 3_600,
            "no certificate could be had; what there is stays"
        );
    }

    /// Orders, shows and keeps a certificate. Returns when it is to be renewed.
    async fn renew(&mut self) -> Result<SystemTime, AcmeError> {
        let account = match &self.account {
            Some(account) => account.clone(),
            None => {
                let (account, kept) =
                    order::account(&self.settings, &self.cache, &self.http).await?;
                // Authorities count new accounts, so one that cannot be kept is used on.
                self.account = (!kept).then(|| account.clone());
                account
            }
        };
        let unkept = self.unkept.as_ref();
        let unkept = unkept.and_then(|(key, _)| rcgen::KeyPair::from_pem(key).ok());
        let key = unkept.or_else(|| self.cache.key());
        let key = key.map_or_else(rcgen::KeyPair::generate, Ok);
        let key = key.map_err(CertificateError::from)?;
        let domains = &self.settings.domains;
        let chain = order::order(&account, domains, &self.challenges, &key).await?;
        let key = Zeroizing::new(key.serialize_pem());
        let certificate = Certificate::from_pem(chain.as_bytes(), key.as_bytes())?;
        if !certificate.is_for(domains) {
            return Err(AcmeError::OtherNames);
        }
        let due = renewal(&certificate, Part::random());
        let shown = self.identity.renew(certificate)?;
        tracing::info!(?domains, pin = %shown.certificate().pin(), "a new certificate is shown from now on");
        // It is shown already: one that cannot be kept is ordered again after a restart, and no sooner.
        self.unkept = Some((key, chain));
        self.keep().await;
        Ok(due)
    }

    /// Tries to keep what could not be kept so far.
    async fn keep(&mut self) {
        let Some((key, chain)) = self.unkept.clone() else {
            return;
        };
        let cache = self.cache.clone();
        let kept = tokio::task::spawn_blocking(move || cache.keep(&key, &chain)).await;
        match kept {
            Ok(Ok(())) => self.unkept = None,
            Ok(Err(e)) => tracing::warn!(
                %e,
                "the certificate cannot be kept yet; after a restart another would be ordered"
            ),
            // It panicked, and said so then.
            Err(_) => {}
        }
    }
}

/// The certificate that was kept and still is for these domains, if there is one. Makes and asks nothing; an error says why a keeper
/// would not start.
pub(crate) fn check(settings: &Acme) -> Result<Option<Certificate>, AcmeError> {
    let settings = checked(settings)?;
    Https::new(&settings.extra_roots)?;
    let cache = Cache::look(&settings.cache, &settings.directory_url)?;
    // One that is spoilt is ordered again.
    let kept = cache.certificate().ok().flatten();
    let kept = kept.map(|kept| kept.certificate);
    Ok(kept.filter(|certificate| certificate.is_for(&settings.domains)))
}

/// Names as the certificate will spell them.
fn checked(settings: &Acme) -> Result<Acme, AcmeError> {
    if settings.domains.is_empty() {
        return Err(AcmeError::NoDomain);
    }
    if !is_directory(&settings.directory_url) {
        return Err(AcmeError::Directory(settings.directory_url.clone()));
    }
    let mut settings = settings.clone();
    settings.first_retry = settings.first_retry.max(LEAST_PAUSE);
    for domain in &mut settings.domains {
        domain.make_ascii_lowercase();
        if !can_be_ordered(domain) {
            return Err(AcmeError::Domain(domain.clone()));
        }
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With a root of its own, for a machine that has none.
    fn with_cache(dir: &std::path::Path) -> Keeper {
        let root = dir.join("root.pem");
        std::fs::write(&root, crate::certificate::tests::made().0).unwrap();
        let mut settings = Acme::new(vec!["r.example".into()], dir.join("cache"));
        settings.extra_roots = vec![root];
        Keeper::start(&settings, vec!["r.example".into()]).unwrap()
    }

    #[tokio::test]
    async fn what_could_not_be_kept_is_kept_later_and_then_is_no_stand_in() {
        let dir = tempfile::tempdir().unwrap();
        let mut keeper = with_cache(dir.path());
        assert!(keeper.identity.status().stand_in);
        // In the way, also for root.
        let in_the_way = keeper.cache.certificate_file();
        std::fs::create_dir(&in_the_way).unwrap();
        let (chain, key) = crate::certificate::tests::made();
        keeper.unkept = Some((Zeroizing::new(key), chain));
        keeper.keep().await;
        assert!(keeper.unkept.is_some());
        std::fs::remove_dir(&in_the_way).unwrap();
        keeper.keep().await;
        assert!(keeper.unkept.is_none());
        let kept = keeper.cache.certificate().unwrap().unwrap();
        keeper.identity.renew(kept.certificate).unwrap();
        assert!(!keeper.identity.status().stand_in);
        assert!(!with_cache(dir.path()).identity.status().stand_in);
    }

    #[test]
    fn settings_that_no_certificate_can_come_of_are_refused() {
        let with = |domains: &[&str]| {
            let domains = domains.iter().map(ToString::to_string).collect();
            Acme::new(domains, "/nonexistent".into())
        };
        assert!(matches!(checked(&with(&[])), Err(AcmeError::NoDomain)));
        for bad in [
            "*.example.com",
            "203.0.113.1",
            "::1",
            "a b",
            "",
            "a.example.",
        ] {
            let refused = checked(&with(&["a.example", bad]));
            assert!(matches!(refused, Err(AcmeError::Domain(d)) if d == bad));
        }
        let mut clear = with(&["a.example"]);
        clear.directory_url = "http://ca.example/directory".into();
        assert!(matches!(checked(&clear), Err(AcmeError::Directory(_))));
        let mut good = with(&["A.Example"]);
        good.first_retry = Duration::ZERO;
        let good = checked(&good).unwrap();
        assert_eq!(good.domains, ["a.example"]);
        assert_eq!(good.first_retry, LEAST_PAUSE);
    }
}
