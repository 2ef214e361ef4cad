//! A client of HTTP/1.1 in one page: posts JSON, reads an answer or the lines of one.
#![allow(dead_code, reason = "each test binary uses its share")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// Longest wait for what is read.
pub(crate) const WAIT: Duration = Duration::from_secs(20);

/// An answer whose body is read as it comes.
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: u16,
    body: BufReader<Box<dyn Read>>,
    chunked: bool,
    /// What of the body was read and not taken.
    read: Vec<u8>,
}

/// Asks; `headers` are whole lines.
pub(crate) fn ask(
    address: SocketAddr,
    verb: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> Answer {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(WAIT)).unwrap();
    ask_on(stream, verb, path, headers, body)
}

/// Asks on a connection of one's own.
pub(crate) fn ask_on(
    mut stream: impl Read + Write + 'static,
    verb: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> Answer {
    let length = body.len();
    let head = format!("{verb} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    // Whoever refuses a large body early may not read it whole.
    drop(write!(stream, "{head}{headers}Content-Length: {length}\r\n\r\n{body}"));
    let mut body = BufReader::new(Box::new(stream) as Box<dyn Read>);
    let (mut status, mut chunked) = (0, false);
    loop {
        let mut line = String::new();
        body.read_line(&mut line).unwrap();
        let line = line.trim_end().to_lowercase();
        if line.is_empty() {
            return Answer { status, body, chunked, read: Vec::new() };
        }
        if line.starts_with("http/1.1") {
            status = line.split(' ').nth(1).unwrap().parse().unwrap();
        }
        chunked |= line == "transfer-encoding: chunked";
    }
}

/// Posts JSON; the status and the whole body.
pub(crate) fn post(address: SocketAddr, path: &str, headers: &str, body: &str) -> (u16, String) {
    ask(address, "POST", path, headers, body).whole()
}

impl Answer {
    /// The status and the whole body.
    pub(crate) fn whole(mut self) -> (u16, String) {
        while self.more() {}
        (self.status, String::from_utf8(self.read).unwrap().trim_end().to_owned())
    }

    /// Reads some of the body; nothing at its end.
    fn more(&mut self) -> bool {
        if !self.chunked {
            return self.body.read_to_end(&mut self.read).unwrap() > 0;
        }
        let mut size = String::new();
        self.body.read_line(&mut size).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        let mut chunk = vec![0; size + 2];
        if size == 0 || self.body.read_exact(&mut chunk).is_err() {
            return false;
        }
        self.read.extend_from_slice(&chunk[..size]);
        true
    }

    /// The next line, or all that is left.
    pub(crate) fn line_or_rest(&mut self) -> String {
        self.line().unwrap_or_else(|| String::from_utf8(std::mem::take(&mut self.read)).unwrap())
    }

    /// The next line; none at the end.
    pub(crate) fn line(&mut self) -> Option<String> {
        while !self.read.contains(&b'\n') {
            if !self.more() {
                return None;
            }
        }
        let end = self.read.iter().position(|byte| *byte == b'\n').unwrap();
        let rest = self.read.split_off(end + 1);
        let line = std::mem::replace(&mut self.read, rest);
        Some(String::from_utf8(line).unwrap().trim().to_owned())
    }
}
