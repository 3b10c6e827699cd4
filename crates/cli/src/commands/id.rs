//! `byway id`: the NodeId of a key of this machine, for an agent's `--allow-node` and for those who make out admission tokens. The
//! key is made if there is none yet, so that the id is known before anything is started.

use byway::keyfile;

use crate::args;
use crate::client::CLIENT_KEY;
use crate::failure::Failure;
use crate::output::print_line;
use crate::state;

pub(crate) fn run(args: &args::Id) -> Result<(), Failure> {
    let path = match &args.key {
        Some(path) => path.clone(),
        None if args.agent => state::file(super::agent::KEY)?,
        None => state::file(CLIENT_KEY)?,
    };
    state::check_key_name(&path)?;
    let key = keyfile::load_or_create(&path).map_err(|error| Failure::key_file(&error))?;
    print_line(&key.node_id().to_string());
    Ok(())
}
