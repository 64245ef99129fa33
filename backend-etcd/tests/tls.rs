//! Encrypted connections, with certificates that are made here.

#![expect(
    clippy::unwrap_used,
    reason = "a failure to set up is a failure of the test"
)]

mod support;

use std::fs;
use std::path::Path;

use plimsoll_backend_etcd::{Credential, EtcdRegistry, Tls};
use plimsoll_discovery_api::{ErrorKind, RegistrationState, Registry};
use plimsoll_test_servers::etcd::{Server, available};
use plimsoll_test_servers::probe::{ids, load_of, ready, shown, state};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tempfile::TempDir;
use tokio::task::block_in_place;

use support::harness::timed;
use support::stage::{instance, listed, service};

/// A certificate and its key, in PEM.
struct Pair {
    certificate: String,
    key: String,
}

/// An authority, and what it has signed.
struct Authority {
    own: Pair,
    server: Pair,
    client: Pair,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let own = Pair {
            certificate: params.self_signed(&key).unwrap().pem(),
            key: key.serialize_pem(),
        };
        let issuer = Issuer::new(params, key);
        let sign = |names: &[&str]| {
            let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
            let mut params = CertificateParams::new(names).unwrap();
            // Servers of etcd call themselves by their own certificate, so it serves both ends.
            params.extended_key_usages = vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ];
            let key = KeyPair::generate().unwrap();
            Pair {
                certificate: params.signed_by(&key, &issuer).unwrap().pem(),
                key: key.serialize_pem(),
            }
        };
        let (server, client) = (sign(&["localhost", "127.0.0.1"]), sign(&["client"]));
        Self {
            own,
            server,
            client,
        }
    }

    /// A server that this authority vouches for, and that asks the same of its clients.
    fn server(&self, dir: &Path) -> Server {
        self.write(dir);
        let file = |name: &str| dir.join(name).display().to_string();
        let options = [
            format!("--trusted-ca-file={}", file("ca")),
            format!("--cert-file={}", file("cert")),
            format!("--key-file={}", file("key")),
            "--client-cert-auth".to_owned(),
        ];
        block_in_place(|| Server::start_encrypted(&options.each_ref().map(String::as_str)))
    }

    /// All that either side needs.
    fn write(&self, dir: &Path) {
        for (name, pem) in [
            ("ca", &self.own.certificate),
            ("cert", &self.server.certificate),
            ("key", &self.server.key),
            ("client-cert", &self.client.certificate),
            ("client-key", &self.client.key),
        ] {
            fs::write(dir.join(name), pem).unwrap();
        }
    }

    fn trusted(&self) -> Tls {
        Tls::new().with_ca_pem(self.own.certificate.clone())
    }

    fn known(&self) -> Tls {
        let Pair { certificate, key } = &self.client;
        self.trusted()
            .with_identity_pem(certificate.clone(), key.clone())
    }
}

fn registry(server: &Server, tls: Tls) -> EtcdRegistry {
    let host = server.address().to_string();
    timed(EtcdRegistry::builder([host]))
        .with_tls(tls)
        .build()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_a_certificate_is_served_over_an_encrypted_connection() {
    if !available() {
        return;
    }
    let (authority, dir) = (Authority::new(), TempDir::new().unwrap());
    let server = authority.server(dir.path());
    let handle = registry(&server, authority.known());
    let registration = handle.register(instance("a")).await.unwrap();
    ready(&registration).await;
    let mut watch = handle.watch(&service()).await.unwrap();
    registration.load().set(5);
    shown(&mut watch, "the load", |s| load_of(s, "a") == Some(5)).await;
    registration.deregister().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_files_of_a_url_do_the_same() {
    if !available() {
        return;
    }
    let (authority, dir) = (Authority::new(), TempDir::new().unwrap());
    let server = authority.server(dir.path());
    let path = |name: &str| dir.path().join(name).display().to_string();
    let url = format!(
        "etcd://127.0.0.1:{}/p?ca={}&cert={}&key={}&domain=localhost",
        server.address().port(),
        path("ca"),
        path("client-cert"),
        path("client-key")
    );
    let handle = EtcdRegistry::from_url(&url.parse().unwrap()).unwrap();
    let registration = handle.register(instance("a")).await.unwrap();
    ready(&registration).await;
    listed(&handle, "the instance", |s| ids(s) == ["a"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_of_either_side_are_refused() {
    if !available() {
        return;
    }
    let (authority, other) = (Authority::new(), Authority::new());
    let dir = TempDir::new().unwrap();
    let server = authority.server(dir.path());
    let forger = Tls::new()
        .with_ca_pem(authority.own.certificate.clone())
        .with_identity_pem(other.client.certificate.clone(), other.client.key.clone());
    for (tls, why) in [
        (authority.trusted(), "a client without a certificate"),
        (
            forger,
            "a client whose certificate another authority has signed",
        ),
        (
            other.known(),
            "a server whose certificate another authority has signed",
        ),
        (
            authority.known().with_domain("elsewhere"),
            "a server of another name",
        ),
    ] {
        let refused = registry(&server, tls).list(&service()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable, "{why}: {refused:?}");
        let shown = format!("{refused} {refused:?}");
        assert!(!shown.contains("PRIVATE KEY"), "{why}: {shown}");
    }
    let plain = timed(EtcdRegistry::builder([server.address().to_string()]))
        .build()
        .unwrap();
    assert!(plain.list(&service()).await.is_err(), "not encrypted");
}

/// By the roots of Mozilla, of the system, or both.
#[cfg(any(feature = "tls-native-roots", feature = "tls-webpki-roots"))]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_of_ones_own_is_trusted_where_it_is_given_and_not_by_the_usual_roots() {
    if !available() {
        return;
    }
    let (authority, dir) = (Authority::new(), TempDir::new().unwrap());
    let server = authority.server(dir.path());
    let Pair { certificate, key } = &authority.client;
    let usual = Tls::new().with_identity_pem(certificate.clone(), key.clone());
    let list = |tls| async { registry(&server, tls).list(&service()).await };
    let refused = list(usual.clone()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused:?}");
    let why = format!("{refused:?}");
    assert!(why.contains("invalid peer certificate"), "{why}");
    let given = usual.with_ca_pem(authority.own.certificate.clone());
    assert!(list(given).await.unwrap().members().is_empty());
}

/// Each process has certificates to be let in with: it is the server that one of them does not
/// trust.
#[cfg(feature = "tls-native-roots")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_trusts_what_its_system_trusts_and_nothing_else() {
    use plimsoll_test_servers::Process;

    use plimsoll_test_servers::probe::eventually;
    use support::stage::program;

    if !available() {
        return;
    }
    let (authority, dir) = (Authority::new(), TempDir::new().unwrap());
    let server = authority.server(dir.path());
    let path = |name: &str| dir.path().join(name);
    fs::write(path("other-ca"), &Authority::new().own.certificate).unwrap();
    let url = format!(
        "etcd://127.0.0.1:{}/plimsoll-test?tls=true&cert={}&key={}&domain=localhost",
        server.address().port(),
        path("client-cert").display(),
        path("client-key").display(),
    );
    // A process on a system that has these roots, and what it says.
    let start = |roots: &str| {
        let log = path(roots).with_extension("log");
        let mut command = std::process::Command::new(program());
        command.args([url.as_str(), service().as_str(), "a"]);
        // Where it looks for them, before the places that are usual on its system.
        command.env("SSL_CERT_FILE", path(roots));
        command.env_remove("SSL_CERT_DIR");
        let process = Process::spawn(&mut command, &log);
        (process, move || {
            fs::read_to_string(&log).unwrap_or_default()
        })
    };
    let (_stranger, refused) = start("other-ca");
    eventually("a typed error, and why", || async {
        let said = refused();
        let told = ["kind: Unavailable", "invalid peer certificate"];
        told.iter().all(|told| said.contains(told)).then_some(())
    })
    .await;
    let (_trusting, trusted) = start("ca");
    eventually("a live registration", || async {
        trusted().contains("Live").then_some(())
    })
    .await;
    let handle = registry(&server, authority.known());
    listed(&handle, "the instance", |s| ids(s) == ["a"]).await;
    assert!(!refused().contains("Live"), "{}", refused());
}

/// Whoever renews both writes one after the other.
#[test]
fn a_certificate_with_the_key_of_another_is_no_identity() {
    let authority = Authority::new();
    let (client, other) = (&authority.client, Authority::new().client);
    let built = |key: &str| {
        let tls = Tls::new()
            .with_ca_pem(authority.own.certificate.as_str())
            .with_identity_pem(client.certificate.as_str(), key);
        EtcdRegistry::builder(["127.0.0.1:1"]).with_tls(tls).build()
    };
    assert!(built(&client.key).is_ok());
    let error = built(&other.key).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    assert!(error.to_string().contains("cert"), "{error}");
}

/// As an authority does that ends: neither side believes what the old one has signed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_renewed_on_disk_are_taken_up_by_handles_that_are_in_use() {
    if !available() {
        return;
    }
    let (old, new, dir) = (Authority::new(), Authority::new(), TempDir::new().unwrap());
    let mut server = old.server(dir.path());
    let path = |name: &str| dir.path().join(name).display().to_string();
    let url = format!(
        "etcd://127.0.0.1:{}/plimsoll-test?lease_ttl=4s&ca={}&cert={}&key={}",
        server.address().port(),
        path("ca"),
        path("client-cert"),
        path("client-key")
    );
    let handle = EtcdRegistry::from_url(&url.parse().unwrap()).unwrap();
    let registration = handle.register(instance("a")).await.unwrap();
    ready(&registration).await;
    let mut watch = handle.watch(&service()).await.unwrap();
    shown(&mut watch, "the member", |s| ids(s) == ["a"]).await;
    new.write(dir.path());
    // Whoever renews them has only begun.
    let half = &new.client.certificate[..100];
    fs::write(path("client-cert"), half).unwrap();
    block_in_place(|| server.restart());
    shown(&mut watch, "a stale list", |s| !s.freshness().is_live()).await;
    state(&registration, "a registration in doubt", |s| !s.is_live()).await;
    fs::write(path("client-cert"), &new.client.certificate).unwrap();
    state(&registration, "Live", RegistrationState::is_live).await;
    registration.load().set(5);
    shown(&mut watch, "the load", |s| {
        s.freshness().is_live() && load_of(s, "a") == Some(5)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_replaced_on_a_live_handle_are_used_by_the_next_connection() {
    if !available() {
        return;
    }
    let (old, new, dir) = (Authority::new(), Authority::new(), TempDir::new().unwrap());
    let mut server = old.server(dir.path());
    let of = |authority: &Authority| {
        let Pair { certificate, key } = &authority.client;
        [&authority.own.certificate, certificate, key].map(Clone::clone)
    };
    let given = of(&old).map(Credential::from);
    let [ca, certificate, key] = given.clone();
    let tls = Tls::new()
        .with_ca_pem(ca)
        .with_identity_pem(certificate, key);
    let handle = registry(&server, tls);
    let registration = handle.register(instance("a")).await.unwrap();
    ready(&registration).await;
    new.write(dir.path());
    block_in_place(|| server.restart());
    state(&registration, "a registration in doubt", |s| !s.is_live()).await;
    for (given, value) in given.iter().zip(of(&new)) {
        given.replace(value);
    }
    state(&registration, "Live", RegistrationState::is_live).await;
    assert!(!format!("{handle:?} {given:?}").contains("BEGIN"));
}
