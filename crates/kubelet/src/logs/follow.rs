//! Streams a log to a reader, and goes on as it grows and is rotated, until the container has ended
//! and all is read. The kernel (inotify) says when there is more.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::{Options, Printer, parts, tail_offset};

const CHUNK: usize = 64 * 1024;

/// Sends a log to `out`. With [`Options::follow`] it goes on until `ended` completes and everything
/// that was written until then is sent; it stops early if nobody receives any more.
pub(crate) async fn stream(
    path: PathBuf,
    options: Options,
    ended: impl Future<Output = ()> + Send,
    out: mpsc::Sender<Bytes>,
) -> io::Result<()> {
    let mut events = match (options.follow, path.parent()) {
        (true, Some(dir)) => Some(Watch::new(dir)?),
        _ => None,
    };
    let mut reader = Reader::open(&path, &options)?;
    let mut ended = std::pin::pin!(ended);
    let mut over = events.is_none();
    loop {
        while let Some(bytes) = reader.next()? {
            if !bytes.is_empty() && out.send(bytes).await.is_err() {
                return Ok(());
            }
            if reader.printer.is_full() {
                return Ok(());
            }
        }
        if over {
            let rest = reader.finish();
            if !rest.is_empty() {
                drop(out.send(rest).await);
            }
            return Ok(());
        }
        let Some(events) = &mut events else {
            return Ok(());
        };
        tokio::select! {
            // The end is looked at first, and then everything is read once more.
            biased;
            () = &mut ended => over = true,
            () = out.closed() => return Ok(()),
            changed = events.changed() => changed?,
        }
    }
}

/// Reads the parts of a log one after another.
struct Reader {
    path: PathBuf,
    /// Parts that are still to be read, the next one last.
    ahead: Vec<PathBuf>,
    current: Option<File>,
    pending: Vec<u8>,
    printer: Printer,
}

impl Reader {
    fn open(path: &Path, options: &Options) -> io::Result<Self> {
        let mut ahead = parts(path);
        let mut offset = 0;
        if let Some(lines) = options.tail_lines {
            let mut wanted = usize::try_from(lines).unwrap_or(usize::MAX);
            let mut first = ahead.len();
            while first > 0 && wanted > 0 {
                first -= 1;
                let mut file = File::open(&ahead[first])?;
                let (at, found) = tail_offset(&mut file, wanted)?;
                offset = at;
                wanted -= found.min(wanted);
            }
            if lines == 0 {
                // Nothing of what is there, only what comes.
                if let Some(last) = ahead.last() {
                    first = ahead.len() - 1;
                    offset = std::fs::metadata(last)?.len();
                }
            }
            ahead.drain(..first);
        }
        ahead.reverse();
        let mut reader = Self {
            path: path.to_owned(),
            ahead,
            current: None,
            pending: Vec::new(),
            printer: Printer::new(options),
        };
        if let Some(part) = reader.ahead.pop() {
            let mut file = File::open(part)?;
            file.seek(SeekFrom::Start(offset))?;
            reader.current = Some(file);
        }
        Ok(reader)
    }

    /// The next piece of output; `None` at the present end of the log.
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut buffer = vec![0; CHUNK];
        loop {
            if let Some(file) = &mut self.current {
                let n = file.read(&mut buffer)?;
                if n > 0 {
                    self.pending.extend_from_slice(&buffer[..n]);
                    return Ok(Some(self.print_lines()));
                }
            }
            if !self.next_part()? {
                return Ok(None);
            }
        }
    }

    /// Goes on to the next part, once the current one cannot grow any more.
    fn next_part(&mut self) -> io::Result<bool> {
        if let Some(part) = self.ahead.pop() {
            match File::open(part) {
                Ok(file) => {
                    self.current = Some(file);
                    return Ok(true);
                }
                // Rotated away between listing and opening: found again below by its neighbours.
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.ahead.clear(),
                Err(error) => return Err(error),
            }
        }
        let Some(current) = &self.current else {
            let existing = parts(&self.path);
            let Some(first) = existing.first() else {
                return Ok(false);
            };
            self.current = File::open(first).ok();
            return Ok(self.current.is_some());
        };
        let own = current.metadata()?.ino();
        let existing = parts(&self.path);
        let position = existing
            .iter()
            .position(|p| std::fs::metadata(p).is_ok_and(|m| m.ino() == own));
        let newer = match position {
            Some(at) => existing.get(at + 1),
            None => existing.first(),
        };
        let Some(newer) = newer else { return Ok(false) };
        match File::open(newer) {
            Ok(file) => {
                // What was written between our last read and the rotation is still in the old one.
                if let Some(old) = &mut self.current {
                    old.read_to_end(&mut self.pending)?;
                }
                self.current = Some(file);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn print_lines(&mut self) -> Bytes {
        let mut out = Vec::new();
        let Some(end) = self.pending.iter().rposition(|b| *b == b'\n') else {
            return Bytes::new();
        };
        let rest = self.pending.split_off(end + 1);
        let lines = std::mem::replace(&mut self.pending, rest);
        for line in lines.split_inclusive(|b| *b == b'\n') {
            self.printer.print(line, &mut out);
            if self.printer.is_full() {
                break;
            }
        }
        Bytes::from(out)
    }

    /// A last record without its newline: the writer died in the middle of it.
    fn finish(&mut self) -> Bytes {
        let mut out = Vec::new();
        if !self.pending.is_empty() {
            let rest = std::mem::take(&mut self.pending);
            self.printer.print(&rest, &mut out);
        }
        Bytes::from(out)
    }
}

/// Tells when something in a directory changes.
struct Watch {
    fd: AsyncFd<OwnedFd>,
}

impl Watch {
    fn new(dir: &Path) -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        let what = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::DELETE_SELF;
        inotify::add_watch(&fd, dir, what)?;
        #[expect(
            deprecated,
            reason = "an owned descriptor is all that its successor asks for"
        )]
        let fd = AsyncFd::new(fd)?;
        Ok(Self { fd })
    }

    async fn changed(&mut self) -> io::Result<()> {
        let mut buffer = [0_u8; 4096];
        loop {
            let mut ready = self.fd.readable().await?;
            let mut any = false;
            let drained = ready.try_io(|fd| {
                loop {
                    match rustix::io::read(fd.get_ref(), &mut buffer[..]) {
                        Ok(0) => return Ok(()),
                        Ok(_) => any = true,
                        Err(rustix::io::Errno::WOULDBLOCK) if any => return Ok(()),
                        Err(error) => return Err(error.into()),
                    }
                }
            });
            // Otherwise there was nothing after all.
            if let Ok(result) = drained {
                return result;
            }
        }
    }
}
