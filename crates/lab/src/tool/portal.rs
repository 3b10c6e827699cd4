//! A captive portal: whoever asks for anything is sent to a page to log in at.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

use anyhow::{Context, Result};

/// Where everybody is sent.
pub const LOGIN: &str = "http://login.lab/";

/// `portal ADDR`: prints `ready`, answers until ended.
pub(super) fn serve(args: &[String]) -> Result<()> {
    let addr = args.first().context("portal ADDR")?;
    let listener = TcpListener::bind(addr).with_context(|| format!("binding {addr}"))?;
    println!("ready");
    for stream in listener.incoming().flatten() {
        thread::spawn(move || {
            // It does not matter what is asked, nor that the beginning of TLS is no question.
            let _ = (&stream).read(&mut [0; 4096]);
            let answer = format!(
                "HTTP/1.1 302 Found\r\nLocation: {LOGIN}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            let _ = (&stream).write_all(answer.as_bytes());
        });
    }
    Ok(())
}
