//! A certificate authority of the tests' own: as much of RFC 8555 as one order takes, with every signature checked, and a
//! proof that truly connects to the relay.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use data_encoding::BASE64URL_NOPAD;
use rcgen::{CertificateSigningRequestParams, SanType};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::challenge;
use crate::common::root::Root;

/// What becomes of an order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Plan {
    /// A certificate that began so many days ago and holds for so many more.
    Issue(i64, i64),
    /// Refused at once, for so many seconds.
    Busy(u64),
    /// The authority looks for the domain somewhere else, where nobody is.
    Lost,
}

pub(crate) struct Authority {
    pub(crate) directory_url: String,
    /// Its root, in a file and as it is.
    pub(crate) root_file: PathBuf,
    pub(crate) root: CertificateDer<'static>,
    state: Arc<State>,
    leads_to: watch::Sender<Option<SocketAddr>>,
    _task: JoinSet<()>,
}

struct State {
    base: String,
    own: Root,
    relay: watch::Receiver<Option<SocketAddr>>,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    next: u64,
    nonces: BTreeSet<String>,
    accounts: BTreeMap<String, Account>,
    orders: Vec<Order>,
    plans: VecDeque<Plan>,
    requests: usize,
    /// What a client did wrong.
    faults: Vec<String>,
    seen: Vec<challenge::Seen>,
}

#[derive(Clone)]
struct Account {
    key: Vec<u8>,
    thumbprint: String,
    contact: Value,
}

struct Order {
    domains: Vec<String>,
    plan: Plan,
    proved: Vec<Option<Result<(), String>>>,
    chain: Option<String>,
}

/// What the tests may ask.
pub(crate) struct Report {
    pub(crate) requests: usize,
    pub(crate) orders: usize,
    pub(crate) accounts: usize,
    pub(crate) contacts: Vec<Value>,
    pub(crate) faults: Vec<String>,
    pub(crate) seen: Vec<challenge::Seen>,
}

impl Authority {
    /// Orders are served by these plans, one each, and the last for all that come after.
    pub(crate) async fn start(plans: &[Plan]) -> Self {
        let own = Root::new();
        let (root_file, root) = (own.file.clone(), own.issuer.der().clone());
        let acceptor = own.acceptor();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("https://{}", listener.local_addr().unwrap());
        let (leads_to, relay) = watch::channel(None);
        let state = Arc::new(State {
            base: base.clone(),
            own,
            relay,
            books: Mutex::new(Books {
                plans: plans.iter().copied().collect(),
                ..Books::default()
            }),
        });
        let mut task = JoinSet::new();
        let serving = Arc::clone(&state);
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (acceptor, state) = (acceptor.clone(), Arc::clone(&serving));
                connections.spawn(async move {
                    // A client that does not trust us goes away.
                    if let Ok(stream) = acceptor.accept(tcp).await {
                        serve(stream, &state).await;
                    }
                });
            }
        });
        Self {
            directory_url: format!("{base}/directory"),
            root_file,
            root,
            state,
            leads_to,
            _task: task,
        }
    }
    /// Where all domains lead; until then no proof ends.
    pub(crate) fn leads_to(&self, relay: SocketAddr) {
        self.leads_to.send_replace(Some(relay));
    }
    pub(crate) fn report(&self) -> Report {
        let books = self.state.books.lock().unwrap();
        Report {
            requests: books.requests,
            orders: books.orders.len(),
            accounts: books.accounts.len(),
            contacts: books.accounts.values().map(|a| a.contact.clone()).collect(),
            faults: books.faults.clone(),
            seen: books.seen.clone(),
        }
    }
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn json(status: u16, body: &Value) -> Self {
        Self {
            status,
            headers: vec![("Content-Type", "application/json".into())],
            body: body.to_string().into_bytes(),
        }
    }
    fn problem(status: u16, kind: &str, detail: &str) -> Self {
        let kind = format!("urn:ietf:params:acme:error:{kind}");
        Self::json(
            status,
            &json!({"type": kind, "detail": detail, "status": status}),
        )
    }
    fn with(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }
}

async fn serve(mut stream: tokio_rustls::server::TlsStream<TcpStream>, state: &Arc<State>) {
    let mut bytes = Vec::new();
    let (method, path, content_type, body) = loop {
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        let httparse::Status::Complete(head) = request.parse(&bytes).unwrap() else {
            continue;
        };
        let header = |name: &str| {
            let found = request
                .headers
                .iter()
                .find(|h| h.name.eq_ignore_ascii_case(name));
            found
                .map_or("", |h| str::from_utf8(h.value).unwrap())
                .to_owned()
        };
        let length = header("content-length").parse().unwrap_or(0);
        if bytes.len() >= head + length {
            let method = request.method.unwrap().to_owned();
            let path = request.path.unwrap().to_owned();
            break (method, path, header("content-type"), bytes[head..].to_vec());
        }
    };
    let answer = state.answer(&method, &path, &content_type, &body);
    let mut text = format!("HTTP/1.1 {} X\r\n", answer.status);
    text += &format!("Replay-Nonce: {}\r\n", state.nonce());
    for (name, value) in &answer.headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += &format!(
        "Content-Length: {}\r\nConnection: close\r\n\r\n",
        answer.body.len()
    );
    let mut whole = text.into_bytes();
    if method != "HEAD" {
        whole.extend_from_slice(&answer.body);
    }
    // Whoever went away missed it.
    let _ = stream.write_all(&whole).await;
    let _ = stream.shutdown().await;
}

impl State {
    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
    fn nonce(&self) -> String {
        let mut books = self.books.lock().unwrap();
        books.next += 1;
        let nonce = BASE64URL_NOPAD.encode(&books.next.to_be_bytes());
        books.nonces.insert(nonce.clone());
        nonce
    }
    fn answer(self: &Arc<Self>, method: &str, path: &str, kind: &str, body: &[u8]) -> Answer {
        self.books.lock().unwrap().requests += 1;
        match (method, path) {
            ("GET", "/directory") => Answer::json(
                200,
                &json!({
                    "newNonce": self.url("/nonce"),
                    "newAccount": self.url("/account"),
                    "newOrder": self.url("/order"),
                }),
            ),
            ("HEAD", "/nonce") => Answer::json(200, &json!({})),
            ("POST", _) => match self.verified(path, kind, body) {
                Ok((account, payload)) => self.act(path, &account, payload),
                Err(fault) => {
                    let answer = Answer::problem(400, "malformed", &fault);
                    self.books.lock().unwrap().faults.push(fault);
                    answer
                }
            },
            _ => Answer::problem(404, "malformed", "no such thing"),
        }
    }

    /// RFC 8555 section 6.2 to 6.5: who says this, and what. An account's key for everything but a new account.
    fn verified(&self, path: &str, kind: &str, body: &[u8]) -> Result<(Account, Value), String> {
        if kind != "application/jose+json" {
            return Err(format!("content type {kind}"));
        }
        let jws: Value = serde_json::from_slice(body).map_err(|e| e.to_string())?;
        let text = |name: &str| {
            jws[name]
                .as_str()
                .map(str::to_owned)
                .ok_or(format!("no {name}"))
        };
        let (protected, payload, signature) =
            (text("protected")?, text("payload")?, text("signature")?);
        let decode = |text: &str| {
            BASE64URL_NOPAD
                .decode(text.as_bytes())
                .map_err(|e| e.to_string())
        };
        let header: Value =
            serde_json::from_slice(&decode(&protected)?).map_err(|e| e.to_string())?;
        if header["alg"] != "ES256" || header["url"] != *self.url(path) {
            return Err(format!("header {header}"));
        }
        let mut books = self.books.lock().unwrap();
        if !books
            .nonces
            .remove(header["nonce"].as_str().unwrap_or_default())
        {
            return Err(format!("nonce {}", header["nonce"]));
        }
        let account = match (&header["jwk"], &header["kid"]) {
            (jwk, Value::Null) if path == "/account" => {
                let coordinate = |name: &str| decode(jwk[name].as_str().unwrap_or_default());
                let (x, y) = (coordinate("x")?, coordinate("y")?);
                // RFC 7638: these members, in this order.
                let canonical = json!({
                    "crv": jwk["crv"], "kty": jwk["kty"], "x": jwk["x"], "y": jwk["y"],
                });
                Account {
                    key: [&[4][..], &x, &y].concat(),
                    thumbprint: BASE64URL_NOPAD.encode(&Sha256::digest(canonical.to_string())),
                    contact: Value::Null,
                }
            }
            (Value::Null, Value::String(kid)) if path != "/account" => {
                let known = books.accounts.get(kid).cloned();
                known.ok_or(format!("account {kid}"))?
            }
            _ => return Err(format!("header {header}")),
        };
        drop(books);
        let signed = format!("{protected}.{payload}");
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &account.key)
            .verify(signed.as_bytes(), &decode(&signature)?)
            .map_err(|_| "signature".to_owned())?;
        let payload = decode(&payload)?;
        // Empty: a GET that is signed (section 6.3).
        let payload = match &payload[..] {
            [] => Value::Null,
            json => serde_json::from_slice(json).map_err(|e| e.to_string())?,
        };
        Ok((account, payload))
    }

    fn act(self: &Arc<Self>, path: &str, account: &Account, payload: Value) -> Answer {
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let number = |at: usize| parts[at].parse::<usize>().unwrap();
        match parts[0] {
            "account" => {
                assert_eq!(payload["termsOfServiceAgreed"], true);
                let mut books = self.books.lock().unwrap();
                let url = self.url(&format!("/account/{}", books.accounts.len()));
                let mut account = account.clone();
                account.contact = payload["contact"].clone();
                books.accounts.insert(url.clone(), account);
                Answer::json(201, &json!({"status": "valid"})).with("Location", url)
            }
            "order" if parts.len() == 1 => self.new_order(&payload),
            "order" => self.order(number(1)),
            "authz" => self.authorization(number(1), number(2), account),
            "challenge" => {
                self.prove(number(1), number(2), account);
                Answer::json(200, &self.challenge(number(1), number(2), account))
            }
            "finalize" => self.finalize(number(1), &payload),
            "certificate" => {
                let books = self.books.lock().unwrap();
                let chain = books.orders[number(1)].chain.clone().unwrap();
                Answer {
                    status: 200,
                    headers: vec![("Content-Type", "application/pem-certificate-chain".into())],
                    body: chain.into_bytes(),
                }
            }
            other => Answer::problem(404, "malformed", other),
        }
    }

    fn new_order(&self, payload: &Value) -> Answer {
        let identifiers = payload["identifiers"].as_array().unwrap();
        let domains: Vec<String> = identifiers
            .iter()
            .map(|identifier| {
                assert_eq!(identifier["type"], "dns");
                identifier["value"].as_str().unwrap().to_owned()
            })
            .collect();
        let mut books = self.books.lock().unwrap();
        let plan = match books.plans.len() {
            1 => books.plans[0],
            _ => books.plans.pop_front().unwrap(),
        };
        let id = books.orders.len();
        books.orders.push(Order {
            proved: vec![None; domains.len()],
            domains,
            plan,
            chain: None,
        });
        drop(books);
        if let Plan::Busy(seconds) = plan {
            return Answer::problem(429, "rateLimited", "too many orders")
                .with("Retry-After", seconds.to_string());
        }
        let mut answer = self
            .order(id)
            .with("Location", self.url(&format!("/order/{id}")));
        answer.status = 201;
        answer
    }
    fn order(&self, id: usize) -> Answer {
        let books = self.books.lock().unwrap();
        let order = &books.orders[id];
        let status = if order.proved.iter().any(|p| matches!(p, Some(Err(_)))) {
            "invalid"
        } else if order.chain.is_some() {
            "valid"
        } else if order.proved.iter().all(|p| matches!(p, Some(Ok(())))) {
            "ready"
        } else {
            "pending"
        };
        let authorizations: Vec<String> = (0..order.domains.len())
            .map(|n| self.url(&format!("/authz/{id}/{n}")))
            .collect();
        let mut body = json!({
            "status": status,
            "identifiers": order.domains.iter().map(|d| json!({"type": "dns", "value": d})).collect::<Vec<_>>(),
            "authorizations": authorizations,
            "finalize": self.url(&format!("/finalize/{id}")),
        });
        if order.chain.is_some() {
            body["certificate"] = self.url(&format!("/certificate/{id}")).into();
        }
        Answer::json(200, &body)
    }
    fn authorization(&self, id: usize, n: usize, account: &Account) -> Answer {
        let challenge = self.challenge(id, n, account);
        let status = match challenge["status"].as_str().unwrap() {
            "processing" => "pending",
            status => status,
        };
        let other = json!({
            "type": "http-01", "url": self.url("/none"), "token": "x", "status": "pending",
        });
        let domain = self.books.lock().unwrap().orders[id].domains[n].clone();
        Answer::json(
            200,
            &json!({
                "status": status,
                "identifier": {"type": "dns", "value": domain},
                "challenges": [other, challenge],
            }),
        )
    }
    fn challenge(&self, id: usize, n: usize, _account: &Account) -> Value {
        let books = self.books.lock().unwrap();
        let mut challenge = json!({
            "type": "tls-alpn-01",
            "url": self.url(&format!("/challenge/{id}/{n}")),
            "token": format!("token-{id}-{n}"),
            "status": "pending",
        });
        match &books.orders[id].proved[n] {
            None => {}
            Some(Ok(())) => challenge["status"] = "valid".into(),
            Some(Err(why)) => {
                challenge["status"] = "invalid".into();
                challenge["error"] = json!({
                    "type": "urn:ietf:params:acme:error:connection", "detail": why, "status": 400,
                });
            }
        }
        challenge
    }
    /// Connects to the relay, as RFC 8737 says, in its own time.
    fn prove(self: &Arc<Self>, id: usize, n: usize, account: &Account) {
        let key_authorization = format!("token-{id}-{n}.{}", account.thumbprint);
        let state = Arc::clone(self);
        let (domain, plan) = {
            let books = self.books.lock().unwrap();
            (books.orders[id].domains[n].clone(), books.orders[id].plan)
        };
        tokio::spawn(async move {
            let mut relay = state.relay.clone();
            let to = match plan {
                Plan::Lost => "127.0.0.1:1".parse().unwrap(),
                _ => relay.wait_for(Option::is_some).await.unwrap().unwrap(),
            };
            let look = challenge::look(to, &domain, &key_authorization);
            let found = tokio::time::timeout(Duration::from_secs(5), look).await;
            let found = found.unwrap_or_else(|_| Err("too late".into()));
            let mut books = state.books.lock().unwrap();
            books.orders[id].proved[n] = Some(found.map(|seen| books.seen.push(seen)));
        });
    }

    fn finalize(&self, id: usize, payload: &Value) -> Answer {
        let csr = payload["csr"].as_str().unwrap();
        let csr = BASE64URL_NOPAD.decode(csr.as_bytes()).unwrap();
        // Its signature is checked with the key in it.
        let csr = CertificateSigningRequestDer::from(csr);
        let mut csr = CertificateSigningRequestParams::from_der(&csr).unwrap();
        {
            let mut books = self.books.lock().unwrap();
            let order = &mut books.orders[id];
            assert!(order.proved.iter().all(|p| matches!(p, Some(Ok(())))));
            let ordered: Vec<SanType> = order
                .domains
                .iter()
                .map(|domain| SanType::DnsName(domain.as_str().try_into().unwrap()))
                .collect();
            assert_eq!(csr.params.subject_alt_names, ordered);
            let Plan::Issue(age, left) = order.plan else {
                panic!("{:?} comes to no end", order.plan);
            };
            let now = std::time::SystemTime::now();
            let day = Duration::from_secs(24 * 60 * 60);
            let days = |n: i64| day * u32::try_from(n).unwrap();
            csr.params.not_before = (now - days(age)).into();
            csr.params.not_after = (now + days(left)).into();
            let certificate = csr.signed_by(&self.own.issuer).unwrap();
            order.chain = Some(format!("{}{}", certificate.pem(), self.own.issuer.pem()));
        }
        self.order(id)
    }
}
