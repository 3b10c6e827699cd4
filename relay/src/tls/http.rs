//! The little HTTP there is in front of a WebSocket: one request head, bounded, and where it leads.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::hub::Health;

/// Longest request head, in bytes: what common servers allow, and room for an ingress's headers.
const MAX_HEAD: usize = 8 * 1024;
/// Most headers of it.
const MAX_HEADERS: usize = 64;
/// Where nodes upgrade.
const LINK_PATH: &str = "/byway/v1";

/// Where a request leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Route {
    /// A node wants a link.
    Link,
    /// Somebody looks what this is.
    Greeting,
    /// Somebody asks for what is not here.
    NotFound,
    /// Only GET has a meaning here.
    WrongMethod,
    /// The path is right, but it is no upgrade.
    NotUpgrade,
    /// Not HTTP, or too long.
    Bad,
    /// Not from an address that may come here.
    Forbidden,
    /// More than its client may begin.
    TooMany,
    /// Somebody asks whether the relay lives.
    Healthz,
    /// Somebody asks whether it takes new nodes.
    Readyz,
    /// For operators, and answered where they ask only.
    Metrics,
    /// As above.
    Status,
}

/// Reads a request head. Gives back everything that was read: the WebSocket's own handshake reads it again.
pub(crate) async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<(Route, Bytes)> {
    let mut head = BytesMut::with_capacity(1024);
    loop {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(route) = route(&head) {
            return Ok((route, head.freeze()));
        }
        if head.len() >= MAX_HEAD {
            return Ok((Route::Bad, head.freeze()));
        }
    }
}

/// Where a head leads; none while it is not whole.
fn route(head: &[u8]) -> Option<Route> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Partial) => return None,
        Ok(httparse::Status::Complete(_)) => {}
        Err(_) => return Some(Route::Bad),
    }
    let path = request.path.unwrap_or_default();
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let upgrade = is_upgrade(request.headers);
    Some(match (request.method, path) {
        (Some("GET"), LINK_PATH) if upgrade => Route::Link,
        (Some("GET"), LINK_PATH) => Route::NotUpgrade,
        (Some("GET" | "HEAD"), "/") => Route::Greeting,
        (Some("GET" | "HEAD"), "/healthz") => Route::Healthz,
        (Some("GET" | "HEAD"), "/readyz") => Route::Readyz,
        (Some("GET"), "/metrics") => Route::Metrics,
        (Some("GET"), "/status") => Route::Status,
        (Some("GET" | "HEAD"), _) => Route::NotFound,
        _ => Route::WrongMethod,
    })
}

/// Gives the values of `X-Forwarded-For`, in the order of the headers, of a head that [`read_head`] read.
pub(crate) fn forwarded_for<T>(
    head: &[u8],
    read: impl FnOnce(&mut dyn DoubleEndedIterator<Item = &[u8]>) -> T,
) -> T {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    // A head that is none has no client but its sender: what was parsed of it does not count.
    let headers = match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => &*request.headers,
        _ => &[],
    };
    let values = headers
        .iter()
        .filter(|h| h.name.eq_ignore_ascii_case("x-forwarded-for"));
    read(&mut values.map(|h| h.value))
}

/// RFC 6455 section 4.2.1, as far as the server must look at it; the key itself is the WebSocket crate's to read.
fn is_upgrade(headers: &[httparse::Header<'_>]) -> bool {
    let value = |name: &str| {
        headers
            .iter()
            .find(|h| h.name.eq_ignore_ascii_case(name))
            .and_then(|h| std::str::from_utf8(h.value).ok())
    };
    let lists = |name: &str, word: &str| {
        value(name).is_some_and(|v| v.split(',').any(|w| w.trim().eq_ignore_ascii_case(word)))
    };
    lists("upgrade", "websocket")
        && lists("connection", "upgrade")
        && value("sec-websocket-version") == Some("13")
        && value("sec-websocket-key").is_some()
}

/// Whether the answer has a body: HEAD asks for what is before it.
fn has_body(head: &[u8]) -> bool {
    !head.starts_with(b"HEAD ")
}

/// Answers what is no link, and ends. `head`: the request's.
pub(crate) async fn answer<S: AsyncWrite + Unpin>(
    stream: &mut S,
    route: Route,
    head: &[u8],
    health: Health,
) -> io::Result<()> {
    let (status, extra, text) = match route {
        Route::Greeting | Route::Link => (
            "200 OK",
            "",
            "This is a Byway relay. It forwards sealed datagrams between nodes; there is nothing to see here.\n",
        ),
        Route::Healthz | Route::Readyz if health == Health::Failed => (
            "503 Service Unavailable",
            "",
            "A part of this relay has failed: it is about to end.\n",
        ),
        Route::Healthz => ("200 OK", "", "ok\n"),
        Route::Readyz if health == Health::Ready => ("200 OK", "", "ready\n"),
        Route::Readyz if health == Health::NoKeys => (
            "503 Service Unavailable",
            "",
            "This relay has no keys yet to check tokens with: they could not be fetched.\n",
        ),
        Route::Readyz => (
            "503 Service Unavailable",
            "",
            "This relay takes no new nodes: it is about to stop.\n",
        ),
        Route::NotFound | Route::Metrics | Route::Status => (
            "404 Not Found",
            "",
            "There is nothing here. This is a Byway relay.\n",
        ),
        Route::WrongMethod => ("405 Method Not Allowed", "Allow: GET\r\n", "Only GET.\n"),
        Route::NotUpgrade => (
            "426 Upgrade Required",
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            "This is where Byway nodes connect by WebSocket.\n",
        ),
        Route::Bad => (
            "400 Bad Request",
            "",
            "That is not a request this relay understands.\n",
        ),
        Route::Forbidden => (
            "403 Forbidden",
            "",
            "Only proxies that this relay trusts may come here: its operator lists them in trusted_proxies.\n",
        ),
        Route::TooMany => (
            "429 Too Many Requests",
            "Retry-After: 1\r\n",
            "Too many new connections from your address. Try again in a moment.\n",
        ),
    };
    let kind = "text/plain; charset=utf-8";
    write(stream, status, kind, extra, text, has_body(head)).await
}

/// Writes one response to a GET, and ends.
pub(crate) async fn respond<S: AsyncWrite + Unpin>(
    stream: &mut S,
    content_type: &str,
    text: &str,
) -> io::Result<()> {
    write(stream, "200 OK", content_type, "", text, true).await
}

async fn write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    status: &str,
    content_type: &str,
    extra: &str,
    text: &str,
    body: bool,
) -> io::Result<()> {
    let mut response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n{extra}Connection: close\r\n\r\n",
        text.len()
    );
    if body {
        response.push_str(text);
    }
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPGRADE: &str = "Host: r\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\n";

    #[test]
    fn forwarded_for_is_read_from_whole_heads_only() {
        let values = |head: &str| {
            forwarded_for(head.as_bytes(), |values| {
                values
                    .map(|v| String::from_utf8_lossy(v).into_owned())
                    .collect::<Vec<_>>()
            })
        };
        let head = "GET / HTTP/1.1\r\nX-Forwarded-For: a, b\r\nHost: r\r\nx-forwarded-FOR: c\r\nX-Forwarded-Fo: d\r\n";
        assert_eq!(values(&format!("{head}\r\n")), ["a, b", "c"]);
        assert!(values(head).is_empty());
        assert!(values("GET / HTTP/1.1\r\nX-Forwarded-For: a\r\nbad header\r\n\r\n").is_empty());
    }

    #[test]
    fn requests_lead_where_they_should() {
        let cases = [
            (
                format!("GET /byway/v1 HTTP/1.1\r\n{UPGRADE}"),
                Some(Route::Link),
            ),
            (
                format!("GET /byway/v1?x=1 HTTP/1.1\r\n{UPGRADE}"),
                Some(Route::Link),
            ),
            (
                "GET /byway/v1 HTTP/1.1\r\nHost: r\r\n\r\n".into(),
                Some(Route::NotUpgrade),
            ),
            (
                "GET / HTTP/1.1\r\nHost: r\r\n\r\n".into(),
                Some(Route::Greeting),
            ),
            (
                format!("GET /byway/v2 HTTP/1.1\r\n{UPGRADE}"),
                Some(Route::NotFound),
            ),
            (
                format!("POST /byway/v1 HTTP/1.1\r\n{UPGRADE}"),
                Some(Route::WrongMethod),
            ),
            ("GET / HTTP/1.1\r\nHost: r\r\n".into(), None),
            ("SSH-2.0-OpenSSH\r\n\r\n".into(), Some(Route::Bad)),
        ];
        for (head, expected) in cases {
            assert_eq!(route(head.as_bytes()), expected, "{head}");
        }
        let many = format!(
            "GET / HTTP/1.1\r\n{}\r\n",
            "A: b\r\n".repeat(MAX_HEADERS + 1)
        );
        assert_eq!(route(many.as_bytes()), Some(Route::Bad));
    }
}
