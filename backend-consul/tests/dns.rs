//! Consul's own DNS, for programs that know nothing of plimsoll.

mod support;

use std::net::UdpSocket;
use std::time::Duration;

use plimsoll_discovery_api::{Instance, Weight};
use plimsoll_test_servers::consul::{Data, Server, available};
use plimsoll_test_servers::probe::{eventually, life, live};
use plimsoll_test_servers::{Mode, Proxy};
use tokio::task::block_in_place;

use support::harness::builder;
use support::operator::get;

const SRV: u16 = 33;

/// The port and the weight of each record of `name`, in the order of the ports; `None` if there was
/// no answer.
fn ask(server: &Server, name: &str) -> Option<Vec<(u16, u16)>> {
    // One question, of the class of the Internet.
    let mut query = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).expect("a label"));
        query.extend(label.as_bytes());
    }
    query.push(0);
    query.extend(SRV.to_be_bytes());
    query.extend([0, 1]);
    let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("a socket");
    let patience = Some(Duration::from_secs(1));
    socket.set_read_timeout(patience).expect("a timeout");
    socket.send_to(&query, server.dns_address()).ok()?;
    let mut answer = [0; 4096];
    let length = socket.recv(&mut answer).ok()?;
    let answer = &answer[..length];
    let number = |at: usize| u16::from_be_bytes([answer[at], answer[at + 1]]);
    assert_eq!(
        (answer[0], answer[1]),
        (7, 7),
        "an answer to another question"
    );
    assert_eq!(answer[2] & 2, 0, "cut short");
    let mut at = query.len();
    let mut found = Vec::new();
    for _ in 0..number(6) {
        at = behind_name(answer, at);
        let (kind, length) = (number(at), usize::from(number(at + 8)));
        let data = at + 10;
        if kind == SRV {
            found.push((number(data + 4), number(data + 2)));
        }
        at = data + length;
    }
    found.sort_unstable();
    Some(found)
}

/// Where the name that begins `at` ends: with nothing, or by pointing elsewhere.
fn behind_name(answer: &[u8], mut at: usize) -> usize {
    loop {
        match answer[at] {
            0 => return at + 1,
            length if length & 0xC0 != 0 => return at + 2,
            length => at += usize::from(length) + 1,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consuls_dns_names_who_passes_by_address_and_weight_and_nobody_who_is_critical() {
    if !available() {
        return;
    }
    let settings = "dns_config { udp_answer_limit = 10 }";
    let server = block_in_place(|| Server::start_with(Data::Memory, settings, None));
    let instance = |id: &str, port: u16, weight: u32| {
        let builder = Instance::builder("orders", "10.0.0.7", port).with_id(id);
        builder.with_weight(weight).build().expect("an instance")
    };
    let staying = builder(server.address()).build().unwrap();
    let heavy = live(&staying, instance("heavy", 8081, 700)).await;
    let proxy = Proxy::start(server.address(), Mode::Pass);
    let dying = builder(proxy.address()).build().unwrap();
    let _light = live(&dying, instance("light", 8082, Weight::DEFAULT.get())).await;
    let seen = |what: &'static str, wanted: &'static [(u16, u16)]| {
        let server = &server;
        eventually(what, move || async move {
            let found = block_in_place(|| ask(server, "orders.service.consul"))?;
            (found == wanted).then_some(())
        })
    };
    seen("both", &[(8081, 7), (8082, 1)]).await;
    let catalogued = block_in_place(|| get(&server, "/v1/catalog/service/orders"));
    let of_heavy = catalogued
        .as_array()
        .unwrap()
        .iter()
        .find(|s| s["ServicePort"] == 8081);
    let of_heavy = of_heavy.expect("the heavy one");
    assert_eq!(of_heavy["ServiceWeights"]["Passing"], 7);
    assert_eq!(
        of_heavy["ServiceMeta"]["plimsoll-incarnation"],
        life(&heavy).to_string()
    );
    // It speaks no more, and its check lapses.
    proxy.set(Mode::End);
    seen("the one that still speaks", &[(8081, 7)]).await;
    let checks = block_in_place(|| get(&server, "/v1/health/checks/orders"));
    let critical = checks
        .as_array()
        .unwrap()
        .iter()
        .filter(|c| c["Status"] == "critical");
    assert_eq!(critical.count(), 1, "it is in the catalog still: {checks}");
    heavy.deregister().await.unwrap();
    seen("nobody", &[]).await;
}
