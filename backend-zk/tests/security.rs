//! Who may do what, and who may listen.

#![expect(
    clippy::unwrap_used,
    reason = "a failure to set up is a failure of the test"
)]

mod support;

use std::fs;
use std::time::Duration;

use plimsoll_backend_kit::RegistryUrl;
use plimsoll_backend_zk::{Acl, ZkRegistry};
use plimsoll_discovery_api::{ErrorKind, Instance, Registration, Registry};
use plimsoll_test_servers::free_port;
use plimsoll_test_servers::probe::{PATIENCE, ready};
use plimsoll_test_servers::zk::{Server, available, class};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use support::bench::{Bench, monitored};
use support::harness::{ROOT, SESSION, builder, identity, load};

async fn register(registry: &ZkRegistry, id: &str) -> Registration {
    let instance = Instance::builder("orders", "10.0.0.7", 8080).with_id(id);
    registry.register(instance.build().unwrap()).await.unwrap()
}

async fn live(registry: &ZkRegistry, id: &str) -> Registration {
    let registration = register(registry, id).await;
    ready(&registration).await;
    registration
}

/// Why it cannot be registered.
async fn refusal(registry: &ZkRegistry, id: &str) -> ErrorKind {
    let registration = register(registry, id).await;
    let verdict = timeout(PATIENCE, registration.ready()).await.unwrap();
    verdict.unwrap_err().kind()
}

async fn grants(bench: &Bench, path: &str) -> Vec<String> {
    let (acl, _) = bench.operator.get_acl(path).await.unwrap();
    acl.iter()
        .map(|grant| format!("{}:{} {}", grant.scheme(), grant.id(), grant.permission()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_in_particular_creates_is_open() {
    if !available() {
        return;
    }
    let bench = Bench::set().await;
    let _registration = live(&bench.provider, "a").await;
    for path in [
        identity(&bench.service, "a"),
        load(&bench.service, "a"),
        format!("/{ROOT}"),
    ] {
        assert_eq!(grants(&bench, &path).await, ["world:anyone ALL"], "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_user_creates_is_the_users_alone_unless_it_is_said_otherwise() {
    if !available() {
        return;
    }
    let bench = Bench::set().await;
    let address = bench.server.address();
    let alice = builder(address)
        .with_digest("alice", "secret")
        .build()
        .unwrap();
    let _registration = live(&alice, "a").await;
    assert_eq!(alice.list(&bench.service).await.unwrap().members().len(), 1);
    let hidden = bench.consumer.list(&bench.service).await.unwrap_err();
    assert_eq!(hidden.kind(), ErrorKind::PermissionDenied, "{hidden}");

    let readable: Acl = "auth::cdrwa,world:anyone:r".parse().unwrap();
    let alice = builder(address)
        .with_root("readable")
        .with_digest("alice", "secret")
        .with_acl(readable)
        .build()
        .unwrap();
    let registration = live(&alice, "a").await;
    let anybody = builder(address).with_root("readable").build().unwrap();
    assert_eq!(
        anybody.list(&bench.service).await.unwrap().members().len(),
        1
    );
    assert_eq!(refusal(&anybody, "b").await, ErrorKind::PermissionDenied);
    // Who departs is told of, though the list of departures is not everybody's to write.
    registration.deregister().await.unwrap();
    assert!(
        anybody
            .list(&bench.service)
            .await
            .unwrap()
            .members()
            .is_empty()
    );
}

/// A server that knows `alice` by her password.
fn sasl_server(dir: &TempDir) -> Server {
    let users = dir.path().join("jaas.conf");
    let module = class("server.auth.DigestLoginModule");
    fs::write(
        &users,
        format!("Server {{ {module} required user_alice=\"secret\"; }};\n"),
    )
    .unwrap();
    Server::start_with(
        &format!(
            "authProvider.sasl={}\n",
            class("server.auth.SASLAuthenticationProvider")
        ),
        &[&format!(
            "-Djava.security.auth.login.config={}",
            users.display()
        )],
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_of_the_servers_own_owns_what_is_created() {
    if !available() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::on(sasl_server(&dir)).await;
    let url: RegistryUrl = format!(
        "zk://alice:secret@{}/{ROOT}?sasl=digest-md5&session_timeout=4s",
        bench.server.address()
    )
    .parse()
    .unwrap();
    let alice = ZkRegistry::from_url(&url).unwrap();
    let _registration = live(&alice, "a").await;
    assert_eq!(alice.list(&bench.service).await.unwrap().members().len(), 1);
    let hidden = bench.consumer.list(&bench.service).await.unwrap_err();
    assert_eq!(hidden.kind(), ErrorKind::PermissionDenied, "{hidden}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_sasl_password_is_said_to_be_one_and_does_not_hot_loop() {
    if !available() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::on(sasl_server(&dir)).await;
    let mallory = builder(bench.server.address())
        .with_sasl("alice", "hunter2")
        .build()
        .unwrap();
    assert_eq!(refusal(&mallory, "a").await, ErrorKind::Unauthenticated);
    let error = mallory.services().await.unwrap_err();
    assert!(!format!("{error:?} {mallory:?}").contains("hunter2"));
    let before = monitored(&bench.server, "zk_packets_received");
    sleep(Duration::from_secs(3)).await;
    let packets = monitored(&bench.server, "zk_packets_received") - before;
    assert!(before > 0 && packets < 100, "{packets} packets in 3 s");
}

/// An authority, and what it has signed, in PEM.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap());
        Self {
            issuer: issuer.unwrap(),
        }
    }

    fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for the loopback address, and its key.
    fn sign(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let params = CertificateParams::new(names).unwrap();
        (
            params.signed_by(&key, &self.issuer).unwrap().pem(),
            key.serialize_pem(),
        )
    }
}

/// A server that speaks to nobody without a certificate of `authority`, and the port for that.
fn tls_server(authority: &Authority, dir: &TempDir) -> (Server, String) {
    let (keys, trusted) = (
        dir.path().join("server.pem"),
        dir.path().join("trusted.pem"),
    );
    let (certificate, key) = authority.sign();
    fs::write(&keys, format!("{key}{certificate}")).unwrap();
    fs::write(&trusted, authority.pem()).unwrap();
    let port = free_port();
    let server = Server::start_with(
        &format!(
            "secureClientPort={port}\nsecureClientPortAddress=127.0.0.1\n\
             serverCnxnFactory={}\nssl.keyStore.location={}\nssl.trustStore.location={}\nssl.clientAuth=need\n",
            class("server.NettyServerCnxnFactory"),
            keys.display(),
            trusted.display(),
        ),
        &[],
    );
    (server, format!("127.0.0.1:{port}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_and_clients_of_one_authority_understand_each_other_and_nobody_else() {
    if !available() {
        return;
    }
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    let (server, address) = tls_server(&authority, &dir);
    let file = |name: &str, text: String| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (certificate, key) = authority.sign();
    let url: RegistryUrl = format!(
        "zk://{address}/{ROOT}?session_timeout=4s&tls_ca={}&tls_cert={}&tls_key={}",
        file("ca.pem", authority.pem()),
        file("cert.pem", certificate.clone()),
        file("key.pem", key.clone()),
    )
    .parse()
    .unwrap();
    let registry = ZkRegistry::from_url(&url).unwrap();
    let registration = live(&registry, "a").await;
    let service = registration.instance().service().clone();
    let watch = registry.watch(&service).await.unwrap();
    plimsoll_test_servers::probe::eventually("the instance in a watch", || async {
        watch.latest().filter(|s| s.members().len() == 1).map(drop)
    })
    .await;
    assert!(!format!("{registry:?}").contains("PRIVATE KEY"));

    let stranger = Authority::new();
    let (foreign_certificate, foreign_key) = stranger.sign();
    let plain = || ZkRegistry::builder([address.clone()]).with_session_timeout(SESSION);
    for (who, builder, is_encrypted) in [
        ("without encryption", plain(), false),
        (
            "without a certificate",
            plain().with_tls(authority.pem()),
            true,
        ),
        (
            "with a certificate of another authority",
            plain()
                .with_tls(authority.pem())
                .with_tls_identity(foreign_certificate, foreign_key),
            true,
        ),
        (
            "who trusts another authority",
            plain()
                .with_tls(stranger.pem())
                .with_tls_identity(certificate, key),
            true,
        ),
    ] {
        let registry = builder
            .with_connect_timeout(Duration::from_secs(1))
            .build()
            .unwrap();
        let error = registry.services().await.unwrap_err();
        assert!(error.is_retryable(), "{who}: {error}");
        let suspects = error.to_string().contains("a certificate that one side");
        assert_eq!(suspects, is_encrypted, "{who}: {error}");
    }
    // It goes on serving those it knows.
    registration.deregister().await.unwrap();
    drop(server);
}
