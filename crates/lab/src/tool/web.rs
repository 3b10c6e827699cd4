//! `web ADDR`: a web server with bodies that are known beforehand. `GET /N` has a body of N bytes; its
//! checksum is [`body_sha256`]. `GET /paced/R/N` sends it at R bytes a second, evenly, so that a pause seen at
//! the other end is the network's. `GET /echo` gives back what follows. Prints `ready` when it listens.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::noise::Noise;

/// Large enough that one write is many packets.
const BLOCK: usize = 256 * 1024;
/// Small enough that paced sending looks even: 2 ms at 8 MB/s.
const PACED: usize = 16 * 1024;

pub(super) fn serve(args: &[String]) -> Result<()> {
    let addr = args.first().context("web ADDR")?;
    let listener = TcpListener::bind(addr).with_context(|| format!("binding {addr}"))?;
    println!("ready");
    for stream in listener.incoming().flatten() {
        thread::spawn(move || {
            // The other end may close at any time; that is its right.
            let _ = answer(&stream);
        });
    }
    Ok(())
}

fn answer(stream: &TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|l| !l.is_empty()) {}
    let path = request.split(' ').nth(1).unwrap_or_default();
    if path == "/echo" {
        return echo(stream);
    }
    let numbers: Vec<Option<u64>> = path
        .split('/')
        .skip(1)
        .map(|part| part.parse().ok())
        .collect();
    let (pace, size) = match numbers[..] {
        [Some(size)] => (None, size),
        [None, Some(pace), Some(size)] => (Some(pace.max(1)), size),
        _ => {
            let mut stream = stream;
            return stream.write_all(
                b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
        }
    };
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
    )?;
    let (began, mut sent) = (Instant::now(), 0);
    Body::new(size).each(|block| {
        for part in block.chunks(if pace.is_some() { PACED } else { BLOCK }) {
            if let Some(pace) = pace {
                let due = began + Duration::from_micros(sent * 1_000_000 / pace);
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            stream.write_all(part)?;
            sent += part.len() as u64;
        }
        Ok(())
    })
}

/// Whoever asks for it waits for the answer before anything else.
fn echo(mut stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
    std::io::copy(&mut &*stream, &mut stream).map(drop)
}

/// The SHA-256 of a body of that size, in hexadecimal.
pub fn body_sha256(size: u64) -> String {
    let mut hash = Sha256::new();
    let done: Result<(), ()> = Body::new(size).each(|part| {
        hash.update(part);
        Ok(())
    });
    debug_assert!(done.is_ok());
    HEXLOWER.encode(&hash.finalize())
}

/// True if what is read is the first part of a body of that size, or all of it; false if it is nothing.
pub fn begins_as_body(mut got: impl Read, size: u64) -> std::io::Result<bool> {
    let mut part = Vec::new();
    let (mut len, mut is_same) = (0, true);
    Body::new(size).each(|block| {
        part.clear();
        len += (&mut got).take(block.len() as u64).read_to_end(&mut part)?;
        is_same &= block.starts_with(&part);
        std::io::Result::Ok(())
    })?;
    let more = got.read(&mut [0])?;
    Ok(len > 0 && is_same && more == 0)
}

/// The SHA-256 of a file, in hexadecimal.
pub fn sha256_of(path: &Path) -> Result<String> {
    let mut file =
        std::fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BLOCK];
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok(HEXLOWER.encode(&hash.finalize()));
        }
        hash.update(&buffer[..n]);
    }
}

/// Bytes that no compression shortens and of which no two blocks are alike, so that a block lost, doubled or
/// out of place changes the checksum.
struct Body {
    block: Vec<u8>,
    left: u64,
}

impl Body {
    fn new(size: u64) -> Self {
        let block = Noise::new().bytes(BLOCK);
        Self { block, left: size }
    }

    fn each<E>(mut self, mut take: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        while self.left > 0 {
            self.block[..8].copy_from_slice(&self.left.to_le_bytes());
            let n = usize::try_from(self.left).unwrap_or(BLOCK).min(BLOCK);
            take(&self.block[..n])?;
            self.left -= n as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_different_sizes_differ_and_the_same_size_is_the_same() {
        assert_eq!(body_sha256(1_000_000), body_sha256(1_000_000));
        assert_ne!(body_sha256(1_000_000), body_sha256(1_000_001));
        assert_eq!(
            body_sha256(0),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn the_first_part_of_a_body_is_told_from_anything_else() {
        const SIZE: u64 = 1_000_000;
        let is_part = |got: &[u8]| begins_as_body(got, SIZE).unwrap();
        let mut body = Vec::new();
        let _: Result<(), ()> = Body::new(SIZE).each(|part| {
            body.extend_from_slice(part);
            Ok(())
        });
        for len in [1, BLOCK, 300_000, 1_000_000] {
            assert!(is_part(&body[..len]), "{len}");
            let mut changed = body[..len].to_vec();
            changed[len - 1] ^= 1;
            assert!(!is_part(&changed), "{len}, changed");
        }
        assert!(!is_part(&[]));
        body.push(0);
        assert!(!is_part(&body));
    }
}
