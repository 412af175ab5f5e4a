//! The commands, one file each. A command parses nothing: the command line hands it its words.

pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod env;
pub(crate) mod image;
pub(crate) mod kubeconfig;
pub(crate) mod status;
pub(crate) mod token;
pub(crate) mod tutorial;
pub(crate) mod up;
