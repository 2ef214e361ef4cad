//! What a configuration takes, and how it refuses.

use super::*;

fn refused(text: &str) -> String {
    NodeConfig::parse(text).expect_err("a refusal")
}

#[test]
fn one_line_is_a_configuration_and_the_rest_is_default() {
    let config = NodeConfig::parse("data_dir: /var/lib/cdb\n").unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:7400");
    assert_eq!(config.advertise.to_string(), "127.0.0.1:7400");
    assert_eq!(config.http.unwrap().to_string(), "127.0.0.1:7480");
    assert_eq!(config.zone.as_str(), "default");
    assert_eq!(config.engine, EngineKind::Disk);
    assert_eq!(config.capacity, None);
    assert_eq!(config.log.filter, "info");
    assert_eq!(config.limits.memory, ByteSize(2_147_483_648));
}

#[test]
fn every_field_is_taken() {
    let config = NodeConfig::parse(
        "data_dir: d\nlisten: 0.0.0.0:7401\nadvertise: n1.example.org:7401\nhttp: off\nzone: eu/a\n\
         capacity: 500GiB\nengine: memory\nlog:\n  level: info,transport=debug\n  format: json\n  \
         file: n1.log\nlimits:\n  memory: 512MiB\n  engine_threads: 2\n  read_threads: 8\n  \
         open_files: 4096\n  log_segment: 32MiB\n",
    )
    .unwrap();
    assert_eq!(config.advertise.host(), "n1.example.org");
    assert_eq!(config.http, None);
    assert_eq!(config.capacity, Some(ByteSize::gib(500)));
    assert_eq!(config.engine, EngineKind::Memory);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.limits.open_files, 4096);
    assert_eq!(config.limits.log_segment, ByteSize::mib(32));
    assert_eq!((config.limits.engine_threads, config.limits.read_threads), (2, 8));
}

#[test]
fn the_etcd_door_is_closed_unless_it_is_named() {
    assert_eq!(NodeConfig::parse("data_dir: d\n").unwrap().doors.etcd, None);
    let open = |door: &str| {
        NodeConfig::parse(&format!("data_dir: d\ndoors:\n  etcd:\n{door}"))
            .map(|config| config.doors.etcd.unwrap())
    };
    let etcd = open("    listen: 127.0.0.1:2379\n").unwrap();
    assert_eq!((etcd.volume.as_str(), etcd.replicas, etcd.operations), ("etcd", 3, 128));
    assert_eq!((etcd.request.bytes(), etcd.tls, etcd.auto_compaction), (1_572_864, None, None));
    let kept = open("    auto_compaction:\n      revisions: 1000\n").unwrap().auto_compaction;
    assert_eq!(kept, Some(AutoCompaction::Revisions(1_000)));
    assert!(etcd.cors.is_empty(), "no page in a browser");
    assert!(etcd.metrics, "as etcd's");
    let named = open("    metrics: false\n    cors: [\"https://a.example.org:8443\"]\n").unwrap();
    assert_eq!((named.cors, named.metrics), (vec!["https://a.example.org:8443".to_owned()], false));
    assert_eq!(open("    cors: [\"*\"]\n").unwrap().cors, ["*"]);
    let etcd = open(
        "    listen: 0.0.0.0:2379\n    advertise: n1:2379\n    volume: kube\n    replicas: 5\n    \
         request: 4MiB\n    operations: 1024\n    watches: 5\n    progress_seconds: 5\n    tls:\n      \
         certificate: a.pem\n      key: a.key\n      client_authority: ca.pem\n",
    )
    .unwrap();
    assert_eq!((etcd.advertise.host(), etcd.progress.as_secs()), ("n1", 5));
    assert!(!etcd.tls.unwrap().client_optional, "who names an authority wants certificates");
    for (door, expected) in [
        ("    listen: 0.0.0.0:2379\n", "advertise: HOST:2379"),
        ("    listen: 10.0.0.1:2379\n", "plain_text: true"),
        ("    volume: Etcd\n", "a to z"),
        ("    request: 5MiB\n", "at most 4.0 MiB"),
        ("    operations: 1025\n", "1 to 1024"),
        ("    cors:\n      - https://a.org/\n", "line 5: `https://a.org/` in `cors` is no origin"),
        ("    cors: [\"https://*.a.org\"]\n", "no origin"),
        ("    cors: [a.org]\n", "no origin"),
        ("    memory: 8MiB\n", "at least 16.0 MiB"),
        ("    auto_compaction:\n      seconds: 5\n      revisions: 5\n", "either"),
        ("    rates:\n      - prefix: a\n        requests: 0\n", "1 to 1000000"),
        (
            "    rates:\n      - {prefix: a, requests: 1}\n      - {prefix: a, requests: 2}\n",
            "line 6: the prefix `a` is in `rates` already",
        ),
        ("    auto_compaction:\n      seconds: 0\n", "either"),
        ("    quotas:\n      - prefix: a\n", "`size`, `keys` or both"),
        (
            "    quotas:\n      - {prefix: a, keys: 1}\n      - {prefix: a, size: 1MiB}\n",
            "line 6: the prefix `a` is in `quotas` already",
        ),
    ] {
        let report = open(door).unwrap_err();
        assert!(report.contains(expected), "{door}\n{report}");
    }
    let audit = "data_dir: d\ndoors:\n  audit:\n    file: a.log\n";
    assert_eq!(NodeConfig::parse(audit).unwrap().doors.etcd, None, "other doors tell, too");
    let report = refused(&[audit, "    size: 1KiB\n"].concat());
    assert!(report.contains("line 5: `size` is at least 64.0 KiB"), "{report}");
    for (name, limit) in [("rates", "requests: 1"), ("quotas", "keys: 1")] {
        let many = |count: u32| {
            let lines = (0..count).map(|n| format!("      - {{prefix: p{n}, {limit}}}\n"));
            open(&format!("    {name}:\n{}", lines.collect::<String>()))
        };
        many(64).unwrap();
        let report = many(65).unwrap_err();
        assert!(report.contains(&format!("line 69: there are at most 64 `{name}`")), "{report}");
    }
}

#[test]
fn an_unknown_key_is_an_error_with_line_and_names() {
    let report = refused("data_dir: d\nlisten: 127.0.0.1:1\nzome: a\n");
    assert!(report.contains("line 3"), "{report}");
    assert!(report.contains("unknown field `zome`") && report.contains("zone"), "{report}");
}

#[test]
fn a_missing_data_directory_is_named() {
    let report = refused("zone: a\n");
    assert!(report.contains("missing field `data_dir`"), "{report}");
}

#[test]
fn each_wrong_value_names_its_line_and_what_to_write() {
    let cases = [
        ("data_dir: d\nlisten: localhost\n", "IP:PORT, for example 0.0.0.0:7400"),
        ("data_dir: d\nlisten: 127.0.0.1:0\n", "port 0"),
        ("data_dir: d\nadvertise: host\n", "HOST:PORT, for example node1.example.org:7400"),
        ("data_dir: d\nadvertise: 0.0.0.0:7400\n", "every address"),
        ("data_dir: d\nhttp: 80\n", "or off"),
        ("data_dir: d\nzone: \"a b\"\n", "not a zone"),
        ("data_dir: d\ncapacity: much\n", "512MiB"),
        ("data_dir: d\ncapacity: 5MiB\n", "at least 1.0 GiB"),
        ("data_dir: d\nengine: tape\n", "unknown variant `tape`"),
        ("data_dir: d\nlisten: 0.0.0.0:7400\n", "advertise: HOST:7400"),
    ];
    for (text, expected) in cases {
        let report = refused(text);
        assert!(report.contains("line 2"), "{text}\n{report}");
        assert!(report.contains(expected), "{text}\n{report}");
    }
    let nested = refused("data_dir: d\nlimits:\n  engine_threads: 65\n");
    assert!(nested.contains("line 3") && nested.contains("1 to 64"), "{nested}");
    let memory = refused("data_dir: d\nlimits:\n  memory: 1MiB\n");
    assert!(memory.contains("line 3") && memory.contains("at least 512.0 MiB"), "{memory}");
    let segment = refused("data_dir: d\nlimits:\n  log_segment: 1MiB\n");
    assert!(segment.contains("line 3") && segment.contains("at least 16.0 MiB"), "{segment}");
    let segment = refused("data_dir: d\nlimits:\n  log_segment: 2GiB\n");
    assert!(segment.contains("line 3") && segment.contains("at most 1.0 GiB"), "{segment}");
    let store = refused("data_dir: d\nlimits:\n  store: 16MiB\n");
    assert!(store.contains("line 3") && store.contains("at least 256.0 MiB"), "{store}");
    let store = refused("data_dir: d\nlimits:\n  store: 2TiB\n");
    assert!(store.contains("line 3") && store.contains("at most 1.0 TiB"), "{store}");
    let level = refused("data_dir: d\nlog:\n  level: \"a=b=c\"\n");
    assert!(level.contains("line 3") && level.contains("info,transport=debug"), "{level}");
}

#[test]
fn text_that_is_no_yaml_is_refused_with_its_line() {
    let report = refused("data_dir: d\nzone: ]\n");
    assert!(report.contains("line 2"), "{report}");
}

#[test]
fn addresses_of_version_6_keep_their_brackets() {
    let address: HostPort = "[::1]:7400".parse().unwrap();
    assert_eq!((address.host(), address.to_string().as_str()), ("::1", "[::1]:7400"));
    assert!("::1:7400".parse::<HostPort>().is_err());
}

#[test]
fn relative_paths_count_from_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.yaml");
    std::fs::write(&path, "data_dir: state\n").unwrap();
    assert_eq!(NodeConfig::load(&path).unwrap().data_dir, folder.path().join("state"));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = NodeConfig::load(Path::new("nowhere/node.yaml")).unwrap_err();
    assert!(error.to_string().contains("nowhere/node.yaml"), "{error}");
}

#[test]
fn the_page_about_configuration_names_every_key() {
    let page = include_str!("../../docs/configuration.md");
    let keys = [
        "data_dir",
        "listen",
        "advertise",
        "http",
        "zone",
        "capacity",
        "engine",
        "log.level",
        "log.format",
        "log.file",
        "limits.memory",
        "limits.task_threads",
        "limits.engine_threads",
        "limits.read_threads",
        "limits.open_files",
        "limits.log_segment",
        "limits.store",
        "doors.etcd",
        "doors.etcd.listen",
        "doors.etcd.advertise",
        "doors.etcd.volume",
        "doors.etcd.replicas",
        "doors.etcd.request",
        "doors.etcd.operations",
        "doors.etcd.watches",
        "doors.etcd.connections",
        "doors.etcd.memory",
        "doors.etcd.progress_seconds",
        "doors.etcd.auto_compaction.seconds",
        "doors.etcd.auto_compaction.revisions",
        "doors.etcd.rates",
        "doors.etcd.quotas",
        "doors.audit.file",
        "doors.audit.size",
        "doors.etcd.cors",
        "doors.etcd.metrics",
        "doors.etcd.plain_text",
        "doors.etcd.tls.key",
        "doors.etcd.tls.client_authority",
        "doors.etcd.tls.client_optional",
    ];
    for key in keys {
        assert!(page.contains(&format!("`{key}` |")), "{key} is not in configuration.md");
    }
}
