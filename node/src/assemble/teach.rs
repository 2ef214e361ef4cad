//! Teaches the network where the catalog's nodes are reached.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use cluster::{catalog::view::CatalogView, ids::NodeId, ports::network::Network};
use tokio::sync::watch;

/// Names may point elsewhere later: they are looked up again this often.
const AGAIN: Duration = Duration::from_mins(1);

/// Looks addresses up, now and blocking; those that cannot be found are left out.
pub(super) fn resolve_now(addresses: &[String]) -> Vec<SocketAddr> {
    addresses.iter().filter_map(|address| address.to_socket_addrs().ok()).flatten().collect()
}

/// Follows the catalog and keeps the network's addresses up to date.
pub(super) async fn addresses(
    mut catalog: watch::Receiver<Arc<CatalogView>>,
    network: Arc<dyn Network>,
    own: NodeId,
) {
    loop {
        let view = Arc::clone(&catalog.borrow_and_update());
        for node in view.active_nodes().filter(|node| node.node != own) {
            let addresses = node.addresses.clone();
            let found = tokio::task::spawn_blocking(move || resolve_now(&addresses)).await;
            if let Ok(found) = found
                && !found.is_empty()
            {
                network.learn(node.node, found);
            }
        }
        if let Ok(Err(_)) = tokio::time::timeout(AGAIN, catalog.changed()).await {
            // Who publishes it has ended.
            return;
        }
    }
}
