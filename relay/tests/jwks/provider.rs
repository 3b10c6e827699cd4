//! An identity provider of the tests' own: a server by TLS that publishes keys at one path, or does not.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use byway_relay::admission::issue::SigningKey;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::common::SOON;
use crate::common::root::Root;

/// Of the path where keys are, what only the provider and its clients know.
pub(crate) const SECRET: &str = "hunter2";

/// What it answers.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// This, with status 200.
    Text(String),
    /// A status, and headers.
    Status(u16, String),
    /// A body that is longer than any key set.
    Endless,
    /// A body whose end does not come.
    Slow,
    /// It ends before it has said anything.
    HangUp,
}

pub(crate) fn set(keys: &[&SigningKey]) -> Answer {
    let jwks: Vec<String> = keys.iter().map(|key| key.jwk()).collect();
    Answer::Text(format!("{{\"keys\": [{}]}}", jwks.join(",")))
}

#[derive(Debug)]
struct Books {
    answer: Answer,
    /// The paths that were asked for.
    asked: Vec<String>,
}

pub(crate) struct Provider {
    addr: SocketAddr,
    root: Root,
    books: Arc<Mutex<Books>>,
    /// Its address is its own, and nobody listens there.
    closed: Option<Socket>,
    task: JoinSet<()>,
}

impl Provider {
    /// One that cannot be reached.
    pub(crate) fn closed(answer: Answer) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        socket.bind(&any.into()).unwrap();
        let books = Books {
            answer,
            asked: Vec::new(),
        };
        Self {
            addr: socket.local_addr().unwrap().as_socket().unwrap(),
            root: Root::new(),
            books: Arc::new(Mutex::new(books)),
            closed: Some(socket),
            task: JoinSet::new(),
        }
    }
    pub(crate) fn start(answer: Answer) -> Self {
        let mut provider = Self::closed(answer);
        provider.open();
        provider
    }
    pub(crate) fn open(&mut self) {
        let socket = self.closed.take().unwrap();
        socket.listen(128).unwrap();
        socket.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(socket.into()).unwrap();
        let (acceptor, books) = (self.root.acceptor(), Arc::clone(&self.books));
        self.task.spawn(serve(listener, acceptor, books));
    }

    /// Where its keys are, as it may be shown.
    pub(crate) fn shown(&self) -> String {
        format!("https://{}/keys", self.addr)
    }
    pub(crate) fn url(&self) -> String {
        format!("{}?client={SECRET}", self.shown())
    }
    pub(crate) fn root(&self) -> PathBuf {
        self.root.file.clone()
    }
    pub(crate) fn answers(&self, answer: Answer) {
        self.books.lock().unwrap().answer = answer;
    }
    pub(crate) fn asked(&self) -> Vec<String> {
        self.books.lock().unwrap().asked.clone()
    }
    /// Waits until it was asked twice from now on: then at least one answer that it gives now has been read.
    pub(crate) async fn asked_twice(&self) {
        let enough = self.asked().len() + 2;
        let deadline = Instant::now() + SOON;
        while self.asked().len() < enough {
            assert!(Instant::now() < deadline, "it is not asked");
            tokio::task::yield_now().await;
        }
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, books: Arc<Mutex<Books>>) {
    let mut connections = JoinSet::new();
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let (acceptor, books) = (acceptor.clone(), Arc::clone(&books));
        connections.spawn(async move {
            // A client that does not trust us goes away.
            if let Ok(stream) = acceptor.accept(tcp).await {
                answer(stream, &books).await;
            }
        });
    }
}

async fn answer(mut stream: TlsStream<TcpStream>, books: &Mutex<Books>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    assert!(head.starts_with("GET "), "{head}");
    let answer = {
        let mut books = books.lock().unwrap();
        books.asked.push(path);
        books.answer.clone()
    };
    let whole = |status: u16, headers: &str, body: &str| {
        let length = body.len();
        format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
    };
    // Whoever went away missed it.
    let _ = match answer {
        Answer::Text(text) => stream.write_all(whole(200, "", &text).as_bytes()).await,
        Answer::Status(status, headers) => {
            let text = whole(status, &headers, "");
            stream.write_all(text.as_bytes()).await
        }
        Answer::Endless => {
            let head = "HTTP/1.1 200 X\r\nConnection: close\r\n\r\n";
            let mut written = stream.write_all(head.as_bytes()).await;
            while written.is_ok() {
                written = stream.write_all(&[b' '; 8 * 1024]).await;
            }
            written
        }
        Answer::Slow => {
            let head = "HTTP/1.1 200 X\r\nContent-Length: 1000\r\n\r\n{";
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.flush().await;
            // Until the client goes away.
            let _ = stream.read_u8().await;
            Ok(())
        }
        Answer::HangUp => Ok(()),
    };
    let _ = stream.shutdown().await;
}
