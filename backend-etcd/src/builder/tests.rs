use super::*;

fn built(url: &str) -> Result<EtcdRegistry> {
    EtcdBuilder::from_url(&url.parse()?)?.build()
}

#[test]
fn mistakes_are_named_before_any_connection() {
    for (url, part) in [
        ("etcd://", "hosts"),
        ("etcd://h:0", "host: h:0"),
        ("etcd://h:x", "host: h:x"),
        ("etcd://::1", "host: ::1"),
        ("etcd://h/a//b", "prefix"),
        ("etcd://h?lease_ttl=1s", "lease_ttl"),
        ("etcd://h?lease_ttl=2500ms", "lease_ttl"),
        ("etcd://h?lease_ttl=soon", "lease_ttl"),
        ("etcd://h?request_timeout=1ms", "request_timeout"),
        ("etcd://h?watch_timeout=2h", "watch_timeout"),
        ("etcd://h?keep_alive_interval=1s", "keep_alive_interval"),
        ("etcd://h?keep_alive_interval=61min", "keep_alive_interval"),
        ("etcd://h?load_interval=25h", "load_interval"),
        ("etcd://h?max_message_bytes=1", "max_message_bytes"),
        ("etcd://h?ttl=1s", "option: ttl"),
        ("etcd://h?cert=a", "cert and key"),
        ("etcd://h?tls=false&ca=a", "tls"),
        ("etcd://h?tls=perhaps", "tls"),
        ("etcd://:p@h", "user"),
        ("memory://h", "scheme: memory"),
    ] {
        let error = built(url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{url}");
        assert!(error.to_string().contains(part), "{url}: {error}");
    }
    for good in [
        "etcd://h",
        "etcd://h1:1,h2/prefix?lease_ttl=4s&connect_timeout=1s&request_timeout=1s&load_interval=1s",
        "etcd://[::1]:2379?watch_timeout=3s&keep_alive_interval=5s&keep_alive_timeout=1s",
        "etcd://h1.,h2.:2379",
        "etcd://h?max_message_bytes=8388608&tls=false",
    ] {
        assert!(built(good).is_ok(), "{good}");
    }
}

#[test]
fn secrets_are_never_shown() {
    let url: RegistryUrl = "etcd://root:hunter2@h".parse().unwrap();
    let builder = EtcdBuilder::from_url(&url).unwrap();
    let shown = format!("{builder:?}");
    let shown = format!("{shown} {:?}", builder.build().unwrap());
    assert!(!shown.contains("hunter2"), "{shown}");
    let error = built("etcd://:hunter2@h").unwrap_err();
    assert!(
        !format!("{error} {error:?}").contains("hunter2"),
        "{error:?}"
    );
}

#[cfg(not(feature = "tls"))]
#[test]
fn an_option_of_an_absent_feature_names_it() {
    for url in ["etcd://h?tls=true", "etcd://h?ca=/x"] {
        let error = built(url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{url}");
        assert!(error.to_string().contains("etcd-tls"), "{error}");
    }
}

#[cfg(feature = "tls")]
#[test]
fn files_that_are_not_there_are_named_and_keys_are_never_shown() {
    let error = built("etcd://h?ca=/nowhere/ca.pem").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("ca: /nowhere/ca.pem"), "{error}");
    let tls = crate::Tls::new()
        .with_ca_pem("hunter2")
        .with_identity_pem("hunter2", "hunter2");
    let shown = format!("{tls:?}");
    let builder = EtcdRegistry::builder(["h"]).with_tls(tls);
    let shown = format!("{shown} {builder:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
}
