//! Tokens, and what a handle asks for at rest.

mod support;

use std::time::{Duration, Instant};

use plimsoll_backend_consul::{ConsulRegistry, Credential};
use plimsoll_discovery_api::{ErrorKind, Instance, Registry};
use plimsoll_test_servers::consul::{Data, Server, available};
use plimsoll_test_servers::probe::{PATIENCE, eventually, ids, live, load_of, ready};
use tokio::task::block_in_place;
use tokio::time::{sleep, timeout};

use support::counter::Counter;
use support::harness::{ROOT, TTL, builder};
use support::operator::{get, put};

const MASTER: &str = "11111111-2222-3333-4444-555555555555";
const ACLS: &str = r#"acl { enabled = true default_policy = "deny" enable_key_list_policy = true
    tokens { master = "11111111-2222-3333-4444-555555555555" agent = "11111111-2222-3333-4444-555555555555" } }"#;

fn guarded() -> Server {
    block_in_place(|| Server::start_with(Data::Memory, ACLS, Some(MASTER)))
}

fn instance(id: &str) -> Instance {
    Instance::builder("orders", "10.0.0.7", 8080)
        .with_id(id)
        .build()
        .expect("an instance")
}

/// A token that may do what these rules say.
fn token(server: &Server, rules: &str) -> String {
    block_in_place(|| {
        let rules = rules.replace('"', "\\\"");
        put(
            server,
            "/v1/acl/policy",
            &format!(r#"{{"Name":"p","Rules":"{rules}"}}"#),
        );
        let token = put(server, "/v1/acl/token", r#"{"Policies":[{"Name":"p"}]}"#);
        let token: serde_json::Value = serde_json::from_str(&token).expect("JSON");
        token["SecretID"].as_str().expect("a token").to_owned()
    })
}

/// Gives the tokens that were made here other rights.
fn rewrite_policy(server: &Server, rules: &str) {
    block_in_place(|| {
        let policies = get(server, "/v1/acl/policies");
        let mut policies = policies.as_array().expect("policies").iter();
        let own = policies.find(|policy| policy["Name"] == "p").expect("ours");
        let id = own["ID"].as_str().expect("an id");
        let rules = rules.replace('"', "\\\"");
        let body = format!(r#"{{"Name":"p","Rules":"{rules}"}}"#);
        put(server, &format!("/v1/acl/policy/{id}"), &body);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_and_a_wrong_token_are_told_so_and_tried_no_more_than_once_a_second() {
    if !available() {
        return;
    }
    let server = guarded();
    for token in [None, Some("99999999-8888-7777-6666-555555555555")] {
        let counter = Counter::start(server.address());
        let builder = builder(counter.address());
        let stranger = match token {
            Some(token) => builder.with_token(token),
            None => builder,
        };
        let stranger = stranger.build().unwrap();
        let registration = stranger.register(instance("a")).await.unwrap();
        let refused = timeout(PATIENCE, registration.ready())
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unauthenticated, "{refused}");
        let service = &registration.instance().service().clone();
        let _watch = stranger.watch(service).await.unwrap();
        let mut shown = format!("{refused:?} {stranger:?} {:?}", registration.state());
        // Without any token Consul answers with what nobody is forbidden to see, which is nothing.
        match stranger.list(service).await {
            Ok(listed) => assert!(token.is_none() && listed.members().is_empty()),
            Err(listed) => {
                assert_eq!(listed.kind(), ErrorKind::Unauthenticated, "{listed}");
                shown += &format!("{listed:?}");
            }
        }
        assert!(token.is_none_or(|token| !shown.contains(token)), "{shown}");
        sleep(Duration::from_secs(1)).await;
        let (before, began) = (counter.lines().len(), Instant::now());
        sleep(Duration::from_secs(5)).await;
        let asked = counter.lines().split_off(before);
        let count = |path: &str| asked.iter().filter(|line| line.contains(path)).count();
        let most = seconds(began.elapsed()) + 1;
        let attempts = count("/v1/session/create");
        assert!(
            (1..=most).contains(&attempts),
            "{attempts} attempts to register: {asked:?}"
        );
        let queries = count("/v1/health/service/");
        assert!(
            (1..=most).contains(&queries),
            "{queries} attempts to follow: {asked:?}"
        );
        // Whoever follows with loads reads them with each list, and no more often.
        let loads = count("/v1/kv/");
        assert!(loads <= most, "{loads} reads of loads: {asked:?}");
        assert_eq!(asked.len(), attempts + queries + loads, "{asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_the_documented_rights_is_enough_and_its_loss_is_told() {
    if !available() {
        return;
    }
    let server = guarded();
    let secret = token(&server, &rules(KEYS, NODES));
    let counter = Counter::start(server.address());
    let registry = builder(counter.address())
        .with_token(&secret)
        .build()
        .unwrap();
    let registration = live(&registry, instance("a")).await;
    registration.load().set(9);
    registration.load().flush().await.unwrap();
    let service = registration.instance().service().clone();
    let listed = registry.list(&service).await.unwrap();
    assert_eq!((ids(&listed), load_of(&listed, "a")), (vec!["a"], Some(9)));
    let watch = registry.watch(&service).await.unwrap();
    eventually("it in the watch", || async {
        watch.latest().filter(|s| ids(s) == ["a"])
    })
    .await;

    let elsewhere = Instance::builder("payments", "10.0.0.7", 1)
        .build()
        .unwrap();
    let other = builder(server.address()).with_token(&secret);
    let other = other.build().unwrap();
    let elsewhere = other.register(elsewhere).await.unwrap();
    let refused = timeout(PATIENCE, elsewhere.ready())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{refused}");
    drop((elsewhere, watch));
    let fleet = [
        live(&registry, instance("b")).await,
        live(&registry, instance("c")).await,
    ];

    let token: serde_json::Value = {
        let (_, body) = block_in_place(|| server.call("GET", "/v1/acl/tokens", ""));
        serde_json::from_str(&body).unwrap()
    };
    let accessor = token
        .as_array()
        .unwrap()
        .iter()
        .find(|t| t["Policies"][0]["Name"] == "p")
        .unwrap();
    let accessor = accessor["AccessorID"].as_str().unwrap();
    block_in_place(|| server.call("DELETE", &format!("/v1/acl/token/{accessor}"), ""));
    for registration in fleet.iter().chain([&registration]) {
        plimsoll_test_servers::probe::state(registration, "not Live", |s| !s.is_live()).await;
    }
    let cause = registration
        .state()
        .cause()
        .map(plimsoll_discovery_api::Error::kind);
    assert!(
        matches!(
            cause,
            Some(
                ErrorKind::Unauthenticated | ErrorKind::PermissionDenied | ErrorKind::LeaseExpired
            )
        ),
        "{:?}",
        registration.state()
    );
    // All of them ask through one beat: a renewal a second, and the passes of the rhythm, of which
    // the first that is refused speaks for the others.
    let (before, began) = (counter.lines().len(), Instant::now());
    sleep(Duration::from_secs(6)).await;
    let asked = counter.lines().split_off(before);
    let count = |path: &str| asked.iter().filter(|line| line.contains(path)).count();
    let took = began.elapsed();
    println!("after the loss of the token, in {took:?}: {asked:?}");
    let renewals = count("/v1/session/renew/");
    let most = seconds(took) + 1;
    assert!(
        (1..=most).contains(&renewals),
        "{renewals} renewals: {asked:?}"
    );
    let beats = seconds(took) / seconds(TTL / 2) + 2;
    let passes = count("/v1/agent/check/pass/");
    assert!(
        passes <= beats * (fleet.len() + 1),
        "{passes} passes: {asked:?}"
    );
    assert_eq!(asked.len(), renewals + passes, "{asked:?}");
}

/// Whole seconds, to be compared with a count.
fn seconds(span: Duration) -> usize {
    usize::try_from(span.as_secs()).expect("a short time")
}

/// The rules of the documentation, but for what may be done with keys and what is said of nodes.
fn rules(keys: &str, nodes: &str) -> String {
    let rules = format!(
        r#"service "orders" {{ policy = "write" }} session_prefix "" {{ policy = "write" }} {keys} {nodes}"#
    );
    rules.replace("ROOT", ROOT)
}

const KEYS: &str = r#"key_prefix "ROOT/" { policy = "write" }"#;
const KEYS_READ: &str = r#"key_prefix "ROOT/" { policy = "list" }"#;
const NODES: &str = r#"node_prefix "" { policy = "read" }"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_a_token_may_read_and_not_write_is_denied_and_no_lost_race() {
    if !available() {
        return;
    }
    let server = guarded();
    let secret = token(&server, &rules(KEYS_READ, NODES));
    let counter = Counter::start(server.address());
    let registry = builder(counter.address())
        .with_token(&secret)
        .build()
        .unwrap();
    let registration = registry.register(instance("a")).await.unwrap();
    let refused = timeout(PATIENCE, registration.ready()).await.unwrap();
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{refused}");
    let writes = counter.count("/v1/txn");
    assert_eq!(counter.count("/v1/kv/"), 0, "nobody else was looked for");
    let began = Instant::now();
    sleep(Duration::from_secs(3)).await;
    let writes = counter.count("/v1/txn") - writes;
    let most = seconds(began.elapsed()) + 1;
    assert!((1..=most).contains(&writes), "{writes} attempts");
}

/// Who registers looks whether it is seen, and so it must be allowed to look.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_may_not_see_its_node_is_told_what_it_lacks() {
    if !available() {
        return;
    }
    let server = guarded();
    let secret = token(&server, &rules(KEYS, ""));
    let registry = builder(server.address())
        .with_token(&secret)
        .build()
        .unwrap();
    let registration = registry.register(instance("a")).await.unwrap();
    let refused = timeout(PATIENCE, registration.ready()).await.unwrap();
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{refused}");
    assert!(refused.to_string().contains("node:read"), "{refused}");
    rewrite_policy(&server, &rules(KEYS, NODES));
    plimsoll_test_servers::probe::state(&registration, "Live", |s| s.is_live()).await;
}

/// Nor may one who could write it, and has lost that right since, remove it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_a_token_may_not_make_is_denied() {
    if !available() {
        return;
    }
    let server = guarded();
    let secret = token(&server, &rules(KEYS, NODES));
    let registry = builder(server.address())
        .with_token(&secret)
        .build()
        .unwrap();
    let registration = live(&registry, instance("a")).await;
    rewrite_policy(&server, &rules(KEYS_READ, NODES));
    let denied = eventually("a load that is denied", || async {
        registration.load().set(registration.load().current() + 1);
        registration.load().flush().await.err()
    })
    .await;
    assert_eq!(denied.kind(), ErrorKind::PermissionDenied, "{denied}");
    let denied = registration.deregister().await.unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::PermissionDenied, "{denied}");
    // The service is gone all the same, and the key with the session.
    let listed = builder(server.address())
        .with_token(MASTER)
        .build()
        .unwrap();
    let service = registration.instance().service().clone();
    eventually("nobody in the list", || async {
        let listed = listed.list(&service).await.ok()?;
        listed.members().is_empty().then_some(())
    })
    .await;
}

/// It is denied with every beat, while the others are passed as ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_a_token_is_denied_costs_no_other_its_check() {
    const DENIED: usize = 20;
    if !available() {
        return;
    }
    let server = guarded();
    let payments = r#"service "payments" { policy = "write" }"#;
    let secret = token(&server, &rules(KEYS, &format!("{NODES} {payments}")));
    let counter = Counter::start(server.address());
    let registry = builder(counter.address())
        .with_token(&secret)
        .build()
        .unwrap();
    let mut denied = Vec::new();
    for index in 0..DENIED {
        let instance = Instance::builder("payments", "10.0.0.7", 1).with_id(format!("p{index}"));
        denied.push(live(&registry, instance.build().unwrap()).await);
    }
    let allowed = live(&registry, instance("a")).await;
    rewrite_policy(&server, &rules(KEYS, NODES));
    for registration in &denied {
        let is_denied = |state: &plimsoll_discovery_api::RegistrationState| {
            let cause = state.cause().map(plimsoll_discovery_api::Error::kind);
            cause == Some(ErrorKind::PermissionDenied)
        };
        plimsoll_test_servers::probe::state(registration, "denied", is_denied).await;
    }
    let before = counter.lines().len();
    let began = Instant::now();
    while began.elapsed() < TTL * 2 {
        assert!(allowed.state().is_live(), "{:?}", allowed.state());
        sleep(Duration::from_millis(50)).await;
    }
    let asked = counter.lines().split_off(before);
    let took = seconds(began.elapsed());
    let count = |path: &str| asked.iter().filter(|line| line.contains(path)).count();
    let beats = took / seconds(TTL / 2) + 3;
    let (passes, renewals) = (
        count("/v1/agent/check/pass/service%3Apayments"),
        count("/v1/session/renew/"),
    );
    println!("{passes} denied passes and {renewals} renewals in {took} s");
    assert!(
        passes >= DENIED && passes <= beats * DENIED,
        "{passes} denied passes in {took} s"
    );
    assert!(renewals <= took + 2, "{renewals} renewals in {took} s");
    rewrite_policy(&server, &rules(KEYS, &format!("{NODES} {payments}")));
    for registration in &denied {
        plimsoll_test_servers::probe::state(registration, "Live", |s| s.is_live()).await;
    }
}

/// Who is there is told to whoever may know that, and may not know more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_without_keys_sees_members_without_loads() {
    if !available() {
        return;
    }
    let server = guarded();
    let owner = builder(server.address())
        .with_token(MASTER)
        .build()
        .unwrap();
    let first = live(&owner, instance("a")).await;
    first.load().set(9);
    first.load().flush().await.unwrap();
    let secret = token(
        &server,
        r#"service "orders" { policy = "read" } node_prefix "" { policy = "read" }"#,
    );
    let counter = Counter::start(server.address());
    let reader = builder(counter.address())
        .with_token(&secret)
        .build()
        .unwrap();
    let service = first.instance().service().clone();
    let listed = reader.list(&service).await.unwrap();
    assert_eq!((ids(&listed), load_of(&listed, "a")), (vec!["a"], None));
    let watch = reader.watch(&service).await.unwrap();
    eventually("it in the watch", || async {
        watch.latest().filter(|s| ids(s) == ["a"])
    })
    .await;
    let (lists, polls) = (counter.lines().len(), counter.count("recurse"));
    let began = Instant::now();
    sleep(Duration::from_secs(4)).await;
    let polls = counter.count("recurse") - polls;
    let most = seconds(began.elapsed()) + 1;
    assert!((1..=most).contains(&polls), "{polls} reads of loads");
    let asked = counter.lines().split_off(lists);
    let anew = asked
        .iter()
        .filter(|l| l.contains("/v1/health/") && !l.contains("index="));
    assert_eq!(anew.count(), 0, "it was never read anew: {asked:?}");
    let _second = live(&owner, instance("b")).await;
    let both = eventually("both in the watch", || async {
        watch.latest().filter(|s| ids(s) == ["a", "b"])
    })
    .await;
    assert!(both.freshness().is_live());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_registrations_at_rest_cost_a_pass_each_and_one_renewal_per_half_ttl_and_a_write_each_per_load_age()
 {
    const FLEET: usize = 100;
    /// The defaults of a watch.
    const WAIT: Duration = Duration::from_secs(10);
    const POLL: Duration = Duration::from_secs(3);
    const TTL: Duration = Duration::from_secs(10);
    /// Shorter than the default, to be seen here.
    const LOAD_AGE: Duration = Duration::from_secs(8);
    if !available() {
        return;
    }
    let server = block_in_place(|| Server::start(Data::Memory));
    let counter = Counter::start(server.address());
    let registry = ConsulRegistry::builder(counter.address().to_string())
        .with_ttl(TTL)
        .with_session_ttl(TTL)
        .with_timings(|timings| timings.load.max_age = LOAD_AGE)
        .build()
        .unwrap();
    let mut fleet = Vec::new();
    for index in 0..FLEET {
        fleet.push(
            registry
                .register(instance(&format!("i{index:03}")))
                .await
                .unwrap(),
        );
    }
    for registration in &fleet {
        ready(registration).await;
    }
    // And somebody who follows them, loads and all.
    let mut watch = registry.watch(fleet[0].instance().service()).await.unwrap();
    let followed = watch.wait_for(|s| s.members().len() == FLEET);
    timeout(PATIENCE, followed).await.unwrap().unwrap();
    // The beat that aligns them, and the first of their rhythm.
    sleep(TTL / 2).await;
    let (passes, renewals, all) = (
        counter.count("/v1/agent/check/pass/"),
        counter.count("/v1/session/renew/"),
        counter.lines().len(),
    );
    let (queries, polls) = (counter.count("index="), counter.count("recurse"));
    let writes = counter.count("/v1/txn");
    let started = Instant::now();
    sleep(TTL * 2).await;
    let beats = started.elapsed().as_secs_f64() / (TTL.as_secs_f64() / 2.0);
    let passes = counter.count("/v1/agent/check/pass/") - passes;
    let renewals = counter.count("/v1/session/renew/") - renewals;
    let (queries, polls) = (
        counter.count("index=") - queries,
        counter.count("recurse") - polls,
    );
    let writes = counter.count("/v1/txn") - writes;
    let others = counter.lines().len() - all - passes - renewals - queries - polls - writes;
    println!(
        "{passes} passes, {renewals} renewals, {writes} writes, {queries} queries, {polls} polls, {others} others in {beats:.1} half TTLs"
    );
    let within = |span: Duration| started.elapsed().as_secs_f64() / span.as_secs_f64();
    assert!(
        (queries as f64) <= within(WAIT) + 1.0 && queries > 0,
        "{queries} queries"
    );
    assert!(
        (polls as f64) <= within(POLL) + 1.0 && polls > 0,
        "{polls} polls"
    );
    // A beat comes up to a tenth early, and the count may begin just before one.
    let most = (beats / 0.9).ceil() + 1.0;
    let least = beats.floor() - 1.0;
    assert!(
        (renewals as f64) <= most && (renewals as f64) >= least,
        "{renewals} renewals"
    );
    assert!((passes as f64) <= most * FLEET as f64, "{passes} passes");
    assert!((passes as f64) >= least * FLEET as f64, "{passes} passes");
    // Of a load that does not change, once in its age.
    let ages = within(LOAD_AGE);
    assert!(
        writes as f64 <= (ages.ceil() + 1.0) * FLEET as f64
            && writes as f64 >= (ages.floor() - 1.0) * FLEET as f64,
        "{writes} writes"
    );
    assert_eq!(others, 0, "{:?}", counter.lines().split_off(all));
    for registration in &fleet {
        assert!(registration.state().is_live());
    }
}

/// Each of them asks at a pace of its own whether it still stands, and all of them through one
/// session and one beat.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_registrations_in_an_outage_ask_in_one_beat_that_slows_down_to_one_a_second() {
    const FLEET: usize = 100;
    const TTL: Duration = Duration::from_secs(6);
    if !available() {
        return;
    }
    let mut server = block_in_place(|| Server::start(Data::Disk));
    let counter = Counter::start(server.address());
    let registry = ConsulRegistry::builder(counter.address().to_string())
        .with_ttl(TTL)
        .with_session_ttl(TTL)
        .build()
        .unwrap();
    let mut fleet = Vec::new();
    for index in 0..FLEET {
        let registration = registry.register(instance(&format!("i{index:03}"))).await;
        fleet.push(registration.unwrap());
    }
    for registration in &fleet {
        ready(registration).await;
    }
    block_in_place(|| server.kill());
    let lost =
        |registration: &plimsoll_discovery_api::Registration| !registration.state().is_live();
    eventually("all of them to know", || async {
        fleet.iter().all(lost).then_some(())
    })
    .await;
    let (mut attempts, mut most) = (0, 0);
    for _ in 0..15 {
        let before = counter.arrived();
        sleep(Duration::from_secs(1)).await;
        attempts += counter.arrived() - before;
        most = most.max(counter.arrived() - before);
    }
    println!("{attempts} connections in 15 s, {most} in one of them");
    // Beats are a second apart in the mean, which makes 15, and 25 is five times the deviation more.
    // While checks still stand, each makes nine connections: eight passes abreast, and the renewal;
    // after that the renewal alone.
    assert!(attempts >= 8, "{attempts} attempts are none");
    assert!(
        attempts <= 25 + 8 * 8 && most <= 8 * 9,
        "{attempts} attempts in 15 s, {most} in one"
    );
    block_in_place(|| server.restart());
    for registration in &fleet {
        plimsoll_test_servers::probe::state(registration, "Live", |state| state.is_live()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_least_rights_are_enough_and_each_that_is_missing_is_told() {
    if !available() {
        return;
    }
    let server = guarded();
    let node = block_in_place(|| get(&server, "/v1/agent/self"));
    let node = node["Config"]["NodeName"].as_str().unwrap();
    let least = [
        (
            r#"service "orders" { policy = "write" }"#.to_owned(),
            "service:write",
        ),
        (
            format!(r#"session "{node}" {{ policy = "write" }}"#),
            "session:write",
        ),
        (
            format!(r#"key_prefix "{ROOT}/load/orders/" {{ policy = "write" }}"#),
            "key:write",
        ),
        (
            format!(r#"node "{node}" {{ policy = "read" }}"#),
            "node:read",
        ),
    ];
    let without = |missing: &str| {
        let rules = least.iter().filter(|(_, right)| *right != missing);
        rules
            .map(|(rule, _)| rule.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let secret = token(&server, &without("nothing"));
    let handle = || {
        builder(server.address())
            .with_token(&secret)
            .build()
            .unwrap()
    };
    let registry = handle();
    let registration = live(&registry, instance("a")).await;
    registration.load().set(9);
    registration.load().flush().await.unwrap();
    let service = registration.instance().service().clone();
    let listed = registry.list(&service).await.unwrap();
    assert_eq!((ids(&listed), load_of(&listed, "a")), (vec!["a"], Some(9)));
    registration.deregister().await.unwrap();
    for (_, right) in &least {
        rewrite_policy(&server, &without(right));
        let registry = handle();
        let registration = registry
            .register(instance(&format!("b-{}", right.len())))
            .await
            .unwrap();
        let refused = timeout(PATIENCE, registration.ready())
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(
            refused.kind(),
            ErrorKind::PermissionDenied,
            "{right}: {refused}"
        );
        assert!(refused.to_string().contains(right), "{right}: {refused}");
        rewrite_policy(&server, &without("nothing"));
        plimsoll_test_servers::probe::state(&registration, "Live", |s| s.is_live()).await;
        registration.deregister().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_replaced_or_written_anew_is_used_with_the_next_request() {
    if !available() {
        return;
    }
    let server = guarded();
    let old = token(&server, &rules(KEYS, NODES));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, format!("{old}\n")).unwrap();
    let secret = Credential::from(&old);
    let given = builder(server.address())
        .with_token(&secret)
        .build()
        .unwrap();
    let url = format!(
        "consul://{}/{ROOT}?ttl=4s&session_ttl=10s&token_file={}",
        server.address(),
        file.display()
    );
    let read = ConsulRegistry::from_url(&url.parse().unwrap()).unwrap();
    let both = [
        live(&given, instance("a")).await,
        live(&read, instance("b")).await,
    ];
    let new = block_in_place(|| put(&server, "/v1/acl/token", r#"{"Policies":[{"Name":"p"}]}"#));
    let new: serde_json::Value = serde_json::from_str(&new).unwrap();
    let tokens = block_in_place(|| get(&server, "/v1/acl/tokens"));
    let is_old = |token: &&serde_json::Value| {
        token["Policies"][0]["Name"] == "p" && token["AccessorID"] != new["AccessorID"]
    };
    let accessor = tokens.as_array().unwrap().iter().find(is_old).unwrap();
    let new = new["SecretID"].as_str().unwrap();
    let accessor = accessor["AccessorID"].as_str().unwrap();
    block_in_place(|| server.call("DELETE", &format!("/v1/acl/token/{accessor}"), ""));
    for registration in &both {
        plimsoll_test_servers::probe::state(registration, "in doubt", |s| !s.is_live()).await;
    }
    secret.replace(new);
    std::fs::write(&file, format!("{new}\n")).unwrap();
    for registration in &both {
        plimsoll_test_servers::probe::state(registration, "Live", |s| s.is_live()).await;
    }
    let shown = format!("{given:?} {read:?} {:?}", both[0].state());
    assert!(!shown.contains(new) && !shown.contains(&old), "{shown}");
}
