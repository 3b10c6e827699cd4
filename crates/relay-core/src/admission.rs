//! Who may use the relay. One question, asked once per `Hello`, so that another answer (a signed token, say) is one
//! more variant here and nothing elsewhere.

use std::collections::BTreeSet;

use byway_wire::NodeId;
use byway_wire::relay::control::Hello;

/// Who is admitted.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Admission {
    /// Anyone who proves a key. Programs must ask their operator before they choose this.
    Open,
    /// These nodes and no others.
    Nodes(BTreeSet<NodeId>),
}

impl Admission {
    /// True if `hello`, whose key is already proved, may come in. The wall clock is there for tokens, which expire.
    pub(crate) fn admits(&self, _unix_time: u64, hello: &Hello) -> bool {
        match self {
            Admission::Open => true,
            Admission::Nodes(nodes) => nodes.contains(&hello.record.node()),
        }
    }
}
