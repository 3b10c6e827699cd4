//! What every listener and link shares.

use std::sync::Arc;

use byway_wire::relay::Pin;

use crate::hub::Hub;
use crate::plane::Plane;
use crate::stats::Counters;
use crate::strangers::Strangers;

#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) hub: Arc<Hub>,
    pub(crate) plane: Arc<Plane>,
    /// Of everything outside the UDP shards.
    pub(crate) counters: Arc<Counters>,
    pub(crate) strangers: Strangers,
    /// The relay's name and region, for the challenge.
    pub(crate) name: String,
    pub(crate) region: String,
    /// The public key of its certificate, for the proof on a TLS link.
    pub(crate) certificate: Pin,
    /// The hosts by which nodes know it.
    pub(crate) hosts: Vec<String>,
    /// Refuse TLS links whose TLS does not end here.
    pub(crate) require_channel_binding: bool,
}
