//! `byway-relay keygen` and `token`: the embedded control plane.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::num::NonZeroU64;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use byway_relay::admission::issue::{Order, SigningKey};
use byway_relay::{kpps, mbit};
use byway_wire::NodeId;
use byway_wire::relay::control::{MAX_TOKEN, Role};
use clap::{Args, ValueEnum};
use zeroize::Zeroizing;

#[derive(Debug, Args)]
pub(super) struct Keygen {
    /// Where to write the private key (mode 0600); the public key goes beside it, with .pub behind its name.
    #[arg(long, value_name = "FILE", default_value = "byway-relay-token.key")]
    out: PathBuf,
    /// Print the public key as a JWK as well, for a set that others read.
    #[arg(long)]
    jwk: bool,
}

impl Keygen {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let key = SigningKey::generate()?;
        let public = with_suffix(&self.out, ".pub");
        // The public one first: if its name is taken, no private key is left behind.
        write_new(&public, key.public_pem().as_bytes(), 0o644)?;
        if let Err(error) = write_new(&self.out, key.private_pem().as_bytes(), 0o600) {
            // Ours, made a moment ago.
            let _ = std::fs::remove_file(&public);
            return Err(error);
        }
        let mut out = std::io::stdout();
        writeln!(out, "{}", public.display())?;
        if self.jwk {
            writeln!(out, "{}", key.jwk())?;
        }
        eprintln!(
            "The private key is in {}: keep it off the relays; it signs tokens with 'byway-relay token --key {}'.\n\
             A relay needs the public one: admission = \"tokens\", and keys = [\"{}\"] under [tokens].",
            self.out.display(),
            self.out.display(),
            public.display()
        );
        Ok(())
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Never over a file that is there: tokens by a key that is lost cannot be renewed.
fn write_new(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path);
    let mut file = match file {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            anyhow::bail!(
                "{} is there already; choose another name with --out",
                path.display()
            )
        }
        file => file.with_context(|| format!("cannot create {}", path.display()))?,
    };
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write {}", path.display()))
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum As {
    Agent,
    Client,
}

#[derive(Debug, Args)]
pub(super) struct Token {
    /// The private key, as 'byway-relay keygen' wrote it.
    #[arg(long, value_name = "FILE", default_value = "byway-relay-token.key")]
    key: PathBuf,
    /// The node it is made out to, by its NodeId ('byway id' shows a client's, 'byway id --agent' an agent's).
    #[arg(long, value_name = "ID")]
    node: NodeId,
    /// As what it may come; may be given twice.
    #[arg(long, required = true, value_delimiter = ',')]
    role: Vec<As>,
    /// How long it holds: 12h, 30d.
    #[arg(long = "for", value_name = "TIME", default_value = "30d", value_parser = humantime::parse_duration)]
    lifetime: Duration,
    /// For which relays it is: what they are configured to be called in tokens.
    #[arg(long, value_name = "NAME", default_value = "byway-relay")]
    audience: String,
    /// With whom it may have channels; may be given several times. Default: anyone.
    #[arg(long = "peer", value_name = "ID", value_delimiter = ',')]
    peers: Vec<NodeId>,
    /// What it may send through the relay, in megabits a second (without the relay's headers). Default: what is usual there.
    #[arg(long = "mbit", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    mbit: Option<u32>,
    /// The same in thousands of datagrams a second.
    #[arg(long = "kpps", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    kpps: Option<u32>,
    /// Who made it, where relays ask for that.
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// Its name in a list of revocations. Default: a random one.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// The workspace, for relays' logs.
    #[arg(long, value_name = "NAME")]
    workspace: Option<String>,
    /// Its owner, for relays' logs.
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,
}

impl Token {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let pem = std::fs::read_to_string(&self.key).map(Zeroizing::new);
        let pem = pem.with_context(|| {
            format!(
                "cannot read {} ('byway-relay keygen' makes a key)",
                self.key.display()
            )
        })?;
        let key = SigningKey::from_pem(&pem).with_context(|| self.key.display().to_string())?;
        let roles = self.role.iter().map(|role| match role {
            As::Agent => Role::Agent,
            As::Client => Role::Client,
        });
        let token = key.sign(Order {
            node: self.node,
            roles: roles.collect(),
            audience: self.audience,
            lifetime: self.lifetime,
            peers: self.peers,
            max_bytes: self.mbit.and_then(|n| NonZeroU64::new(mbit(n))),
            max_datagrams: self.kpps.and_then(|n| NonZeroU64::new(kpps(n))),
            issuer: self.issuer,
            id: self.id,
            workspace: self.workspace,
            owner: self.owner,
        })?;
        anyhow::ensure!(
            token.len() <= MAX_TOKEN,
            "the token has {} bytes, and relays take {MAX_TOKEN}; name fewer peers",
            token.len()
        );
        writeln!(std::io::stdout(), "{token}")?;
        Ok(())
    }
}
