//! What strangers may write, for fuzzers and property tests: each panics where something does not
//! hold of it. No part of the API.

use plimsoll_discovery_api::{ErrorKind, ServiceName};

use crate::{RegistryUrl, decode, escape, read_load, unescape};

/// A record of ours, and a key.
pub fn record(bytes: &[u8]) {
    let Ok(service) = ServiceName::new("orders") else {
        return;
    };
    match decode(&service, bytes) {
        Ok(decoded) => assert_eq!(decoded.instance.service(), &service),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}"),
    }
    let text = String::from_utf8_lossy(bytes);
    assert_eq!(unescape(&escape(&text)).ok().as_deref(), Some(&*text));
    if let Ok(name) = unescape(&text) {
        assert_eq!(escape(&name), text, "two keys of one name");
    }
}

/// A load.
pub fn load(bytes: &[u8]) {
    let _whatever = read_load(bytes);
}

/// A URL.
pub fn url(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match text.parse::<RegistryUrl>() {
        Ok(url) => {
            let shown = format!("{url:?}");
            let secret = url.password().filter(|secret| secret.len() > 8);
            // It may stand elsewhere too, by chance.
            let secret = secret.filter(|secret| text.matches(secret).count() == 1);
            assert!(secret.is_none_or(|secret| !shown.contains(secret)));
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}"),
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_test_servers::holds_of_all;

    #[test]
    fn no_record_whatever_it_holds_is_a_panic() {
        holds_of_all("record", super::record);
    }

    #[test]
    fn no_load_whatever_it_holds_is_a_panic() {
        holds_of_all("load", super::load);
    }

    #[test]
    fn no_url_whatever_it_holds_is_a_panic_or_tells_its_secret() {
        holds_of_all("url", super::url);
    }
}
