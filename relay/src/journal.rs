//! Where it is said what became of nodes and channels: in the log, and in the audit log if there is one.

use std::time::Instant;

use byway_relay_core::io::Audit;

use crate::audit::AuditLog;
use crate::refusals::Refusals;
use crate::table::Totals;

#[derive(Debug)]
pub(crate) struct Journal {
    refusals: Refusals,
    audit: Option<AuditLog>,
}

impl Journal {
    pub(crate) fn new(now: Instant, audit: Option<AuditLog>) -> Self {
        Self {
            refusals: Refusals::new(now),
            audit,
        }
    }

    /// Writes what happened. False if it was left out, because it is about a `stranger` of whom there are many.
    pub(crate) fn write(&self, audit: &Audit, totals: Option<&Totals>, stranger: bool) -> bool {
        if stranger && !self.refusals.write(Instant::now()) {
            return false;
        }
        log(audit);
        if let Some(file) = &self.audit {
            file.write(audit, totals);
        }
        true
    }

    /// Writes how many refusals were left out.
    pub(crate) fn tell_left_out(&self, now: Instant) {
        let Some(count) = self.refusals.left_out(now) else {
            return;
        };
        tracing::info!(count, "refused as well: so many of nobody's nodes");
        if let Some(file) = &self.audit {
            file.write_suppressed(count);
        }
    }
}

fn log(audit: &Audit) {
    match audit {
        Audit::Linked { link, node, .. } => {
            tracing::info!(link = link.0, node = %node.short(), "linked");
        }
        Audit::Unlinked { link, node, why } => {
            tracing::info!(link = link.0, node = %node.short(), ?why, "unlinked");
        }
        Audit::Refused {
            link,
            node,
            reason,
            detail,
            ..
        } => {
            tracing::info!(link = link.0, node = %node.short(), ?reason, detail, "refused");
        }
        Audit::Opened {
            channel,
            opener,
            target,
        } => tracing::info!(
            channel = format_args!("{:014x}", channel.as_u64()),
            opener = %opener.short(),
            target = %target.short(),
            "channel opened"
        ),
        Audit::Ended { channel, why, .. } => {
            tracing::info!(
                channel = format_args!("{:014x}", channel.as_u64()),
                why = why.name(),
                "channel ended"
            );
        }
        other => tracing::info!(?other, "audit"),
    }
}
