//! A port of the gateway's (`byway`'s `portmap`): asked for at the start, when the host is in another network, and when the gateway
//! says that it began anew. It answers at once here, by PCP, and its ports are always renewed in time.

use byway_core::discovery::{GatewayPort, MappingProtocol, PortMapping};

use super::{NODE_PORT, NodeShell};
use crate::net::Network;

impl NodeShell {
    /// Asks the gateway for a port, and tells the node what came of it. Where no direct paths are wanted, nobody asks.
    pub fn ask_gateway(&mut self, net: &mut Network) {
        self.tell_gateways_port(net);
        self.turn(net);
    }

    pub(super) fn tell_gateways_port(&mut self, net: &mut Network) {
        if !self.direct {
            return;
        }
        let held = net.map_port(self.host, NODE_PORT);
        let port = held.map_or(GatewayPort::None, |external| {
            GatewayPort::Held(PortMapping {
                protocol: MappingProtocol::Pcp,
                external,
            })
        });
        self.node.handle_port_mapping(net.instant(), port);
    }
}
