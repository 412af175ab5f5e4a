//! Compiles packages and says what each is: `cargo run -p pipelinespec --example compile -- FILE…`.

#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::process::ExitCode;

use pipelinespec::Package;

fn main() -> ExitCode {
    let mut refused = false;
    for path in std::env::args().skip(1) {
        let package = std::fs::read(&path)
            .map_err(|error| error.to_string())
            .and_then(|bytes| Package::from_file(&path, &bytes).map_err(|e| e.to_string()));
        match package {
            Ok(package) => println!(
                "{path}: {:?}, {} parameters, {} templates",
                package.format,
                package.parameters.len(),
                package.plan.templates.len()
            ),
            Err(error) => {
                refused = true;
                println!("{path}: {error}");
            }
        }
    }
    ExitCode::from(u8::from(refused))
}
