//! A node's certificate through the years. It lives for one, and the node signs its next
//! itself: it holds what opens the cluster's authority. One that was off for longer does
//! so before it starts.

use std::{convert::Infallible, future::pending, sync::Arc, time::Duration};

use cluster::{
    catalog::{record::ClusterRecord, view::CatalogView},
    ports::{clock::Clock, entropy::Entropy},
};
use tokio::{sync::watch, task::spawn_blocking, time::sleep};
use transport::identity::{Authority, ClusterKey, Credentials};

use crate::data_dir::{DataDir, NodeSecrets};

/// How often a running node looks. Months are left when it is time, so a look that fails
/// is made up for by the next.
pub(super) const LOOK_EVERY: Duration = Duration::from_hours(1);

/// Holds a node's certificate, and the directory it lies in.
pub(super) struct Renewal {
    dir: Arc<DataDir>,
    key: ClusterKey,
    credentials: Credentials,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl Renewal {
    pub(super) fn new(
        dir: Arc<DataDir>,
        secrets: &NodeSecrets,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> anyhow::Result<Self> {
        let credentials = Credentials::from_pem(&secrets.certificates_pem, &secrets.key_pem)?;
        Ok(Self { dir, key: ClusterKey(secrets.cluster_key), credentials, clock, entropy })
    }

    /// The certificate as it is now.
    pub(super) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Renews the certificate if it is time and its cluster is known here; whether it did.
    pub(super) fn look(&mut self, cluster: Option<&ClusterRecord>) -> bool {
        let due = self.credentials.is_due(self.clock.wall());
        let Some(cluster) = cluster.filter(|_| due) else { return false };
        match self.renewed(cluster) {
            Ok(credentials) => {
                tracing::info!(ends_ms = credentials.ends().0, "the node's certificate is renewed");
                self.credentials = credentials;
                true
            }
            Err(error) => {
                let ends_ms = self.credentials.ends().0;
                tracing::error!(%error, ends_ms, "the node's certificate could not be renewed");
                false
            }
        }
    }

    fn renewed(&self, cluster: &ClusterRecord) -> anyhow::Result<Credentials> {
        let authority =
            Authority::open(&cluster.authority, &cluster.authority_key_sealed, &self.key)?;
        let now = self.clock.wall();
        let credentials = authority.renew(&self.credentials, self.entropy.as_ref(), now)?;
        self.dir.renew(&credentials.certificates_pem())?;
        Ok(credentials)
    }

    /// Looks for as long as the node runs, and hands on what is new.
    pub(super) async fn run(
        mut self,
        every: Duration,
        catalog: watch::Receiver<Arc<CatalogView>>,
        hand_on: impl Fn(&Credentials),
    ) -> Infallible {
        loop {
            sleep(every).await;
            let view = catalog.borrow().clone();
            // A thread of its own: a disk may take its time.
            let look = move || (self.look(view.cluster()), self);
            let renewed;
            match spawn_blocking(look).await {
                Ok(looked) => (renewed, self) = looked,
                Err(error) => {
                    tracing::error!(%error, "the node's certificate is not renewed any more");
                    return pending().await;
                }
            }
            if renewed {
                hand_on(&self.credentials);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use cluster::{
        catalog::encoding::{CLUSTER_KEY, encode_record},
        mvcc::version::Version,
        units::{Instant, WallTime},
    };
    use tokio::time::timeout;

    use super::*;
    use crate::{
        cli::init::{create_cluster, waiting_cluster},
        config::NodeConfig,
        devices::{clock::SystemClock, entropy::SystemEntropy},
    };

    const DAYS: u64 = 24 * 60 * 60 * 1_000;

    /// The system's clock, some days later.
    #[derive(Debug)]
    struct Later(Mutex<u64>);

    impl Clock for Later {
        fn now(&self) -> Instant {
            SystemClock::new().now()
        }

        fn wall(&self) -> WallTime {
            WallTime(SystemClock::new().wall().0 + *self.0.lock().unwrap() * DAYS)
        }
    }

    fn written(dir: &DataDir) -> Credentials {
        let secrets = dir.secrets().unwrap();
        Credentials::from_pem(&secrets.certificates_pem, &secrets.key_pem).unwrap()
    }

    #[tokio::test]
    async fn a_node_that_runs_for_years_always_has_a_certificate_that_is_good() {
        let folder = tempfile::tempdir().unwrap();
        let config = NodeConfig::below(folder.path());
        create_cluster(&config, "main", None).unwrap();
        let dir = Arc::new(DataDir::open(&config.data_dir).unwrap());
        let cluster = waiting_cluster(&dir).unwrap();
        let clock = Arc::new(Later(Mutex::new(0)));
        let entropy = Arc::new(SystemEntropy::new());
        let secrets = dir.secrets().unwrap();
        let mut renewal = Renewal::new(dir.clone(), &secrets, clock.clone(), entropy).unwrap();
        assert!(!renewal.look(cluster.as_ref()), "it is new");
        *clock.0.lock().unwrap() = 300;
        assert!(!renewal.look(None), "nobody knows the authority yet");
        assert!(renewal.look(cluster.as_ref()) && !renewal.look(cluster.as_ref()));
        assert_eq!(renewal.credentials(), &written(&dir));

        let record = encode_record(&cluster.unwrap());
        let records = [(CLUSTER_KEY, Some(record.as_slice()))];
        let view = CatalogView::default().updated(Version(1), records).unwrap();
        let (_told, catalog) = watch::channel(Arc::new(view));
        let handed = Arc::new(Mutex::new(vec![renewal.credentials().clone()]));
        let hands = handed.clone();
        let often = Duration::from_millis(1);
        let runs = tokio::spawn(renewal.run(often, catalog, move |fresh: &Credentials| {
            hands.lock().unwrap().push(fresh.clone());
        }));
        let newest = || handed.lock().unwrap().last().cloned().unwrap();
        for day in (350..1_500).step_by(50) {
            *clock.0.lock().unwrap() = day;
            let fresh = async {
                while newest().is_due(clock.wall()) {
                    sleep(often).await;
                }
            };
            timeout(Duration::from_secs(20), fresh).await.expect("a certificate");
            assert_eq!(newest(), written(&dir));
        }
        runs.abort();
        assert_eq!(handed.lock().unwrap().len(), 5, "each 244 days, in steps of 50");
    }
}
