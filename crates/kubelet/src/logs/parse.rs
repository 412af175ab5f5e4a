//! Records of a log, and what a reader gets to see of them (pure).

use jiff::Timestamp;

/// What a reader asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) follow: bool,
    pub(crate) timestamps: bool,
    pub(crate) tail_lines: Option<u64>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) limit_bytes: Option<u64>,
    /// `stdout` or `stderr` alone.
    pub(crate) stream: Option<String>,
}

/// Turns records into output.
#[derive(Debug)]
pub(crate) struct Printer {
    timestamps: bool,
    since: Option<Timestamp>,
    stream: Option<String>,
    left: Option<u64>,
    /// The last record was a part: the next one goes on with its line.
    in_line: bool,
}

impl Printer {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            timestamps: options.timestamps,
            since: options.since,
            stream: options.stream.clone(),
            left: options.limit_bytes,
            in_line: false,
        }
    }

    /// Whether the limit is reached.
    pub(crate) fn is_full(&self) -> bool {
        self.left == Some(0)
    }

    /// Appends what a reader sees of one record.
    pub(crate) fn print(&mut self, record: &[u8], out: &mut Vec<u8>) {
        let begin = out.len();
        match parse(record) {
            Some(Record {
                time,
                stream,
                partial,
                text,
            }) => {
                let too_old = self.since.is_some_and(|since| {
                    let at: Option<Timestamp> =
                        std::str::from_utf8(time).ok().and_then(|t| t.parse().ok());
                    at.is_some_and(|at| at < since)
                });
                let other = self.stream.as_ref().is_some_and(|s| s.as_bytes() != stream);
                if too_old || other {
                    return;
                }
                if self.timestamps && !self.in_line {
                    out.extend_from_slice(time);
                    out.push(b' ');
                }
                out.extend_from_slice(text);
                if !partial {
                    out.push(b'\n');
                }
                self.in_line = partial;
            }
            // Something else wrote into the file: better shown than lost.
            None => out.extend_from_slice(record),
        }
        if let Some(left) = &mut self.left {
            let allowed = usize::try_from(*left).unwrap_or(usize::MAX);
            out.truncate(begin.saturating_add(allowed).min(out.len()));
            *left -= (out.len() - begin) as u64;
        }
    }
}

/// The fields of a record.
struct Record<'a> {
    time: &'a [u8],
    stream: &'a [u8],
    partial: bool,
    text: &'a [u8],
}

fn parse(record: &[u8]) -> Option<Record<'_>> {
    let record = record.strip_suffix(b"\n").unwrap_or(record);
    let mut fields = record.splitn(4, |b| *b == b' ');
    let time = fields.next()?;
    let stream = fields
        .next()
        .filter(|s| matches!(*s, b"stdout" | b"stderr"))?;
    let tag = fields.next()?;
    let text = fields.next().unwrap_or_default();
    let partial = match tag.split(|b| *b == b':').next()? {
        b"F" => false,
        b"P" => true,
        _ => return None,
    };
    Some(Record {
        time,
        stream,
        partial,
        text,
    })
}
