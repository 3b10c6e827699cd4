//! How long to wait before a relay is dialled again.

use std::time::Duration;

use byway_wire::relay::control::RefuseReason;

use crate::io::LinkError;
use crate::rng::Rng;

/// A relay that restarts is back in well under a second: the first attempts are quick.
const FIRST: Duration = Duration::from_millis(100);
/// Few enough attempts that a dead relay costs nothing, often enough that its return is noticed at once.
const LAST: Duration = Duration::from_secs(10);
/// Wrong certificate, no admission, a proxy that refuses: only an operator can change that.
const OPERATOR: Duration = Duration::from_secs(60);
/// Another instance runs under our key: it must end first.
const REPLACED: Duration = Duration::from_secs(300);

/// The wait before the next round, after `failures` rounds in a row failed and the last one with `error`. A relay that
/// refuses does so by every carrier, unless it is for what is in that one's way; what is wrong with one carrier alone is for
/// [`hold`].
pub(super) fn delay(rng: &mut Rng, failures: u32, error: &LinkError) -> Duration {
    let full = match error {
        LinkError::Refused(RefuseReason::Replaced, _) => REPLACED,
        LinkError::Refused(..) if is_lasting(error) && !error.is_in_the_way() => OPERATOR,
        _ => (FIRST * 2u32.saturating_pow(failures.min(16))).min(LAST),
    };
    rng.between(full / 2, full)
}

/// How long a carrier is left out that failed by what stands in its own way. The other carrier may have another way, and is
/// tried meanwhile.
pub(super) fn hold(rng: &mut Rng, error: &LinkError) -> Option<Duration> {
    (error.is_in_the_way() && is_lasting(error)).then(|| rng.between(OPERATOR / 2, OPERATOR))
}

/// True for an error that another attempt will not cure.
pub(crate) fn is_lasting(error: &LinkError) -> bool {
    match error {
        LinkError::Certificate(_) => true,
        LinkError::Proxy(error) => error.fault.is_lasting(),
        LinkError::Refused(reason, _) => matches!(
            reason,
            RefuseReason::Version
                | RefuseReason::Identity
                | RefuseReason::NotAdmitted
                | RefuseReason::Replaced
        ),
        _ => false,
    }
}
