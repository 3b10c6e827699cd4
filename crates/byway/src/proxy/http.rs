//! HTTP's `CONNECT` (RFC 9110 section 9.3.6), with `Basic` (RFC 7617).
//!
//! Written out because it is one request and one answer, and the answer's status is what a person needs: the client of
//! hyper's that does this keeps it to itself.

use byway_core::io::ProxyFault;
use byway_wire::RelayUrl;
use data_encoding::BASE64;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

use super::url::{Credentials, ProxyUrl};

/// Largest head of an answer: twice what usual servers let a head be. More is no proxy's answer.
const MAX_HEAD: usize = 16 * 1024;
/// Most headers in it.
const MAX_HEADERS: usize = 64;
/// With which every answer begins.
const VERSION: &[u8] = b"HTTP/1.";
/// Longest piece of an answer that is repeated to a person.
const MAX_SHOWN: usize = 80;

/// Has the proxy at the other end of the stream connect it to the relay.
pub(super) async fn connect(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    proxy: &ProxyUrl,
    relay: &RelayUrl,
) -> Result<(), ProxyFault> {
    let request = request(proxy.credentials.as_ref(), relay);
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(|error| ProxyFault::Broken(error.to_string()))?;
    let head = read_head(stream).await?;
    judge(&head, proxy.credentials.is_some())
}

fn request(credentials: Option<&Credentials>, relay: &RelayUrl) -> Zeroizing<String> {
    let to = relay.authority();
    let version = env!("CARGO_PKG_VERSION");
    let mut request = Zeroizing::new(format!(
        "CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: byway/{version}\r\n"
    ));
    if let Some(Credentials { user, password }) = credentials {
        let pair = Zeroizing::new(format!("{user}:{}", password.as_str()));
        let encoded = Zeroizing::new(BASE64.encode(pair.as_bytes()));
        request.push_str("Proxy-Authorization: Basic ");
        request.push_str(&encoded);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    request
}

/// Reads up to the empty line. What came behind it stays with it, for [`judge`] to see.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, ProxyFault> {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let looked_at = head.len();
        let read = stream
            .read(&mut piece)
            .await
            .map_err(|error| ProxyFault::Broken(error.to_string()))?;
        if read == 0 {
            let what = if head.is_empty() {
                "it ended without an answer"
            } else {
                "it ended in the middle of its answer"
            };
            return Err(ProxyFault::Broken(what.to_owned()));
        }
        head.extend_from_slice(&piece[..read]);
        let known = head.len().min(VERSION.len());
        if head[..known] != VERSION[..known] {
            return Err(ProxyFault::Protocol("its answer is not HTTP".to_owned()));
        }
        // The end may lie across two pieces.
        let from = looked_at.saturating_sub(3);
        let ends = |window: &[u8]| window.starts_with(b"\n\r\n") || window.starts_with(b"\n\n");
        if (from..head.len()).any(|at| ends(&head[at..])) {
            return Ok(head);
        }
        if head.len() > MAX_HEAD {
            return Err(ProxyFault::Protocol(
                "the head of its answer has no end".to_owned(),
            ));
        }
    }
}

fn judge(head: &[u8], authenticated: bool) -> Result<(), ProxyFault> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response
        .parse(head)
        .map_err(|error| ProxyFault::Protocol(format!("its answer is no HTTP: {error}")))?;
    let (httparse::Status::Complete(length), Some(code)) = (parsed, response.code) else {
        return Err(ProxyFault::Protocol("its answer has no end".to_owned()));
    };
    let reason = response.reason.unwrap_or_default();
    let answer = shown(format!("{code} {reason}").trim());
    match code {
        // In TLS the client speaks first: whatever came already is not the relay's.
        200..=299 if length < head.len() => Err(ProxyFault::Protocol(
            "it sends something of its own after it said yes".to_owned(),
        )),
        200..=299 => Ok(()),
        407 => {
            let offers = offers(response.headers);
            let basic = |offer: &String| offer.eq_ignore_ascii_case("basic");
            Err(if !offers.is_empty() && !offers.iter().any(basic) {
                ProxyFault::AuthUnsupported(shown(&offers.join(", ")))
            } else if authenticated {
                ProxyFault::AuthRefused
            } else {
                ProxyFault::AuthRequired
            })
        }
        401 | 403 => Err(ProxyFault::Forbidden(answer)),
        429 | 500 | 502..=599 => Err(ProxyFault::RelayUnreachable(answer)),
        _ => Err(ProxyFault::Protocol(format!("it answers {answer}"))),
    }
}

/// The ways to say who asks that the proxy takes (RFC 9110 section 11.7.1): the first word of each header.
fn offers(headers: &[httparse::Header<'_>]) -> Vec<String> {
    headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case("proxy-authenticate"))
        .flat_map(|header| header.value.split(|&byte| byte == b',' || byte == b' '))
        .filter(|word| !word.is_empty() && word.iter().all(u8::is_ascii_alphabetic))
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect()
}

fn shown(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_SHOWN)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of this answer.
    async fn answered(url: &str, answer: &[u8]) -> (String, Result<(), ProxyFault>) {
        let (mut near, mut far) = tokio::io::duplex(64 * 1024);
        let proxy = url.parse().unwrap();
        let relay = RelayUrl::new("2001:db8::1", 443, None).unwrap();
        let asking = tokio::spawn(async move { connect(&mut near, &proxy, &relay).await });
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(far.read_u8().await.unwrap());
        }
        // A byte at a time: the end of the head is found wherever the pieces meet.
        for byte in answer {
            if far.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
        drop(far);
        let request = String::from_utf8(request).unwrap();
        (request, asking.await.unwrap())
    }

    #[tokio::test]
    async fn the_relay_is_asked_for_by_host_and_port() {
        let (request, result) =
            answered("http://proxy", b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\n").await;
        assert_eq!(result, Ok(()));
        assert!(
            request
                .starts_with("CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n"),
            "{request}"
        );
        assert!(!request.contains("Authorization"), "{request}");
    }

    #[tokio::test]
    async fn name_and_password_go_along_from_the_beginning() {
        let url = "http://Aladdin:open%20sesame@proxy";
        let (request, result) = answered(url, b"HTTP/1.0 200 \n\n").await;
        assert_eq!(result, Ok(()));
        // RFC 7617 section 2.
        let header = "\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n";
        assert!(request.contains(header), "{request}");
    }

    #[tokio::test]
    async fn each_refusal_says_whose_turn_it_is() {
        let refused = async |url, answer: &[u8]| answered(url, answer).await.1.unwrap_err();
        let basic = b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n";
        assert_eq!(refused("http://p", basic).await, ProxyFault::AuthRequired);
        assert_eq!(
            refused("http://a:b@p", basic).await,
            ProxyFault::AuthRefused
        );
        let bare = b"HTTP/1.1 407 No\r\n\r\n";
        assert_eq!(refused("http://p", bare).await, ProxyFault::AuthRequired);
        let windows =
            b"HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n\r\n";
        assert_eq!(
            refused("http://a:b@p", windows).await,
            ProxyFault::AuthUnsupported("Negotiate, NTLM".to_owned())
        );
        assert_eq!(
            refused("http://p", b"HTTP/1.1 403 Filtered\r\n\r\n").await,
            ProxyFault::Forbidden("403 Filtered".to_owned())
        );
        assert_eq!(
            refused("http://p", b"HTTP/1.1 503 \r\n\r\n").await,
            ProxyFault::RelayUnreachable("503".to_owned())
        );
        assert_eq!(
            refused("http://p", b"HTTP/1.1 405 Method Not Allowed\r\n\r\n").await,
            ProxyFault::Protocol("it answers 405 Method Not Allowed".to_owned())
        );
    }

    #[tokio::test]
    async fn garbage_is_refused_and_never_read_without_end() {
        let endless = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'a'; 60 * 1024]].concat();
        let many = [
            b"HTTP/1.1 200 OK\r\n".to_vec(),
            b"X: y\r\n".repeat(100),
            b"\r\n".to_vec(),
        ];
        for hostile in [
            &b"SSH-2.0-OpenSSH_9.2\r\n"[..],
            b"\x05\xff",
            b"\x15\x03\x01\x00\x02\x02\x50",
            b"HTTP/1.1 2000 OK\r\n\r\n",
            b"HTTP/1.1 \xff\xfe\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"HTTP/1.1 302 Found\r\nLocation: http://evil\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n<html>",
            &endless,
            &many.concat(),
        ] {
            let fault = answered("http://p", hostile).await.1.unwrap_err();
            assert!(matches!(fault, ProxyFault::Protocol(_)), "{fault:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_cut_short_is_a_broken_connection() {
        for cut in [
            &b""[..],
            b"HT",
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 200 OK\r\nVia: x\r\n",
        ] {
            let fault = answered("http://p", cut).await.1.unwrap_err();
            assert!(matches!(fault, ProxyFault::Broken(_)), "{fault:?}");
        }
    }

    #[tokio::test]
    async fn a_long_answer_is_shown_in_part() {
        let answer = format!("HTTP/1.1 403 {}\r\n\r\n", "no ".repeat(400));
        let fault = answered("http://p", answer.as_bytes()).await.1.unwrap_err();
        let told = fault.to_string();
        assert!(told.len() < 300 && told.contains("403 no"), "{told}");
    }
}
