//! `initials ADDR COUNT PER_SECOND SOURCE...`: begins QUIC handshakes in the name of other addresses, which get the answers. Prints
//! `sent COUNT bytes BYTES`.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::{ClientConfig, Endpoint, EndpointConfig};
use socket2::{Domain, Protocol, Socket, Type};

pub(super) fn run(args: &[String]) -> Result<()> {
    let [addr, count, per_second, sources @ ..] = args else {
        bail!("initials ADDR COUNT PER_SECOND SOURCE...")
    };
    let addr: SocketAddr = addr.parse()?;
    let (count, per_second): (u32, u32) = (count.parse()?, per_second.parse()?);
    let mut sockets = Vec::new();
    for source in sources {
        let source: Ipv4Addr = source.parse()?;
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        // Lets root send in the name of an address that is not this host's.
        socket.set_ip_transparent_v4(true)?;
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        sockets.push(socket);
    }
    let config = client_config()?;
    let began = Instant::now();
    let mut bytes = 0;
    for n in 0..count {
        let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, true, None);
        let now = Instant::now();
        let (_, mut connection) = endpoint.connect(now, config.clone(), addr, "relay")?;
        let mut datagram = Vec::new();
        let begun = connection.poll_transmit(now, 1, &mut datagram);
        anyhow::ensure!(begun.is_some(), "a client says nothing to begin with");
        let socket = &sockets[n as usize % sockets.len()];
        bytes += socket.send_to(&datagram, &addr.into())?;
        let due = Duration::from_secs(1) * n / per_second;
        std::thread::sleep(due.saturating_sub(began.elapsed()));
    }
    println!("sent {count} bytes {bytes}");
    Ok(())
}

fn client_config() -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(super::tls::Anybody(provider)))
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"byway-relay/1".to_vec()];
    Ok(ClientConfig::new(Arc::new(QuicClientConfig::try_from(
        tls,
    )?)))
}
