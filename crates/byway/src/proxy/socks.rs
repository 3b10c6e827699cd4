//! SOCKS5 (RFC 1928) with user name and password (RFC 1929). The proxy gets the relay's name and resolves it.

use byway_core::io::ProxyFault;
use byway_wire::RelayUrl;
use tokio::net::TcpStream;
use tokio_socks::Error;
use tokio_socks::tcp::Socks5Stream;

use super::url::ProxyUrl;

/// Has the proxy at the other end of the stream connect it to the relay.
pub(super) async fn connect(
    stream: &mut TcpStream,
    proxy: &ProxyUrl,
    relay: &RelayUrl,
) -> Result<(), ProxyFault> {
    let to = (relay.host(), relay.port());
    let result = match &proxy.credentials {
        None => Socks5Stream::connect_with_socket(stream, to).await,
        Some(who) => {
            let password = who.password.as_str();
            Socks5Stream::connect_with_password_and_socket(stream, to, &who.user, password).await
        }
    };
    match result {
        Ok(_) => Ok(()),
        Err(error) => Err(fault(&error, proxy.credentials.is_some())),
    }
}

fn fault(error: &Error, authenticated: bool) -> ProxyFault {
    let text = error.to_string();
    match error {
        Error::Io(_) => ProxyFault::Broken(text),
        Error::AuthorizationRequired => ProxyFault::AuthRequired,
        Error::NoAcceptableAuthMethods if !authenticated => ProxyFault::AuthRequired,
        Error::NoAcceptableAuthMethods => {
            ProxyFault::AuthUnsupported("another way to log in".to_owned())
        }
        Error::PasswordAuthFailure(_) => ProxyFault::AuthRefused,
        Error::ConnectionNotAllowedByRuleset => ProxyFault::Forbidden(text),
        Error::GeneralSocksServerFailure
        | Error::NetworkUnreachable
        | Error::HostUnreachable
        | Error::ConnectionRefused
        | Error::TtlExpired
        | Error::AddressTypeNotSupported => ProxyFault::RelayUnreachable(text),
        _ => ProxyFault::Protocol(text),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// What becomes of these answers, one after each thing the node says.
    async fn answered(url: &str, answers: &[&[u8]]) -> (Vec<u8>, Result<(), ProxyFault>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let answers: Vec<Vec<u8>> = answers.iter().map(|answer| answer.to_vec()).collect();
        let proxy = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = Vec::new();
            for answer in answers {
                let mut piece = [0; 1024];
                let read = stream.read(&mut piece).await.unwrap();
                heard.extend_from_slice(&piece[..read]);
                stream.write_all(&answer).await.unwrap();
            }
            heard
        });
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let relay = RelayUrl::new("relay.invalid", 443, None).unwrap();
        let result = connect(&mut stream, &url.parse().unwrap(), &relay).await;
        (proxy.await.unwrap(), result)
    }

    const YES: &[u8] = &[5, 0];
    const DONE: &[u8] = &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0];

    #[tokio::test]
    async fn the_proxy_gets_the_relays_name() {
        let (heard, result) = answered("socks5://p", &[YES, DONE]).await;
        assert_eq!(result, Ok(()));
        assert_eq!(
            heard,
            b"\x05\x01\x00\x05\x01\x00\x03\x0drelay.invalid\x01\xbb"
        );
    }

    #[tokio::test]
    async fn name_and_password_are_given_when_asked_for() {
        let (heard, result) = answered("socks5h://me:pw@p", &[&[5, 2], &[1, 0], DONE]).await;
        assert_eq!(result, Ok(()));
        assert!(
            heard.starts_with(b"\x05\x02\x00\x02\x01\x02me\x02pw\x05\x01"),
            "{heard:?}"
        );
    }

    #[tokio::test]
    async fn each_refusal_says_whose_turn_it_is() {
        let refused = async |url, answers: &[&[u8]]| answered(url, answers).await.1.unwrap_err();
        let open = "socks5://p";
        let named = "socks5://me:pw@p";
        assert_eq!(refused(open, &[&[5, 255]]).await, ProxyFault::AuthRequired);
        assert_eq!(refused(open, &[&[5, 2]]).await, ProxyFault::AuthRequired);
        assert_eq!(
            refused(named, &[&[5, 2], &[1, 1]]).await,
            ProxyFault::AuthRefused
        );
        let fault = refused(named, &[&[5, 255]]).await;
        assert!(matches!(fault, ProxyFault::AuthUnsupported(_)), "{fault:?}");
        let code = async |code| refused(open, &[YES, &[5, code, 0, 1, 0, 0, 0, 0, 0, 0]]).await;
        assert!(matches!(code(2).await, ProxyFault::Forbidden(_)));
        for unreachable in [1, 3, 4, 5, 6, 8] {
            let fault = code(unreachable).await;
            assert!(
                matches!(fault, ProxyFault::RelayUnreachable(_)),
                "{fault:?}"
            );
        }
        for unknown in [7, 9, 255] {
            assert!(matches!(code(unknown).await, ProxyFault::Protocol(_)));
        }
    }

    #[tokio::test]
    async fn garbage_and_an_early_end_are_refused() {
        let refused =
            async |answers: &[&[u8]]| answered("socks5://p", answers).await.1.unwrap_err();
        for hostile in [
            &[&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..]][..],
            &[b"\x04\x5a"],
            &[&[5, 1]],
            &[&[5, 77]],
            &[YES, &[4, 0, 0, 1, 0, 0, 0, 0, 0, 0]],
            &[YES, &[5, 0, 0, 9, 0, 0, 0, 0, 0, 0]],
            &[YES, &[5, 0, 0, 3, 2, 0xff, 0xfe, 0, 0]],
        ] {
            let fault = refused(hostile).await;
            assert!(matches!(fault, ProxyFault::Protocol(_)), "{fault:?}");
        }
        for cut in [
            &[&b""[..]][..],
            &[b"\x05"],
            &[YES, b"\x05\x00"],
            &[YES, &[5, 0, 0, 3, 255, 1]],
        ] {
            let fault = refused(cut).await;
            assert!(matches!(fault, ProxyFault::Broken(_)), "{fault:?}");
        }
    }
}
