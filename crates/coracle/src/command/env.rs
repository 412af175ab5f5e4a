//! `coracle env`: the exports that point clients at the server.

use crate::cli::{self, At};
use crate::failure::Result;
use crate::instance::ServerState;
use crate::output;

pub(crate) fn run(at: &At) -> Result<()> {
    let data = at.data()?;
    let state = ServerState::running(&data)?;
    output::result(&format!(
        "export KUBECONFIG={}",
        output::quoted(&data.kubeconfig().to_string_lossy())
    ));
    output::result(&format!("export KFP_URL={}", state.http_url()));
    output::remark(&format!(
        "run: eval \"$(coracle env{})\"",
        cli::place(&data)
    ));
    Ok(())
}
