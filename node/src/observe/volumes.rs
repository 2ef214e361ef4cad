//! Metrics of volumes, written when somebody asks for the page.
//!
//! Volumes come and go, and what was once registered as a metric stays for as long
//! as its process lives. So these are no metrics of the recorder's but lines made
//! of what the replicas here show, of `VOLUMES_MAX` volumes at most.
//!
//! Keys and bytes are those of the shards that this node leads: the sum over all
//! nodes is the volume's. Revisions are those of volumes of kind *single* only,
//! where they count something.

use std::fmt::Write;

use cluster::mvcc::tally::Tally;

use super::metrics::{
    VOLUME_BYTES, VOLUME_COMPACTED, VOLUME_KEYS, VOLUME_RESTORING, VOLUME_REVISION, VOLUMES_UNSHOWN,
};

/// Volumes shown, those of the lowest ids: five lines of a hundred bytes each, a
/// hundred kilobytes in all.
const VOLUMES_MAX: usize = 200;

/// One volume as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeFigures {
    /// Its name.
    pub name: String,
    /// Of the shards that this node leads.
    pub tally: Tally,
    /// The newest and the compacted version; of kind *single* only.
    pub versions: Option<(u64, u64)>,
    /// Whether it is being restored.
    pub restoring: bool,
}

/// The lines of volumes, those of the lowest ids first.
pub fn page(volumes: &[VolumeFigures]) -> String {
    let shown = volumes.get(..VOLUMES_MAX).unwrap_or(volumes);
    let mut out = String::new();
    let mut family = |name: &str, help: &str, value: &dyn Fn(&VolumeFigures) -> Option<u64>| {
        // Writing into memory does not fail.
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge");
        for volume in shown {
            if let Some(value) = value(volume) {
                let label = volume.name.replace('\\', "\\\\").replace('"', "\\\"");
                let _ = writeln!(out, "{name}{{volume=\"{label}\"}} {value}");
            }
        }
    };
    family(VOLUME_KEYS, "Keys in the shards that this node leads.", &|v| Some(v.tally.keys));
    family(VOLUME_BYTES, "Bytes of those keys and their values.", &|v| Some(v.tally.bytes));
    family(VOLUME_REVISION, "The newest version.", &|v| v.versions.map(|(newest, _)| newest));
    family(VOLUME_COMPACTED, "The oldest version that can be read.", &|v| {
        v.versions.map(|(_, compacted)| compacted)
    });
    family(VOLUME_RESTORING, "1 while a restore has not ended.", &|v| Some(v.restoring.into()));
    let unshown = volumes.len() - shown.len();
    let help = "Volumes of this node that are not on this page.";
    let name = VOLUMES_UNSHOWN;
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {unshown}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(name: &str, versions: Option<(u64, u64)>) -> VolumeFigures {
        let tally = Tally { keys: 3, bytes: 40 };
        VolumeFigures { name: name.into(), tally, versions, restoring: false }
    }

    #[test]
    fn volumes_have_a_line_each_in_every_family_that_fits_them() {
        let page = page(&[volume("etcd", Some((9, 4))), volume("da\"ta", None)]);
        for line in [
            "cdb_volume_keys{volume=\"etcd\"} 3\n",
            "cdb_volume_used_bytes{volume=\"da\\\"ta\"} 40\n",
            "cdb_volume_revision{volume=\"etcd\"} 9\n",
            "cdb_volume_compacted_revision{volume=\"etcd\"} 4\n",
            "cdb_volume_restoring{volume=\"etcd\"} 0\n",
            "cdb_volume_unshown 0\n",
        ] {
            assert!(page.contains(line), "{line} in {page}");
        }
        assert!(!page.contains("cdb_volume_revision{volume=\"da"), "{page}");
    }

    #[test]
    fn a_node_of_many_volumes_shows_a_part_and_says_so() {
        let many: Vec<_> = (0..300).map(|n| volume(&format!("v{n}"), None)).collect();
        let page = page(&many);
        assert!(page.contains("\"v199\"") && !page.contains("\"v200\""));
        assert!(page.contains("cdb_volume_unshown 100\n"), "{page}");
    }
}
