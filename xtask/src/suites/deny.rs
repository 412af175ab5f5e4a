//! `cargo deny` where it is installed. Licences are checked by tidy in any case; this adds duplicate
//! versions and the sources.

use anyhow::Result;

use super::Session;
use crate::process;
use crate::tally::Outcome;
use crate::tools;

pub(crate) fn run(session: &mut Session) -> Result<Outcome> {
    if tools::which("cargo-deny").is_none() {
        return Ok(Outcome::skipped(
            "cargo-deny is not installed (tidy has checked the licences)",
        ));
    }
    process::run(
        &mut session
            .workspace
            .cargo(&["deny", "check", "licenses", "bans", "sources"]),
    )?;
    Ok(Outcome::passed())
}
