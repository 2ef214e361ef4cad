//! Accounts at replicas: who is refused, where, and from when on.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use cluster::{
    auth::{Access, AuthCommand, AuthError, AuthQuery, AuthView, Need, Permission, Principal},
    ids::SessionId,
    request::{Fault, ReadLevel, ShardBody, ShardResult},
    shard::{
        command::{Outcome, Refusal, SessionRequest},
        range::Range,
        transaction::{Keys, Step, Transaction},
        watch::{Place, Watch},
    },
};

use crate::stand::{Stand, get};

const SHARD: u64 = 100;

/// The root of the accounts, who came with the cluster's certificate.
struct Root {
    session: SessionId,
    number: u64,
}

impl Root {
    async fn new(stand: &Stand) -> Self {
        let opened = stand.ask(SHARD, ShardBody::OpenSession).await;
        let ShardResult::Outcome(Outcome::Session(session)) = opened else { panic!("{opened:?}") };
        Self { session, number: 0 }
    }

    fn request(&mut self) -> SessionRequest {
        self.number += 1;
        SessionRequest { session: self.session, number: self.number, answered: self.number - 1 }
    }

    /// The revision after the change.
    async fn change(&mut self, stand: &Stand, command: AuthCommand) -> u64 {
        let request = self.request();
        let done = stand.ask(SHARD, ShardBody::Auth { request, command }).await;
        let ShardResult::Outcome(Outcome::Auth(done)) = done else { panic!("{done:?}") };
        done.revision
    }

    async fn grant(&mut self, stand: &Stand, access: Access, keys: Keys) -> u64 {
        let permission = Permission { access, keys };
        let grant = AuthCommand::GrantPermission { role: "r".into(), permission };
        self.change(stand, grant).await
    }

    /// Makes `ann` a user who may read and write `a` and what begins so.
    async fn enable(&mut self, stand: &Stand) -> Principal {
        let user = |name: &str| AuthCommand::AddUser { name: name.into(), hash: Some("#".into()) };
        let role = |user: &str, role: &str| AuthCommand::GrantRole {
            user: user.into(),
            role: role.into(),
        };
        for command in [
            user("root"),
            role("root", "root"),
            user("ann"),
            AuthCommand::AddRole("r".into()),
            role("ann", "r"),
            AuthCommand::Enable,
        ] {
            self.change(stand, command).await;
        }
        let since = self.grant(stand, Access::ReadWrite, Keys::prefix("a")).await;
        Principal::User { name: "ann".into(), since: Some(since) }
    }
}

fn denied(error: AuthError) -> Result<ShardResult, Fault> {
    Err(Fault::Denied(error))
}

#[tokio::test(start_paused = true)]
async fn reads_of_every_kind_are_judged_where_they_are_read() {
    let mut stand = Stand::start(3, 1).await;
    let leader = stand.leader(SHARD).await;
    let ann = Root::new(&stand).await.enable(&stand).await;
    stand.put(SHARD, "a", b"1").await;
    stand.pass(1).await;
    let range =
        |keys: Keys| ShardBody::Range { range: Range::of(keys), level: ReadLevel::Eventual };
    for number in 1..=3 {
        let node = stand.node(number);
        let ask = |principal: &Principal, body| node.ask_as(principal.clone(), SHARD, body);
        assert!(ask(&ann, get("a", ReadLevel::Eventual)).await.is_ok(), "node {number}");
        assert!(ask(&ann, range(Keys::prefix("a"))).await.is_ok(), "node {number}");
        for body in [get("b", ReadLevel::Eventual), range(Keys::prefix(""))] {
            assert_eq!(ask(&ann, body.clone()).await, denied(AuthError::Denied), "node {number}");
            let nameless = ask(&Principal::Nameless, body).await;
            assert_eq!(nameless, denied(AuthError::UserEmpty), "node {number}");
        }
    }
    let node = stand.node(leader);
    assert!(node.ask_as(ann.clone(), SHARD, get("a", ReadLevel::Strong)).await.is_ok());
    let may = |key: &str| {
        let write = Need::Keys(Access::Write, Keys::One(key.into()));
        ShardBody::ShowAuth(AuthQuery::May(vec![Need::Name, write]))
    };
    assert!(node.ask_as(ann.clone(), SHARD, may("a1")).await.is_ok());
    assert_eq!(node.ask_as(ann.clone(), SHARD, may("b1")).await, denied(AuthError::Denied));
    let secret = || ShardBody::ShowAuth(AuthQuery::Secret("ann".into()));
    assert_eq!(node.ask_as(ann, SHARD, secret()).await, denied(AuthError::Denied));
    let shown = node.ask(SHARD, secret()).await;
    assert!(matches!(shown, Ok(ShardResult::Auth(AuthView::Secret { .. }, _))), "{shown:?}");
}

#[tokio::test(start_paused = true)]
async fn what_only_the_cluster_may_see_is_shown_to_nobody_else_while_accounts_are_off() {
    let stand = Stand::start(1, 1).await;
    stand.leader(SHARD).await;
    let mut root = Root::new(&stand).await;
    let hash = Some("#".into());
    root.change(&stand, AuthCommand::AddUser { name: "ann".into(), hash }).await;
    let node = stand.node(1);
    let secret = || ShardBody::ShowAuth(AuthQuery::Secret("ann".into()));
    let nameless = |body| node.ask_as(Principal::Nameless, SHARD, body);
    let read = nameless(get("a", ReadLevel::Strong)).await;
    assert!(read.is_ok(), "{read:?}");
    assert_eq!(nameless(secret()).await, denied(AuthError::Denied));
    assert_eq!(node.ask(SHARD, secret()).await, denied(AuthError::NotEnabled), "there is none");
}

#[tokio::test(start_paused = true)]
async fn a_write_is_refused_by_apply_and_a_wait_ends_with_the_right_to_it() {
    let mut stand = Stand::start(3, 1).await;
    let leader = stand.leader(SHARD).await;
    let mut root = Root::new(&stand).await;
    let ann = root.enable(&stand).await;
    let mut write = async |key: &str| {
        let request = root.request();
        let transaction = Transaction::new().then(Step::put(key, "1"));
        let body = ShardBody::Transact { request, transaction };
        stand.node(leader).ask_as(ann.clone(), SHARD, body).await.unwrap()
    };
    let done = write("a1").await;
    let ShardResult::Outcome(Outcome::Transacted(done)) = done else { panic!("{done:?}") };
    let refused = Outcome::Refused(Refusal::Auth(AuthError::Denied));
    assert_eq!(write("b1").await, ShardResult::Outcome(refused));

    let after = Place::after(done.version);
    let watch = ShardBody::Watch { watch: Watch::of(Keys::prefix("a")), after, wait_ms: 2_500 };
    let router = stand.node(leader).router.clone();
    let request = crate::stand::request_as(ann.clone(), SHARD, watch);
    let waiting = tokio::spawn(async move { router.shard(request).await.result });
    stand.pass(1).await;
    let revoke = AuthCommand::RevokeRole { user: "ann".into(), role: "r".into() };
    root.change(&stand, revoke).await;
    stand.put(SHARD, "a2", b"1").await;
    assert_eq!(waiting.await.unwrap(), denied(AuthError::Denied), "what came later is not told");
}
