//! One order: the domains go in, a certificate chain comes out.

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Identifier, NewAccount, NewOrder, Order,
    OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::AcmeError;
use super::cache::Cache;
use super::http::Https;
use crate::Acme;
use crate::certificate::CertificateError;
use crate::challenge::{Answering, Challenges};

/// How long the authority may take to come here, and then to sign: half a minute on a bad day.
const PATIENCE: RetryPolicy = RetryPolicy::new().timeout(Duration::from_secs(90));

/// The account that was kept, or a new one; and whether it will be there the next time.
pub(super) async fn account(
    settings: &Acme,
    cache: &Cache,
    http: &Https,
) -> Result<(Account, bool), AcmeError> {
    let builder = Account::builder_with_http(Box::new(http.clone()));
    if let Some(kept) = cache.account()? {
        return Ok((builder.from_credentials(kept).await?, true));
    }
    let contact: Vec<String> = settings.contact.iter().map(|c| mailto(c)).collect();
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let new = NewAccount {
        contact: &contact,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let directory = settings.directory_url.clone();
    let (account, credentials) = builder.create(&new, directory, None).await?;
    let kept = cache.keep_account(&credentials);
    if let Err(error) = &kept {
        tracing::warn!(%error, "the account cannot be kept; after a restart another is made");
    }
    Ok((account, kept.is_ok()))
}

fn mailto(contact: &str) -> String {
    if contact.contains(':') {
        contact.to_owned()
    } else {
        format!("mailto:{contact}")
    }
}

/// Orders a certificate for `key`, answering the authority while it asks.
pub(super) async fn order(
    account: &Account,
    domains: &[String],
    challenges: &Arc<Challenges>,
    key: &KeyPair,
) -> Result<String, AcmeError> {
    let identifiers: Vec<Identifier> = domains.iter().cloned().map(Identifier::Dns).collect();
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
    // An authority may still believe a former proof.
    if order.state().status == OrderStatus::Pending {
        let answering = answer(&mut order, challenges).await?;
        let status = order.poll_ready(&PATIENCE).await;
        drop(answering);
        if !matches!(status, Ok(OrderStatus::Ready)) {
            // Why is said where the proof failed; the order says only that it did.
            refused(&mut order).await?;
            status?;
        }
    }
    let request = request(domains, key)?;
    order.finalize_csr(&request).await?;
    Ok(order.poll_certificate(&PATIENCE).await?)
}

/// Gets ready to be asked, and says so.
async fn answer(
    order: &mut Order,
    challenges: &Arc<Challenges>,
) -> Result<Vec<Answering>, AcmeError> {
    let mut answering = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let domain = authorization.identifier().to_string();
        let mut challenge = authorization
            .challenge(ChallengeType::TlsAlpn01)
            .ok_or_else(|| AcmeError::NoChallenge(domain.clone()))?;
        let digest = challenge.key_authorization().digest();
        let digest = digest
            .as_ref()
            .try_into()
            .map_err(|_| AcmeError::NoChallenge(domain.clone()))?;
        answering.push(challenges.answer(&domain, digest)?);
        challenge.set_ready().await?;
    }
    Ok(answering)
}

/// The first proof that failed, as an error.
async fn refused(order: &mut Order) -> Result<(), AcmeError> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        authorization.refresh().await?;
        let domain = authorization.identifier().to_string();
        let problem = authorization
            .challenges
            .iter()
            .find_map(|challenge| challenge.error.as_ref());
        if let Some(problem) = problem {
            return Err(AcmeError::NotFound {
                domain,
                why: problem.to_string(),
            });
        }
    }
    Ok(())
}

fn request(domains: &[String], key: &KeyPair) -> Result<Vec<u8>, CertificateError> {
    let mut params = CertificateParams::new(domains)?;
    // All that counts is in the names.
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(key)?.der().to_vec())
}
