//! Users, roles, and what they may.

use etcd_client::{Client, ConnectOptions, Error, GetOptions, Permission, PermissionType};

use crate::Play;

pub(crate) async fn play(play: &mut Play) -> Result<(), Error> {
    let answer = play.client.auth_enable().await;
    play.note("enable without root", answer);
    make(play).await;
    play.client.put("hidden", "1", None).await?;
    let answer = play.client.auth_enable().await;
    play.note("enable", answer);
    let answer = play.client.get("hidden", None).await;
    play.note("a stranger reads", answer);
    let answer = play.client.user_list().await;
    play.note("a stranger lists users", answer);
    for (step, name, password) in
        [("a wrong password", "ann", "wrong"), ("an unknown user", "bob", "pw")]
    {
        let connected = connect(play, name, password).await.map(|_| "connected");
        play.note(step, connected);
    }
    let mut ann = connect(play, "ann", "annpw").await?;
    may(play, &mut ann).await;
    let mut root = connect(play, "root", "rootpw").await?;
    rule(play, &mut root).await;
    let answer = root.auth_disable().await;
    play.note("disable", answer);
    let answer = play.client.get("hidden", None).await;
    play.note("a stranger reads again", answer);
    Ok(())
}

async fn connect(play: &Play, name: &str, password: &str) -> Result<Client, Error> {
    Client::connect([&play.address], Some(ConnectOptions::new().with_user(name, password))).await
}

async fn make(play: &mut Play) {
    for (name, password) in [("root", "rootpw"), ("root", "rootpw"), ("ann", "annpw")] {
        let answer = play.client.user_add(name, password, None).await;
        play.note("add a user", answer);
    }
    for name in ["app", "app"] {
        let answer = play.client.role_add(name).await;
        play.note("add a role", answer);
    }
    let prefix = Permission::new(PermissionType::Readwrite, "app/").with_prefix();
    for (step, role, what) in [
        ("grant a prefix", "app", prefix.clone()),
        ("grant a key", "app", Permission::read("seen")),
        ("grant to nobody", "none", prefix),
    ] {
        let answer = play.client.role_grant_permission(role, what).await;
        play.note(step, answer);
    }
    for (step, user, role) in [
        ("give a role", "ann", "app"),
        ("give an unknown role", "ann", "none"),
        ("give root its role", "root", "root"),
    ] {
        let answer = play.client.user_grant_role(user, role).await;
        play.note(step, answer);
    }
    let answer = play.client.role_get("app").await;
    play.note("what a role may", answer);
    let answer = play.client.user_get("ann").await;
    play.note("what a user is", answer);
}

async fn may(play: &Play, ann: &mut Client) {
    let answer = ann.put("app/1", "one", None).await;
    play.note("write what is granted", answer);
    let answer = ann.get("app/", Some(GetOptions::new().with_prefix())).await;
    play.note("read the prefix", answer);
    let answer = ann.get("app", Some(GetOptions::new().with_prefix())).await;
    play.note("read more than the prefix", answer);
    let answer = ann.get("hidden", None).await;
    play.note("read what is not granted", answer);
    let answer = ann.put("seen", "2", None).await;
    play.note("write what may only be read", answer);
    let answer = ann.delete("hidden", None).await;
    play.note("delete what is not granted", answer);
    let answer = ann.user_list().await;
    play.note("list users without being root", answer);
    let answer = ann.auth_disable().await;
    play.note("disable without being root", answer);
}

async fn rule(play: &Play, root: &mut Client) {
    let answer = root.get("hidden", None).await;
    play.note("root reads all", answer);
    let answer = root.user_list().await;
    play.note("list users", answer);
    let answer = root.role_list().await;
    play.note("list roles", answer);
    let answer = root.user_delete("root").await;
    play.note("delete root", answer);
    let answer = root.user_change_password("ann", "new").await;
    play.note("change a password", answer);
    let answer = root.role_revoke_permission("app", "seen", None).await;
    play.note("take a permission back", answer);
    let answer = root.user_revoke_role("ann", "app").await;
    play.note("take a role back", answer);
    let answer = root.role_delete("app").await;
    play.note("delete a role", answer);
    let answer = root.user_delete("ann").await;
    play.note("delete a user", answer);
    let answer = root.user_get("ann").await;
    play.note("show who is gone", answer);
}
