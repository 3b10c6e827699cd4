//! The way in behind an ingress: the same request and the same proof, without TLS, which ends at the ingress.
//!
//! Whoever reaches this port has passed no TLS, so only listed proxies may, and programs on this machine. A link here
//! counts as intercepted like any other whose TLS ends before the relay: the node must have dialled the relay's public
//! host, and `require_channel_binding` refuses it. The client's address is what the proxy says; its budget of new
//! connections is its own and not the proxy's, which would be everybody's.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpStream;

use crate::context::Context;
use crate::stats::bump;
use crate::strangers::{Crowd, Place, Verdict};
use crate::tls::http::{self, Route};
use crate::tls::link::{self, Binding};
use crate::tls::stream::{Ahead, Watched};

pub(crate) async fn serve(
    stream: TcpStream,
    from: SocketAddr,
    mut place: Place,
    crowd: &Arc<Crowd>,
    context: &Context,
) -> io::Result<()> {
    let began = Instant::now();
    let (mut stream, written) = Watched::new(stream);
    let deadline = (began + context.limits.handshakes.welcome_within).into();
    let (mut route, head) =
        tokio::time::timeout_at(deadline, http::read_head(&mut stream)).await??;
    let proxies = context.strangers.proxies();
    let trusted = proxies.trusts(from.ip());
    let mut client = from;
    if !trusted && !from.ip().is_loopback() {
        route = Route::Forbidden;
    } else if trusted {
        client = http::forwarded_for(&head, |values| proxies.client(from, values));
        if client.ip() != from.ip() {
            // One handshake has one place.
            drop(place);
            match context
                .strangers
                .judge(Instant::now(), client.ip(), true, crowd)
            {
                Verdict::Serve(own) => place = own,
                Verdict::Prove | Verdict::Refuse => {
                    bump(&context.counters.connections_limited);
                    let answer =
                        http::answer(&mut stream, Route::TooMany, &head, context.hub.health());
                    return tokio::time::timeout_at(deadline, answer).await?;
                }
            }
        }
    }
    if route != Route::Link {
        tokio::time::timeout_at(
            deadline,
            http::answer(&mut stream, route, &head, context.hub.health()),
        )
        .await??;
        return match route {
            Route::Forbidden => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "plain HTTP from an address that is not in trusted_proxies",
            )),
            _ => Ok(()),
        };
    }
    let binding = Binding {
        certificate: context.identity.shown().certificate().pin(),
        exporter: None,
    };
    let stream = Ahead::new(head, stream);
    let ready = tokio::time::timeout_at(deadline, link::prove(stream, binding, context)).await??;
    drop(place);
    link::run(ready, (client, began), written, context).await;
    Ok(())
}
