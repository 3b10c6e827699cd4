//! Names of relays and STUN servers, looked up beside everything else: nothing waits for a resolver but discovery, and it
//! only for the first answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use byway_wire::RelayUrl;
use tokio::sync::{mpsc, watch};

use crate::driver::{Input, Shared};

/// After a name did not resolve it is tried again, ever more seldom: the network may not be up yet.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Looks one name up until it resolves.
pub(crate) struct Names {
    pending: Option<Pending>,
    shared: Arc<Shared>,
    driver: mpsc::Sender<Input>,
}

impl Names {
    /// `pending` counts the names that were not looked up once.
    pub(crate) fn new(
        pending: &Arc<watch::Sender<usize>>,
        shared: &Arc<Shared>,
        driver: &mpsc::Sender<Input>,
    ) -> Self {
        Self {
            pending: Some(Pending::new(pending)),
            shared: Arc::clone(shared),
            driver: driver.clone(),
        }
    }

    pub(crate) async fn relay(mut self, url: RelayUrl) {
        let host_port = format!("{}:{}", url.host(), url.port());
        let addrs = self.resolve(&host_port).await;
        // If the driver is gone, nobody asks any more.
        let _ = self.driver.send(Input::RelayAddrs(url, addrs)).await;
    }

    pub(super) async fn stun_server(mut self, server: String) {
        for addr in self.resolve(&server).await {
            let _ = self
                .driver
                .send(Input::StunServer(server.clone(), addr))
                .await;
        }
    }

    async fn resolve(&mut self, host_port: &str) -> Vec<SocketAddr> {
        let mut pause = FIRST_PAUSE;
        loop {
            // The permit is given back before the pause.
            let looked_up = {
                let _permit = self.shared.lookups.acquire().await;
                tokio::net::lookup_host(host_port).await
            };
            match looked_up {
                Ok(addrs) => {
                    self.shared.note_name(host_port, true);
                    return addrs.collect();
                }
                Err(error) => {
                    tracing::debug!(%host_port, %error, "name does not resolve");
                    self.shared.note_name(host_port, false);
                }
            }
            self.pending = None;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Counts a name until it was looked up once, and if it resolved, until the driver has its addresses.
struct Pending(Arc<watch::Sender<usize>>);

impl Pending {
    fn new(count: &Arc<watch::Sender<usize>>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(Arc::clone(count))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
