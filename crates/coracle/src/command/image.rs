//! `coracle image NAME …`: the program behind a built-in image. The node starts it in a Pod; nothing
//! else should need to.

use std::ffi::OsString;
use std::process::ExitCode;

pub(crate) fn run(args: Vec<OsString>) -> ExitCode {
    images::main(args)
}
