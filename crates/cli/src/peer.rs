//! What PEER on the command line means: a ticket, `@file` with a ticket in it, or an alias.

use byway::Ticket;

use crate::aliases::Aliases;
use crate::failure::{Code, Failure};

/// A peer, and what to call it in messages.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) ticket: Ticket,
    /// The alias, the agent's own name, or the beginning of its key.
    pub(crate) label: String,
}

/// The longest file that can be a ticket; a ticket with all it may hold is shorter.
const MAX_TICKET_FILE: u64 = 64 * 1024;

/// Stands for the ticket in [`TICKET_VARIABLE`], where a command line would show it to others.
pub(crate) const FROM_ENVIRONMENT: &str = "@env";
/// Set for the `stdio` under `ssh`.
pub(crate) const TICKET_VARIABLE: &str = "BYWAY_STDIO_TICKET";

/// True for a ticket itself, rather than where one is kept.
pub(crate) fn is_ticket(text: &str) -> bool {
    text.trim()
        .trim_matches(['"', '\'', '`'])
        .starts_with("byway1")
}

impl Peer {
    /// Finds out what the text means.
    pub(crate) fn find(text: &str) -> Result<Self, Failure> {
        // As it comes out of a mail or a chat.
        let text = text.trim().trim_matches(['"', '\'', '`']);
        if text == FROM_ENVIRONMENT
            && let Ok(ticket) = std::env::var(TICKET_VARIABLE)
        {
            return Self::from_ticket(ticket.trim(), "the ticket");
        }
        if let Some(path) = text.strip_prefix('@') {
            return Self::from_file(path);
        }
        if is_ticket(text) {
            return Self::from_ticket(text, "the ticket");
        }
        let aliases = Aliases::load()?;
        match aliases.get(text) {
            Some(ticket) => Ok(Self {
                ticket: ticket.clone(),
                label: text.to_owned(),
            }),
            None if looks_like_a_ticket(text) => Self::from_ticket(text, "the ticket"),
            None => {
                let known: Vec<_> = aliases.iter().map(|(name, _)| name).collect();
                // A ticket that was damaged on the way here must not end up in somebody's log.
                let short: String = text.chars().take(16).collect();
                let shown = if short == text {
                    format!("'{text}'")
                } else {
                    format!("'{short}...'")
                };
                let failure = Failure::new(Code::Offline, format!("no peer {shown}"))
                    .why("it is neither a ticket (byway1...), nor @file, nor an alias of yours");
                Err(if known.is_empty() {
                    failure.hint(format!("byway alias add {short} TICKET"))
                } else {
                    failure.hint(format!("one of your aliases: {}", known.join(", ")))
                })
            }
        }
    }

    fn from_file(path: &str) -> Result<Self, Failure> {
        use std::io::Read;
        let mut text = String::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_TICKET_FILE).read_to_string(&mut text))
            .map_err(|error| {
                Failure::new(Code::Usage, "cannot read the ticket")
                    .why(format!("{path}: {error}"))
                    .hint("@FILE is the file that `byway agent --ticket-file FILE` writes")
            })?;
        Self::from_ticket(text.trim(), &format!("the ticket in {path}"))
    }

    fn from_ticket(text: &str, which: &str) -> Result<Self, Failure> {
        let ticket: Ticket = text.parse().map_err(|error| {
            Failure::new(Code::Usage, format!("cannot use {which}"))
                .why(error)
                .hint("copy it again, whole, from the agent's output")
        })?;
        let label = match &ticket.name {
            // The name is the agent's own word: it must not be able to write to the terminal.
            Some(name) => name.escape_debug().to_string(),
            None => ticket.node.short(),
        };
        Ok(Self { ticket, label })
    }
}

/// Long and without a character an alias could have: a ticket whose beginning was lost.
fn looks_like_a_ticket(text: &str) -> bool {
    text.len() > 63 && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}
