//! What a line of the audit log says.

use std::time::SystemTime;

use byway_relay_core::io::{Audit, Egress};
use byway_wire::ChannelId;
use byway_wire::relay::control::{RefuseReason, Role};
use serde_json::{Value, json};

use crate::table::Totals;

pub(super) fn lost_line(count: u64) -> Value {
    json!({ "event": "lost", "count": count })
}

/// A line with its time.
pub(super) fn dated(mut line: Value) -> String {
    line["time"] = humantime::format_rfc3339_millis(SystemTime::now())
        .to_string()
        .into();
    format!("{line}\n")
}

pub(super) fn describe(audit: &Audit, totals: Option<&Totals>) -> Value {
    let channel = |id: &ChannelId| format!("{:014x}", id.as_u64());
    match audit {
        Audit::Linked {
            link,
            node,
            role,
            observed,
            egress,
            workspace,
            owner,
        } => {
            let role = match role {
                Role::Agent => "agent",
                Role::Client => "client",
            };
            let carrier = match egress {
                Egress::Udp(_) => "udp",
                Egress::Tls(_) => "tls",
            };
            let mut line = json!({
                "event": "linked", "link": link.0, "node": node.to_string(), "role": role,
                "address": observed.to_string(), "carrier": carrier,
            });
            for (name, value) in [("workspace", workspace), ("owner", owner)] {
                if let Some(value) = value {
                    line[name] = value.as_str().into();
                }
            }
            line
        }
        Audit::Unlinked { link, node, why } => json!({
            "event": "unlinked", "link": link.0, "node": node.to_string(),
            "reason": why.map_or("connection_ended", refusal),
        }),
        Audit::Refused {
            link,
            node,
            observed,
            reason,
            detail,
        } => json!({
            "event": "refused", "link": link.0, "node": node.to_string(), "address": observed.to_string(),
            "reason": refusal(*reason), "detail": detail,
        }),
        Audit::Opened {
            channel: id,
            opener,
            target,
        } => json!({
            "event": "opened", "channel": channel(id), "opener": opener.to_string(), "target": target.to_string(),
        }),
        Audit::Ended {
            channel: id,
            opener,
            target,
            why,
        } => {
            let mut line = json!({
                "event": "ended", "channel": channel(id), "opener": opener.to_string(),
                "target": target.to_string(), "reason": why.name(),
            });
            if let Some(totals) = totals {
                line["duration_ms"] = (totals.since.elapsed().as_millis() as u64).into();
                line["opener_datagrams"] = totals.opener.0.into();
                line["opener_bytes"] = totals.opener.1.into();
                line["target_datagrams"] = totals.target.0.into();
                line["target_bytes"] = totals.target.1.into();
            }
            line
        }
        // Of a later relay-core.
        other => json!({ "event": "other", "detail": format!("{other:?}") }),
    }
}

/// The name that logs have: written like the reasons for which channels end.
fn refusal(reason: RefuseReason) -> &'static str {
    match reason {
        RefuseReason::Version => "version",
        RefuseReason::Identity => "identity",
        RefuseReason::NotAdmitted => "not_admitted",
        RefuseReason::Limit => "limit",
        RefuseReason::Protocol => "protocol",
        RefuseReason::Replaced => "replaced",
        RefuseReason::Shutdown => "shutdown",
        RefuseReason::NotReady => "not_ready",
        // Of a later relay-core.
        _ => "other",
    }
}
