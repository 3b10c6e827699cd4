//! `digest ADDR`: a TCP server that says nothing until its client has closed its side, and then the SHA-256 of all
//! that came. It works only where a half-closed connection is carried as such. Prints `ready`. `upload ADDR FILE` is such a
//! client, and prints what it is told.

use std::fs::File;
use std::io::{Read, Write, copy};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context, Result};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

pub(super) fn serve(args: &[String]) -> Result<()> {
    let addr = args.first().context("digest ADDR")?;
    let listener = TcpListener::bind(addr).with_context(|| format!("binding {addr}"))?;
    println!("ready");
    for stream in listener.incoming().flatten() {
        thread::spawn(move || {
            let _ = answer(stream);
        });
    }
    Ok(())
}

pub(super) fn upload(args: &[String]) -> Result<()> {
    let (addr, file) = args.first().zip(args.get(1)).context("upload ADDR FILE")?;
    let mut file = File::open(file).with_context(|| format!("opening {file}"))?;
    let mut stream = TcpStream::connect(addr).with_context(|| format!("connecting to {addr}"))?;
    copy(&mut file, &mut stream)?;
    stream.shutdown(Shutdown::Write)?;
    copy(&mut stream, &mut std::io::stdout())?;
    Ok(())
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    writeln!(stream, "{}", HEXLOWER.encode(&hash.finalize()))
}
