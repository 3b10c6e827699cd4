//! `type ADDR`: one small message each 50 ms to the web server there, which sends each back, as a remote shell does to
//! somebody who types. Prints a line for each that came back: its number, and when that was in microseconds. Ends with an
//! error if the stream does, or if another message comes than the next.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// A fast typist, or a shell's output.
const EVERY: Duration = Duration::from_millis(50);

pub(super) fn run(args: &[String]) -> Result<()> {
    let addr = args.first().context("type ADDR")?;
    let mut stream = TcpStream::connect(addr).with_context(|| format!("connecting to {addr}"))?;
    stream.set_nodelay(true)?;
    stream.write_all(b"GET /echo HTTP/1.1\r\n\r\n")?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        ensure!(answers.read_line(&mut line)? > 0, "no answer to /echo");
    }
    let began = Instant::now();
    // A failure to send ends the stream, which the reader sees.
    thread::spawn(move || {
        for (n, due) in (0_u64..).zip((0..).map(|n| began + EVERY * n)) {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if stream.write_all(&n.to_be_bytes()).is_err() {
                break;
            }
        }
    });
    for n in 0_u64.. {
        let mut message = [0; 8];
        answers
            .read_exact(&mut message)
            .context("the stream ended")?;
        let got = u64::from_be_bytes(message);
        if got != n {
            bail!("message {got} came where {n} was due");
        }
        println!("{n} {}", began.elapsed().as_micros());
    }
    Ok(())
}
