//! `coracle tutorial`.
use crate::cli::Tutorial;
use crate::failure::{Failure, Result};
pub(crate) fn run(_args: &Tutorial) -> Result<()> { Err(Failure::failed("being written")) }
