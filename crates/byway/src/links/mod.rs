//! Links to relays: the shell's part of them. The node says when to dial and what to say; here are the connections.
//!
//! A dial is a task. It resolves the name, connects (over UDP: QUIC on the node's own socket and endpoint; over TLS: a
//! WebSocket, through a proxy if one applies, which then resolves the name), reports to the driver, and then carries control messages both ways until either side ends it or the
//! driver drops its sender.

mod connect;
mod egress;
mod resolve;
mod tcp;
mod tls;
mod udp;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use byway_core::io::{Carrier, LinkError, LinkId, LinkUp};
use byway_wire::relay::control::{Control, Role};
use byway_wire::{RelayUrl, SecretKey};
use tokio::sync::mpsc;

use crate::driver::Input;
use crate::proxy::Proxies;
use crate::socket::Socket;
pub(crate) use connect::{Before, Connected, connect_relay, round_trip};
pub(crate) use egress::Egress;
pub(crate) use resolve::{lookup, resolve};
pub(crate) use tcp::connect_tcp;

/// How long the socket remembers a link that ended.
const LAST_PACKETS: Duration = Duration::from_millis(200);

/// What every link needs.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    pub(crate) socket: Arc<Socket>,
    pub(crate) quic: quinn::Endpoint,
    pub(crate) key: Arc<SecretKey>,
    /// What the node says it is in its `Hello`s.
    pub(crate) role: Role,
    /// Through what TLS links go.
    pub(crate) proxies: Arc<Proxies>,
    pub(crate) driver: mpsc::Sender<Input>,
}

/// One dial the node asked for.
#[derive(Debug)]
pub(crate) struct Dial {
    pub(crate) link: LinkId,
    pub(crate) url: RelayUrl,
    pub(crate) addrs: Vec<SocketAddr>,
    pub(crate) carrier: Carrier,
    /// What to say, once connected. Closed: hang up when all was said.
    pub(crate) control: mpsc::Receiver<Control>,
}

impl Links {
    /// Dials, and carries the link until it ends. The driver hears of everything.
    pub(crate) async fn run(self, dial: Dial) {
        let link = dial.link;
        let _registered = Registered {
            socket: Arc::clone(&self.socket),
            link,
        };
        let ended = match dial.carrier {
            Carrier::Udp => udp::run(&self, dial).await,
            Carrier::Tls => tls::run(&self, dial).await,
        };
        let input = match ended {
            Ended::NeverUp(error) => Input::Dialed(link, Err(error)),
            Ended::Lost(error) => Input::LinkLost(link, error),
        };
        // If the driver is gone, nobody wants to know.
        let _ = self.driver.send(input).await;
        // The last packets of a QUIC connection leave after its end; they find their way by the entry that ends here.
        tokio::time::sleep(LAST_PACKETS).await;
    }

    async fn up(&self, link: LinkId, up: LinkUp) -> Result<(), LinkError> {
        self.tell(Input::Dialed(link, Ok(up))).await
    }

    async fn heard(&self, link: LinkId, message: Control) -> Result<(), LinkError> {
        self.tell(Input::Control(link, message)).await
    }

    async fn tell(&self, input: Input) -> Result<(), LinkError> {
        self.driver.send(input).await.map_err(|_| LinkError::HungUp)
    }
}

/// A link's entries in the socket's tables end with its task, however that ends.
struct Registered {
    socket: Arc<Socket>,
    link: LinkId,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.socket.tables.remove_link(self.link);
    }
}

/// How a link's task ended.
enum Ended {
    /// Before it was up.
    NeverUp(LinkError),
    /// After.
    Lost(LinkError),
}
