//! The file of an audit log, and the older ones beside it.
//!
//! A file that is full becomes `FILE.1`, that one `FILE.2`, and so on; the last goes.
//! As long as no new one can be opened the full one is written on: nothing that was
//! told is lost for it. A line that was written in part is ended before the next one.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Older files kept beside the one that is written.
const OLDER_FILES: u32 = 4;

/// The file that is written.
pub(super) struct Log {
    path: PathBuf,
    lines: Lines<File>,
    most: u64,
    /// Whether it is known that no new file can be opened.
    stuck: bool,
}

impl Log {
    pub(super) fn open(path: &Path, most: u64) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), lines: open(path)?, most, stuck: false })
    }

    pub(super) fn write(&mut self, line: &str) -> io::Result<()> {
        self.write_or_begin(line, open)
    }

    /// Writes a line, into a new file from `next` if the present one is full.
    fn write_or_begin(
        &mut self,
        line: &str,
        next: impl FnOnce(&Path) -> io::Result<Lines<File>>,
    ) -> io::Result<()> {
        if self.lines.bytes > 0 && self.lines.bytes + line.len() as u64 > self.most {
            let begun = self.begin(next);
            if let Err(error) = &begun
                && !self.stuck
            {
                let file = self.path.display();
                tracing::error!(%error, %file, "no new file of the audit log; the full one goes on");
            }
            self.stuck = begun.is_err();
        }
        self.lines.append(line)
    }

    /// Begins a new file. If an earlier try could not open it, the full one has its
    /// older name already: to shift again would push the oldest out for nothing.
    fn begin(&mut self, next: impl FnOnce(&Path) -> io::Result<Lines<File>>) -> io::Result<()> {
        if self.path.try_exists()? {
            self.shift()?;
        }
        self.lines = next(&self.path)?;
        Ok(())
    }

    fn shift(&self) -> io::Result<()> {
        for number in (1..=OLDER_FILES).rev() {
            let newer = if number == 1 { self.path.clone() } else { self.older(number - 1) };
            match std::fs::rename(newer, self.older(number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    fn older(&self, number: u32) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{number}"));
        path.into()
    }
}

fn open(path: &Path) -> io::Result<Lines<File>> {
    let file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
    let bytes = file.metadata()?.len();
    let mut last = [b'\n'];
    if let Some(at) = bytes.checked_sub(1) {
        file.read_exact_at(&mut last, at)?;
    }
    Ok(Lines { file, bytes, half: last != [b'\n'] })
}

/// Lines one after the other.
struct Lines<W> {
    file: W,
    bytes: u64,
    /// Whether the last one is not whole.
    half: bool,
}

impl<W: Write> Lines<W> {
    fn append(&mut self, line: &str) -> io::Result<()> {
        if self.half {
            self.write(b"\n")?;
        }
        self.write(line.as_bytes())
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = match self.file.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let (now, later) = bytes.split_at(written);
            self.bytes += written as u64;
            self.half = now.last() != Some(&b'\n');
            bytes = later;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two lines of eight bytes fit.
    const MOST: u64 = 20;

    fn line(number: u32) -> String {
        format!("line {number:02}\n")
    }

    #[test]
    fn a_full_file_becomes_an_older_one_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let mut log = Log::open(&path, MOST).unwrap();
        for number in 0..14 {
            log.write(&line(number)).unwrap();
        }
        drop(log);
        let mut log = Log::open(&path, MOST).unwrap();
        log.write("the last\n").unwrap();
        let mut files: Vec<_> =
            folder.path().read_dir().unwrap().map(|file| file.unwrap().file_name()).collect();
        files.sort();
        let named = ["audit.log", "audit.log.1", "audit.log.2", "audit.log.3", "audit.log.4"];
        assert_eq!(files, named);
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("audit.log"), "the last\n");
        assert_eq!(read("audit.log.1"), "line 12\nline 13\n");
        assert_eq!(read("audit.log.4"), "line 06\nline 07\n");
    }

    /// Without a file descriptor, say: each line tried again, and pushed an older file
    /// out each time.
    #[test]
    fn without_a_new_file_the_full_one_goes_on_and_the_older_ones_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let mut log = Log::open(&path, MOST).unwrap();
        for number in 0..10 {
            log.write(&line(number)).unwrap();
        }
        let none = |_: &Path| Err(io::Error::from_raw_os_error(24));
        for number in 10..16 {
            log.write_or_begin(&line(number), none).unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let on: String = (8..16).map(line).collect();
        assert_eq!((read("audit.log.1"), read("audit.log.4")), (on, line(2) + &line(3)));
        log.write(&line(16)).unwrap();
        assert_eq!(read("audit.log"), line(16), "a new one as soon as there can be one");
        assert_eq!(read("audit.log.4"), line(2) + &line(3));
    }

    /// A disk with room for so many bytes.
    struct Disk(Vec<u8>, usize);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let fits = bytes.len().min(self.1);
            if fits == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.extend(&bytes[..fits]);
            self.1 -= fits;
            Ok(fits)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn half_a_line_is_ended_before_the_next_one() {
        let mut lines = Lines { file: Disk(Vec::new(), 12), bytes: 0, half: false };
        lines.append(&line(1)).unwrap();
        for _ in 0..2 {
            lines.append(&line(2)).unwrap_err();
        }
        lines.file.1 = 100;
        lines.append(&line(3)).unwrap();
        lines.append(&line(4)).unwrap();
        assert_eq!(lines.file.0, b"line 01\nline\nline 03\nline 04\n");
        assert_eq!(lines.bytes, 29);

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        std::fs::write(&path, "line 01\nli").unwrap();
        Log::open(&path, 1 << 20).unwrap().write(&line(2)).unwrap();
        let found = std::fs::read_to_string(&path).unwrap();
        assert_eq!(found, "line 01\nli\nline 02\n", "a node that was killed left half a line");
    }
}
