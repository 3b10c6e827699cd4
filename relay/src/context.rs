//! What every listener and link shares.

use std::sync::Arc;

use crate::hub::Hub;
use crate::identity::Identity;
use crate::limits::Limits;
use crate::plane::Plane;
use crate::pressure::Pressure;
use crate::stats::Counters;
use crate::strangers::Strangers;

#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) hub: Arc<Hub>,
    pub(crate) plane: Arc<Plane>,
    /// Of everything outside the UDP shards.
    pub(crate) counters: Arc<Counters>,
    pub(crate) strangers: Strangers,
    pub(crate) pressure: Pressure,
    pub(crate) limits: Limits,
    /// The relay's name and region, for the challenge.
    pub(crate) name: String,
    pub(crate) region: String,
    pub(crate) identity: Arc<Identity>,
    /// The hosts by which nodes know it.
    pub(crate) hosts: Vec<String>,
    /// Refuse TLS links whose TLS does not end here.
    pub(crate) require_channel_binding: bool,
}
