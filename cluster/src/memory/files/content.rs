//! What one file holds, whether a reader sees it or the disk would show it.

/// What a file holds. Its end, as far as nobody wrote there, takes no memory:
/// segments are made large and filled slowly.
#[derive(Clone, Default)]
pub(super) struct Content {
    written: Vec<u8>,
    /// Bytes of the file; those behind `written` are zeros.
    pub(super) len: usize,
}

impl Content {
    /// So many zeros.
    pub(super) fn zeros(len: usize) -> Self {
        Self { written: Vec::new(), len }
    }

    pub(super) fn resize(&mut self, len: usize) {
        self.written.truncate(len);
        self.len = len;
    }

    pub(super) fn put(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.written.len() < end {
            self.written.resize(end, 0);
        }
        self.written[offset..end].copy_from_slice(bytes);
        self.len = self.len.max(end);
    }

    /// Reads into `buffer` and says how much there was.
    pub(super) fn read(&self, offset: usize, buffer: &mut [u8]) -> usize {
        let count = self.len.saturating_sub(offset).min(buffer.len());
        let there = &mut buffer[..count];
        let written = self.written.get(offset..).unwrap_or_default();
        let (copied, zeros) = there.split_at_mut(written.len().min(count));
        copied.copy_from_slice(&written[..copied.len()]);
        zeros.fill(0);
        count
    }

    pub(super) fn flip(&mut self, byte: usize, mask: u8) -> bool {
        if byte >= self.len {
            return false;
        }
        if self.written.len() <= byte {
            self.written.resize(byte + 1, 0);
        }
        self.written[byte] ^= mask;
        true
    }

    pub(super) fn all(&self) -> Vec<u8> {
        let mut all = self.written.clone();
        all.resize(self.len, 0);
        all
    }
}
