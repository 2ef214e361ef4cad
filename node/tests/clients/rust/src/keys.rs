//! Keys: puts, ranges, deletes, transactions, compaction.

use etcd_client::{
    Compare, CompareOp, DeleteOptions, GetOptions, PutOptions, SortOrder, SortTarget, Txn, TxnOp,
};

use crate::Play;

pub(crate) async fn play(play: &mut Play) {
    puts(play).await;
    ranges(play).await;
    deletes(play).await;
}

async fn puts(play: &mut Play) {
    let option = PutOptions::new;
    let steps = [
        ("put a new key", "a", "1", None),
        ("put it again, with what was there", "a", "2", Some(option().with_prev_key())),
        ("put b", "b", "9", None),
        ("put c", "c", "5", None),
        ("put an empty value", "e", "", None),
        ("put no key", "", "1", None),
        ("put leaving the value", "a", "", Some(option().with_ignore_value())),
        ("put leaving the lease", "a", "3", Some(option().with_ignore_lease())),
        ("put leaving what is not there", "no", "", Some(option().with_ignore_value())),
        ("put a value and leave it", "a", "1", Some(option().with_ignore_value())),
        ("put under an unknown lease", "a", "1", Some(option().with_lease(77))),
    ];
    for (step, key, value, options) in steps {
        let answer = play.client.put(key, value, options).await;
        play.note(step, answer);
    }
    let answer = play.client.put("large", "x".repeat(1_600_000), None).await;
    play.note("put 1.6 MB", answer);
    let answer = play.client.put([0xff, 0], "bytes", None).await;
    play.note("put a binary key", answer);
}

async fn ranges(play: &mut Play) {
    let option = GetOptions::new;
    let range = || GetOptions::new().with_range("f");
    let steps = [
        ("get one", "a", option()),
        ("get what is not there", "zz", option()),
        ("get no key", "", option()),
        ("get a range", "a", range()),
        ("get a prefix", "a", option().with_prefix()),
        ("get all", "", option().with_all_keys()),
        ("get from a key on", "c", option().with_from_key()),
        ("get a range that ends before it begins", "g", range()),
        ("get some", "a", range().with_limit(2)),
        ("get keys only", "a", range().with_keys_only()),
        ("count", "a", range().with_count_only()),
        ("get the past", "a", range().with_revision(3)),
        ("get the future", "a", option().with_revision(999)),
        ("get what this member has", "nothing", option().with_serializable()),
        ("created since", "a", range().with_min_create_revision(4)),
        ("created until", "a", range().with_max_create_revision(4)),
        ("changed since", "a", range().with_min_mod_revision(5)),
        ("changed until", "a", range().with_max_mod_revision(5)),
        ("by key", "a", range().with_sort(SortTarget::Key, SortOrder::Descend)),
        ("by version", "a", range().with_sort(SortTarget::Version, SortOrder::Descend)),
        ("by creation", "a", range().with_sort(SortTarget::Create, SortOrder::Ascend)),
        ("by change", "a", range().with_sort(SortTarget::Mod, SortOrder::Descend)),
        ("by value", "a", range().with_sort(SortTarget::Value, SortOrder::Ascend)),
    ];
    for (step, key, options) in steps {
        let answer = play.client.get(key, Some(options)).await;
        play.note(step, answer);
    }
}

async fn deletes(play: &mut Play) {
    let option = DeleteOptions::new;
    let steps = [
        ("delete nothing", "zz", option()),
        ("delete one, with what was there", "e", option().with_prev_key()),
        ("delete it again", "e", option()),
        ("delete no key", "", option()),
        ("delete a range", "b", option().with_range("d").with_prev_key()),
        ("delete a prefix", "l", option().with_prefix()),
        ("delete from a key on", "z", option().with_from_key()),
    ];
    for (step, key, options) in steps {
        let answer = play.client.delete(key, Some(options)).await;
        play.note(step, answer);
    }
}

pub(crate) async fn transactions(play: &mut Play) {
    use CompareOp::{Equal, Greater, Less, NotEqual};
    let both = |compare: Compare| {
        let (then, otherwise) = (TxnOp::get("a", None), TxnOp::delete("nothing", None));
        Txn::new().when([compare]).and_then([then]).or_else([otherwise])
    };
    let steps = [
        ("nothing at all", Txn::new()),
        ("when the value is so", both(Compare::value("a", Equal, "3"))),
        ("when the value is not so", both(Compare::value("a", NotEqual, "3"))),
        ("when it changed often", both(Compare::version("a", Greater, 3))),
        ("when it was created so", both(Compare::create_revision("a", Equal, 2))),
        ("when it was changed before", both(Compare::mod_revision("a", Less, 3))),
        ("when it hangs on no lease", both(Compare::lease("a", Equal, 0))),
        ("when it is not there", both(Compare::version("no", Equal, 0))),
        (
            "when all of a range are so",
            both(Compare::mod_revision("a", Greater, 1).with_range("z")),
        ),
        ("when all of a prefix are so", both(Compare::version("a", Less, 2).with_prefix())),
    ];
    for (step, txn) in steps.into_iter().chain(branches()) {
        let answer = play.client.txn(txn).await;
        play.note(step, answer);
    }
}

fn branches() -> Vec<(&'static str, Txn)> {
    let then = |operations: Vec<TxnOp>| Txn::new().and_then(operations);
    let (put, get) = (|key: &str, value: &str| TxnOp::put(key, value, None), TxnOp::get);
    let past = GetOptions::new().with_range("f").with_revision(3);
    let innermost = then(vec![put("v", "innermost"), get("u", None)]);
    let inner = Txn::new()
        .when([Compare::version("t", CompareOp::Equal, 1)])
        .and_then([get("t", None), put("u", "inner"), TxnOp::txn(innermost)])
        .or_else([put("u", "else")]);
    let many = |count: usize| (0..count).map(|n| put(&format!("k{n}"), "")).collect();
    vec![
        ("read, write, read", then(vec![get("t", None), put("t", "1"), get("t", None)])),
        ("one inside another", then(vec![put("s", "2"), TxnOp::txn(inner)])),
        ("read the past", then(vec![get("a", Some(past)), put("w", "1")])),
        ("write a key twice", then(vec![put("x", "1"), put("x", "2")])),
        ("delete and write", then(vec![TxnOp::delete("w", None), put("y", "1")])),
        ("write what is deleted", then(vec![TxnOp::delete("x", None), put("x", "2")])),
        ("an empty key inside", then(vec![put("", "1")])),
        ("128 operations", then(many(128))),
        ("129 operations", then(many(129))),
    ]
}

pub(crate) async fn compaction(play: &mut Play) {
    for (step, revision) in [
        ("compact the future", 9_999),
        ("compact", 10),
        ("compact it again", 10),
        ("compact what is gone", 9),
    ] {
        let answer = play.client.compact(revision, None).await;
        play.note(step, answer);
    }
    for (step, revision) in [("read the compacted revision", 10), ("read below it", 9)] {
        let options = GetOptions::new().with_revision(revision);
        let answer = play.client.get("a", Some(options)).await;
        play.note(step, answer);
    }
}
