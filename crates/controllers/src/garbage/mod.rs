//! The garbage collector: removes objects whose owners are gone, and carries out foreground and
//! orphaning deletion. Also keeps the list of kinds and the news of every object's metadata, which
//! the namespace controller shares.

mod collector;
mod graph;
mod monitors;
#[cfg(test)]
mod tests;

pub(crate) use collector::start as start_collector;
pub(crate) use monitors::{Kind, Metadata, Monitors};
