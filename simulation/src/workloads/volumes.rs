//! Volumes are created, used and removed under load.
//!
//! Judged: a volume that was created is there until it is removed, one that was
//! removed is gone, and one made anew under an old name is empty. After an
//! error in doubt its name is not used again, and says nothing.

use std::{collections::BTreeMap, time::Duration};

use actors::client::ClientError;
use cluster::catalog::record::{VolumeKind, VolumePolicy, VolumeState};

use super::{Play, Player, Shared, Wrong};
use crate::rng::Rng;

/// The workload.
#[derive(Clone, Debug)]
pub struct Volumes {
    clients: u32,
    replicas: u32,
    rest: (Duration, Duration),
    seen: Shared<Seen>,
}

/// Times a difference is looked at again, and the pause between: longer than a
/// catalog takes to find a leader once a way to it is open.
const LOOKS: u32 = 10;
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// What clients were told.
#[derive(Debug, Default)]
struct Seen {
    /// Whether the volume of a name is known to be there, or not to be.
    there: BTreeMap<String, bool>,
    wrong: Wrong,
}

impl Volumes {
    /// Clients that make volumes with so many replicas.
    pub fn new(clients: u32, replicas: u32, rest: (Duration, Duration)) -> Self {
        Self { clients, replicas, rest, seen: Shared::default() }
    }

    /// One or two clients.
    pub fn draw(rng: &mut Rng) -> Self {
        let rest = (Duration::from_millis(200), Duration::from_millis(1_500));
        Self::new(1 + rng.number(2), 3, rest)
    }

    fn wrong(&self, player: &Player, what: String) {
        player.accuse(&mut self.seen.lock().wrong, what);
    }
}

impl Play for Volumes {
    const NAME: &'static str = "volumes";

    fn clients(&self) -> u32 {
        self.clients
    }

    async fn work(self, mut player: Player) {
        let mut round = 0_u32;
        while !player.is_over() {
            // Every name is used twice, to find what an old volume left.
            let name = format!("volume-{}-{}", player.number, round / 2);
            round += 1;
            self.seen.lock().there.remove(&name);
            if let Err(error) = self.life(&mut player, &name).await {
                player.failed(&format!("life of {name}"), &error);
                self.seen.lock().there.remove(&name);
                // The other half of this name's rounds would meet its remains.
                round += round % 2;
            }
            player.rest(self.rest).await;
        }
    }

    /// Compares the list of volumes with what clients know. A node that cannot
    /// reach the catalog's leader lists what its copy holds, so a difference
    /// counts once it stays.
    async fn look(self, mut player: Player) -> Result<(), ClientError> {
        let mut differing = self.differences(&player).await?;
        for _ in 0..LOOKS {
            if differing.is_empty() {
                break;
            }
            player.rest((LOOK_PAUSE, LOOK_PAUSE)).await;
            let again = self.differences(&player).await?;
            differing.retain(|name, found| again.get(name) == Some(found));
        }
        for (name, found) in differing {
            self.wrong(&player, format!("{name} is {}", if found { "back" } else { "gone" }));
        }
        Ok(())
    }

    fn verdict(&self) -> Result<(), String> {
        self.seen.lock().wrong.verdict()
    }
}

impl Volumes {
    /// Creates a volume, uses it, and mostly removes it.
    async fn life(&self, player: &mut Player, name: &str) -> Result<(), ClientError> {
        let shards = 1 + player.rng.number(3);
        let kind = if shards == 1 { VolumeKind::Single } else { VolumeKind::Hash };
        let policy = VolumePolicy::new(kind, self.replicas, shards);
        self.create(player, name, &policy).await?;
        player.trace.count("volume created");
        self.seen.lock().there.insert(name.to_owned(), true);
        if let Some(old) = player.client.get(name, "key").await? {
            self.wrong(player, format!("the new {name} holds {:?} of an old one", old.value));
        }
        player.client.put(name, "key", name).await?;
        if player.client.get(name, "key").await?.is_none() {
            self.wrong(player, format!("{name} lost its key"));
        }
        player.count_operation();
        player.rest(self.rest).await;
        self.seen.lock().there.remove(name);
        let deleted = player.client.delete_volume(name).await;
        player.noted(&format!("remove {name}"), deleted)?;
        player.trace.count("volume removed");
        self.seen.lock().there.insert(name.to_owned(), false);
        Ok(())
    }

    /// Creates a volume. A name is free again once every node has let go of what
    /// bore it, which one that is down does later: until then it is refused.
    async fn create(
        &self,
        player: &mut Player,
        name: &str,
        policy: &VolumePolicy,
    ) -> Result<(), ClientError> {
        loop {
            let created = player.client.create_volume(name, policy.clone()).await;
            match player.noted(&format!("create {name}"), created) {
                Err(error)
                    if error.to_string().contains("still being deleted") && !player.is_over() =>
                {
                    player.rest(self.rest).await;
                }
                told => return told.map(drop),
            }
        }
    }

    /// Names whose volumes are listed otherwise than they are known to be, and
    /// whether they are listed.
    async fn differences(&self, player: &Player) -> Result<BTreeMap<String, bool>, ClientError> {
        // Clients may still be at work: what they know before and after a
        // question holds while it is asked.
        let before = self.seen.lock().there.clone();
        let volumes = player.client.volumes().await?;
        let after = self.seen.lock().there.clone();
        let listed = |name: &str| {
            volumes.iter().any(|volume| {
                volume.record.name == name && volume.record.state != VolumeState::Deleting
            })
        };
        let known = before.into_iter().filter(|(name, there)| after.get(name) == Some(there));
        Ok(known
            .map(|(name, there)| (listed(&name), name, there))
            .filter(|(found, _, there)| found != there)
            .map(|(found, name, _)| (name, found))
            .collect())
    }
}
