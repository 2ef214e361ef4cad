//! Who stands before a door: passwords and tokens become principals here.
//!
//! What a principal may do is not decided here, nor anywhere else in a door: it
//! goes along with each request and is judged by the shard
//! (`cluster/src/auth/`). So nothing here can let anybody through. A token that
//! is none becomes a principal that nobody is: refused while accounts are in
//! force, as good as any while they are not.

pub mod passwords;
pub mod signed;
pub mod tokens;

use std::{sync::Arc, time::Duration};

use actors::client::{Client, ClientError};
use cluster::{
    auth::{AuthError, AuthQuery, AuthView, Principal},
    ports::{clock::Clock, entropy::Entropy},
    request::Fault,
};
use tokio::{sync::Semaphore, time::timeout};

use self::{
    passwords::Passwords,
    tokens::{Proof, Tokens},
};

/// Characters of a name that strangers sent, as far as it is logged.
const NAME_CHARS_LOGGED: usize = 64;
/// Bytes of a name that a token can tell of: with a third more for base64 it stays well
/// below what a door takes of a token (8 KiB), and below what headers may have.
const NAME_BYTES_MAX: usize = 4 << 10;
/// Tokens never seen here that are verified at a time, each by one read of the volume's
/// shard. Whoever sends forged ones without end keeps that many reads under way.
const VERIFIED_AT_ONCE: usize = 16;
/// Longest such a token waits for its turn.
const TURN_MAX: Duration = Duration::from_secs(3);

/// The accounts of one volume, as a door of a node sees them.
#[derive(Debug)]
pub struct Accounts {
    client: Client,
    volume: String,
    passwords: Passwords,
    tokens: Tokens,
    turns: Semaphore,
}

/// The hash of a user's password, and the revision of the accounts it was read at.
type Secret = (String, u64);

impl Accounts {
    /// Those of `volume`; `client` is trusted by the cluster.
    pub fn new(
        client: Client,
        volume: &str,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        Self {
            client,
            volume: volume.to_owned(),
            passwords: Passwords::new(entropy.clone()),
            tokens: Tokens::new(clock, entropy),
            turns: Semaphore::new(VERIFIED_AT_ONCE),
        }
    }

    /// Whom a token, or else the name in a proven certificate, stands for.
    ///
    /// # Errors
    /// Those of the client, if the token was never seen here and what verifies it could
    /// not be read; [`Fault::Timeout`] if too many such are under way, be it by strangers
    /// or because no leader answers.
    pub async fn principal(
        &self,
        token: Option<&str>,
        certified: Option<&str>,
    ) -> Result<Principal, ClientError> {
        Ok(match (token, certified) {
            (Some(token), _) => {
                let Proof { name, since } = match self.tokens.renew(token) {
                    Some(proof) => proof,
                    // Boxed: hardly any request comes here, and none should carry its room.
                    None => Box::pin(self.verify(token)).await?,
                };
                Principal::User { name, since: Some(since) }
            }
            (None, Some(name)) => Principal::User { name: name.to_owned(), since: None },
            (None, None) => Principal::Nameless,
        })
    }

    /// Whom a token stands for that was never seen here.
    async fn verify(&self, token: &str) -> Result<Proof, ClientError> {
        let Some(claim) = self.tokens.claim(token) else { return Ok(Proof::default()) };
        let Ok(Ok(_turn)) = timeout(TURN_MAX, self.turns.acquire()).await else {
            return Err(self.fault(Fault::Timeout));
        };
        // Another request with it may have been verified meanwhile.
        if let Some(proof) = self.tokens.renew(token) {
            return Ok(proof);
        }
        let secret = match self.secret(&claim.proof.name).await {
            // Switching accounts off ends all tokens of before.
            Err(ClientError::Fault { fault: Fault::Denied(AuthError::NotEnabled), .. }) => None,
            asked => asked?,
        };
        Ok(self.tokens.verify(token, claim, secret.as_ref().map(|(hash, _)| &**hash)))
    }

    /// A token for who knows the password.
    ///
    /// # Errors
    /// [`Fault::Denied`] with [`AuthError::Failed`] if it is not the user's, or
    /// with [`AuthError::NotEnabled`]; and those of the client.
    pub async fn authenticate(&self, name: &str, password: &str) -> Result<String, ClientError> {
        // A user that is none takes as long as a wrong password.
        let secret = self.secret(name).await?.filter(|_| name.len() <= NAME_BYTES_MAX);
        let hash = secret.as_ref().map(|(hash, _)| hash.clone());
        let fits = self.passwords.fits(password, hash).await;
        let Some((hash, since)) = secret.filter(|_| fits) else {
            let user: String = name.chars().take(NAME_CHARS_LOGGED).collect();
            tracing::warn!(user, volume = self.volume, "a password was refused");
            return Err(self.fault(Fault::Denied(AuthError::Failed)));
        };
        Ok(self.tokens.issue(Proof { name: name.to_owned(), since }, &hash))
    }

    /// What only the cluster is told of a user; nothing if no password is anybody's.
    async fn secret(&self, name: &str) -> Result<Option<Secret>, ClientError> {
        match self.client.ask_accounts(&self.volume, AuthQuery::Secret(name.into())).await {
            Ok((AuthView::Secret { hash, revision }, _)) => Ok(Some((hash, revision))),
            Err(ClientError::Fault { fault: Fault::Denied(AuthError::Failed), .. }) => Ok(None),
            Err(error) => Err(error),
            Ok((AuthView::Status { .. } | AuthView::Names(_) | AuthView::Permissions(_), _)) => {
                Err(self.fault(Fault::Denied(AuthError::Failed)))
            }
        }
    }

    /// The hash of a new password.
    pub async fn hash(&self, password: &str) -> String {
        self.passwords.hash(password).await
    }

    fn fault(&self, fault: Fault) -> ClientError {
        ClientError::Fault { subject: format!("accounts of volume {}", self.volume), fault }
    }
}
