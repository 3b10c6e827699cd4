//! Short programs an embedder would copy: `agent.rs` and `client.rs` beside this folder. This library is empty; it is
//! here because a package needs one.
