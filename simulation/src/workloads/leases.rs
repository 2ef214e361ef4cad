//! Keys under leases: holders keep them alive for a while, then leave.
//!
//! Judged: a key is there for as long as its lease has time left by the world's
//! clock since it was last asked to be kept alive, less what the machines' clocks
//! may err; and once the world is whole, every lease that nobody keeps ends, with
//! all its keys. Source: etcd's early expiry after changes of leader.

use std::time::Duration;

use actors::client::ClientError;
use cluster::{
    ids::LeaseId,
    request::ReadLevel,
    shard::{
        range::Range,
        transaction::{Keys, Put},
    },
    units::Instant,
};

use super::{Play, Player, Shared, Wrong, draw_rest, halve};
use crate::rng::Rng;

/// What all keys begin with.
const PREFIX: &str = "lease/";
/// What a clock that errs by 3 % makes of a second, and a little.
const ERROR: (u32, u32) = (95, 100);
/// Longest a lease may live on once the world is whole: its time, two changes of
/// leader, and what other clients still do.
const PATIENCE: Duration = Duration::from_mins(1);

/// The workload.
#[derive(Clone, Debug)]
pub struct Leases {
    clients: u32,
    rest: (Duration, Duration),
    wrong: Shared<Wrong>,
}

fn volume(player: &Player) -> String {
    format!("{}-leased", player.volume)
}

impl Leases {
    /// Clients with a lease each, again and again.
    pub fn new(clients: u32, rest: (Duration, Duration)) -> Self {
        Self { clients, rest, wrong: Shared::default() }
    }

    /// Few or many of them.
    pub fn draw(rng: &mut Rng) -> Self {
        let rest = draw_rest(rng, 50, 200..800);
        Self::new(1 + rng.number(4), rest)
    }

    fn wrong(&self, player: &Player, what: String) {
        player.accuse(&mut self.wrong.lock(), what);
    }
}

impl Play for Leases {
    const NAME: &'static str = "leases";

    fn clients(&self) -> u32 {
        self.clients
    }

    fn make_smaller(&mut self) -> bool {
        halve(&mut self.clients)
    }

    async fn open(self, player: Player) -> Result<(), ClientError> {
        player.create_single(&volume(&player)).await
    }

    async fn work(self, mut player: Player) {
        let mut round = 0_u32;
        while !player.is_over() {
            round += 1;
            let key = format!("{PREFIX}{}-{round}", player.number);
            if let Err(error) = self.hold(&mut player, &key).await {
                player.failed(&format!("hold {key}"), &error);
            }
            player.rest(self.rest).await;
        }
    }

    /// Waits until all leases are over: nobody keeps one alive any more.
    async fn look(self, player: Player) -> Result<(), ClientError> {
        let volume = volume(&player);
        let begun = player.now();
        loop {
            let (leases, _) = player.client.list_leases(&volume).await?;
            let all = Range::of(Keys::prefix(PREFIX));
            let left = player.client.range(&volume, all, ReadLevel::Strong).await?.result.items;
            let orphan = |lease: &LeaseId| *lease != LeaseId(0) && !leases.contains(lease);
            if let Some(item) = left.iter().find(|item| orphan(&item.lease)) {
                // Its lease may have been granted between the two questions.
                if player.client.show_lease(&volume, item.lease, false).await?.0.is_none()
                    && player
                        .client
                        .get(&volume, &String::from_utf8_lossy(&item.key))
                        .await?
                        .is_some()
                {
                    self.wrong(&player, format!("{:?} hangs on no lease", item.key));
                }
            }
            if leases.is_empty() && left.is_empty() {
                return Ok(());
            }
            if player.now().since(begun) > PATIENCE {
                let (leases, keys) = (leases.len(), left.len());
                self.wrong(&player, format!("{leases} leases and {keys} keys live for ever"));
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    fn verdict(&self) -> Result<(), String> {
        self.wrong.lock().verdict()
    }
}

impl Leases {
    /// Holds one key by one lease for a while, then watches it go.
    async fn hold(&self, player: &mut Player, key: &str) -> Result<(), ClientError> {
        let volume = volume(player);
        let ttl = Duration::from_millis(2_000 + player.rng.below(4_000));
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let mut asked = player.now();
        let lease = player.client.grant_lease(&volume, None, ttl_ms).await?.lease;
        player.trace.count("lease granted");
        player.client.put_as(&volume, Put::new(key, "held").under(lease)).await?;
        player.count_operation();
        for _ in 0..player.rng.below(6) {
            player.rest(self.rest).await;
            self.is_there(player, &volume, key, asked + least(ttl)).await?;
            let now = player.now();
            player.client.keep_lease_alive(&volume, lease).await?;
            player.count_operation();
            asked = now;
        }
        if player.rng.chance(200_000) {
            player.client.revoke_lease(&volume, lease).await?;
            player.trace.count("lease revoked");
            if player.client.get(&volume, key).await?.is_some() {
                self.wrong(player, format!("{key} outlived its lease, which was revoked"));
            }
            return Ok(());
        }
        while !player.is_over() && self.is_there(player, &volume, key, asked + least(ttl)).await? {
            player.rest(self.rest).await;
        }
        player.trace.count("lease ended");
        Ok(())
    }

    /// Whether the key is there; it must be while `until` lies ahead.
    async fn is_there(
        &self,
        player: &Player,
        volume: &str,
        key: &str,
        until: Instant,
    ) -> Result<bool, ClientError> {
        let there = player.client.get(volume, key).await?.is_some();
        player.count_operation();
        let now = player.now();
        if !there && now < until {
            let early = until.since(now);
            self.wrong(player, format!("{key} went {early:?} before its lease was over"));
        }
        Ok(there)
    }
}

/// What a lease lives at least, by the world's clock.
fn least(ttl: Duration) -> Duration {
    ttl * ERROR.0 / ERROR.1
}
