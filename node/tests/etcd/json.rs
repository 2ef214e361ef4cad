//! The same requests in JSON over HTTP/1.1, answer by answer.

use std::net::SocketAddr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    play::Answers,
    web::{ask, post},
};

/// What names members, clusters and terms, or is a member's own.
const NAMES: [&str; 3] = ["cluster_id", "member_id", "raft_term"];

/// One client, and what it was told.
struct Json {
    address: SocketAddr,
    answers: Answers,
}

fn b64(text: &str) -> String {
    STANDARD.encode(text)
}

/// All steps.
pub(crate) fn play(address: SocketAddr) -> Answers {
    let mut json = Json { address, answers: Answers::new() };
    json.keys();
    json.transactions();
    json.streams();
    json.leases();
    json.odd();
    json.members();
    json.accounts();
    json.probes();
    json.answers
}

/// An answer without names, its keys in order.
fn anonymous(text: &str) -> Value {
    fn hide(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields.iter_mut() {
                    if NAMES.contains(&&name[..]) {
                        *value = Value::from("0");
                    }
                    hide(value);
                }
            }
            Value::Array(values) => values.iter_mut().for_each(hide),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut value = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    hide(&mut value);
    value
}

impl Json {
    fn say(&mut self, step: &str, answer: String) {
        self.answers.push((step.to_owned(), answer));
    }

    fn with(&self, path: &str, headers: &str, body: &str) -> (u16, Value) {
        let (status, text) = post(self.address, path, headers, body);
        (status, anonymous(&text))
    }

    fn text(&mut self, step: &str, path: &str, body: &str) {
        let (status, answer) = self.with(path, "", body);
        self.say(step, format!("{status} {answer}"));
    }

    fn step(&mut self, step: &str, path: &str, body: &Value) {
        self.text(step, path, &body.to_string());
    }

    fn keys(&mut self) {
        let (a, b, z) = (b64("a"), b64("b"), b64("z"));
        let put = json!({ "key": a, "value": b64("1") });
        self.step("put", "/v3/kv/put", &put);
        let put = json!({ "key": a, "value": b64("2"), "prevKv": true, "lease": 0 });
        self.step("put again, a name in camel case", "/v3/kv/put", &put);
        self.step("put b", "/v3/kv/put", &json!({ "key": b, "value": b64("3"), "prev_kv": null }));
        for (step, more) in [
            ("get one", json!({})),
            ("get a range", json!({ "range_end": z })),
            ("get a range, a limit in text", json!({ "range_end": z, "limit": "1" })),
            ("get a range, a limit as number", json!({ "rangeEnd": z, "limit": 1 })),
            ("count", json!({ "range_end": z, "count_only": true })),
            ("keys only", json!({ "range_end": z, "keys_only": true })),
            ("an order by name", json!({ "range_end": z, "sort_order": "DESCEND" })),
            ("an order by number", json!({ "range_end": z, "sort_order": 2, "sortTarget": 4 })),
            ("the past", json!({ "revision": "2" })),
            ("the future", json!({ "revision": 99 })),
            ("what nobody knows", json!({ "unknown": [1, { "a": "}" }] })),
        ] {
            let mut get = json!({ "key": a });
            get.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            self.step(step, "/v3/kv/range", &get);
        }
        self.step("put no key", "/v3/kv/put", &json!({}));
        let large = json!({ "key": a, "value": b64(&"x".repeat(1_600_000)) });
        self.step("put 1.6 MB", "/v3/kv/put", &large);
        let delete = json!({ "key": b, "prev_kv": true });
        self.step("delete", "/v3/kv/deleterange", &delete);
        self.step("delete it again", "/v3/kv/deleterange", &delete);
    }

    fn transactions(&mut self) {
        let (a, c) = (b64("a"), b64("c"));
        let get = json!({ "request_range": { "key": a } });
        let put = json!({ "requestPut": { "key": c, "value": b64("4") } });
        let delete = json!({ "request_delete_range": { "key": c } });
        let when = |value: &str| {
            json!({
                "compare": [{ "key": a, "result": "EQUAL", "target": "VALUE", "value": b64(value) }],
                "success": [get, put],
                "failure": [delete],
            })
        };
        self.step("a transaction that succeeds", "/v3/kv/txn", &when("2"));
        self.step("a transaction that does not", "/v3/kv/txn", &when("9"));
        let inner = json!({ "success": [{ "request_txn": when("2") }] });
        self.step("one inside another", "/v3/kv/txn", &inner);
        let twice = json!({ "success": [put, put] });
        self.step("write a key twice", "/v3/kv/txn", &twice);
        let many = json!({ "success": vec![get; 129] });
        self.step("129 operations", "/v3/kv/txn", &many);
        self.text("no transaction at all", "/v3/kv/txn", "");
    }

    /// Lines of a stream until so many events came.
    fn events(&mut self, step: &str, body: &Value, count: usize) {
        let mut answer = ask(self.address, "POST", "/v3/watch", "", &body.to_string());
        let created = anonymous(&answer.line().unwrap());
        self.say(step, format!("{} {created}", answer.status));
        let mut events = Vec::new();
        while events.len() < count {
            let line = anonymous(&answer.line().unwrap());
            events.extend(line["result"]["events"].as_array().unwrap().clone());
        }
        self.say("what happened", Value::from(events).to_string());
    }

    fn streams(&mut self) {
        let all =
            json!({ "key": "AA==", "range_end": "AA==", "start_revision": "2", "prev_kv": true });
        self.events("watch", &json!({ "create_request": all }), 7);
        let deletes =
            json!({ "key": "AA==", "rangeEnd": "AA==", "startRevision": 1, "filters": ["NOPUT"] });
        self.events("watch deletes", &json!({ "createRequest": deletes }), 2);
    }

    fn leases(&mut self) {
        let id = json!({ "ID": "7" });
        self.step("grant a lease", "/v3/lease/grant", &json!({ "ID": "7", "TTL": 100 }));
        self.step("grant it again", "/v3/lease/grant", &json!({ "ID": 7, "TTL": "100" }));
        let put = json!({ "key": b64("l"), "value": "", "lease": "7" });
        self.step("put under a lease", "/v3/kv/put", &put);
        self.step("list leases", "/v3/lease/leases", &json!({}));
        for path in ["/v3/lease/timetolive", "/v3/kv/lease/timetolive"] {
            let (status, mut answer) = self.with(path, "", r#"{"ID":7,"keys":true}"#);
            // A second may have passed.
            assert!(answer["TTL"].as_str().unwrap() > "9" || answer["TTL"] == "100");
            answer["TTL"] = Value::from("100");
            self.say("show a lease", format!("{status} {answer}"));
        }
        let mut kept =
            ask(self.address, "POST", "/v3/lease/keepalive", "", r#"{"ID":"7"} {"ID":77}"#);
        for step in ["keep a lease alive", "keep an unknown one alive"] {
            let line = anonymous(&kept.line().unwrap());
            self.say(step, format!("{} {line}", kept.status));
        }
        assert_eq!(kept.line(), None, "the end of the stream");
        self.step("revoke it", "/v3/lease/revoke", &id);
        self.step("revoke it again", "/v3/kv/lease/revoke", &id);
    }

    fn odd(&mut self) {
        for (step, body) in [
            ("half an object", "{\"key\":"),
            ("a list", "[]"),
            ("a key that is no base64", "{\"key\":\"!!\"}"),
            ("a number that is none", "{\"key\":\"YQ==\",\"limit\":\"x\"}"),
            ("an order that is none", "{\"key\":\"YQ==\",\"sort_order\":\"SIDEWAYS\"}"),
        ] {
            // Each server has words of its own for what it cannot read.
            let (status, answer) = self.with("/v3/kv/range", "", body);
            let told = ["error", "message"].map(|name| answer[name].is_string());
            self.say(step, format!("{status} {told:?} {}", answer["code"]));
        }
        let status = ask(self.address, "GET", "/v3/kv/range", "", "").status;
        self.say("get instead of post", status.to_string());
        let status = ask(self.address, "POST", "/v3/nowhere", "", "{}").status;
        self.say("a path that is none", status.to_string());
        for (step, at) in
            [("compact", "3"), ("compact it again", "3"), ("compact the future", "99")]
        {
            self.step(step, "/v3/kv/compaction", &json!({ "revision": at }));
        }
        self.step("what is gone", "/v3/kv/range", &json!({ "key": b64("a"), "revision": 2 }));
    }

    fn members(&mut self) {
        let (status, answer) = self.with("/v3/cluster/member/list", "", "{}");
        let members = answer["members"].as_array().unwrap();
        let named =
            |member: &Value| member["ID"].is_string() && member["clientURLs"][0].is_string();
        self.say("members", format!("{status} {}", members.iter().all(named)));
        let (status, answer) = self.with("/v3/maintenance/status", "", "{}");
        let shown = ["version", "dbSize", "leader", "raftIndex", "raftTerm", "raftAppliedIndex"]
            .map(|name| answer[name].is_string());
        self.say("status", format!("{status} {shown:?} {}", answer["header"]));
        self.step("defragment", "/v3/maintenance/defragment", &json!({}));
        self.step("promote nobody", "/v3/cluster/member/promote", &json!({ "ID": "7" }));
        let name = json!({ "name": b64("vote") });
        self.step("the leader of nobody", "/v3/election/leader", &name);
    }

    fn accounts(&mut self) {
        let (root, ann) = (json!({ "name": "root" }), json!({ "name": "ann" }));
        self.step("switch accounts on without root", "/v3/auth/enable", &json!({}));
        let user = |name: &str| json!({ "name": name, "password": format!("of {name}") });
        self.step("a user", "/v3/auth/user/add", &user("root"));
        self.step("a user again", "/v3/auth/user/add", &user("root"));
        self.step("another user", "/v3/auth/user/add", &user("ann"));
        self.step("a role", "/v3/auth/role/add", &root);
        self.step("another role", "/v3/auth/role/add", &ann);
        let perm = json!({ "permType": "READWRITE", "key": b64("a"), "range_end": b64("b") });
        let grant = json!({ "name": "ann", "perm": perm });
        self.step("what it may", "/v3/auth/role/grant", &grant);
        for name in ["root", "ann"] {
            let grant = json!({ "user": name, "role": name });
            self.step("who has it", "/v3/auth/user/grant", &grant);
        }
        self.step("show a role", "/v3/auth/role/get", &json!({ "role": "ann" }));
        self.step("list users", "/v3/auth/user/list", &json!({}));
        self.step("authenticate too early", "/v3/auth/authenticate", &user("ann"));
        self.step("switch accounts on", "/v3/auth/enable", &json!({}));
        let wrong = json!({ "name": "ann", "password": "x" });
        self.step("a wrong password", "/v3/auth/authenticate", &wrong);
        let (status, answer) = self.with("/v3/auth/authenticate", "", &user("ann").to_string());
        let token = answer["token"].as_str().unwrap().to_owned();
        self.say("a password", format!("{status} {}", answer["header"]));
        let get = |key: &str| json!({ "key": b64(key) }).to_string();
        self.text("read as nobody", "/v3/kv/range", &get("a"));
        let shown = format!("Authorization: {token}\r\n");
        for (step, key, header) in [
            ("read what is allowed", "a", &shown[..]),
            ("read what is not", "c", &shown),
            ("read with a token that is none", "a", "Authorization: nonsense\r\n"),
        ] {
            let (status, answer) = self.with("/v3/kv/range", header, &get(key));
            self.say(step, format!("{status} {answer}"));
        }
    }

    /// What is no JSON of the gateway, and asked by whoever watches over a member: no name
    /// is wanted though accounts are on.
    fn probes(&mut self) {
        for (step, verb, path) in [
            ("is it healthy", "GET", "/health"),
            ("is it healthy, posted", "POST", "/health"),
            ("its version", "GET", "/version"),
            ("does it live", "GET", "/livez"),
            ("is it ready", "GET", "/readyz"),
        ] {
            let (status, answer) = ask(self.address, verb, path, "", "").whole();
            let answer = if status < 400 { answer } else { String::new() };
            self.say(step, format!("{status} {answer}").trim_end().to_owned());
        }
    }
}
