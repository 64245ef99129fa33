//! Who may do what, and who may listen.

#![expect(
    clippy::unwrap_used,
    reason = "a failure to set up is a failure of the test"
)]

mod support;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use plimsoll_backend_kit::RegistryUrl;
use plimsoll_backend_zk::{Acl, Credential, ZkRegistry};
use plimsoll_discovery_api::{
    Error, ErrorKind, Instance, Registration, RegistrationState, Registry,
};
use plimsoll_test_servers::probe::{PATIENCE, eventually, ids, load_of, ready, shown, state};
use plimsoll_test_servers::zk::{Server, available};
use plimsoll_test_servers::{Mode, Proxy, free_port};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use zookeeper_client::{Acl as Grant, Acls, AuthId, Client, CreateMode, Permission};

use support::bench::{Bench, monitored};
use support::harness::{ROOT, SESSION, builder, identity, load, tickets};
use support::raw::end_session;

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
async fn refused(registry: &ZkRegistry, id: &str) -> Error {
    let registration = register(registry, id).await;
    let verdict = timeout(PATIENCE, registration.ready()).await.unwrap();
    verdict.unwrap_err()
}

async fn refusal(registry: &ZkRegistry, id: &str) -> ErrorKind {
    refused(registry, id).await.kind()
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
    let module = "org.apache.zookeeper.server.auth.DigestLoginModule";
    fs::write(
        &users,
        format!("Server {{ {module} required user_alice=\"secret\"; }};\n"),
    )
    .unwrap();
    Server::start_with(
        &format!(
            "authProvider.sasl={}\n",
            "org.apache.zookeeper.server.auth.SASLAuthenticationProvider"
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

/// What a server needs: its certificate with the key, and whom it trusts.
fn write_server(authority: &Authority, dir: &TempDir) -> [PathBuf; 2] {
    let paths = ["server.pem", "trusted.pem"].map(|name| dir.path().join(name));
    let (certificate, key) = authority.sign();
    fs::write(&paths[0], format!("{key}{certificate}")).unwrap();
    fs::write(&paths[1], authority.pem()).unwrap();
    paths
}

/// A server that speaks to nobody without a certificate of `authority`, and the port for that.
fn tls_server(authority: &Authority, dir: &TempDir) -> (Server, String) {
    let [keys, trusted] = write_server(authority, dir);
    let port = free_port();
    let server = Server::start_with(
        &format!(
            "secureClientPort={port}\nsecureClientPortAddress=127.0.0.1\n\
             serverCnxnFactory={}\nssl.keyStore.location={}\nssl.trustStore.location={}\nssl.clientAuth=need\n",
            "org.apache.zookeeper.server.NettyServerCnxnFactory",
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
    eventually("the instance in a watch", || async {
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

/// Alice, as the server knows her.
async fn alice(bench: &Bench) -> AuthId {
    let connector = Client::connector().with_auth("digest", b"alice:secret");
    let address = bench.server.address().to_string();
    let client = connector.connect(&address).await.unwrap();
    let own = CreateMode::Ephemeral.with_acls(Acls::creator_all());
    client.create("/alice", b"", &own).await.unwrap();
    let (acl, _) = client.get_acl("/alice").await.unwrap();
    AuthId::new(acl[0].scheme(), acl[0].id())
}

/// Makes nodes of which everybody may read, and `who` may do what is said.
async fn grant(bench: &Bench, who: &AuthId, nodes: &[(String, Permission)]) {
    let open = CreateMode::Persistent.with_acls(Acls::anyone_all());
    for (path, _) in nodes {
        bench.operator.create(path, b"", &open).await.unwrap();
    }
    for (path, permission) in nodes {
        let mut acl = vec![Grant::new(Permission::READ, AuthId::anyone())];
        if *permission != Permission::NONE {
            acl.push(Grant::new(*permission, who.clone()));
        }
        bench.operator.set_acl(path, &acl, None).await.unwrap();
    }
}

fn of_alice(bench: &Bench, root: &str) -> ZkRegistry {
    let readable: Acl = "auth::cdrwa,world:anyone:r".parse().unwrap();
    let builder = builder(bench.server.address()).with_root(root);
    let builder = builder.with_digest("alice", "secret").with_acl(readable);
    builder.build().unwrap()
}

/// Registers, publishes, is seen by anybody, and leaves.
async fn comes_and_goes(bench: &Bench, root: &str) {
    let provider = of_alice(bench, root);
    let registration = live(&provider, "a").await;
    registration.load().set(7);
    registration.load().flush().await.unwrap();
    let anybody = builder(bench.server.address()).with_root(root);
    let listed = anybody.build().unwrap().list(&bench.service).await.unwrap();
    assert_eq!((ids(&listed), load_of(&listed, "a")), (vec!["a"], Some(7)));
    registration.deregister().await.unwrap();
}

/// A server asks who may create in a node before it looks whether what is to be created is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_are_there_are_not_created_by_who_may_only_read_above_them() {
    if !available() {
        return;
    }
    let bench = Bench::set().await;
    let alice = alice(&bench).await;
    let mut nodes = vec![("/shut".to_owned(), Permission::NONE)];
    let below = ["services", "load", "departed"];
    nodes.extend(below.map(|name| (format!("/shut/{name}"), Permission::CREATE)));
    grant(&bench, &alice, &nodes).await;
    comes_and_goes(&bench, "shut").await;
    let refused = refused(&of_alice(&bench, "shut/deeper"), "a").await;
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{refused}");
    assert!(
        refused.to_string().contains("to create (c) in /shut"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_least_permissions_are_enough_and_each_that_is_missing_is_told() {
    if !available() {
        return;
    }
    let bench = Bench::set().await;
    let alice = alice(&bench).await;
    let (create, delete) = (Permission::CREATE, Permission::DELETE);
    let branches = ["services", "load", "departed"];
    let mut lacks = vec![("", Permission::NONE)];
    lacks.extend(
        branches
            .iter()
            .flat_map(|branch| [(*branch, create), (*branch, delete)]),
    );
    for (number, (lacking, permission)) in lacks.into_iter().enumerate() {
        let root = format!("least{number}");
        let mut nodes = vec![(format!("/{root}"), Permission::NONE)];
        for branch in branches {
            nodes.push((format!("/{root}/{branch}"), Permission::NONE));
            let left = match (branch == lacking, permission == create) {
                (false, _) => create | delete,
                (true, true) => delete,
                (true, false) => create,
            };
            nodes.push((format!("/{root}/{branch}/orders"), left));
        }
        grant(&bench, &alice, &nodes).await;
        let told = match lacking {
            "" => {
                comes_and_goes(&bench, &root).await;
                continue;
            }
            _ if lacking == "departed" || permission == delete => {
                let provider = of_alice(&bench, &root);
                live(&provider, "a").await.deregister().await.unwrap_err()
            }
            _ => refused(&of_alice(&bench, &root), "a").await,
        };
        let branch = format!("/{root}/{lacking}/orders");
        assert_eq!(told.kind(), ErrorKind::PermissionDenied, "{branch}: {told}");
        assert!(told.to_string().contains(&branch), "{branch}: {told}");
        assert!(told.to_string().contains("needs"), "{branch}: {told}");
    }
    // Who looks needs to read.
    let open = CreateMode::Persistent.with_acls(Acls::anyone_all());
    for path in ["/hidden", "/hidden/services", "/hidden/services/orders"] {
        bench.operator.create(path, b"", &open).await.unwrap();
    }
    let closed = [Grant::new(Permission::ALL, alice)];
    let branch = "/hidden/services/orders";
    bench.operator.set_acl(branch, &closed, None).await.unwrap();
    let anybody = builder(bench.server.address()).with_root("hidden");
    let told = anybody
        .build()
        .unwrap()
        .list(&bench.service)
        .await
        .unwrap_err();
    assert_eq!(told.kind(), ErrorKind::PermissionDenied, "{told}");
    assert!(
        told.to_string().contains(&format!("to read (r) {branch}")),
        "{told}"
    );
}

/// As an authority does that ends: neither side believes what the old one has signed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_renewed_on_disk_are_taken_up_by_handles_that_are_in_use() {
    if !available() {
        return;
    }
    let (old, new) = (Authority::new(), Authority::new());
    let dir = tempfile::tempdir().unwrap();
    let (mut server, address) = tls_server(&old, &dir);
    let path = |name: &str| dir.path().join(name).display().to_string();
    let write = |authority: &Authority| {
        let (certificate, key) = authority.sign();
        fs::write(path("ca.pem"), authority.pem()).unwrap();
        fs::write(path("key.pem"), key).unwrap();
        certificate
    };
    fs::write(path("cert.pem"), write(&old)).unwrap();
    let url: RegistryUrl = format!(
        "zk://{address}/{ROOT}?session_timeout=4s&tls_ca={}&tls_cert={}&tls_key={}",
        path("ca.pem"),
        path("cert.pem"),
        path("key.pem"),
    )
    .parse()
    .unwrap();
    let handle = ZkRegistry::from_url(&url).unwrap();
    let registration = live(&handle, "a").await;
    let service = registration.instance().service().clone();
    let mut watch = handle.watch(&service).await.unwrap();
    shown(&mut watch, "the member", |s| ids(s) == ["a"]).await;
    write_server(&new, &dir);
    let renewed = write(&new);
    // Whoever renews them has only begun.
    fs::write(path("cert.pem"), &renewed[..100]).unwrap();
    tokio::task::block_in_place(|| server.restart());
    shown(&mut watch, "a stale list", |s| !s.freshness().is_live()).await;
    state(&registration, "a registration in doubt", |s| !s.is_live()).await;
    fs::write(path("cert.pem"), renewed).unwrap();
    state(&registration, "Live", |s| s.is_live()).await;
    shown(&mut watch, "the member", |s| {
        s.freshness().is_live() && ids(s) == ["a"]
    })
    .await;
}

/// Of a user whom the server is told another password of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_replaced_on_a_live_handle_is_used_at_the_next_login() {
    if !available() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::on(sasl_server(&dir)).await;
    let password = Credential::from("secret");
    let builder = builder(bench.server.address()).with_sasl("alice", password.clone());
    let handle = builder.build().unwrap();
    let registration = live(&handle, "a").await;
    let users = dir.path().join("jaas.conf");
    let text = fs::read_to_string(&users).unwrap();
    fs::write(&users, text.replace("secret", "changed")).unwrap();
    tokio::task::block_in_place(|| bench.server.restart());
    let is_told =
        |s: &RegistrationState| s.cause().map(Error::kind) == Some(ErrorKind::Unauthenticated);
    state(&registration, "why it is in doubt", is_told).await;
    password.replace("changed");
    state(&registration, "Live", |s| s.is_live()).await;
    let shown = format!("{handle:?} {:?}", registration.state());
    assert!(
        !shown.contains("changed") && !shown.contains("secret"),
        "{shown}"
    );
}

/// Within a session the client library connects as whom that has begun; the next one is somebody
/// else's, as what it creates says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_written_anew_is_whose_the_next_session_is() {
    if !available() {
        return;
    }
    let (bench, dir) = (Bench::set().await, tempfile::tempdir().unwrap());
    let file = dir.path().join("password");
    fs::write(&file, "secret\n").unwrap();
    let proxy = Proxy::start(bench.server.address(), Mode::Pass);
    let url = format!(
        "zk://alice@{}/{ROOT}?session_timeout=4s&acl=auth::cdrwa,world:anyone:cdrwa&password_file={}",
        proxy.address(),
        file.display()
    );
    let handle = ZkRegistry::from_url(&url.parse().unwrap()).unwrap();
    let registration = live(&handle, "a").await;
    let path = identity(&bench.service, "a");
    let owner = || async {
        let (acl, _) = bench.operator.get_acl(&path).await.ok()?;
        let auth = acl.iter().find(|acl| acl.scheme() == "digest")?;
        Some(auth.id().to_owned())
    };
    let before = owner().await.expect("an owner");
    assert!(before.starts_with("alice:"), "{before}");
    fs::write(&file, "changed\n").unwrap();
    // The file is looked at no more than once a second.
    eventually("the node to be of the new password", || async {
        let ticket = tickets(&proxy).pop()?;
        let address = bench.server.address();
        tokio::task::block_in_place(|| end_session(address, &ticket));
        let is_gone = |s: &RegistrationState| !s.is_live();
        state(&registration, "lost", is_gone).await;
        state(&registration, "Live", |s| s.is_live()).await;
        owner().await.filter(|owner| *owner != before)
    })
    .await;
}
