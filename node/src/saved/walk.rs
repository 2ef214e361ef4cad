//! All keys of a volume of one shard, in their order, as of one version.

use actors::client::{Client, ClientError};
use cluster::{
    mvcc::version::Version,
    request::{Item, ReadLevel},
    shard::{range::Range, transaction::Keys},
};

/// All keys at one version, page by page.
pub(crate) struct Walk<'c> {
    client: &'c Client,
    volume: &'c str,
    level: ReadLevel,
    from: Vec<u8>,
    /// The version; none before the first page if it is to be the newest.
    pub(crate) at: Option<Version>,
    /// The newest version seen.
    pub(crate) now: Version,
    done: bool,
}

impl<'c> Walk<'c> {
    pub(crate) fn new(
        client: &'c Client,
        volume: &'c str,
        level: ReadLevel,
        at: Option<Version>,
    ) -> Self {
        let (from, now) = (Vec::new(), Version(0));
        Self { client, volume, level, from, at, now, done: false }
    }

    /// The next keys; none at the end, but there is always a first page.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Item>>, ClientError> {
        if self.done {
            return Ok(None);
        }
        let keys = Keys::range(self.from.clone(), "");
        let range = Range { at: self.at, ..Range::of(keys) };
        let read = self.client.range_page(self.volume, &range, self.level).await?;
        self.at = Some(read.at);
        self.now = self.now.max(read.now);
        match read.result.items.last() {
            Some(last) if read.result.more => self.from = [&last.key[..], &[0]].concat(),
            Some(_) | None => self.done = true,
        }
        Ok(Some(read.result.items))
    }
}
