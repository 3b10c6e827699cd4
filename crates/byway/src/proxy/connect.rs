//! A connection to a relay, through a proxy.

use std::time::Duration;

use byway_core::io::{ProxyError, ProxyFault};
use byway_wire::RelayUrl;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::url::{ProxyUrl, Scheme};
use super::{http, socks};
use crate::links::{connect_tcp, lookup};
use crate::socket::Nat64;

/// To the proxy and through it. Less than a TLS link has in all, so that a silent proxy is known for what it is.
const DEADLINE: Duration = Duration::from_secs(7);

/// Connects to the proxy and has it connect to the relay. What the stream carries from then on is the relay's.
pub(crate) async fn connect(
    proxy: &ProxyUrl,
    relay: &RelayUrl,
    nat64: &Nat64,
) -> Result<TcpStream, ProxyError> {
    connect_within(DEADLINE, proxy, relay, nat64).await
}

async fn connect_within(
    deadline: Duration,
    proxy: &ProxyUrl,
    relay: &RelayUrl,
    nat64: &Nat64,
) -> Result<TcpStream, ProxyError> {
    let tunnel = async {
        let addrs = lookup(&proxy.host(), proxy.port())
            .await
            .map_err(ProxyFault::Resolve)?;
        // Where there is IPv6 alone, a proxy of IPv4 is behind the translator like all else of it.
        let (mut tcp, ..) = connect_tcp(nat64.canonical(addrs), nat64)
            .await
            .map_err(|error| ProxyFault::Connect(error.to_string()))?;
        match proxy.scheme {
            Scheme::Http => http::connect(&mut tcp, proxy, relay).await?,
            Scheme::Socks5 => socks::connect(&mut tcp, proxy, relay).await?,
        }
        Ok(tcp)
    };
    let result = match timeout(deadline, tunnel).await {
        Ok(result) => result,
        Err(_) => Err(ProxyFault::TimedOut(deadline.as_secs())),
    };
    result.map_err(|fault| ProxyError {
        proxy: proxy.to_string(),
        fault,
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn relay() -> RelayUrl {
        RelayUrl::new("relay.invalid", 443, None).unwrap()
    }

    #[tokio::test]
    async fn a_silent_proxy_is_given_up_by_name() {
        for scheme in ["http", "socks5"] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            let silent = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut heard = Vec::new();
                // Until the other side gives up.
                let _ = stream.read_to_end(&mut heard).await;
                heard.len()
            });
            let proxy: ProxyUrl = format!("{scheme}://{addr}").parse().unwrap();
            let error = connect_within(Duration::from_secs(1), &proxy, &relay(), &Nat64::default())
                .await
                .unwrap_err();
            assert_eq!(error.fault, ProxyFault::TimedOut(1));
            assert!(error.to_string().contains(&addr.to_string()), "{error}");
            assert!(silent.await.unwrap() > 0, "nothing was asked");
        }
    }

    #[tokio::test]
    async fn a_proxy_that_drips_its_answer_has_no_more_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("http://{}", listener.local_addr().unwrap());
        let dripping = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut drip = tokio::time::interval(Duration::from_millis(20));
            stream.write_all(b"HTTP/1.1 200 OK\r\nX: ").await.unwrap();
            // Until the other side gives up.
            while stream.write_all(b"y").await.is_ok() {
                drip.tick().await;
            }
        });
        let proxy = proxy.parse().unwrap();
        let error = connect_within(Duration::from_secs(1), &proxy, &relay(), &Nat64::default())
            .await
            .unwrap_err();
        assert_eq!(error.fault, ProxyFault::TimedOut(1));
        dripping.await.unwrap();
    }

    #[tokio::test]
    async fn a_proxy_of_ipv4_is_reached_behind_the_networks_prefix() {
        // An IPv4 address that the prefix makes this host's: no other is there to be met.
        let listener = TcpListener::bind("[::1]:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let nat64 = Nat64::default();
        nat64.set(Some(byway_core::discovery::Prefix {
            addr: "::".parse().unwrap(),
            len: 96,
        }));
        let willing = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let read = stream.read(&mut request).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            String::from_utf8_lossy(&request[..read]).into_owned()
        });
        let proxy = format!("http://0.0.0.1:{port}").parse().unwrap();
        connect(&proxy, &relay(), &nat64).await.unwrap();
        let asked = willing.await.unwrap();
        assert!(asked.starts_with("CONNECT relay.invalid:443"), "{asked}");
    }

    #[tokio::test]
    async fn a_proxy_that_is_not_there_and_one_without_an_address_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        let proxy = format!("http://me:hunter2@{addr}").parse().unwrap();
        let error = connect(&proxy, &relay(), &Nat64::default())
            .await
            .unwrap_err();
        assert!(matches!(error.fault, ProxyFault::Connect(_)), "{error}");
        let told = format!("{error} {error:?}");
        assert!(
            told.contains(&addr.to_string()) && !told.contains("hunter2"),
            "{told}"
        );

        let proxy = "http://proxy.invalid:3128".parse().unwrap();
        let error = connect(&proxy, &relay(), &Nat64::default())
            .await
            .unwrap_err();
        assert!(matches!(error.fault, ProxyFault::Resolve(_)), "{error}");
    }
}
