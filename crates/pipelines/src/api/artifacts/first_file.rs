//! The first file of a `.tgz`, unpacked while it comes in; anything else passes as it is.

use std::io::{self, Write as _};

use flate2::write::GzDecoder;

const BLOCK: usize = 512;

/// What has been seen so far.
#[derive(Debug, Default)]
pub(super) struct FirstFile {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    /// Nothing yet.
    #[default]
    Start,
    /// Not packed, or not an archive.
    Plain,
    /// Packed; `seen` is unpacked and not yet used.
    Packed {
        decoder: Box<GzDecoder<Vec<u8>>>,
        part: Part,
    },
    /// The file is over.
    Done,
}

/// Where in the archive it is.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// Before the header of an entry.
    Header,
    /// In what is not the file.
    Skip(u64),
    /// In the file.
    File(u64),
    /// It was packed, but is no archive.
    Whole,
}

impl FirstFile {
    /// Whether nothing more will come.
    pub(super) fn done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Takes a chunk and answers what of the file has come to light.
    pub(super) fn feed(&mut self, chunk: &[u8]) -> io::Result<Vec<u8>> {
        if matches!(self.state, State::Start) {
            self.state = if chunk.starts_with(&[0x1f, 0x8b]) {
                State::Packed {
                    decoder: Box::new(GzDecoder::new(Vec::new())),
                    part: Part::Header,
                }
            } else {
                State::Plain
            };
        }
        let (out, over) = match &mut self.state {
            State::Start | State::Plain => return Ok(chunk.to_vec()),
            State::Done => return Ok(Vec::new()),
            State::Packed { decoder, part } => {
                decoder.write_all(chunk)?;
                decoder.flush()?;
                advance(decoder.get_mut(), part)
            }
        };
        if over {
            self.state = State::Done;
        }
        Ok(out)
    }
}

/// Uses what was unpacked; answers what belongs to the file, and whether the file is over.
fn advance(seen: &mut Vec<u8>, part: &mut Part) -> (Vec<u8>, bool) {
    loop {
        match *part {
            Part::Whole => return (std::mem::take(seen), false),
            Part::File(left) => {
                let take = seen.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let out = seen.drain(..take).collect();
                *part = Part::File(left - take as u64);
                return (out, left == take as u64);
            }
            Part::Skip(left) => {
                let take = seen.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                seen.drain(..take);
                if take as u64 != left {
                    *part = Part::Skip(left - take as u64);
                    return (Vec::new(), false);
                }
                *part = Part::Header;
            }
            Part::Header => {
                let Some(header) = seen.get(..BLOCK) else {
                    return (Vec::new(), false);
                };
                if header.iter().all(|byte| *byte == 0) {
                    return (Vec::new(), true);
                }
                if !header[257..].starts_with(b"ustar") {
                    *part = Part::Whole;
                    continue;
                }
                let size = octal(&header[124..136]);
                // 0 and the NUL of old archives are files; the rest are folders, links, long names.
                *part = match header[156] {
                    b'0' | 0 => Part::File(size),
                    _ => Part::Skip(size.div_ceil(BLOCK as u64) * BLOCK as u64),
                };
                seen.drain(..BLOCK);
            }
        }
    }
}

fn octal(field: &[u8]) -> u64 {
    field
        .iter()
        .skip_while(|byte| **byte == b' ')
        .take_while(|byte| (b'0'..=b'7').contains(byte))
        .fold(0, |number, digit| number * 8 + u64::from(digit - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn entry(kind: u8, content: &[u8]) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        block[..1].copy_from_slice(b"x");
        block[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        block[156] = kind;
        block[257..262].copy_from_slice(b"ustar");
        block.extend(content);
        block.resize(block.len().div_ceil(BLOCK) * BLOCK, 0);
        block
    }

    fn all(bytes: &[u8], step: usize) -> Vec<u8> {
        let mut file = FirstFile::default();
        let mut out = Vec::new();
        for chunk in bytes.chunks(step) {
            out.extend(file.feed(chunk).unwrap());
        }
        out
    }

    #[test]
    fn the_first_file_comes_out_however_it_is_cut() {
        let content: Vec<u8> = (0..5000u32).flat_map(u32::to_le_bytes).collect();
        let mut archive = entry(b'5', b"");
        archive.extend(entry(b'x', b"19 path=long/name\n"));
        archive.extend(entry(b'0', &content));
        archive.extend(entry(b'0', b"another"));
        archive.extend(vec![0; 2 * BLOCK]);
        let packed = gzip(&archive);
        for step in [7, 512, 1 << 20] {
            assert_eq!(all(&packed, step), content, "{step}");
        }
    }

    #[test]
    fn what_is_no_archive_passes() {
        assert_eq!(all(b"plain text", 3), b"plain text");
        let long = vec![b'a'; 2000];
        assert_eq!(all(&gzip(&long), 100), long);
        assert_eq!(all(&gzip(&vec![0; 1024]), 100), b"");
    }

    #[test]
    fn what_is_broken_is_an_error() {
        let mut packed = gzip(&entry(b'0', b"content"));
        for byte in packed.iter_mut().skip(12) {
            *byte ^= 0x5a;
        }
        let mut file = FirstFile::default();
        assert!(file.feed(&packed).is_err());
    }
}
