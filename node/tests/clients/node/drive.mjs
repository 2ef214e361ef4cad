// Drives whoever speaks etcd with the library `etcd3`, and prints what it heard.
//
//     node drive.mjs HOST:PORT
//
// Each line is a step, a tab, and the answer. `node/tests/etcd.rs` runs this
// against a real etcd and against us, and compares the lines.

import { createRequire } from "node:module";

// Found where NODE_PATH says.
const { Etcd3 } = createRequire(import.meta.url)("etcd3");

const LONG = 10_000;
const hosts = process.argv[2];
const client = new Etcd3({ hosts });

function plain(value) {
  return JSON.stringify(value, (name, one) => {
    if (["cluster_id", "member_id", "raft_term"].includes(name)) return undefined;
    return one?.type === "Buffer" ? Buffer.from(one.data).toString("latin1") : one;
  });
}

const say = (step, answer) => console.log(`${step}\t${plain(answer)}`);

async function note(step, asked) {
  try {
    say(step, await asked);
  } catch (error) {
    say(step, `${error.constructor.name}: ${error.message}`);
  }
}

const within = (promise) =>
  Promise.race([promise, new Promise((done) => setTimeout(() => done("nothing came"), LONG).unref())]);

const heard = (source, name) => new Promise((done) => source.once(name, (...told) => done(told)));

async function keys() {
  await note("put", client.put("a").value("1"));
  await note("put with what was there", client.put("a").value("2").getPrevious());
  await note("put b", client.put("b").value(3));
  await note("put no key", client.put("").value("1"));
  await note("put under an unknown lease", client.put("a").value("1").lease(77));
  await note("touch", client.put("a").touch());
  await note("get", client.get("a").exec());
  await note("get as text", client.get("a").string());
  await note("get what is not there", client.get("zz").string());
  await note("get the past", client.get("a").revision(2).exec());
  await note("get the future", client.get("a").revision(999).exec());
  await note("get what this member has", client.get("none").serializable(true).exec());
  await note("get all", client.getAll().all().exec());
  await note("get a prefix", client.getAll().prefix("a").strings());
  await note("get some", client.getAll().all().limit(1).exec());
  for (const target of ["Key", "Version", "Create", "Mod", "Value"]) {
    for (const order of ["Ascend", "Descend"]) {
      await note(`by ${target}, ${order}`, client.getAll().all().sort(target, order).exec());
    }
  }
  await note("count", client.getAll().all().count());
  await note("keys", client.getAll().all().keys());
  await note("changed since", client.getAll().all().minModRevision(4).exec());
  await note("delete", client.delete().key("b").getPrevious());
  await note("delete nothing", client.delete().key("b"));
}

async function transactions() {
  const both = (...compare) =>
    client
      .if(...compare)
      .then(client.put("t").value("yes"), client.get("t"))
      .else(client.put("t").value("no"), client.delete().key("zz"))
      .commit();
  await note("when the value is so", both("a", "Value", "==", "2"));
  await note("when the value is not so", both("a", "Value", "!=", "2"));
  await note("when it changed often", both("a", "Version", ">", 1));
  await note("when it was created so", both("a", "Create", "==", 2));
  await note("when it was changed before", both("a", "Mod", "<", 2));
  await note("when it is not there", both("zz", "Version", "==", 0));
  const twice = [client.put("x").value("1"), client.put("x").value("2")];
  await note("write a key twice", client.if("a", "Version", ">", 0).then(...twice).commit());
  const swap = client.stm().transact(async (tx) => {
    const seen = await tx.get("a").string();
    await tx.put("a").value(`${seen}+`);
    return seen;
  });
  await note("read and write by retries", swap);
  await note("what that left", client.get("a").exec());
}

async function watches() {
  const watcher = await client.watch().prefix("w/").withPreviousKV().create();
  const told = [];
  const all = new Promise((done) =>
    watcher.on("data", (response) => {
      const tell = ({ type, kv, prev_kv }) => told.push([type, kv, prev_kv]);
      response.events.forEach(tell);
      if (told.length >= 3) done(told);
    }),
  );
  await client.put("w/1").value("1");
  await client.put("w/1").value("2");
  await client.delete().key("w/1");
  await note("what happened", within(all));
  await note("cancel", watcher.cancel());
  const past = await client.watch().key("a").startRevision("2").create();
  await note("watch from a revision on", within(heard(past, "put")));
  await past.cancel();
}

async function leases() {
  const lease = client.lease(100, { autoKeepAlive: false });
  await note("put under a lease", lease.put("l/1").value("held").exec().then((put) => put.header.revision));
  await note("keep it", lease.keepaliveOnce().then((kept) => kept.TTL));
  await note("held", client.get("l/1").string());
  await note("revoke", lease.revoke());
  await note("revoke it again", lease.revoke());
  await note("what hung on it", client.get("l/1").string());
  const [first, second] = [client.lock("lock"), client.lock("lock")];
  await note("lock", first.acquire().then(() => "held"));
  await note("lock what is locked", second.acquire().then(() => "held"));
  await note("unlock", first.release());
  await note("lock what is free", second.acquire().then(() => "held"));
  await note("unlock it", second.release());
  await elections();
}

async function elections() {
  const election = client.election("chair");
  await note("nobody leads", election.leader());
  const observer = await election.observe();
  const changed = heard(observer, "change");
  const campaign = election.campaign("one");
  await note("campaign", within(campaign.wait().then(() => "elected")));
  await note("observe", within(changed));
  await note("who leads", election.leader());
  const again = heard(observer, "change");
  await note("proclaim", campaign.proclaim("more"));
  await note("observe what was proclaimed", within(again));
  await note("resign", campaign.resign());
  await observer.cancel();
}

async function accounts() {
  const [root, ann] = [client.user("root"), client.user("ann")];
  await note("add root", root.create("rootpw").then(() => "added"));
  await note("add root again", root.create("rootpw"));
  await note("add a user", ann.create("annpw").then(() => "added"));
  const role = client.role("app");
  await note("add a role", role.create().then(() => "added"));
  const range = client.range({ prefix: "app/" });
  await note("grant", role.grant({ permission: "Readwrite", range }).then(() => "granted"));
  await note("what it may", role.permissions().then((all) => all.length));
  await note("give it", ann.addRole("app").then(() => "given"));
  await note("give root its role", root.addRole("root").then(() => "given"));
  await note("enable", client.auth.authEnable().then(() => "enabled"));
  await note("a stranger reads", client.get("a").string());
  const as = (username, password) => new Etcd3({ hosts, auth: { username, password } });
  const [hers, all, wrong] = [as("ann", "annpw"), as("root", "rootpw"), as("ann", "wrong")];
  await note("a wrong password", wrong.get("a").string());
  await note("write what is granted", hers.put("app/1").value("x").then(() => "written"));
  await note("read what is granted", hers.getAll().prefix("app/").strings());
  await note("read what is not", hers.get("a").string());
  await note("list users without being root", hers.getUsers());
  await note("list users", all.getUsers().then((users) => users.map((user) => user.name)));
  await note("disable", all.auth.authDisable().then(() => "disabled"));
  [hers, all, wrong].forEach((one) => one.close());
  await note("a stranger reads again", client.get("a").exec().then((got) => got.count));
}

async function upkeep() {
  await note("status", client.maintenance.status().then((status) => status.leader !== "0"));
  const members = client.cluster.memberList({});
  await note("members", members.then((list) => list.members.every((one) => one.clientURLs.length === 1)));
  await note("compact", client.kv.compact({ revision: 5 }).then(() => "done"));
  await note("compact it again", client.kv.compact({ revision: 5 }));
  await note("read what is gone", client.get("a").revision(3).exec());
}

for (const part of [keys, transactions, watches, leases, accounts, upkeep]) await part();
client.close();
