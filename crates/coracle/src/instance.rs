//! One data directory and what belongs to it on this machine: its lock, its address slice, its
//! ports, its keys, and how other commands find the server that runs on it.

pub(crate) mod data_dir;
pub(crate) mod kubeconfig;
pub(crate) mod pki;
pub(crate) mod ports;
pub(crate) mod slice;
pub(crate) mod state;

pub(crate) use data_dir::DataDir;
pub(crate) use slice::Slice;
pub(crate) use state::ServerState;
