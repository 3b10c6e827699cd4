//! `opener TICKET_FILE PROOF COUNT OPENS ADDR...`: a peer that promises paths and never answers. It links to the ticket's relay over
//! TLS, calls the ticket's agent with the right proof, a wrong one or none (PROOF: `right`, `wrong`, `none`), and promises COUNT
//! candidates in as many signals as it takes, whether it was let in or not. ADDR is an address, of which another port is named each
//! time, or an address with its port. Afterwards it calls again as a new node, OPENS times in all, and promises the next.
//!
//! It prints a line for everything it hears: `heard NAME HEX`, and `candidate ADDR` for each address in a signal that it can read;
//! `promised N` after each call's last promise. Then it stays and listens until ended.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use byway_wire::key::Purpose;
use byway_wire::pair::PairKeys;
use byway_wire::probe::Index;
use byway_wire::relay::Pin;
use byway_wire::relay::control::{Control, Hello, LinkClaim, Open, Prove, Role, VERSION};
use byway_wire::relay::frame::Frame;
use byway_wire::signal::{
    self, Candidate, CandidateKind, Candidates, MAX_CANDIDATES, Mapping, Signal, SignalBody,
};
use byway_wire::{
    ChannelId, Instance, NodeInstance, ProbeSecret, Record, SecretKey, SignedRecord, Ticket,
    TicketSecret,
};
use data_encoding::HEXLOWER;
use futures_util::{SinkExt, StreamExt};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_websockets::{ClientBuilder, Message, WebSocketStream};

/// For the relay to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of a link's TLS exporter, and where relays take the upgrade (docs/protocol.md).
const EXPORTER: &[u8] = b"EXPORTER-byway-link";
const PATH: &str = "wss://relay.invalid/byway/v1";
/// The first port it names.
const FIRST_PORT: u16 = 1_000;

/// An address it promises.
#[derive(Clone, Copy)]
enum Promise {
    Ports(IpAddr),
    Port(SocketAddr),
}

impl Promise {
    fn parse(text: &str) -> Result<Self> {
        if let Ok(ip) = text.parse() {
            return Ok(Self::Ports(ip));
        }
        let addr = text
            .parse()
            .with_context(|| format!("{text}: no address"))?;
        Ok(Self::Port(addr))
    }

    /// The one it names in this round.
    fn in_round(self, round: usize) -> SocketAddr {
        match self {
            Self::Ports(ip) => {
                let ports = usize::from(u16::MAX - FIRST_PORT);
                let port = FIRST_PORT + (round % ports) as u16;
                SocketAddr::new(ip, port)
            }
            Self::Port(addr) => addr,
        }
    }
}

/// So many candidates, of each address in turn.
fn promises(addrs: &[Promise], count: usize) -> Vec<Candidate> {
    (0..count)
        .map(|n| Candidate {
            kind: CandidateKind::Host,
            addr: addrs[n % addrs.len()].in_round(n / addrs.len()),
        })
        .collect()
}

pub(super) fn run(args: &[String]) -> Result<()> {
    let [ticket, proof, count, opens, addrs @ ..] = args else {
        bail!("opener TICKET_FILE PROOF COUNT OPENS ADDR...");
    };
    let ticket = fs::read_to_string(ticket).with_context(|| format!("reading {ticket}"))?;
    let ticket: Ticket = ticket.parse()?;
    let (count, opens): (usize, usize) = (count.parse()?, opens.parse()?);
    let addrs: Vec<Promise> = addrs
        .iter()
        .map(|a| Promise::parse(a))
        .collect::<Result<_>>()?;
    ensure!(count > 0 && !addrs.is_empty(), "nothing to promise");
    let list = promises(&addrs, count * opens);
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let mut all = Vec::new();
        for list in list.chunks(count) {
            let mut opener = Opener::link(&ticket).await?;
            opener.open(&ticket, proof).await?;
            opener.promise(list).await?;
            println!("promised {}", list.len());
            all.push(tokio::spawn(opener.listen()));
        }
        for listening in all {
            listening.await??;
        }
        // The relay ended all of it; whoever started this still wants to know what was heard.
        std::future::pending().await
    })
}

struct Opener {
    link: WebSocketStream<TlsStream<TcpStream>>,
    secret: ProbeSecret,
    id: NodeInstance,
    channel: ChannelId,
    /// Once the relay has told who the agent is.
    keys: Option<PairKeys>,
}

impl Opener {
    /// A new node, linked to the first relay of the ticket.
    async fn link(ticket: &Ticket) -> Result<Self> {
        let url = &ticket
            .relays
            .first()
            .context("a ticket without a relay")?
            .url;
        let tcp = TcpStream::connect(url.authority()).await?;
        let name = ServerName::try_from("relay.invalid")?;
        let tls = TlsConnector::from(Arc::new(tls()?))
            .connect(name, tcp)
            .await?;
        let shown = tls.get_ref().1.peer_certificates();
        let shown = shown
            .and_then(|chain| chain.first())
            .context("no certificate")?;
        let shown = rustls::server::ParsedCertificate::try_from(shown)?;
        let certificate = Pin(Sha256::digest(shown.subject_public_key_info()).into());
        let exporter = tls
            .get_ref()
            .1
            .export_keying_material([0; 32], EXPORTER, None)?;
        let (mut link, _) = ClientBuilder::new().uri(PATH)?.connect_on(tls).await?;

        let key = SecretKey::from_bytes(&random()?);
        let secret = ProbeSecret::from_bytes(random()?);
        let record = Record {
            id: NodeInstance {
                node: key.node_id(),
                instance: Instance(u64::from_be_bytes(random()?)),
            },
            probe_key: secret.public(),
            epoch: 1,
            seq: 0,
            relays: Vec::new(),
        };
        let id = record.id;
        let challenge = match hear(&mut link).await?.context("the relay says nothing")? {
            Control::Challenge(challenge) => challenge,
            other => bail!("{} instead of a challenge", other.name()),
        };
        let claim = LinkClaim {
            nonce: random()?,
            exporter,
            dialled: url.authority(),
            certificate,
            role: Role::Client,
        };
        let signature = key.sign(Purpose::LinkProof, &Prove::signed_bytes(&challenge, &claim));
        let mut opener = Self {
            link,
            secret,
            id,
            channel: ChannelId::from_u64(u64::from_be_bytes(random()?)),
            keys: None,
        };
        let node = key.node_id();
        opener
            .say(Control::Prove(Prove {
                node,
                claim,
                signature,
            }))
            .await?;
        opener
            .say(Control::Hello(Hello {
                versions: vec![VERSION],
                role: Role::Client,
                record: SignedRecord::sign(&key, record),
                token: None,
            }))
            .await?;
        match hear(&mut opener.link).await?.context("not welcome")? {
            Control::Welcome(_) => Ok(opener),
            other => bail!("{} instead of a welcome", other.name()),
        }
    }

    /// Calls the agent, and hears who it is.
    async fn open(&mut self, ticket: &Ticket, proof: &str) -> Result<()> {
        let secret = match proof {
            "right" => Some(ticket.secret.clone().context("a ticket without a secret")?),
            "wrong" => Some(TicketSecret::from_bytes(random()?)),
            "none" => None,
            other => bail!("{other}: right, wrong or none"),
        };
        let proof = secret.map(|s| s.open_proof(self.id, &self.secret.public(), ticket.node));
        self.say(Control::Open(Open {
            channel: self.channel,
            peer: ticket.node,
            proof,
            first: Vec::new(),
            wait_ms: 0,
        }))
        .await?;
        while self.keys.is_none() {
            let heard = hear(&mut self.link).await?.context("no answer to a call")?;
            self.take(&heard)?;
        }
        Ok(())
    }

    /// A signal after the other, each with as many as are read.
    async fn promise(&mut self, list: &[Candidate]) -> Result<()> {
        let index = Index(u64::from_be_bytes(random()?));
        for (n, list) in (1..).zip(list.chunks(MAX_CANDIDATES)) {
            let signal = Signal {
                counter: n,
                body: SignalBody::Candidates(Candidates {
                    index,
                    generation: n,
                    list: list.to_vec(),
                    mapping: Mapping::Unknown,
                }),
            };
            let keys = self.keys.as_ref().context("nobody to promise to")?;
            let sealed = signal::seal(keys, &random()?, &signal).into();
            let channel = self.channel;
            self.say(Control::Signal { channel, sealed }).await?;
        }
        Ok(())
    }

    async fn listen(mut self) -> Result<()> {
        while let Some(frame) = self.link.next().await {
            let Ok(message) = frame else { break };
            if let Some(heard) = control(message)? {
                self.take(&heard)?;
            }
        }
        Ok(())
    }

    async fn say(&mut self, message: Control) -> Result<()> {
        let frame = Frame::Control(message).encode();
        Ok(self.link.send(Message::binary(frame)).await?)
    }

    /// Tells what was heard.
    fn take(&mut self, heard: &Control) -> Result<()> {
        let hex = HEXLOWER.encode(&heard.encode());
        println!("heard {} {hex}", heard.name());
        match heard {
            Control::Opened(opened) => {
                let agent = opened.record.record();
                let keys = PairKeys::derive(&self.secret, self.id, &agent.probe_key, agent.id);
                self.keys = Some(keys?);
            }
            Control::Signal { sealed, .. } => {
                let keys = self
                    .keys
                    .as_ref()
                    .context("a signal before a call's answer")?;
                if let SignalBody::Candidates(candidates) = signal::open(keys, sealed)?.body {
                    for Candidate { addr, .. } in candidates.list {
                        println!("candidate {addr}");
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The next control message; none if the link has ended.
async fn hear(link: &mut WebSocketStream<TlsStream<TcpStream>>) -> Result<Option<Control>> {
    loop {
        let Some(message) = timeout(PATIENCE, link.next()).await? else {
            return Ok(None);
        };
        if let Some(heard) = control(message?)? {
            return Ok(Some(heard));
        }
    }
}

fn control(message: Message) -> Result<Option<Control>> {
    if !message.is_binary() {
        return Ok(None);
    }
    match Frame::decode(message.into_payload().into())? {
        Frame::Control(control) => Ok(Some(control)),
        _ => Ok(None),
    }
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
    Ok(bytes)
}

/// It trusts any relay: it has nothing to lose.
fn tls() -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(super::tls::Anybody(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_port_is_named_each_time_where_none_is_given() {
        let addrs = ["203.0.113.40", "203.0.113.10:443", "::1"];
        let addrs: Vec<Promise> = addrs.iter().map(|a| Promise::parse(a).unwrap()).collect();
        let list = promises(&addrs, 5);
        let named: Vec<String> = list.iter().map(|c| c.addr.to_string()).collect();
        let wanted = [
            "203.0.113.40:1000",
            "203.0.113.10:443",
            "[::1]:1000",
            "203.0.113.40:1001",
            "203.0.113.10:443",
        ];
        assert_eq!(named, wanted);
        assert!(Promise::parse("somewhere").is_err());
    }
}
