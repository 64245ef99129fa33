use std::error::Error as _;
use std::future::pending;
use std::net::TcpListener;

use plimsoll_backend_kit::Class;
use tokio::time::Instant;

use super::*;
use crate::ConsulBuilder;

const TIMEOUT: Duration = Duration::from_secs(2);

fn http(address: &str) -> Http {
    let builder = ConsulBuilder::new(address).with_request_timeout(TIMEOUT);
    Http::new(&builder.config().unwrap()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn late_claims_lengthen_what_claims_ask_and_neither_beats_nor_waits() {
    // It takes connections, and never answers.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let http = http(&silent.local_addr().unwrap().to_string());
    let late = || async {
        for _ in 0..4 {
            let claim = http.admission().enter(Class::Claim).await;
            let late = claim.run(TIMEOUT, pending::<Result<()>>()).await;
            assert_eq!(late.unwrap_err().kind(), ErrorKind::TimedOut);
        }
        http.admission().patience(TIMEOUT)
    };
    let longer = late().await;
    assert!(longer > TIMEOUT * 2, "{longer:?}");
    let wait = Duration::from_secs(16);
    let patient = http.patient();
    for (http, request, limit) in [
        (&http, Request::put("renewal", "session/renew/x"), TIMEOUT),
        (
            &http,
            Request::get("health", "health/service/x").blocking(1, wait),
            TIMEOUT + wait + wait / WAIT_JITTER,
        ),
        (
            &patient,
            Request::put("register", "agent/service/register"),
            longer,
        ),
    ] {
        // Time undoes it.
        assert_eq!(late().await, longer);
        let asked = Instant::now();
        let failure = http.send(request).await.unwrap_err();
        assert_eq!(failure.error.kind(), ErrorKind::TimedOut);
        let took = asked.elapsed();
        let exact = limit..limit + Duration::from_millis(50);
        assert!(exact.contains(&took), "{took:?} instead of {limit:?}");
    }
}

#[tokio::test]
async fn the_agents_name_is_resolved_by_what_tries_its_addresses_side_by_side() {
    let authority = "no-such-host.invalid:8500";
    let http = http(authority);
    let answer = http.send(Request::get("leader", "status/leader")).await;
    let error = answer.unwrap_err().error;
    let mut causes = std::iter::successors(error.source(), |&cause| cause.source());
    let named = causes.find_map(|cause| cause.downcast_ref::<Error>());
    let named = named.unwrap_or_else(|| panic!("resolved by something else: {error:?}"));
    assert!(
        named.context().any(|pair| pair == ("to", authority)),
        "{named:?}"
    );
}
