//! `byway alias`: keeps tickets under short names.

use byway::keyfile;
use serde::Serialize;

use crate::aliases::{self, Aliases};
use crate::args;
use crate::client::CLIENT_KEY;
use crate::failure::{Code, Failure};
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
    let verb = if Aliases::load()?.insert(name, peer.ticket)? {
        "now means"
    } else {
        "means"
    };
    eprintln!("byway: {name} {verb} {node}");
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
    if !json {
        let path = state::file(CLIENT_KEY)?;
        let key = keyfile::load_or_create(&path).map_err(|error| Failure::key_file(&error))?;
        eprintln!(
            "{}",
            output::stderr().dim(&format!("this client is {}", key.node_id()))
        );
    }
    Ok(())
}

fn remove(name: &str) -> Result<(), Failure> {
    if Aliases::load()?.remove(name)? {
        return Ok(());
    }
    Err(Failure::new(Code::Offline, format!("no alias '{name}'")).hint("byway alias list"))
}
