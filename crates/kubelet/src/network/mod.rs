//! What Pods learn about the network: names in their hosts files and variables of services.

pub(crate) mod hosts;
pub(crate) mod services;
