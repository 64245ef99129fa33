//! Binding and registering.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use plimsoll::{ErrorKind, Server, ServerBuilder, Status};
use tokio::net::TcpListener;

use crate::support::{ScriptedRegistry, no_tasks_left};
use crate::{connect, echo, ping, server_of};

#[tokio::test]
async fn the_bound_address_is_registered_with_every_attribute() {
    let registry = ScriptedRegistry::new();
    let server = Server::builder(registry.arc(), "s")
        .with_id("a")
        .with_zone("z")
        .with_version("2.1")
        .with_weight(50)
        .with_capacity(9)
        .with_metadata("commit", "3f2a9c1")
        .with_metadata("rack", "7")
        .with_secure(true)
        .start(echo)
        .await
        .unwrap();
    let [member] = &registry.registered()[..] else {
        panic!("one member")
    };
    let instance = member.instance();
    assert_eq!(instance.authority(), server.local_addr().to_string());
    assert_ne!(instance.port(), 0);
    assert_eq!(
        (instance.service().as_str(), instance.id().as_str()),
        ("s", "a")
    );
    assert_eq!(instance.zone().unwrap().as_str(), "z");
    assert_eq!(instance.version().unwrap().to_string(), "2.1.0");
    assert_eq!(
        (instance.weight().get(), instance.capacity().unwrap().get()),
        (50, 9)
    );
    assert_eq!(
        instance.metadata().iter().collect::<Vec<_>>(),
        [("commit", "3f2a9c1"), ("rack", "7")]
    );
    assert!(instance.is_secure());
    assert_eq!(instance.status(), Status::Up);
    assert_eq!(*server.instance(), **instance);
    assert_eq!(
        ping(&mut connect(server.local_addr()).await).await.unwrap(),
        7
    );
}

#[tokio::test]
async fn an_advertised_port_is_registered_in_place_of_the_bound_one() {
    let registry = ScriptedRegistry::new();
    let error = server_of(&registry)
        .with_advertised_port(0)
        .start(echo)
        .await
        .unwrap_err();
    assert_eq!(error.context().next(), Some(("port", "0")));
    let builder = server_of(&registry).with_advertised_port(443);
    let server = builder.start(echo).await.unwrap();
    assert_eq!(server.instance().port(), 443);
    assert_ne!(server.local_addr().port(), 443);
    assert_eq!(registry.registered()[0].instance().port(), 443);
}

#[tokio::test]
async fn an_unspecified_address_takes_an_advertised_host() {
    let registry = ScriptedRegistry::new();
    for unspecified in ["0.0.0.0:0", "[::]:0"] {
        let address: SocketAddr = unspecified.parse().unwrap();
        let error = server_of(&registry)
            .with_bind(address)
            .start(echo)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert_eq!(error.context().next(), Some(("bind", unspecified)));
    }
    assert!(registry.log().is_empty(), "refused before any I/O");

    let builder = server_of(&registry).with_bind((Ipv4Addr::UNSPECIFIED, 0));
    let server = builder
        .with_advertised_host("node-7.example")
        .start(echo)
        .await
        .unwrap();
    let port = server.local_addr().port();
    assert_eq!(
        server.instance().authority(),
        format!("node-7.example:{port}")
    );
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    assert_eq!(ping(&mut connect(local).await).await.unwrap(), 7);
}

#[tokio::test]
async fn an_address_to_bind_is_taken_as_text_as_parts_and_by_name() {
    let registry = ScriptedRegistry::new();
    let local = |server: &Server| {
        assert!(server.local_addr().ip().is_loopback());
        assert_eq!(
            server.instance().authority(),
            server.local_addr().to_string()
        );
    };
    local(
        &server_of(&registry)
            .with_bind("127.0.0.1:0")
            .start(echo)
            .await
            .unwrap(),
    );
    local(
        &server_of(&registry)
            .with_bind(("127.0.0.1", 0))
            .start(echo)
            .await
            .unwrap(),
    );
    local(
        &server_of(&registry)
            .with_bind("localhost:0")
            .start(echo)
            .await
            .unwrap(),
    );
    let wide = server_of(&registry).with_bind("0.0.0.0:0".to_owned());
    let server = wide
        .with_advertised_host("localhost")
        .start(echo)
        .await
        .unwrap();
    assert!(server.local_addr().ip().is_unspecified());

    let before = registry.log();
    for (bad, why) in [
        ("0.0.0.0", "port"),
        (":80", "host"),
        ("a b:80", "name:port"),
    ] {
        let error = server_of(&registry)
            .with_bind(bad)
            .start(echo)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{bad}");
        assert_eq!(error.context().next(), Some(("bind", bad)));
        assert!(error.to_string().contains(why), "{error}");
    }
    let unknown = server_of(&registry).with_bind("no-such-host.invalid:0");
    let error = unknown.start(echo).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.operation()),
        (ErrorKind::Unavailable, Some("bind"))
    );
    assert_eq!(registry.log(), before);
}

#[tokio::test]
async fn a_listener_that_exists_is_accepted_from_and_registered() {
    let registry = ScriptedRegistry::new();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let of_std = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addresses = [listener.local_addr().unwrap(), of_std.local_addr().unwrap()];
    let builders = [
        server_of(&registry).with_listener(listener),
        server_of(&registry).with_id("b").with_std_listener(of_std),
    ];
    for (builder, address) in builders.into_iter().zip(addresses) {
        let server = builder.start(echo).await.unwrap();
        assert_eq!(server.local_addr(), address);
        assert_eq!(server.instance().authority(), address.to_string());
        let mut client = connect(address).await;
        assert_eq!(ping(&mut client).await.unwrap(), 7);
        assert_eq!(server.load().current(), 1);
    }
}

#[tokio::test]
async fn a_listener_is_given_by_itself_and_where_clients_can_reach_it() {
    let registry = ScriptedRegistry::new();
    let wide = || std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let error = server_of(&registry)
        .with_std_listener(wide())
        .start(echo)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    let both = server_of(&registry)
        .with_bind("127.0.0.1:0")
        .with_std_listener(wide());
    let error = both.start(echo).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert_eq!(error.context().next(), Some(("bind", "127.0.0.1:0")));
    assert!(registry.log().is_empty());
    let told = server_of(&registry)
        .with_std_listener(wide())
        .with_advertised_host("h");
    let server = told.start(echo).await.unwrap();
    assert_eq!(server.instance().host().to_string(), "h");
}

#[tokio::test]
async fn a_service_that_is_given_twice_or_has_no_name_is_refused_before_any_io() {
    let registry = ScriptedRegistry::new();
    for bad in ["s", ""] {
        let builder = server_of(&registry).with_service("t").with_service(bad);
        let error = builder.start(echo).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_eq!(error.context().next(), Some(("service", bad)));
    }
    assert!(registry.log().is_empty());
}

#[tokio::test]
async fn each_bad_attribute_is_refused_by_name_before_anything_is_bound() {
    let registry = ScriptedRegistry::new();
    // Taken: whoever tries to bind it before looking at the rest fails with another error.
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = taken.local_addr().unwrap();
    let good = || server_of(&registry).with_bind(address);
    let cases: [(&str, ServerBuilder); 8] = [
        (
            "service",
            Server::builder(registry.arc(), "").with_bind(address),
        ),
        ("host", good().with_advertised_host("a b")),
        ("id", good().with_id("")),
        ("zone", good().with_zone("\n")),
        ("version", good().with_version("newest")),
        ("weight", good().with_weight(2_000_000)),
        ("capacity", good().with_capacity(0)),
        ("metadata key", good().with_metadata("a b", "v")),
    ];
    for (field, builder) in cases {
        let error = builder.start(echo).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{field}");
        assert_eq!(error.context().next().map(|(name, _)| name), Some(field));
    }
    assert!(registry.log().is_empty());
}

#[tokio::test]
async fn an_address_that_cannot_be_bound_is_an_error_that_names_it_and_registers_nothing() {
    let registry = ScriptedRegistry::new();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let foreign = SocketAddr::from(([192, 0, 2, 1], 0));
    for (address, kind) in [
        (taken.local_addr().unwrap(), ErrorKind::Unavailable),
        (foreign, ErrorKind::InvalidConfig),
    ] {
        let error = server_of(&registry)
            .with_bind(address)
            .start(echo)
            .await
            .unwrap_err();
        assert_eq!((error.kind(), error.operation()), (kind, Some("bind")));
        assert_eq!(
            error.context().next(),
            Some(("bind", address.to_string().as_str()))
        );
    }
    assert!(registry.log().is_empty());
    no_tasks_left().await;
}

/// A token that may register one of them only is told at once, and not when the registry is back.
#[tokio::test(start_paused = true)]
async fn of_several_services_one_that_is_refused_waits_for_none_of_the_others() {
    let registry = ScriptedRegistry::new();
    for (first, second) in [("waits", "refused"), ("refused", "waits")] {
        let server = Server::builder(registry.arc(), first).with_service(second);
        let server = server.start(echo).await.unwrap();
        let ready = tokio::time::timeout(Duration::from_secs(60), server.ready());
        let error = ready.await.expect("an answer").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    }
    let server = Server::builder(registry.arc(), "s").with_service("t");
    let server = server.start(echo).await.unwrap();
    server.ready().await.unwrap();
}
