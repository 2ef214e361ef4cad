//! Who stands before a door: passwords and tokens become principals here.
//!
//! What a principal may do is not decided here, nor anywhere else in a door: it
//! goes along with each request and is judged by the shard
//! (`cluster/src/auth/`). So nothing here can let anybody through. A token that
//! is none becomes a principal that nobody is: refused while accounts are in
//! force, as good as any while they are not.

pub mod passwords;
pub mod tokens;

use std::sync::Arc;

use actors::client::{Client, ClientError};
use cluster::{
    auth::{AuthError, AuthQuery, AuthView, Principal},
    ports::{clock::Clock, entropy::Entropy},
    request::Fault,
};

use self::{
    passwords::Passwords,
    tokens::{Proof, Tokens},
};

/// Characters of a name that strangers sent, as far as it is logged.
const NAME_CHARS_LOGGED: usize = 64;

/// The accounts of one volume, as a door of a node sees them.
#[derive(Debug)]
pub struct Accounts {
    client: Client,
    volume: String,
    passwords: Passwords,
    tokens: Tokens,
}

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
        }
    }

    /// Whom a token, or else the name in a proven certificate, stands for.
    pub fn principal(&self, token: Option<&str>, certified: Option<&str>) -> Principal {
        match (token, certified) {
            (Some(token), _) => {
                let Proof { name, since } = self.tokens.renew(token).unwrap_or_default();
                Principal::User { name, since: Some(since) }
            }
            (None, Some(name)) => Principal::User { name: name.to_owned(), since: None },
            (None, None) => Principal::Nameless,
        }
    }

    /// A token for who knows the password.
    ///
    /// # Errors
    /// [`Fault::Denied`] with [`AuthError::Failed`] if it is not the user's, or
    /// with [`AuthError::NotEnabled`]; and those of the client.
    pub async fn authenticate(&self, name: &str, password: &str) -> Result<String, ClientError> {
        let asked = self.client.ask_accounts(&self.volume, AuthQuery::Secret(name.into())).await;
        let (hash, since) = match asked {
            Ok((AuthView::Secret { hash, revision }, _)) => (Some(hash), revision),
            // A user that is none takes as long as a wrong password.
            Err(ClientError::Fault { fault: Fault::Denied(AuthError::Failed), .. }) => (None, 0),
            Err(error) => return Err(error),
            Ok((AuthView::Status { .. } | AuthView::Names(_) | AuthView::Permissions(_), _)) => {
                return Err(self.denied(AuthError::Failed));
            }
        };
        if !self.passwords.fits(password, hash).await {
            let user: String = name.chars().take(NAME_CHARS_LOGGED).collect();
            tracing::warn!(user, volume = self.volume, "a password was refused");
            return Err(self.denied(AuthError::Failed));
        }
        Ok(self.tokens.issue(Proof { name: name.to_owned(), since }))
    }

    /// The hash of a new password.
    pub async fn hash(&self, password: &str) -> String {
        self.passwords.hash(password).await
    }

    fn denied(&self, error: AuthError) -> ClientError {
        let subject = format!("accounts of volume {}", self.volume);
        ClientError::Fault { subject, fault: Fault::Denied(error) }
    }
}
