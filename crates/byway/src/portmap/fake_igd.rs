//! A gateway that speaks UPnP and nothing else, on an address of loopback. It keeps a list of what it maps, and of what it was asked.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use super::gateway::Gateway;

/// Its address outside.
pub(super) const EXTERNAL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

const SERVICE: &str = "urn:schemas-upnp-org:service:WANIPConnection:1";
/// Where devices listen for searches.
const SSDP_PORT: u16 = 1900;

/// How long it maps a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leases {
    /// No longer than so many seconds, whatever was asked for.
    AtMost(u32),
    /// For ever alone (error 725).
    Permanent,
    /// For ever, though it was asked for less.
    NoneTold,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Did {
    /// For so many seconds, of this external port.
    Map(u16, u32),
    Refuse(u16, u32),
    Unmap(u16),
}

#[derive(Debug)]
struct State {
    leases: Leases,
    /// To look up one entry of its list.
    entry_takes: Duration,
    /// By external port: the inner port and the lease.
    mapped: BTreeMap<u16, (u16, u32)>,
    did: Vec<Did>,
}

/// Ends when it is dropped.
#[derive(Debug)]
pub(super) struct Igd {
    pub(super) gateway: Gateway,
    state: Arc<Mutex<State>>,
    _tasks: JoinSet<()>,
}

impl Igd {
    /// One at an address that no other test has.
    pub(super) async fn start(last: u8, leases: Leases) -> Self {
        let gateway = Gateway {
            addr: Ipv4Addr::new(127, 53, 51, last),
            local: Ipv4Addr::LOCALHOST,
        };
        let state = Arc::new(Mutex::new(State {
            leases,
            entry_takes: Duration::ZERO,
            mapped: BTreeMap::new(),
            did: Vec::new(),
        }));
        let web = TcpListener::bind((gateway.addr, 0)).await.unwrap();
        let search = UdpSocket::bind((gateway.addr, SSDP_PORT)).await.unwrap();
        let location = format!("http://{}/root.xml", web.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(answer_searches(search, location));
        let shared = Arc::clone(&state);
        tasks.spawn(async move {
            loop {
                let (tcp, _) = web.accept().await.unwrap();
                serve(tcp, &shared).await;
            }
        });
        Self {
            gateway,
            state,
            _tasks: tasks,
        }
    }

    /// What it did so far.
    pub(super) fn did(&self) -> Vec<Did> {
        self.state.lock().unwrap().did.clone()
    }

    /// Is another one from now on.
    pub(super) fn set(&self, leases: Leases) {
        self.state.lock().unwrap().leases = leases;
    }

    /// Takes so long for each entry of its list from now on.
    pub(super) fn take_for_each_entry(&self, time: Duration) {
        self.state.lock().unwrap().entry_takes = time;
    }

    /// The external ports that it maps.
    pub(super) fn mapped(&self) -> Vec<u16> {
        self.state.lock().unwrap().mapped.keys().copied().collect()
    }
}

async fn answer_searches(socket: UdpSocket, location: String) {
    let mut buffer = [0; 1500];
    loop {
        let (_, from) = socket.recv_from(&mut buffer).await.unwrap();
        let answer = format!("HTTP/1.1 200 OK\r\nST: {SERVICE}\r\nLOCATION: {location}\r\n\r\n");
        socket.send_to(answer.as_bytes(), from).await.unwrap();
    }
}

/// One request of a connection.
async fn serve(mut tcp: TcpStream, state: &Mutex<State>) {
    let mut request = String::new();
    let mut buffer = [0; 4096];
    while !is_whole(&request) {
        let len = tcp.read(&mut buffer).await.unwrap();
        if len == 0 {
            // Who asked does not want to know any more.
            return;
        }
        request.push_str(std::str::from_utf8(&buffer[..len]).unwrap());
    }
    if request.contains("#GetGenericPortMappingEntry") {
        let takes = state.lock().unwrap().entry_takes;
        tokio::time::sleep(takes).await;
    }
    let (status, body) = match request.split(' ').nth(1).unwrap() {
        "/root.xml" => (200, description()),
        "/scpd.xml" => (200, actions()),
        _ => match state.lock().unwrap().act(&request) {
            Ok(body) => (200, body),
            Err(code) => (500, fault(code)),
        },
    };
    let answer = format!(
        "HTTP/1.1 {status} -\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = tcp.write_all(answer.as_bytes()).await;
}

fn is_whole(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().unwrap())
    });
    body.len() >= length.unwrap_or(0)
}

impl State {
    /// The answer to a request, or the error's code (WANIPConnection:1 section 2.4).
    fn act(&mut self, request: &str) -> Result<String, u16> {
        let number = |name: &str| -> u32 {
            let (_, rest) = request.split_once(&format!("<{name}>")).unwrap();
            rest.split('<').next().unwrap().parse().unwrap()
        };
        let port = |name: &str| u16::try_from(number(name)).unwrap();
        if request.contains("#GetExternalIPAddress") {
            let ip = format!("<NewExternalIPAddress>{EXTERNAL}</NewExternalIPAddress>");
            Ok(answer("GetExternalIPAddress", &ip))
        } else if request.contains("#AddPortMapping") {
            let (outer, asked) = (port("NewExternalPort"), number("NewLeaseDuration"));
            let given = match self.leases {
                Leases::AtMost(most) => asked.min(most),
                Leases::NoneTold => 0,
                Leases::Permanent if asked == 0 => 0,
                Leases::Permanent => {
                    self.did.push(Did::Refuse(outer, asked));
                    return Err(725);
                }
            };
            self.did.push(Did::Map(outer, asked));
            self.mapped.insert(outer, (port("NewInternalPort"), given));
            Ok(answer("AddPortMapping", ""))
        } else if request.contains("#DeletePortMapping") {
            let outer = port("NewExternalPort");
            self.did.push(Did::Unmap(outer));
            self.mapped.remove(&outer).ok_or(714u16)?;
            Ok(answer("DeletePortMapping", ""))
        } else if request.contains("#GetGenericPortMappingEntry") {
            // Somebody else's is the first.
            let other = (22, (22, 0));
            let own = self.mapped.iter().map(|(outer, inner)| (*outer, *inner));
            let at = usize::try_from(number("NewPortMappingIndex")).unwrap();
            let entry = std::iter::once(other).chain(own).nth(at);
            let (outer, (inner, lease)) = entry.ok_or(713u16)?;
            Ok(answer(
                "GetGenericPortMappingEntry",
                &format!(
                    "<NewRemoteHost></NewRemoteHost><NewExternalPort>{outer}</NewExternalPort>\
                     <NewProtocol>UDP</NewProtocol><NewInternalPort>{inner}</NewInternalPort>\
                     <NewInternalClient>127.0.0.1</NewInternalClient><NewEnabled>1</NewEnabled>\
                     <NewPortMappingDescription>any</NewPortMappingDescription>\
                     <NewLeaseDuration>{lease}</NewLeaseDuration>"
                ),
            ))
        } else {
            Err(401)
        }
    }
}

fn answer(action: &str, arguments: &str) -> String {
    envelope(&format!(
        "<u:{action}Response xmlns:u=\"{SERVICE}\">{arguments}</u:{action}Response>"
    ))
}

fn fault(code: u16) -> String {
    envelope(&format!(
        "<s:Fault><detail><UPnPError><errorCode>{code}</errorCode>\
         <errorDescription>it will not</errorDescription></UPnPError></detail></s:Fault>"
    ))
}

fn envelope(body: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\">\
         <s:Body>{body}</s:Body></s:Envelope>"
    )
}

fn description() -> String {
    format!(
        "<?xml version=\"1.0\"?><root><device><serviceList><service><serviceType>{SERVICE}</serviceType>\
         <SCPDURL>/scpd.xml</SCPDURL><controlURL>/control</controlURL></service></serviceList></device></root>"
    )
}

fn actions() -> String {
    let action = |name: &str, arguments: &[&str]| {
        let arguments: String = arguments
            .iter()
            .map(|name| {
                format!("<argument><name>{name}</name><direction>in</direction></argument>")
            })
            .collect();
        format!("<action><name>{name}</name><argumentList>{arguments}</argumentList></action>")
    };
    let add = action(
        "AddPortMapping",
        &[
            "NewRemoteHost",
            "NewExternalPort",
            "NewProtocol",
            "NewInternalPort",
            "NewInternalClient",
            "NewEnabled",
            "NewPortMappingDescription",
            "NewLeaseDuration",
        ],
    );
    let delete = action(
        "DeletePortMapping",
        &["NewRemoteHost", "NewExternalPort", "NewProtocol"],
    );
    format!("<?xml version=\"1.0\"?><scpd><actionList>{add}{delete}</actionList></scpd>")
}
