// Goes on while members die, with the library `etcd3`.
//
//     node survive.mjs HOST:PORT,HOST:PORT,…
//
// Writes one key after another, each until it is acknowledged (`put N`), watches them
// (`saw N`), and keeps a lease of a few seconds alive. Ends when nobody types any more,
// and then says how many keys there are (`keys N`) and whether the lease lives.

import { createRequire } from "node:module";

// Found where NODE_PATH says.
const { Etcd3 } = createRequire(import.meta.url)("etcd3");

const PAUSE = 20;
const ANSWER = 3_000;
const LEASE_SECONDS = 10;
const client = new Etcd3({ hosts: process.argv[2].split(","), dialTimeout: ANSWER });
client.setMaxListeners?.(0);

const sleep = (time) => new Promise((done) => setTimeout(done, time));
const within = (promise) =>
  Promise.race([
    promise,
    sleep(ANSWER).then(() => {
      throw new Error("nothing came");
    }),
  ]);

// What the library gives up by itself is tried again; it says so once, not at each try.
async function until(what, ask) {
  let said;
  for (;;) {
    try {
      return await within(ask());
    } catch (error) {
      if (said !== error.message) console.error(`${what}: ${error.message}`);
      said = error.message;
      await sleep(PAUSE);
    }
  }
}

let over = false;
process.stdin.on("end", () => (over = true)).resume();

const lease = client.lease(LEASE_SECONDS);
lease.on("lost", (error) => console.error(`lease: ${error.message}`));
const id = await lease.grant();
const watcher = await client.watch().prefix("s/").create();
watcher.on("put", (key) => console.log(`saw ${key.value}`));
watcher.on("error", (error) => console.error(`watch: ${error.message}`));
for (let number = 0; !over; number += 1) {
  const name = `s/${String(number).padStart(6, "0")}`;
  await until(`put ${number}`, () => client.put(name).value(number).exec());
  console.log(`put ${number}`);
  await sleep(PAUSE);
}
console.log(`keys ${await until("count", () => client.getAll().prefix("s/").count())}`);
const shown = await until("lease", () => client.leaseClient.leaseTimeToLive({ ID: id }));
console.log(`lease ${Number(shown.TTL) > 0}`);
// The watch may be a moment behind.
await sleep(ANSWER);
process.exit(0);
