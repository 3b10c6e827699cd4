//! `byway alias`: keeps tickets under short names.

use byway::keyfile;
use serde::Serialize;

use crate::aliases::{self, Aliases};
use crate::args;
use crate::client::CLIENT_KEY;
use crate::failure::{Code, Failure};
use crate::note;
use crate::output::{self, json_line, print_line};
use crate::peer::Peer;
use crate::state;

/// One line of `alias list --json`; the ticket itself stays secret.
#[derive(Serialize)]
struct Line<'a> {
    alias: &'a str,
    node: String,
    name: Option<&'a str>,
    relays: Vec<String>,
}

/// The last line of `alias list --json`.
#[derive(Serialize)]
struct Own {
    /// This client's node id, for an agent's `--allow-node`.
    client: String,
}

pub(crate) fn run(command: args::Alias) -> Result<(), Failure> {
    match command {
        args::Alias::Add { name, ticket } => add(&name, &ticket),
        args::Alias::List { json } => list(json),
        args::Alias::Remove { name } => remove(&name),
    }
}

fn add(name: &str, ticket: &str) -> Result<(), Failure> {
    aliases::check_name(name)?;
    let peer = Peer::find(ticket)?;
    let node = peer.ticket.node.short();
    let verb = if Aliases::insert(name, peer.ticket)? {
        "now means"
    } else {
        "means"
    };
    note!("byway: {name} {verb} {node}");
    Ok(())
}

fn list(json: bool) -> Result<(), Failure> {
    let aliases = Aliases::load()?;
    for (alias, ticket) in aliases.iter() {
        let relays = ticket.relays.iter().map(|relay| {
            let url = &relay.url;
            format!("{}:{}", url.host(), url.port())
        });
        let line = Line {
            alias,
            node: ticket.node.to_string(),
            name: ticket.name.as_deref(),
            relays: relays.collect(),
        };
        if json {
            json_line(&line);
        } else {
            let name = line
                .name
                .map_or_else(String::new, |name| format!(" ({})", name.escape_debug()));
            print_line(&format!(
                "{}{name}  {}  via {}",
                output::stdout().bold(alias),
                ticket.node.short(),
                line.relays.join(", ")
            ));
        }
    }
    // A list is to be had where nothing can be written, and before there is a key.
    let own = state::file(CLIENT_KEY)
        .ok()
        .and_then(|path| keyfile::load_or_create(&path).ok())
        .map(|key| key.node_id().to_string());
    match own {
        Some(node) if json => json_line(&Own { client: node }),
        Some(node) => print_line(&output::stdout().dim(&format!("this client is {node}"))),
        None => tracing::warn!("this client has no key that can be read"),
    }
    Ok(())
}

fn remove(name: &str) -> Result<(), Failure> {
    if Aliases::remove(name)? {
        return Ok(());
    }
    Err(Failure::new(Code::Offline, format!("no alias '{name}'")).hint("byway alias list"))
}
