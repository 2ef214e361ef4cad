//! Every node tells clients of the catalog, also one without a replica of it.

use std::time::Duration;

use cluster::{
    ids::StoreId,
    mvcc::version::Version,
    request::{Answer, Request},
};
use simulation::{faults::Fault, hooks::on_seeded_thread, stage::Stage, world::Setup};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_node_without_a_catalog_replica_tells_clients_of_the_catalog_all_the_same() {
    on_seeded_thread(1, || {
        // Of four nodes three vote in the catalog.
        let mut stage = Stage::product(&Setup { nodes: 4, ..Setup::calm(1) });
        stage.found(1).expect("a cluster");
        // A young node's first question may wait its seven seconds at a node as young.
        stage.pass(SECOND * 30).expect("a live world");
        for node in stage.world.nodes() {
            let request = Request::CatalogChanges { after: Version(0), wait_ms: 0 };
            let call = stage.door(99).call(Some(node), request.class(), request, SECOND * 5);
            let answer = stage.ask("catalog", SECOND * 10, call).expect("a live world");
            let told = matches!(&answer, Ok(Answer::CatalogChanges { changes, .. }) if !changes.is_empty());
            assert!(told, "node {node} answered {answer:?}");
        }
    });
}

#[test]
fn a_node_whose_copy_of_the_catalog_store_is_damaged_asks_another_and_has_it_replaced() {
    on_seeded_thread(2, || {
        let mut stage = Stage::product(&Setup::calm(2));
        stage.found(1).expect("a cluster");
        stage.pass(SECOND * 10).expect("a live world");
        let rot: Fault = "rot-store 2 0".parse().expect("a fault");
        assert!(rot.begin(&mut stage.world));
        let node = stage.world.node(2).expect("a machine");
        let disk = stage.world.storage(node).expect("its disk");
        // Whatever the draw met: the catalog's store is the one that counts.
        disk.engine.damage(StoreId(1));
        for _ in 0..2 {
            let request = Request::CatalogChanges { after: Version(0), wait_ms: 0 };
            let call = stage.door(99).call(Some(node), request.class(), request, SECOND * 5);
            let answer = stage.ask("catalog", SECOND * 10, call).expect("a live world");
            assert!(matches!(answer, Ok(Answer::CatalogChanges { .. })), "{answer:?}");
        }
        assert!(stage.world.trace().counted("replica lost") > 0, "nobody heard of the damage");
    });
}
