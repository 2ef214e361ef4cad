//! Lists over all shards of a volume: one order, one version, resumable.
//!
//! With several shards a strong list is a cut: every shard's leader first says
//! how far it stands, confirmed by its majority; the list is read as of the
//! highest of these and of the client's clock, so it holds every write that was
//! acknowledged before it began, whatever clocks stamped it. Weaker lists read
//! each shard where the asked replica stands. A volume with one shard picks its
//! own version, which for kind *single* is a dense counter no clock could name.

use std::{sync::Arc, time::Duration};

use cluster::{
    ids::ShardId,
    limits::LIST_PAGE_MAX,
    mvcc::version::{Hlc, Version},
    request::{Item, ReadLevel, ShardBody, ShardResult},
    routing::{Cursor, Merge, PageWanted, listing_shards},
};
use futures_util::{Stream, stream};

use super::{
    Client, ask::Reply, error::ClientError, read::who, trial::Trial, write::strange_result,
};

/// What to list.
#[derive(Clone, Debug)]
pub struct ListOptions {
    /// Items of one page; at most [`LIST_PAGE_MAX`], which is the default.
    pub page: usize,
    /// How fresh.
    pub level: ReadLevel,
    /// Whether values come too.
    pub values: bool,
    /// Where an earlier list stood.
    pub from: Option<Cursor>,
}

impl Default for ListOptions {
    fn default() -> Self {
        Self { page: LIST_PAGE_MAX, level: ReadLevel::Strong, values: false, from: None }
    }
}

/// Part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Keys in order.
    pub items: Vec<Item>,
    /// Where to go on; none when this was the last page.
    pub next: Option<Cursor>,
}

/// A list under way.
#[derive(Debug)]
pub struct Listing {
    client: Client,
    volume: Arc<str>,
    prefix: Vec<u8>,
    options: ListOptions,
    merge: Option<Merge>,
    at: Option<Version>,
    after: Option<Vec<u8>>,
    ended: bool,
    /// Whether pages come from several shards.
    several: bool,
}

/// Stands in a cursor of a list that is no cut.
const NO_CUT: Version = Version(0);

impl Client {
    /// Lists the keys that begin with `prefix`, page by page. Nothing is sent
    /// before the first page is asked for.
    pub fn list(&self, volume: &str, prefix: &str, options: ListOptions) -> Listing {
        Listing {
            client: self.clone(),
            volume: volume.into(),
            prefix: prefix.into(),
            after: options.from.as_ref().and_then(|cursor| cursor.after.clone()),
            at: options.from.as_ref().map(|cursor| cursor.at).filter(|at| *at > NO_CUT),
            options,
            merge: None,
            ended: false,
            several: false,
        }
    }
}

impl Listing {
    /// The next page; none at the end. After an error the list stands where it
    /// stood and may be asked again.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn next_page(&mut self) -> Result<Option<Page>, ClientError> {
        if self.ended {
            return Ok(None);
        }
        let mut trial = self.client.trial(format!("list of volume {}", self.volume));
        let mut merge = match self.merge.take() {
            Some(merge) => merge,
            None => self.begin(&mut trial, None).await?,
        };
        let page_max = self.options.page.clamp(1, LIST_PAGE_MAX);
        let mut items: Vec<Item> = Vec::new();
        while items.len() < page_max && !merge.is_done() {
            if !self.fill(&mut trial, &mut merge).await? {
                // Shards changed: go on from the last key given out.
                merge = self.begin(&mut trial, items.last()).await?;
                continue;
            }
            while items.len() < page_max
                && let Some(item) = merge.pop()
            {
                items.push(item);
            }
        }
        self.ended = merge.is_done();
        if let Some(last) = items.last() {
            self.after = Some(last.key.clone());
        }
        let place = || Cursor { at: self.at.unwrap_or_default(), after: self.after.clone() };
        let next = (!self.ended).then(place);
        self.merge = Some(merge);
        Ok(Some(Page { items, next }))
    }

    /// The pages as a stream; it ends after an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Page, ClientError>> {
        stream::unfold(Some(self), |listing| async move {
            let mut listing = listing?;
            match listing.next_page().await {
                Ok(Some(page)) => Some((Ok(page), Some(listing))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    async fn begin(
        &mut self,
        trial: &mut Trial,
        last: Option<&Item>,
    ) -> Result<Merge, ClientError> {
        let (mut shards, mut all) = self.shards(trial).await?;
        while self.at.is_none() && all > 1 && self.options.level == ReadLevel::Strong {
            self.at = self.cut(trial, &shards).await?;
            if self.at.is_none() {
                trial.note("the shards of the volume changed".into());
                trial.pause_for(Duration::ZERO).await?;
                (shards, all) = self.shards(trial).await?;
            }
        }
        self.several = all > 1;
        let after = last.map(|item| item.key.as_slice()).or(self.after.as_deref());
        Ok(Merge::new(shards, after))
    }

    /// A version that no write acknowledged until now is later than; none if a
    /// shard changed meanwhile: a cut that lacks one shard's word may miss what
    /// was acknowledged there by a clock that is ahead of all others.
    async fn cut(
        &self,
        trial: &mut Trial,
        shards: &[ShardId],
    ) -> Result<Option<Version>, ClientError> {
        let body = || ShardBody::List {
            prefix: self.prefix.clone(),
            after: None,
            limit: 1,
            level: ReadLevel::Strong,
            at: None,
            values: false,
        };
        let who = who(ReadLevel::Strong);
        let asked = shards.iter().map(|shard| {
            let mut trial = self.client.trial(format!("list of volume {}", self.volume));
            async move { self.client.ask_shard(&mut trial, *shard, who, &body).await }
        });
        let mut cut = self.client.now_version();
        for reply in futures_util::future::join_all(asked).await {
            match reply? {
                Reply::Result(ShardResult::Page { at, .. }) => cut = cut.max(at),
                Reply::Result(other) => return Err(strange_result(trial, &other)),
                Reply::Reroute => return Ok(None),
            }
        }
        Ok(Some(cut))
    }

    async fn shards(&self, trial: &mut Trial) -> Result<(Vec<ShardId>, usize), ClientError> {
        loop {
            let (map, record) = self.client.volume(trial, &self.volume).await?;
            let all: Vec<_> = map.shards_of(&record).collect();
            if !all.is_empty() && all.len() == record.shards.len() {
                let count = all.len();
                let listed = listing_shards(all, &self.prefix);
                return Ok((listed.into_iter().map(|shard| shard.shard).collect(), count));
            }
            trial.note(format!("the shards of volume {} are not all known yet", self.volume));
            self.client.renew_map(trial).await?;
        }
    }

    /// Feeds the pages the merge wants; false if the shards changed.
    async fn fill(&mut self, trial: &mut Trial, merge: &mut Merge) -> Result<bool, ClientError> {
        let fetches = merge.wanted().into_iter().map(|wanted| self.fetch(wanted, self.at));
        for fetched in futures_util::future::join_all(fetches).await {
            let Some((shard, items, more, read_at)) = fetched? else {
                trial.note("the shards of the volume changed".into());
                return Ok(false);
            };
            merge.feed(shard, items, more);
            if !self.several {
                self.at.get_or_insert(read_at);
            }
        }
        Ok(true)
    }

    async fn fetch(
        &self,
        wanted: PageWanted,
        at: Option<Version>,
    ) -> Result<Option<(ShardId, Vec<Item>, bool, Version)>, ClientError> {
        let PageWanted { shard, after } = wanted;
        let mut trial = self.client.trial(format!("list of volume {}", self.volume));
        let limit = self.options.page.clamp(1, LIST_PAGE_MAX);
        let body = || ShardBody::List {
            prefix: self.prefix.clone(),
            after: after.clone(),
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            level: self.options.level,
            at,
            values: self.options.values,
        };
        let who = who(self.options.level);
        match self.client.ask_shard(&mut trial, shard, who, &body).await? {
            Reply::Reroute => Ok(None),
            Reply::Result(ShardResult::Page { items, more, at }) => {
                Ok(Some((shard, items, more, at)))
            }
            Reply::Result(other) => Err(strange_result(&trial, &other)),
        }
    }
}

impl Client {
    /// A version that names now: this machine's clock, but never before what
    /// the cluster has shown this client.
    pub(super) fn now_version(&self) -> Version {
        let now = Hlc::at(self.shared.clock.wall());
        Version(now.max(self.clock().next()).0)
    }
}
