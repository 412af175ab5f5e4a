//! `coracle kubeconfig`: prints the administrator's kubeconfig or merges it into the user's own.

use std::path::PathBuf;

use crate::cli::Kubeconfig;
use crate::failure::{Failure, Result};
use crate::instance::kubeconfig;
use crate::output;

pub(crate) fn run(args: &Kubeconfig) -> Result<()> {
    let path = args.at.data()?.kubeconfig();
    let text = std::fs::read_to_string(&path).map_err(|e| {
        Failure::unreachable(format!("read {}: {e}", path.display()))
            .hint("start a server with `coracle up` first")
    })?;
    if !args.merge {
        output::bytes(text.as_bytes());
        return Ok(());
    }
    let ours = serde_saphyr::from_str(&text)
        .map_err(|e| Failure::environment(format!("{} is damaged: {e}", path.display())))?;
    let variable = std::env::var_os("KUBECONFIG").and_then(|v| v.into_string().ok());
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let own = kubeconfig::users_own(variable.as_deref(), home.as_deref())?;
    kubeconfig::merge(&own, &ours)?;
    output::done(
        "Merged",
        &format!("context \"coracle\" into {}", own.display()),
    );
    output::remark("kubectl --context coracle get nodes");
    Ok(())
}
