//! The container's log file in the format of the CRI, with rotation.
//!
//! A line is `TIME STREAM TAG TEXT`; the tag is `F`, or `P` for a part of a line that was too long to
//! be kept whole. A disk that is full loses lines, never the container.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::{Mode, OFlags};

use crate::spec::LogSpec;

/// The longest text of one line; longer ones are cut into parts.
const MAX_LINE: usize = 16 << 10;

/// Which stream a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Cuts a stream of bytes into log lines.
#[derive(Debug)]
pub(crate) struct Lines {
    stream: Stream,
    pending: Vec<u8>,
}

impl Lines {
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream,
            pending: Vec::new(),
        }
    }

    /// Takes bytes in and appends the lines they complete to `out`.
    pub(crate) fn push(&mut self, mut bytes: &[u8], now: Timestamp, out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let room = MAX_LINE - self.pending.len();
            let window = &bytes[..bytes.len().min(room)];
            if let Some(end) = window.iter().position(|byte| *byte == b'\n') {
                self.pending.extend_from_slice(&window[..end]);
                self.emit(b'F', now, out);
                bytes = &bytes[end + 1..];
            } else {
                self.pending.extend_from_slice(window);
                bytes = &bytes[window.len()..];
                if self.pending.len() < MAX_LINE {
                    continue;
                }
                // A line of exactly the longest length is whole when its end comes next.
                if bytes.first() == Some(&b'\n') {
                    self.emit(b'F', now, out);
                    bytes = &bytes[1..];
                } else {
                    self.emit(b'P', now, out);
                }
            }
        }
    }

    /// The stream has ended: what is left is a line.
    pub(crate) fn finish(&mut self, now: Timestamp, out: &mut Vec<u8>) {
        if !self.pending.is_empty() {
            self.emit(b'F', now, out);
        }
    }

    fn emit(&mut self, tag: u8, now: Timestamp, out: &mut Vec<u8>) {
        let written = write!(out, "{now:.9} {} {} ", self.stream.name(), tag as char);
        debug_assert!(written.is_ok(), "writing to a Vec cannot fail");
        out.append(&mut self.pending);
        out.push(b'\n');
    }
}

/// The file, found through its folder's descriptor so that it can be rotated from anywhere.
#[derive(Debug)]
pub(crate) struct LogFile {
    dir: OwnedFd,
    name: OsString,
    file: Option<std::fs::File>,
    size: u64,
    max_bytes: u64,
    max_files: u32,
}

impl LogFile {
    pub(crate) fn open(spec: &LogSpec) -> io::Result<Self> {
        let (Some(parent), Some(name)) = (spec.path.parent(), spec.path.file_name()) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a file's path",
            ));
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut log = Self {
            dir: rustix::fs::open(parent, flags, Mode::empty())?,
            name: name.to_owned(),
            file: None,
            size: 0,
            max_bytes: spec.max_bytes.max(1),
            max_files: spec.max_files.max(1),
        };
        log.reopen()?;
        Ok(log)
    }

    fn reopen(&mut self) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP;
        let file = rustix::fs::openat(&self.dir, Path::new(&self.name), flags, mode)?;
        self.size = rustix::fs::fstat(&file)?.st_size as u64;
        self.file = Some(file.into());
        Ok(())
    }

    /// Appends whole lines, rotating wherever the next line would not fit.
    pub(crate) fn append(&mut self, mut lines: &[u8]) {
        while !lines.is_empty() {
            let room = self.max_bytes.saturating_sub(self.size) as usize;
            let mut fits = match lines.get(..room) {
                None => lines.len(),
                Some(window) => window
                    .iter()
                    .rposition(|byte| *byte == b'\n')
                    .map_or(0, |end| end + 1),
            };
            if fits == 0 && self.size > 0 {
                self.rotate();
                if self.reopen().is_err() {
                    return;
                }
                continue;
            }
            if fits == 0 {
                // A line that is longer than a file may be has one of its own.
                let end = lines.iter().position(|byte| *byte == b'\n');
                fits = end.map_or(lines.len(), |end| end + 1);
            }
            self.write(&lines[..fits]);
            lines = &lines[fits..];
        }
    }

    fn write(&mut self, lines: &[u8]) {
        if self.file.is_none() && self.reopen().is_err() {
            return;
        }
        let Some(file) = &mut self.file else { return };
        if file.write_all(lines).is_ok() {
            self.size += lines.len() as u64;
        }
    }

    fn rotate(&mut self) {
        let numbered = |number: u32| {
            let mut name = self.name.clone();
            if number > 0 {
                name.push(format!(".{number}"));
            }
            name
        };
        // A file that is not there has not been rotated into yet.
        for number in (0..self.max_files - 1).rev() {
            let (from, to) = (numbered(number), numbered(number + 1));
            let _ = rustix::fs::renameat(self.dir.as_fd(), &from, self.dir.as_fd(), &to);
        }
        if self.max_files == 1 {
            let _ = rustix::fs::unlinkat(&self.dir, &self.name, rustix::fs::AtFlags::empty());
        }
        self.file = None;
        self.size = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(parts: &[&[u8]]) -> Vec<String> {
        let now = "2026-11-24T08:00:00Z".parse().unwrap();
        let (mut lines, mut out) = (Lines::new(Stream::Stdout), Vec::new());
        for part in parts {
            lines.push(part, now, &mut out);
        }
        lines.finish(now, &mut out);
        String::from_utf8(out)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn a_line_is_stamped_and_tagged() {
        assert_eq!(
            cut(&[b"one\ntw", b"o\n\nrest"]),
            [
                "2026-11-24T08:00:00.000000000Z stdout F one",
                "2026-11-24T08:00:00.000000000Z stdout F two",
                "2026-11-24T08:00:00.000000000Z stdout F ",
                "2026-11-24T08:00:00.000000000Z stdout F rest",
            ]
        );
    }

    #[test]
    fn a_long_line_is_cut_into_parts() {
        let mut text = vec![b'x'; MAX_LINE + 5];
        text.push(b'\n');
        let lines = cut(&[&text]);
        assert_eq!(lines.len(), 2);
        assert!(lines[0].contains(" P x") && lines[1].ends_with(" F xxxxx"));
        text.truncate(MAX_LINE);
        text.push(b'\n');
        let lines = cut(&[&text]);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains(" F x"));
    }

    #[test]
    fn a_full_file_is_rotated_and_the_oldest_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let spec = LogSpec {
            path: path.clone(),
            max_bytes: 10,
            max_files: 3,
        };
        let mut log = LogFile::open(&spec).unwrap();
        for line in ["first\n", "second\n", "third\n", "fourth\n"] {
            log.append(line.as_bytes());
        }
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(
            (read("0.log"), read("0.log.1")),
            ("fourth\n".into(), "third\n".into())
        );
        assert_eq!(read("0.log.2"), "second\n");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
    }
}
