//! An agent that speaks TLS, and wants to know to whom.
#![cfg(feature = "tls")]

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use plimsoll_backend_consul::{ConsulBuilder, ConsulRegistry};
use plimsoll_discovery_api::{ErrorKind, Instance, Registry, ServiceName};
use plimsoll_test_servers::consul::{Data, Server, available};
use plimsoll_test_servers::probe::{PATIENCE, ids, live, load_of, shown, state};
use tokio::task::block_in_place;
use tokio::time::timeout;

struct Guarded {
    server: Server,
    certificates: tempfile::TempDir,
}

impl Guarded {
    fn start() -> Self {
        let certificates = tempfile::tempdir().expect("a directory");
        let server = block_in_place(|| {
            Server::make_certificates(certificates.path());
            let at = |name| certificates.path().join(name).display().to_string();
            let settings = format!(
                "ca_file = \"{}\"\ncert_file = \"{}\"\nkey_file = \"{}\"\nverify_incoming_https = true\n",
                at("ca.pem"),
                at("server.pem"),
                at("server.key")
            );
            Server::start_with(Data::Memory, &settings, None)
        });
        Self {
            server,
            certificates,
        }
    }

    fn file(&self, name: &str) -> Vec<u8> {
        fs::read(self.certificates.path().join(name)).expect("a file")
    }

    fn builder(&self) -> ConsulBuilder {
        let address = self.server.tls_address().to_string();
        ConsulRegistry::builder(address).with_request_timeout(Duration::from_secs(2))
    }
}

fn service() -> ServiceName {
    "orders".parse().expect("a name")
}

fn instance() -> Instance {
    let builder = Instance::builder(service(), "10.0.0.7", 8080).with_id("a");
    builder.build().expect("an instance")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_certificates_on_both_sides_everything_goes_over_tls() {
    if !available() {
        return;
    }
    let guarded = Guarded::start();
    let builder = guarded
        .builder()
        .with_tls_authorities(guarded.file("ca.pem"));
    let registry =
        builder.with_tls_identity(guarded.file("client.pem"), guarded.file("client.key"));
    let registry = registry.build().unwrap();
    let registration = live(&registry, instance()).await;
    registration.load().set(3);
    registration.load().flush().await.unwrap();
    let path = |name: &str| {
        Path::new(guarded.certificates.path())
            .join(name)
            .display()
            .to_string()
    };
    let url = format!(
        "consul://{}?tls_ca={}&tls_cert={}&tls_key={}",
        guarded.server.tls_address(),
        path("ca.pem"),
        path("client.pem"),
        path("client.key")
    );
    let other = ConsulRegistry::from_url(&url.parse().unwrap()).unwrap();
    let listed = other.list(&service()).await.unwrap();
    assert_eq!((ids(&listed), load_of(&listed, "a")), (vec!["a"], Some(3)));
    registration.deregister().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_side_speaks_to_a_stranger_or_in_the_clear() {
    if !available() {
        return;
    }
    let guarded = Guarded::start();
    let others = tempfile::tempdir().unwrap();
    block_in_place(|| Server::make_certificates(others.path()));
    let other = |name: &str| fs::read(others.path().join(name)).unwrap();
    let ca = guarded.file("ca.pem");
    let plain = ConsulRegistry::builder(guarded.server.tls_address().to_string());
    let strangers = [
        (
            "no certificate",
            guarded.builder().with_tls_authorities(ca.clone()),
        ),
        (
            "one of another authority",
            guarded
                .builder()
                .with_tls_authorities(ca)
                .with_tls_identity(other("client.pem"), other("client.key")),
        ),
        (
            "an agent that is not trusted",
            guarded
                .builder()
                .with_tls_authorities(other("ca.pem"))
                .with_tls_identity(guarded.file("client.pem"), guarded.file("client.key")),
        ),
        (
            "an agent that the system does not trust",
            guarded.builder().with_tls(),
        ),
        ("no TLS at all", plain),
    ];
    for (what, builder) in strangers {
        let registry = builder.build().unwrap();
        let error = registry.list(&service()).await.unwrap_err();
        let registration = registry.register(instance()).await.unwrap();
        assert!(
            timeout(Duration::from_secs(1), registration.ready())
                .await
                .map_or(true, |r| r.is_err()),
            "{what}"
        );
        // Of a plain request Go's server says so, with a status of its own.
        let expected = matches!(
            error.kind(),
            ErrorKind::Unavailable | ErrorKind::InvalidArgument
        );
        assert!(expected, "{what}: {error}");
        drop(registration);
    }
    let listed = timeout(PATIENCE, async {
        let registry = ConsulRegistry::builder(guarded.server.address().to_string())
            .build()
            .unwrap();
        registry.list(&service()).await.unwrap()
    });
    assert!(
        listed.await.unwrap().members().is_empty(),
        "somebody got in"
    );
}

/// As an authority does that ends: neither side believes what the old one has signed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_renewed_on_disk_are_taken_up_by_handles_that_are_in_use() {
    if !available() {
        return;
    }
    let mut guarded = Guarded::start();
    let dir = guarded.certificates.path().to_owned();
    let path = |name: &str| dir.join(name).display().to_string();
    let url = format!(
        "consul://{}?ttl=4s&request_timeout=2s&wait=3s&tls_ca={}&tls_cert={}&tls_key={}",
        guarded.server.tls_address(),
        path("ca.pem"),
        path("client.pem"),
        path("client.key")
    );
    let handle = ConsulRegistry::from_url(&url.parse().unwrap()).unwrap();
    let registration = live(&handle, instance()).await;
    let mut watch = handle.watch(&service()).await.unwrap();
    shown(&mut watch, "the member", |s| ids(s) == ["a"]).await;
    let renewed = tempfile::tempdir().unwrap();
    block_in_place(|| Server::make_certificates(renewed.path()));
    let renew = |name: &str| fs::copy(renewed.path().join(name), path(name)).unwrap();
    for name in ["ca.pem", "server.pem", "server.key", "client.key"] {
        renew(name);
    }
    // Whoever renews them has only begun.
    fs::write(path("client.pem"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    block_in_place(|| guarded.server.restart());
    shown(&mut watch, "a stale list", |s| !s.freshness().is_live()).await;
    state(&registration, "a registration in doubt", |s| !s.is_live()).await;
    renew("client.pem");
    state(&registration, "Live", |s| s.is_live()).await;
    shown(&mut watch, "the member", |s| {
        s.freshness().is_live() && ids(s) == ["a"]
    })
    .await;
}
