//! `coracle env`: the exports that point clients at the server.

use crate::cli::At;
use crate::failure::Result;
use crate::instance::ServerState;
use crate::output;

pub(crate) fn run(at: &At) -> Result<()> {
    let data = at.data()?;
    let state = ServerState::running(&data)?;
    output::result(&format!(
        "export KUBECONFIG={}",
        quoted(&data.kubeconfig().to_string_lossy())
    ));
    output::result(&format!("export KFP_URL={}", state.http_url()));
    output::remark("run: eval \"$(coracle env)\"");
    Ok(())
}

/// The text as one word of a POSIX shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_one_word_of_the_shell() {
        assert_eq!(quoted("/home/a/x"), "/home/a/x");
        assert_eq!(quoted("/home/a b/it's"), r"'/home/a b/it'\''s'");
    }
}
