//! Small proxies on loopback that connect whatever they are asked for to one address.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// What a proxy speaks, or does instead.
#[derive(Clone, Copy)]
pub enum Kind {
    /// HTTP's `CONNECT`; `Basic` with this base64, if any.
    Http(Option<&'static str>),
    /// SOCKS5; this user and password, if any.
    Socks5(Option<(&'static str, &'static str)>),
    /// Answers this, whatever is said.
    Says(&'static [u8]),
}

/// Ends when dropped.
pub struct Proxy {
    pub addr: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    task: AbortHandle,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    pub async fn start(kind: Kind, to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let log = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let log = Arc::clone(&log);
                // A client that leaves early is no concern of the proxy's.
                serving.spawn(async move { serve(kind, to, stream, &log).await });
            }
        });
        Self {
            addr,
            asked,
            task: task.abort_handle(),
        }
    }

    /// The hosts and ports it connected to, as it was asked for them.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(
    kind: Kind,
    to: SocketAddr,
    mut stream: TcpStream,
    asked: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let target = match kind {
        Kind::Http(credentials) => http(&mut stream, credentials).await?,
        Kind::Socks5(credentials) => socks5(&mut stream, credentials).await?,
        Kind::Says(answer) => {
            let mut piece = [0; 1024];
            let _ = stream.read(&mut piece).await?;
            stream.write_all(answer).await?;
            None
        }
    };
    let Some(target) = target else {
        return Ok(());
    };
    asked.lock().unwrap().push(target);
    let mut relay = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    relay.set_nodelay(true)?;
    copy_bidirectional(&mut stream, &mut relay).await?;
    Ok(())
}

async fn http(
    stream: &mut TcpStream,
    credentials: Option<&str>,
) -> std::io::Result<Option<String>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let shown = head
        .lines()
        .find_map(|line| line.strip_prefix("Proxy-Authorization: Basic "));
    if shown != credentials {
        let refusal =
            b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"test\"\r\n\r\n";
        stream.write_all(refusal).await?;
        return Ok(None);
    }
    stream
        .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        .await?;
    Ok(head.split(' ').nth(1).map(str::to_owned))
}

async fn socks5(
    stream: &mut TcpStream,
    credentials: Option<(&str, &str)>,
) -> std::io::Result<Option<String>> {
    let _version = stream.read_u8().await?;
    let methods = field(stream).await?;
    if let Some((user, password)) = credentials {
        if !methods.contains(&2) {
            stream.write_all(&[5, 255]).await?;
            return Ok(None);
        }
        stream.write_all(&[5, 2]).await?;
        let _version = stream.read_u8().await?;
        let shown = (field(stream).await?, field(stream).await?);
        let fits = shown == (user.as_bytes().to_vec(), password.as_bytes().to_vec());
        stream.write_all(&[1, u8::from(!fits)]).await?;
        if !fits {
            return Ok(None);
        }
    } else {
        stream.write_all(&[5, 0]).await?;
    }
    let mut request = [0; 4];
    stream.read_exact(&mut request).await?;
    // A name; nothing else is asked for in these tests.
    assert_eq!(request, [5, 1, 0, 3]);
    let host = String::from_utf8(field(stream).await?).unwrap();
    let port = stream.read_u16().await?;
    stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    Ok(Some(format!("{host}:{port}")))
}

/// A length, and so many bytes.
async fn field(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let length = stream.read_u8().await?;
    let mut field = vec![0; usize::from(length)];
    stream.read_exact(&mut field).await?;
    Ok(field)
}
