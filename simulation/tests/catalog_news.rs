//! Every node tells clients of the catalog, also one without a replica of it.

use std::time::Duration;

use cluster::{
    mvcc::version::Version,
    request::{Answer, Request},
};
use simulation::{hooks::on_seeded_thread, stage::Stage, world::Setup};

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
