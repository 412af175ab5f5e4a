//! `coracle token`: the administrator's bearer token.

use crate::cli::At;
use crate::failure::Result;
use crate::instance::pki::Pki;
use crate::output;

pub(crate) fn run(at: &At) -> Result<()> {
    output::result(&Pki::admin_token(&at.data()?)?);
    Ok(())
}
