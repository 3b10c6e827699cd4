//! The relay as a library, so that `byway demo` and tests can embed it. See [`Server`].

use std::net::SocketAddr;

use byway_wire::RelayUrl;

/// What a relay needs to start.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerConfig {
    /// UDP and TCP addresses to listen on; each gets both. Port 0 picks a free port, the same for both.
    pub listen: Vec<SocketAddr>,
    /// The relay's name and region, told to nodes.
    pub name: String,
    /// Its region.
    pub region: String,
    /// UDP shards; 0 means one per core.
    pub shards: usize,
    /// Host by which nodes know the relay; the first listening address otherwise.
    pub public_host: Option<String>,
}

impl ServerConfig {
    /// Loopback, self-signed, open to anyone on this machine: for development.
    pub fn dev() -> Self {
        unimplemented!()
    }
}

/// A running relay. Dropping it without [`Server::stop`] stops it at once.
#[derive(Debug)]
pub struct Server {
    _private: (),
}

impl Server {
    /// Binds all listeners and starts.
    pub async fn start(config: ServerConfig) -> anyhow::Result<Self> {
        let _ = config;
        unimplemented!()
    }
    /// The relay's URL with its pin.
    pub fn url(&self) -> RelayUrl {
        unimplemented!()
    }
    /// Stops: tells every node, then closes.
    pub async fn stop(self) {
        unimplemented!()
    }
}
