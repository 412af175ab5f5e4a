//! Container logs as the monitor writes them: reading, tailing and following them.
//!
//! The format is the CRI's: `TIME stdout|stderr F|P TEXT`, one record a line, `P` for a part of a
//! longer line. `X.log` is the live file, `X.log.1` the one before it, and so on.

mod follow;
mod parse;

pub(crate) use follow::stream;
pub(crate) use parse::{Options, Printer};

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

/// The name of the `number`th older part of a log.
pub(crate) fn rotated(path: &Path, number: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// The parts of a log that exist, oldest first.
pub(crate) fn parts(path: &Path) -> Vec<PathBuf> {
    let mut parts = Vec::new();
    let mut older = rotated(path, 1);
    while older.exists() {
        parts.push(older);
        older = rotated(path, parts.len() + 1);
    }
    parts.reverse();
    if path.exists() {
        parts.push(path.to_owned());
    }
    parts
}

/// The offset in `file` at which its last `lines` lines begin, and how many there are at most.
fn tail_offset(file: &mut File, lines: usize) -> io::Result<(u64, usize)> {
    const CHUNK: u64 = 64 * 1024;
    let end = file.seek(SeekFrom::End(0))?;
    let mut found = 0;
    let mut position = end;
    let mut buffer = vec![0; CHUNK as usize];
    while position > 0 {
        let start = position.saturating_sub(CHUNK);
        let length = (position - start) as usize;
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut buffer[..length])?;
        for at in (0..length).rev() {
            let offset = start + at as u64;
            // The newline at the very end closes the last line; it does not begin another.
            if buffer[at] == b'\n' && offset + 1 < end {
                found += 1;
                if found == lines {
                    return Ok((offset + 1, lines));
                }
            }
        }
        position = start;
    }
    Ok((0, if end == 0 { 0 } else { found + 1 }))
}

/// The text of the last lines of a log, without times.
pub(crate) fn tail_text(path: &Path, lines: usize) -> Vec<u8> {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let (offset, _) = tail_offset(&mut file, lines)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut raw = Vec::new();
        file.read_to_end(&mut raw)?;
        let mut printer = Printer::new(&Options::default());
        let mut out = Vec::new();
        for line in raw.split_inclusive(|b| *b == b'\n') {
            printer.print(line, &mut out);
        }
        Ok(out)
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests;
