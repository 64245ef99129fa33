use std::sync::Arc;

use super::*;

fn service() -> ServiceName {
    "orders".parse().unwrap()
}

fn record(instance: Instance) -> Record {
    let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
    Record::new(Arc::new(instance), Incarnation::random(), at, 3)
}

fn written(record: &Record) -> Result<Registration> {
    let instance = &record.instance;
    let names = Names::new("r", instance.service(), instance.id(), record.incarnation);
    write(
        record,
        &names,
        Duration::from_secs(15),
        Duration::from_secs(60),
    )
}

/// What a catalog makes of a registration.
fn catalogued(registration: &Registration) -> HealthEntry {
    let json = serde_json::to_value(registration).unwrap();
    let entry = serde_json::json!({
        "Node": {"Node": "n1", "Address": "10.0.0.1"},
        "Service": {
            "ID": json["ID"], "Service": json["Name"], "Address": json["Address"], "Port": json["Port"],
            "Tags": json["Tags"], "Meta": json["Meta"], "Weights": json["Weights"], "CreateIndex": 77
        },
        "Checks": [{"CheckID": json["Check"]["CheckID"], "Status": "passing"}]
    });
    serde_json::from_value(entry).unwrap()
}

fn said(service: serde_json::Value) -> HealthEntry {
    let entry = serde_json::json!({
        "Node": {"Node": "n1", "Address": "10.0.0.1"}, "Service": service, "Checks": null
    });
    serde_json::from_value(entry).unwrap()
}

#[test]
fn what_is_written_is_read() {
    let instance = Instance::builder("orders", "2001:db8::7", 8443)
        .with_id("a/b: \"ü\"")
        .with_secure(true)
        .with_zone("z")
        .with_version("1.2.3-rc.1+b")
        .with_weight(0)
        .with_capacity(u64::MAX)
        .with_status(Status::Draining)
        .with_metadata("id", "the user's")
        .with_metadata("plimsoll-id", "the user's, too")
        .with_metadata("consul-version", "")
        .build()
        .unwrap();
    let record = record(instance);
    let registration = written(&record).unwrap();
    assert_eq!(registration.weights.passing, 1, "Consul has no weight of 0");
    assert_eq!(registration.check.ttl, "15000ms");
    assert!(
        registration
            .meta
            .keys()
            .all(|key| !key.starts_with("consul-"))
    );
    let found = read(&service(), &catalogued(&registration)).unwrap();
    assert!(found.ours);
    assert_eq!(found.entry.instance, *record.instance);
    assert_eq!(found.entry.incarnation, record.incarnation);
    assert_eq!(found.entry.registered_at, Some(record.registered_at));
}

#[test]
fn weights_are_in_the_proportion_that_consul_can_hold() {
    for (ours, consuls) in [(0, 1), (1, 1), (100, 1), (250, 2), (1_000_000, 10_000)] {
        let instance = Instance::builder("orders", "h", 1)
            .with_weight(ours)
            .build()
            .unwrap();
        assert_eq!(written(&record(instance)).unwrap().weights.passing, consuls);
    }
}

#[test]
fn the_fullest_description_fits_and_what_does_not_is_named() {
    let mut full = Instance::builder("orders", "h", 1)
        .with_zone("z")
        .with_version("1")
        .with_capacity(1);
    for index in 0..Metadata::MAX_PAIRS {
        full = full.with_metadata(format!("{index:0>128}"), "v".repeat(512));
    }
    let registration = written(&record(full.with_secure(true).build().unwrap())).unwrap();
    assert_eq!(registration.meta.len(), Metadata::MAX_PAIRS + 10);
    assert!(registration.meta.len() <= MAX_PAIRS);
    let key = format!("consul-{}", "x".repeat(121));
    let instance = Instance::builder("orders", "h", 1)
        .with_metadata(&key, "v")
        .build()
        .unwrap();
    let error = written(&record(instance)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("metadata key"), "{error}");
}

#[test]
fn a_service_of_ours_without_its_check_is_no_instance_and_one_of_others_is() {
    let good = record(Instance::builder("orders", "h", 1).build().unwrap());
    let mut copied = catalogued(&written(&good).unwrap());
    assert!(read(&service(), &copied).is_ok());
    copied.service.id = "copied".into();
    assert!(read(&service(), &copied).is_err(), "the check is another's");
    copied.checks.clear();
    let error = read(&service(), &copied)
        .map(|found| found.entry)
        .unwrap_err();
    assert!(
        error.to_string().contains("no check keeps alive"),
        "{error}"
    );
    copied.service.meta.clear();
    assert!(read(&service(), &copied).is_ok());
}

#[test]
fn services_of_others_are_instances() {
    let found = read(
        &service(),
        &said(serde_json::json!({
            "ID": "web1", "Service": "orders", "Address": "", "Port": 80, "Tags": ["a"],
            "Meta": {"team": "x", "long": "v".repeat(600)}, "Weights": {"Passing": 3, "Warning": 1},
            "CreateIndex": 77
        })),
    )
    .unwrap();
    let instance = &found.entry.instance;
    assert!(!found.ours);
    assert_eq!(
        instance.id().as_str(),
        "n1/web1",
        "ids are unique on a node alone"
    );
    assert_eq!(
        instance.authority(),
        "10.0.0.1:80",
        "the node's address stands in"
    );
    assert_eq!(instance.weight().get(), 300);
    assert_eq!(instance.metadata().get("team"), Some("x"));
    assert_eq!(instance.metadata().get("long"), None);
    assert_eq!(found.entry.incarnation, Incarnation::from_bits(77));
    let bare = read(
        &service(),
        &said(serde_json::json!({
            "ID": "web2", "Service": "orders", "Address": "h.example.", "Port": 80, "Tags": null,
            "Meta": null, "Weights": null
        })),
    );
    let bare = bare.unwrap().entry.instance;
    assert_eq!(bare.weight(), Weight::DEFAULT);
    assert_eq!(bare.authority(), "h.example.:80", "a name may be absolute");
}

#[test]
fn what_a_service_of_others_says_in_meta_and_tags_is_understood() {
    let service_with = |meta: serde_json::Value, tags: serde_json::Value| {
        let said = said(serde_json::json!({
            "ID": "web1", "Service": "orders", "Port": 80, "Meta": meta, "Tags": tags,
            "Weights": {"Passing": 1, "Warning": 1}
        }));
        read(&service(), &said).unwrap().entry
    };
    let all = |entry: Entry| {
        let instance = entry.instance;
        let version = instance.version().map(ToString::to_string);
        let zone = instance.zone().map(|zone| zone.as_str().to_owned());
        (
            zone,
            instance.weight().get(),
            version,
            instance.is_secure(),
            instance.metadata().len(),
        )
    };
    let pairs = serde_json::json!({"zone": "a", "weight": "3", "version": "1.2", "secure": "true"});
    let tags = serde_json::json!(["zone=a", "weight=3", "version=1.2", "secure=true", "plain"]);
    let understood = (Some("a".to_owned()), 300, Some("1.2.0".to_owned()), true, 4);
    assert_eq!(
        all(service_with(pairs.clone(), serde_json::Value::Null)),
        understood
    );
    assert_eq!(all(service_with(serde_json::Value::Null, tags)), understood);
    let other_tags = serde_json::json!(["zone=b", "weight=9"]);
    assert_eq!(
        all(service_with(pairs, other_tags)),
        understood,
        "meta stands before tags"
    );
}

#[test]
fn what_is_beyond_the_limits_is_left_out_of_a_service_and_no_more() {
    let many: BTreeMap<String, String> =
        (0..60).map(|n| (format!("k{n:02}"), "v".into())).collect();
    let entry = said(serde_json::json!({
        "ID": "x".repeat(200), "Service": "orders", "Port": 80, "Meta": many,
        "Tags": ["a.dotted=x", "plain"]
    }));
    let entry = read(&service(), &entry).unwrap().entry;
    assert_eq!(entry.instance.metadata().len(), Metadata::MAX_PAIRS);
    assert_eq!(entry.left_out.count(), 60 + 1 - Metadata::MAX_PAIRS);
    assert!(entry.instance.id().as_str().starts_with("n1/xxx"));
    let good = record(Instance::builder("orders", "h", 1).build().unwrap());
    let mut ours = catalogued(&written(&good).unwrap());
    ours.service.meta.extend(many);
    let ours = read(&service(), &ours).unwrap().entry;
    assert_eq!(ours.left_out.count(), 60 - Metadata::MAX_PAIRS);
}

#[test]
fn nonsense_is_corrupt_and_never_a_panic() {
    let good = record(
        Instance::builder("orders", "h", 1)
            .with_capacity(5)
            .build()
            .unwrap(),
    );
    let good = catalogued(&written(&good).unwrap());
    for (field, value) in [
        ("plimsoll-incarnation", "7"),
        ("plimsoll-id", ""),
        ("plimsoll-weight", "-1"),
        ("plimsoll-weight", "99999999999"),
        ("plimsoll-capacity", "0"),
        ("plimsoll-status", "asleep"),
        ("plimsoll-registered-ms", "noon"),
        ("plimsoll-version", "newest"),
        ("plimsoll-zone", "\n"),
    ] {
        let mut bad = good.clone();
        bad.service.meta.insert(field.into(), value.into());
        let error = read(&service(), &bad).map(|found| found.entry).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{field} {value:?}");
    }
    for missing in ["plimsoll-id", "plimsoll-incarnation"] {
        let mut bad = good.clone();
        bad.service.meta.remove(missing);
        assert!(read(&service(), &bad).is_err(), "{missing}");
    }
    for (port, address) in [(0, "h"), (70_000, "h"), (1, "not a host")] {
        let mut bad = good.clone();
        (bad.service.port, bad.service.address) = (port, address.into());
        assert_eq!(
            read(&service(), &bad).map(|f| f.entry).unwrap_err().kind(),
            ErrorKind::Corrupt
        );
    }
    let mut later = good;
    later
        .service
        .meta
        .insert("plimsoll-schema".into(), "2".into());
    later
        .service
        .meta
        .insert("plimsoll-novelty".into(), "x".into());
    let later = read(&service(), &later).unwrap().entry;
    assert!(
        later.instance.metadata().is_empty(),
        "what a later schema adds is not the user's"
    );
}
