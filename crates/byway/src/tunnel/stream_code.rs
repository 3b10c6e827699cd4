//! Why one side gave up a stream: the codes of RESET_STREAM and STOP_SENDING inside a tunnel.
//!
//! They are for the log and for people. A receiver treats every code alike: the stream was aborted.

/// The TCP connection at the sender's end was reset, or failed.
pub(crate) const ABORTED: u32 = 1;
/// The other side did not keep to the protocol.
pub(crate) const PROTOCOL: u32 = 2;
/// The target was refused; the reply says why.
pub(crate) const REFUSED: u32 = 3;
/// Too many streams of this kind.
pub(crate) const EXHAUSTED: u32 = 4;
