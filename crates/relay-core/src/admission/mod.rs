//! Who may use the relay (design section 8). One question, asked with every `Hello` and every fresh token: another answer is one
//! more variant here and nothing elsewhere. Whatever is not clearly allowed is refused.

mod token;

use std::collections::BTreeSet;

use byway_wire::NodeId;
use byway_wire::relay::control::{AdmissionToken, Role};

pub use token::{Claims, Grant, KeyError, OneOrMany, TokenKey, TokenRules};

/// Who is admitted.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Admission {
    /// Anyone who proves a key. Programs must ask their operator before they choose this.
    Open,
    /// These nodes and no others.
    Nodes(BTreeSet<NodeId>),
    /// Who shows a token by one of these rules.
    Tokens(TokenRules),
}

/// Why a node is not admitted. Told to the node, which proved its key before: its owner has to know what to mend.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdmissionError {
    /// It is not on the list.
    #[error(
        "this relay admits only the nodes on its operator's list, and this node is not one of them"
    )]
    NotListed,
    /// It shows none.
    #[error("this relay asks for a token; ask its operator for one and give it with --token")]
    NoToken,
    /// It is no JWT, or a claim is missing or of the wrong type.
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    /// Another algorithm than EdDSA.
    #[error("the token is not signed with EdDSA, the only algorithm this relay takes")]
    Algorithm,
    /// None of the relay's keys signed it.
    #[error("the token is not signed by a key this relay trusts")]
    Signature,
    /// The same, and it names a key that the relay has none of: perhaps one so new that the relay has not heard of it.
    #[error(
        "the token is not signed by a key this relay trusts (its 'kid' names none of the relay's)"
    )]
    UnknownKey,
    /// The relay has no key yet.
    #[error("this relay has not been able to fetch the keys that tokens are signed with yet")]
    NoKeys,
    /// Another issuer than the relay trusts.
    #[error("the token is of another issuer than this relay trusts")]
    Issuer,
    /// Made out for another service.
    #[error("the token is not for this relay (its 'aud' names another)")]
    Audience,
    /// Made out to another node.
    #[error(
        "the token was made out to another node (its 'sub'); a token holds for one node's key only"
    )]
    WrongNode,
    /// For another role.
    #[error("the token does not let this node come in this role (agent or client)")]
    Role,
    /// Its time has not come.
    #[error("the token does not hold yet (its 'nbf' is to come; compare the clocks)")]
    NotYet,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// The operator took it back.
    #[error("the token was revoked")]
    Revoked,
}

impl Admission {
    /// Judges a node whose key is proved. `token` is what it shows, `unix_time` the wall clock in seconds. What it may do follows
    /// from the grant; none where nothing limits it.
    pub(crate) fn judge(
        &self,
        unix_time: u64,
        node: NodeId,
        role: Role,
        token: Option<&AdmissionToken>,
    ) -> Result<Option<Grant>, AdmissionError> {
        match self {
            Admission::Open => Ok(None),
            Admission::Nodes(nodes) if nodes.contains(&node) => Ok(None),
            Admission::Nodes(_) => Err(AdmissionError::NotListed),
            Admission::Tokens(rules) => {
                let token = token.ok_or(AdmissionError::NoToken)?;
                rules.judge(unix_time, node, role, token.as_str()).map(Some)
            }
        }
    }

    /// Judges a node that was admitted by these or by other rules, when they changed.
    pub(crate) fn still_admits(
        &self,
        node: NodeId,
        grant: Option<&Grant>,
    ) -> Result<(), AdmissionError> {
        match self {
            Admission::Open => Ok(()),
            Admission::Nodes(nodes) if nodes.contains(&node) => Ok(()),
            Admission::Nodes(_) => Err(AdmissionError::NotListed),
            Admission::Tokens(rules) => rules.still_stands(grant.ok_or(AdmissionError::NoToken)?),
        }
    }
}
