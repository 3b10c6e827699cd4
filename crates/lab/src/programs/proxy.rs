//! Proxies, on a site's router as a rule: tinyproxy (HTTP) and microsocks (SOCKS5).

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::Result;

use super::READY;
use crate::debian::find;
use crate::netns::Namespace;
use crate::process::{Running, poll};
use crate::world::{Internet, Place};

/// Where tinyproxy listens: squid's port, which is what people expect.
const HTTP_PORT: u16 = 3128;
/// Where microsocks listens (RFC 1928 section 3).
const SOCKS_PORT: u16 = 1080;

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    /// Its URL, without user name and password.
    pub url: String,
    /// The process.
    pub process: Running,
}

impl Proxy {
    /// Its URL with a user name and a password.
    pub fn url_for(&self, user: &str, password: &str) -> String {
        self.url
            .replacen("://", &format!("://{user}:{password}@"), 1)
    }
}

/// Starts tinyproxy on the router of a site, for that site's hosts; it connects to port 443 alone, as they do by default
/// elsewhere. With `account`, a user name and a password, it asks for them.
pub fn tinyproxy(
    internet: &Internet,
    site: &Place,
    account: Option<(&str, &str)>,
) -> Result<Proxy> {
    http_on(internet, site.gate()?, site.gateway()?, site.addr, account)
}

/// The same at an address of a host, for another one.
pub fn http_on(
    internet: &Internet,
    host: &Namespace,
    inside: Ipv4Addr,
    allowed: Ipv4Addr,
    account: Option<(&str, &str)>,
) -> Result<Proxy> {
    let config = internet.dir().join(format!("tinyproxy-{inside}.conf"));
    let account = account.map_or_else(String::new, |(user, password)| {
        format!("BasicAuth {user} {password}\n")
    });
    fs::write(
        &config,
        format!(
            "Port {HTTP_PORT}\nListen {inside}\nAllow {allowed}\nConnectPort 443\nTimeout 600\nMaxClients 100\nLogLevel Connect\n{account}"
        ),
    )?;
    let mut command = host.command(find("tinyproxy").unwrap_or_default());
    command.arg("-d").arg("-c").arg(&config);
    let process = Running::start("tinyproxy", &mut command)?;
    listening(&process, inside, HTTP_PORT)?;
    Ok(Proxy {
        url: format!("http://{inside}:{HTTP_PORT}"),
        process,
    })
}

/// Starts microsocks on the router of a site. With `account`, a user name and a password, it asks for them.
pub fn microsocks(site: &Place, account: Option<(&str, &str)>) -> Result<Proxy> {
    socks_on(site.gate()?, site.gateway()?, account)
}

/// The same at an address of a host.
pub fn socks_on(
    host: &Namespace,
    inside: Ipv4Addr,
    account: Option<(&str, &str)>,
) -> Result<Proxy> {
    let mut command = host.command(find("microsocks").unwrap_or_default());
    command
        .args(["-i", &inside.to_string()])
        .args(["-p", &SOCKS_PORT.to_string()]);
    if let Some((user, password)) = account {
        command.args(["-u", user, "-P", password]);
    }
    let process = Running::start("microsocks", &mut command)?;
    listening(&process, inside, SOCKS_PORT)?;
    Ok(Proxy {
        url: format!("socks5h://{inside}:{SOCKS_PORT}"),
        process,
    })
}

/// The kernel's own table says when a socket is there, in hexadecimal and the machine's byte order.
fn listening(process: &Running, addr: Ipv4Addr, port: u16) -> Result<()> {
    let bound = format!("{:08X}:{port:04X}", u32::from_ne_bytes(addr.octets()));
    let addr = SocketAddrV4::new(addr, port);
    poll(&format!("proxy listening on {addr}"), READY, || {
        let table = fs::read_to_string(format!("/proc/{}/net/tcp", process.pid()))?;
        Ok(table.contains(&bound).then_some(()))
    })
}
