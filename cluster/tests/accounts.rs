//! Accounts by themselves: what etcd refuses in managing them, and the one
//! judgement against a naive one.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod model;

use std::convert::Infallible;

use cluster::{
    auth::{
        Access, Accounts, AuthCommand, AuthError, AuthQuery, AuthView, Denial, Need, Permission,
        Principal, needs,
    },
    catalog::command::CatalogCommand,
    ids::{LeaseId, SessionId},
    mvcc::version::Version,
    request::{ReadLevel, ShardBody},
    shard::{
        command::{Action, Op, SessionRequest},
        leases::LeaseCommand,
        range::Range,
        restore::{RestoreCommand, RestoreStep, SavedId},
        transaction::{Block, Compare, Keys, Put, Step, Transaction},
    },
    units::WallTime,
};
use model::Chance;

#[expect(clippy::needless_pass_by_value, reason = "commands are written where they are done")]
fn change(accounts: &mut Accounts, command: AuthCommand) -> Result<(), AuthError> {
    accounts.change(&command)
}

fn user(name: &str) -> AuthCommand {
    AuthCommand::AddUser { name: name.into(), hash: Some("#".into()) }
}

fn grant_role(user: &str, role: &str) -> AuthCommand {
    AuthCommand::GrantRole { user: user.into(), role: role.into() }
}

fn grant(role: &str, access: Access, keys: impl Into<Keys>) -> AuthCommand {
    let permission = Permission { access, keys: keys.into() };
    AuthCommand::GrantPermission { role: role.into(), permission }
}

/// Root, and `ann` with the role `reader`; in force.
fn in_force() -> Accounts {
    let mut accounts = Accounts::default();
    for command in [
        user("root"),
        grant_role("root", "root"),
        user("ann"),
        AuthCommand::AddRole("reader".into()),
        grant_role("ann", "reader"),
        AuthCommand::Enable,
    ] {
        change(&mut accounts, command).unwrap();
    }
    accounts
}

fn proved(accounts: &Accounts, name: &str) -> Principal {
    Principal::User { name: name.into(), since: Some(accounts.revision()) }
}

/// Judges what has no lease in it.
fn judge(accounts: &Accounts, principal: &Principal, needs: &[Need]) -> Result<(), AuthError> {
    let no_keys = |_, _: &mut dyn FnMut(&[u8]) -> bool| Ok::<_, Infallible>(());
    accounts.check(principal, needs, no_keys).map_err(|denial| match denial {
        Denial::Denied(error) => error,
        Denial::Unread(never) => match never {},
    })
}

fn read(key: &str) -> Vec<Need> {
    vec![Need::Keys(Access::Read, key.into())]
}

#[test]
fn management_is_refused_as_etcd_refuses_it() {
    use AuthError as E;
    let mut accounts = Accounts::default();
    let revoke =
        |user: &str, role: &str| AuthCommand::RevokeRole { user: user.into(), role: role.into() };
    let steps = [
        (AuthCommand::Enable, Err(E::RootUserMissing)),
        (user("root"), Ok(())),
        (AuthCommand::Enable, Err(E::RootRoleMissing)),
        (user("root"), Err(E::UserExists)),
        (user(""), Err(E::UserEmpty)),
        (AuthCommand::AddRole(String::new()), Err(E::RoleEmpty)),
        (grant_role("root", "root"), Ok(())),
        (grant_role("root", "r"), Err(E::RoleUnknown)),
        (grant_role("nobody", "r"), Err(E::UserUnknown)),
        (AuthCommand::AddRole("r".into()), Ok(())),
        (AuthCommand::AddRole("r".into()), Err(E::RoleExists)),
        (revoke("root", "r"), Err(E::RoleNotGranted)),
        (grant("r", Access::Read, ""), Err(E::InvalidManagement)),
        (grant("r", Access::Read, Keys::range("b", "a")), Err(E::InvalidManagement)),
        (grant("q", Access::Read, "a"), Err(E::RoleUnknown)),
        (grant("r", Access::Read, "a"), Ok(())),
        (
            AuthCommand::RevokePermission { role: "r".into(), keys: Keys::range("a", "") },
            Err(E::PermissionNotGranted),
        ),
        (AuthCommand::Enable, Ok(())),
        (AuthCommand::Enable, Ok(())),
        (AuthCommand::DeleteUser("root".into()), Err(E::InvalidManagement)),
        (AuthCommand::DeleteRole("root".into()), Err(E::InvalidManagement)),
        (revoke("root", "root"), Err(E::InvalidManagement)),
        (AuthCommand::DeleteUser("nobody".into()), Err(E::UserUnknown)),
        (AuthCommand::DeleteRole("nothing".into()), Err(E::RoleUnknown)),
        (AuthCommand::Disable, Ok(())),
        (AuthCommand::DeleteUser("root".into()), Ok(())),
    ];
    for (number, (command, wanted)) in steps.into_iter().enumerate() {
        assert_eq!(change(&mut accounts, command.clone()), wanted, "step {number}: {command:?}");
    }
    // Of these, one after another: two adds and two grants, one more role with a
    // permission, the end of being in force, and of root. The first is etcd's 1.
    assert_eq!(accounts.revision(), 1 + 6);
}

#[test]
fn a_role_that_goes_goes_from_its_users_and_a_permission_over_the_same_keys_is_replaced() {
    let mut accounts = in_force();
    change(&mut accounts, grant("reader", Access::Read, "k")).unwrap();
    change(&mut accounts, grant("reader", Access::Write, "k")).unwrap();
    let permission = Permission { access: Access::Write, keys: "k".into() };
    assert_eq!(
        accounts.answer(&AuthQuery::Role("reader".into())),
        Ok(AuthView::Permissions(vec![permission]))
    );
    change(&mut accounts, AuthCommand::DeleteRole("reader".into())).unwrap();
    assert_eq!(accounts.answer(&AuthQuery::User("ann".into())), Ok(AuthView::Names(Vec::new())));
    assert_eq!(accounts.answer(&AuthQuery::Role("reader".into())), Err(AuthError::RoleUnknown));
}

#[test]
fn nothing_is_permitted_that_nobody_granted() {
    let accounts = in_force();
    assert_eq!(judge(&accounts, &Principal::Nameless, &read("k")), Err(AuthError::UserEmpty));
    assert_eq!(judge(&accounts, &proved(&accounts, "ann"), &read("k")), Err(AuthError::Denied));
    assert_eq!(
        judge(&accounts, &proved(&accounts, "bob"), &read("k")),
        Err(AuthError::InvalidToken)
    );
    assert_eq!(judge(&accounts, &proved(&accounts, "root"), &read("k")), Ok(()));
    assert_eq!(judge(&accounts, &Principal::Trusted, &read("k")), Ok(()));
    let secret = [Need::Trust];
    for principal in [Principal::Nameless, proved(&accounts, "root")] {
        assert_eq!(judge(&accounts, &principal, &secret), Err(AuthError::Denied));
        assert_eq!(judge(&Accounts::default(), &principal, &secret), Err(AuthError::Denied));
    }
    assert_eq!(judge(&Accounts::default(), &Principal::Nameless, &read("k")), Ok(()));
}

#[test]
fn a_proof_ends_with_its_password_its_user_and_the_end_of_being_in_force() {
    let hash = || "##".to_owned();
    let ends = [
        vec![AuthCommand::ChangePassword { name: "ann".into(), hash: hash() }],
        vec![AuthCommand::DeleteUser("ann".into()), user("ann"), grant_role("ann", "reader")],
        vec![AuthCommand::Disable, AuthCommand::Enable],
    ];
    for end in ends {
        let mut accounts = in_force();
        change(&mut accounts, grant("reader", Access::Read, "k")).unwrap();
        let ann = proved(&accounts, "ann");
        change(&mut accounts, user("bob")).unwrap();
        assert_eq!(judge(&accounts, &ann, &read("k")), Ok(()), "what concerns others is no matter");
        for command in end.clone() {
            change(&mut accounts, command).unwrap();
        }
        assert_eq!(judge(&accounts, &ann, &read("k")), Err(AuthError::InvalidToken), "{end:?}");
        assert_eq!(judge(&accounts, &proved(&accounts, "ann"), &read("k")), Ok(()), "{end:?}");
        let certified = Principal::User { name: "ann".into(), since: None };
        assert_eq!(judge(&accounts, &certified, &read("k")), Ok(()));
    }
}

#[test]
fn hashes_are_shown_to_who_checks_passwords_only_and_accounts_have_a_size() {
    let mut accounts = in_force();
    change(&mut accounts, AuthCommand::AddUser { name: "cert".into(), hash: None }).unwrap();
    let secret = |name: &str| accounts.answer(&AuthQuery::Secret(name.into()));
    assert!(matches!(secret("ann"), Ok(AuthView::Secret { .. })));
    assert_eq!(secret("cert"), Err(AuthError::Failed), "it has no password to be right");
    assert_eq!(secret("nobody"), Err(AuthError::Failed));
    let none = Accounts::default().answer(&AuthQuery::Secret("ann".into()));
    assert_eq!(none, Err(AuthError::NotEnabled));
    for place in 0.. {
        let long = format!("{place}{}", "x".repeat(100_000));
        if change(&mut accounts, AuthCommand::AddRole(long)).is_err() {
            assert_eq!(place, 5, "half a mebibyte");
            break;
        }
    }
    assert_eq!(change(&mut accounts, AuthCommand::Disable), Ok(()), "what adds nothing still fits");
}

/// Keys that ranges of the tests begin and end at, and what lies right behind.
const EDGES: [&str; 8] = ["\0", "a", "a\0", "b", "b\0", "c", "c\0", "d"];

fn some_keys(chance: &mut Chance) -> Keys {
    let edge = |chance: &mut Chance| ["a", "b", "c", "d"][chance.index(4)];
    let (from, to) = (edge(chance), edge(chance));
    match chance.below(5) {
        0 | 1 => from.into(),
        2 => Keys::range(from, ""),
        3 => Keys::range("", to),
        _ if from < to => Keys::range(from, to),
        _ => Keys::range(from, ""),
    }
}

#[test]
fn a_range_is_permitted_exactly_if_each_key_in_it_is() {
    let (mut permitted, mut denied) = (0, 0);
    for seed in 0..3_000 {
        let mut chance = Chance(seed);
        let mut accounts = in_force();
        let mut granted = Vec::new();
        for _ in 0..chance.below(4) {
            let keys = some_keys(&mut chance);
            let access = [Access::Read, Access::Write, Access::ReadWrite][chance.index(3)];
            let sound = change(&mut accounts, grant("reader", access, keys.clone())).is_ok();
            if sound {
                granted.retain(|(_, held)| *held != keys);
                granted.push((access, keys));
            }
        }
        let wanted = some_keys(&mut chance);
        let access = [Access::Read, Access::Write][chance.index(2)];
        let mut inside = EDGES.iter().filter(|key| wanted.contain(key.as_bytes())).peekable();
        assert!(inside.peek().is_some());
        let plain = inside.all(|key| {
            granted.iter().any(|(held, keys)| {
                (*held == access || *held == Access::ReadWrite) && keys.contain(key.as_bytes())
            })
        });
        // Behind the last edge there is more.
        let open = matches!(&wanted, Keys::Range { to, .. } if to.is_empty());
        let plain = plain
            && (!open
                || granted.iter().any(|(held, keys)| {
                    (*held == access || *held == Access::ReadWrite) && keys.contain(b"zz")
                }));
        let needs = [Need::Keys(access, wanted.clone())];
        let found = judge(&accounts, &proved(&accounts, "ann"), &needs).is_ok();
        assert_eq!(found, plain, "seed {seed}: {granted:?} for {access:?} of {wanted:?}");
        *(if plain { &mut permitted } else { &mut denied }) += 1;
    }
    assert!(permitted > 300 && denied > 300, "{permitted} were permitted and {denied} denied");
}

/// A transaction as a tree, to be flattened here in another way.
fn tree(
    chance: &mut Chance,
    depth: u64,
    read: &mut Vec<Keys>,
    written: &mut Vec<Keys>,
) -> Transaction {
    let mut transaction = Transaction::new();
    for _ in 0..chance.below(2) {
        let keys = some_keys(chance);
        read.push(keys.clone());
        transaction = transaction.when(Compare::absent(keys));
    }
    for _ in 0..chance.below(3) {
        let then = chance.below(2) == 0;
        let (keys, previous) = (some_keys(chance), chance.below(2) == 0);
        let key = ["a", "b", "c"][chance.index(3)];
        let step = match chance.below(4) {
            0 => {
                read.push(keys.clone());
                Step::Read(Range::of(keys))
            }
            1 => {
                written.push(keys.clone());
                read.extend(previous.then(|| keys.clone()));
                Step::Delete { keys, previous }
            }
            2 if depth > 0 => {
                let inner = tree(chance, depth - 1, read, written);
                transaction = if then {
                    transaction.then_transact(inner)
                } else {
                    transaction.otherwise_transact(inner)
                };
                continue;
            }
            _ => {
                written.push(key.into());
                read.extend(previous.then(|| key.into()));
                let value = (chance.below(2) == 0).then(|| b"v".to_vec());
                Step::Put(Put { value, previous, ..Put::new(key, "") })
            }
        };
        transaction = if then { transaction.then(step) } else { transaction.otherwise(step) };
    }
    transaction
}

#[test]
fn a_transaction_needs_what_every_branch_of_it_at_any_depth_needs() {
    let (mut permitted, mut denied) = (0, 0);
    for seed in 0..3_000 {
        let mut chance = Chance(seed);
        let mut accounts = in_force();
        for _ in 0..=chance.below(2) {
            let access = [Access::Read, Access::Write, Access::ReadWrite][chance.index(3)];
            let keys = some_keys(&mut chance);
            let _ = change(&mut accounts, grant("reader", access, keys));
        }
        let ann = proved(&accounts, "ann");
        let (mut read, mut written) = (Vec::new(), Vec::new());
        let transaction = tree(&mut chance, 3, &mut read, &mut written);
        let may = |access, all: &[Keys]| {
            all.iter()
                .all(|keys| judge(&accounts, &ann, &[Need::Keys(access, keys.clone())]).is_ok())
        };
        let plain = may(Access::Read, &read) && may(Access::Write, &written);
        let action = Action::Transact { request: None, transaction: transaction.clone() };
        let found = judge(&accounts, &ann, &needs::of_action(&action));
        assert_eq!(found.is_ok(), plain, "seed {seed}: {transaction:?}");
        *(if plain { &mut permitted } else { &mut denied }) += 1;
    }
    assert!(permitted > 300 && denied > 300, "{permitted} were permitted and {denied} denied");
}

#[test]
fn a_lease_is_as_far_out_of_reach_as_the_keys_that_hang_on_it() {
    let mut accounts = in_force();
    change(&mut accounts, grant("reader", Access::Write, "mine")).unwrap();
    let ann = proved(&accounts, "ann");
    let (mine, theirs) = (LeaseId(1), LeaseId(2));
    let keys_of = |lease: LeaseId, tell: &mut dyn FnMut(&[u8]) -> bool| {
        let keys: &[&str] = if lease == mine { &["mine"] } else { &["mine", "theirs"] };
        for key in keys {
            if !tell(key.as_bytes()) {
                break;
            }
        }
        Ok::<_, Infallible>(())
    };
    let may = |needs: &[Need]| accounts.check(&ann, needs, keys_of).is_ok();
    let lease = |command| {
        let request = SessionRequest { session: SessionId(1), number: 1, answered: 0 };
        needs::of_body(&ShardBody::Lease { request, command })
    };
    let put = |lease| {
        let put = Step::Put(Put::new("mine", "v").under(lease));
        let action = Action::Transact { request: None, transaction: Transaction::new().then(put) };
        needs::of_action(&action)
    };
    assert!(may(&put(mine)) && !may(&put(theirs)), "who may not revoke it may not join it");
    for command in [LeaseCommand::KeepAlive, LeaseCommand::Revoke] {
        assert!(may(&lease(command(mine))) && !may(&lease(command(theirs))));
    }
    assert!(may(&lease(LeaseCommand::Grant { lease: LeaseId(3), ttl_ms: 1 })));
    assert!(!may(&lease(LeaseCommand::Expire(mine))), "only its leader");
    let show = |keys| needs::of_body(&ShardBody::ShowLease { lease: mine, keys });
    assert!(may(&show(false)) && !may(&show(true)), "writing is not reading");
    assert!(
        !may(&needs::of_body(&ShardBody::ListLeases { after: LeaseId(0) })),
        "unless all its keys were looked at"
    );
}

#[test]
fn what_comes_as_a_request_and_goes_into_the_log_needs_the_same() {
    let request = SessionRequest { session: SessionId(1), number: 1, answered: 0 };
    let ops =
        vec![Op::Put { key: b"a".to_vec(), value: Vec::new() }, Op::Delete { key: b"b".to_vec() }];
    let transaction = Transaction {
        blocks: vec![Block { then: vec![Step::put("a", "1"), Step::get("b")], ..Block::default() }],
    };
    let (lease, account) = (LeaseCommand::Revoke(LeaseId(1)), user("ann"));
    let level = cluster::request::WriteLevel::Strong;
    let some = Some(request);
    let both = [
        (
            ShardBody::Write { request: some, level, ops: ops.clone() },
            Action::Write { request: some, ops },
        ),
        (
            ShardBody::Transact { request, transaction: transaction.clone() },
            Action::Transact { request: some, transaction },
        ),
        (
            ShardBody::Lease { request, command: lease },
            Action::Lease { request: some, command: lease },
        ),
        (
            ShardBody::Auth { request, command: account.clone() },
            Action::Auth { request: some, command: account },
        ),
        (ShardBody::Compact { version: Version(1) }, Action::Compact { version: Version(1) }),
    ];
    for (body, action) in both {
        assert_eq!(needs::of_body(&body), needs::of_action(&action), "{body:?}");
        assert_eq!(action.request().is_some(), !matches!(action, Action::Compact { .. }));
    }
    let level = ReadLevel::Strong;
    let key = || b"k".to_vec();
    for body in [
        ShardBody::Get { key: key(), level, at: None, head_only: true },
        ShardBody::Range { range: Range::of("k").count_only(), level },
    ] {
        assert_eq!(needs::of_body(&body), read("k"), "{body:?}");
    }
    let may = ShardBody::ShowAuth(AuthQuery::May(read("k")));
    assert_eq!(needs::of_body(&may), read("k"), "a question needs what it asks for");
}

/// A keep-alive is judged in apply: what it costs there everybody waits for.
#[test]
fn the_first_key_out_of_reach_ends_the_judgement_of_a_lease() {
    let mut accounts = in_force();
    change(&mut accounts, grant("reader", Access::Write, Keys::range("a", "b"))).unwrap();
    let ann = proved(&accounts, "ann");
    let told = std::cell::Cell::new(0);
    let keys_of = |_, tell: &mut dyn FnMut(&[u8]) -> bool| {
        for number in 0..10_000 {
            told.set(number + 1);
            let key = if number < 7 { format!("a{number}") } else { format!("b{number}") };
            if !tell(key.as_bytes()) {
                break;
            }
        }
        Ok::<_, Infallible>(())
    };
    let needs = [Need::Name, Need::Lease(Access::Write, LeaseId(1))];
    assert_eq!(accounts.check(&ann, &needs, keys_of), Err(Denial::Denied(AuthError::Denied)));
    assert_eq!(told.get(), 8);
}

/// Permissions are joined before anything is judged: what touches is one stretch,
/// what does not is a gap, whatever the order they were granted in.
#[test]
fn permissions_that_touch_cover_what_none_covers_alone() {
    let mut chance = Chance(11);
    let letter = |chance: &mut Chance| (b'a' + u8::try_from(chance.below(8)).unwrap()) as char;
    let (mut covered, mut open) = (0, 0);
    for _ in 0..2_000 {
        let mut accounts = in_force();
        let mut granted = Vec::new();
        for _ in 0..chance.below(4) {
            let (from, to) = (letter(&mut chance), letter(&mut chance));
            if from < to {
                let keys = Keys::range(from.to_string(), to.to_string());
                change(&mut accounts, grant("reader", Access::Read, keys)).unwrap();
                granted.push((from, to));
            }
        }
        let (from, to) = (letter(&mut chance), letter(&mut chance));
        if from >= to {
            continue;
        }
        // Letter by letter: each whole stretch up to the next letter is somebody's.
        let of = |letter: char| granted.iter().any(|(from, to)| (*from..*to).contains(&letter));
        let plain = (from..to).all(of);
        let needs = [Need::Keys(Access::Read, Keys::range(from.to_string(), to.to_string()))];
        let ann = proved(&accounts, "ann");
        assert_eq!(judge(&accounts, &ann, &needs).is_ok(), plain, "{granted:?} {from} {to}");
        *(if plain { &mut covered } else { &mut open }) += 1;
    }
    assert!(covered > 50 && open > 300, "{covered} {open}");
}

#[test]
fn what_is_for_the_cluster_is_what_needs_its_trust() {
    let key = || b"k".to_vec();
    let saved = SavedId([1; 16]);
    let restore =
        RestoreCommand { saved, step: RestoreStep::Begin { version: Version(2), bump: 0 } };
    let lease = |command| Action::Lease { request: None, command };
    let transaction = Transaction { blocks: vec![Block::default()] };
    let token = CatalogCommand::AddToken { hash: [0; 32], expires: WallTime(1) };
    let actions = [
        Action::Catalog { request: None, command: token },
        Action::Close,
        Action::OpenSession,
        Action::CloseSession(SessionId(7)),
        Action::Write { request: None, ops: vec![Op::Delete { key: key() }] },
        Action::Transact { request: None, transaction },
        Action::Restore { request: None, command: restore },
        Action::Advance { version: Version(3) },
        Action::Compact { version: Version(3) },
        Action::Auth { request: None, command: AuthCommand::Enable },
        lease(LeaseCommand::Grant { lease: LeaseId(1), ttl_ms: 1_000 }),
        lease(LeaseCommand::KeepAlive(LeaseId(1))),
        lease(LeaseCommand::Revoke(LeaseId(1))),
        lease(LeaseCommand::Expire(LeaseId(1))),
    ];
    let trusted: Vec<_> = actions.iter().map(needs::is_for_the_cluster).collect();
    let needing: Vec<_> =
        actions.iter().map(|action| needs::of_action(action) == [Need::Trust]).collect();
    assert_eq!(trusted, needing);
    assert_eq!(trusted.iter().filter(|trusted| **trusted).count(), 4);
}
