//! Accepts TCP connections and leads each to its end: a link, or a short answer.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use byway_wire::canonical;
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::challenge;
use crate::context::Context;
use crate::stats::bump;
use crate::strangers::{Crowd, Place, Verdict};
use crate::tls::http::{self, Route};
use crate::tls::link::{self, Binding};
use crate::tls::plain;
use crate::tls::read_ahead::ReadAhead;
use crate::tls::stream::{Ahead, Watched};

/// Bytes in the kernel that are sent but not acknowledged: 100 Mbit/s at 10 ms.
const SEND_BUFFER: usize = 128 * 1024;
/// Bytes in the kernel that are not even sent (design section 7): what waits longer waits in our queue, where it ages.
const NOT_SENT: u32 = 32 * 1024;

/// What a listener speaks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Door {
    /// TLS that ends here.
    Tls,
    /// HTTP from an ingress, where TLS ended.
    Plain,
}

/// Accepts for ever. Dropping the future ends all links.
pub(crate) async fn accept(listener: TcpListener, door: Door, context: Arc<Context>) {
    let crowd = Arc::new(Crowd::default());
    let mut links = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = links.join_next() => continue,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                // Out of descriptors, most likely: what is established goes on, and some will be closed.
                tracing::warn!(%e, "accept fails");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        if context.pressure.is_high().await {
            bump(&context.counters.refused_pressure);
            continue;
        }
        let from = canonical(from);
        // TCP's handshake proved the address.
        let verdict = context
            .strangers
            .judge(Instant::now(), from.ip(), true, &crowd);
        let Verdict::Serve(place) = verdict else {
            bump(&context.counters.connections_limited);
            continue;
        };
        let context = Arc::clone(&context);
        let crowd = Arc::clone(&crowd);
        links.spawn(async move {
            tune(&stream);
            let served = match door {
                Door::Tls => serve(stream, from, place, &context).await,
                Door::Plain => plain::serve(stream, from, place, &crowd, &context).await,
            };
            if let Err(e) = served {
                bump(&context.counters.handshakes_failed);
                tracing::debug!(%from, %e, "connection failed");
            }
        });
    }
}

async fn serve(
    stream: TcpStream,
    from: SocketAddr,
    place: Place,
    context: &Context,
) -> io::Result<()> {
    let began = Instant::now();
    let (stream, written) = Watched::new(stream);
    let shown = context.identity.shown();
    let accept = TlsAcceptor::from(shown.tls()).accept(ReadAhead::new(stream));
    let within = context.limits.handshakes.within;
    let mut stream = tokio::time::timeout(within, accept).await??;
    if stream.get_ref().1.alpn_protocol() == Some(challenge::ALPN) {
        // An authority has seen what it wanted to.
        return tokio::time::timeout(within, stream.shutdown()).await?;
    }
    let exporter = stream
        .get_ref()
        .1
        .export_keying_material([0; 32], b"EXPORTER-byway-link", None)
        .map_err(io::Error::other)?;
    // TLS is part of it, and so is `Hello`, for which relay-core waits.
    let deadline = (began + context.limits.handshakes.welcome_within).into();
    let (route, head) = tokio::time::timeout_at(deadline, http::read_head(&mut stream)).await??;
    if route != Route::Link {
        return tokio::time::timeout_at(
            deadline,
            http::answer(&mut stream, route, &head, context.hub.health()),
        )
        .await?;
    }
    let stream = Ahead::new(head, stream);
    let binding = Binding {
        certificate: shown.certificate().pin(),
        exporter: Some(exporter),
    };
    let ready = tokio::time::timeout_at(deadline, link::prove(stream, binding, context)).await??;
    drop(place);
    link::run(ready, (from, began), written, context).await;
    Ok(())
}

fn tune(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    // None of these decides whether the link works; a kernel that lacks one serves it a little worse.
    let _ = stream.set_nodelay(true);
    let _ = socket.set_send_buffer_size(SEND_BUFFER);
    let _ = socket.set_tcp_notsent_lowat(NOT_SENT);
}
