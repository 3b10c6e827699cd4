//! A captive portal: whoever asks for anything is sent to a page to log in at.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use rustls::{ServerConnection, StreamOwned};

/// Where everybody is sent.
pub const LOGIN: &str = "http://login.lab/";

/// `portal ADDR [CERT KEY]`: prints `ready`, answers until ended; with a certificate, under TLS.
pub(super) fn serve(args: &[String]) -> Result<()> {
    let addr = args.first().context("portal ADDR [CERT KEY]")?;
    let tls = match args {
        [_, cert, key] => Some(Arc::new(super::tls::server(cert, key)?)),
        _ => None,
    };
    let listener = TcpListener::bind(addr).with_context(|| format!("binding {addr}"))?;
    println!("ready");
    for tcp in listener.incoming().flatten() {
        let tls = tls.clone();
        thread::spawn(move || {
            // Who leaves before it is answered needs no answer.
            let _ = match tls {
                Some(config) => ServerConnection::new(config)
                    .map_err(std::io::Error::other)
                    .and_then(|session| send_away(StreamOwned::new(session, tcp))),
                None => send_away(tcp),
            };
        });
    }
    Ok(())
}

fn send_away(mut stream: impl Read + Write) -> std::io::Result<()> {
    // It does not matter what is asked, nor that the beginning of TLS is no question.
    let _ = stream.read(&mut [0; 4096])?;
    let answer = format!(
        "HTTP/1.1 302 Found\r\nLocation: {LOGIN}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(answer.as_bytes())?;
    stream.flush()
}
