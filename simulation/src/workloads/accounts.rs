//! Users whose rights come and go while they write.
//!
//! Every client is root and one user of its own. As root it grants that user a key
//! and takes it back, again and again; as the user it writes, also at the very
//! moment of the change. The first client switches accounts on and off meanwhile.
//!
//! Judged: what was granted is not denied; what was taken back is denied from the
//! answer on, and nothing that was under way is executed after it. While accounts
//! are being switched nothing can be said. That replicas are of one mind is
//! `equal_state`'s. Source: row A6 of the bug catalogue; etcd's #14571.

use std::time::Duration;

use actors::client::{Client, ClientError};
use cluster::{
    auth::{Access, AuthCommand, AuthError, AuthOutcome, Permission, Principal},
    mvcc::version::Version,
    request::Fault,
    shard::transaction::{Keys, Put},
};

use super::{Play, Player, Shared, Wrong, draw_rest, halve};
use crate::rng::Rng;

/// The workload.
#[derive(Clone, Debug)]
pub struct Accounts {
    clients: u32,
    rest: (Duration, Duration),
    /// Clients that began: each has the user of its turn, and the first one switches.
    begun: Shared<u32>,
    known: Shared<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Switches begun, and ended with a known outcome.
    begun: u64,
    ended: u64,
    enabled: bool,
    wrong: Wrong,
}

impl Known {
    /// The number of switches, if accounts are known to be in force.
    fn in_force(&self) -> Option<u64> {
        (self.enabled && self.begun == self.ended).then_some(self.begun)
    }
}

/// What a write as a user came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrote {
    Done(Version),
    Denied,
    Unknown,
}

fn volume(player: &Player) -> String {
    format!("{}-guarded", player.volume)
}

fn user(number: u32) -> String {
    format!("user-{number}")
}

/// The key of a user. What failed may still happen, so it gets another one then.
fn key(number: u32, life: u32) -> String {
    format!("guarded/{number}/{life}")
}

impl Accounts {
    /// Clients with a user each.
    pub fn new(clients: u32, rest: (Duration, Duration)) -> Self {
        Self { clients, rest, begun: Shared::default(), known: Shared::default() }
    }

    /// Few or many of them.
    pub fn draw(rng: &mut Rng) -> Self {
        let rest = draw_rest(rng, 5, 20..220);
        Self::new(1 + rng.number(4), rest)
    }

    fn wrong(&self, player: &Player, what: String) {
        player.accuse(&mut self.known.lock().wrong, what);
    }
}

impl Play for Accounts {
    const NAME: &'static str = "accounts";

    fn clients(&self) -> u32 {
        self.clients
    }

    fn make_smaller(&mut self) -> bool {
        halve(&mut self.clients)
    }

    async fn open(self, player: Player) -> Result<(), ClientError> {
        let volume = volume(&player);
        player.create_single(&volume).await?;
        let add = |name: String| AuthCommand::AddUser { name, hash: None };
        let mut commands = vec![
            add("root".into()),
            AuthCommand::GrantRole { user: "root".into(), role: "root".into() },
        ];
        for number in 0..self.clients {
            commands.push(add(user(number)));
            commands.push(AuthCommand::AddRole(user(number)));
            commands.push(AuthCommand::GrantRole { user: user(number), role: user(number) });
        }
        commands.push(AuthCommand::Enable);
        for command in commands {
            player.client.change_accounts(&volume, command).await?;
        }
        self.known.lock().enabled = true;
        Ok(())
    }

    async fn work(self, mut player: Player) {
        let number = self.begun.turn();
        let mut life = 0;
        while !player.is_over() {
            if number == 0 && player.rng.chance(100_000) {
                self.switch(&player).await;
            }
            let key = key(number, life);
            if let Err(error) = self.round(&mut player, number, &key).await {
                player.failed("a change of accounts", &error);
                life += 1;
            }
            player.rest(self.rest).await;
        }
    }

    /// It serves; that all copies agree is looked at elsewhere.
    async fn look(self, player: Player) -> Result<(), ClientError> {
        player.client.get(&volume(&player), "guarded/none").await.map(drop)
    }

    fn verdict(&self) -> Result<(), String> {
        self.known.lock().wrong.verdict()
    }
}

impl Accounts {
    /// Switches accounts off and on again.
    async fn switch(&self, player: &Player) {
        {
            let mut known = self.known.lock();
            if known.begun != known.ended {
                return;
            }
            known.begun += 1;
        }
        let volume = volume(player);
        for command in [AuthCommand::Disable, AuthCommand::Enable] {
            // Both may be repeated: what is so already stays so.
            while let Err(error) = player.client.change_accounts(&volume, command.clone()).await {
                player.failed("a switch of accounts", &error);
                if player.is_over() {
                    return;
                }
            }
        }
        self.known.lock().ended += 1;
        player.trace.count("accounts switched");
        player.count_operation();
    }

    /// Grants, writes, takes back, tries to write.
    async fn round(&self, player: &mut Player, number: u32, key: &str) -> Result<(), ClientError> {
        let volume = volume(player);
        let before = self.known.lock().in_force();
        let keys = Keys::from(key);
        let permission = Permission { access: Access::ReadWrite, keys: keys.clone() };
        let grant = AuthCommand::GrantPermission { role: user(number), permission };
        let AuthOutcome { revision, .. } = player.client.change_accounts(&volume, grant).await?;
        player.count_operation();
        let asks =
            player.client.acting_as(Principal::User { name: user(number), since: Some(revision) });
        let granted = self.write(player, &asks, key, "granted").await;
        if granted == Wrote::Denied && before.is_some() && before == self.known.lock().in_force() {
            self.wrong(player, format!("{} was denied what it had been granted", user(number)));
        }
        let revoke = AuthCommand::RevokePermission { role: user(number), keys };
        // One write at the moment of the change: either way is right.
        let racing = self.write(player, &asks, key, "racing");
        let change = player.client.change_accounts(&volume, revoke);
        let (raced, revoked) = tokio::join!(racing, change);
        revoked?;
        let stood = self.stands(player, &volume, key).await?;
        let late = self.write(player, &asks, key, "late").await;
        player.rest(self.rest).await;
        let stands = self.stands(player, &volume, key).await?;
        let after = self.known.lock().in_force();
        if before.is_none() || before != after {
            return Ok(());
        }
        if let Wrote::Done(version) = late {
            self.wrong(player, format!("{} wrote {version} without a right to it", user(number)));
        } else if stood != stands {
            let who = user(number);
            self.wrong(
                player,
                format!("a write of {who} took effect after the end of its right: {raced:?}"),
            );
        }
        Ok(())
    }

    async fn write(&self, player: &Player, asks: &Client, key: &str, value: &str) -> Wrote {
        let put = Put::new(key, value);
        match asks.put_as(&volume(player), put).await {
            Ok((version, _)) => {
                player.trace.count("write permitted");
                player.count_operation();
                Wrote::Done(version)
            }
            Err(ClientError::Fault { fault: Fault::Denied(AuthError::Denied), .. }) => {
                player.trace.count("write denied");
                player.count_operation();
                Wrote::Denied
            }
            Err(error) => {
                player.failed("a write of a user", &error);
                Wrote::Unknown
            }
        }
    }

    /// The version of the key.
    async fn stands(
        &self,
        player: &Player,
        volume: &str,
        key: &str,
    ) -> Result<Version, ClientError> {
        let found = player.client.get(volume, key).await?;
        Ok(found.map_or(Version(0), |item| item.modified))
    }
}
