//! Names of files: one for each instance, whatever it is called.

use plimsoll_backend_kit::escape;
use plimsoll_discovery_api::{Instance, InstanceId, ServiceName};

/// Two names, what stands between them and nothing else fit in the 255 bytes that file systems allow.
const LONGEST: usize = 120;
/// `+` and 32 digits.
const DIGEST: usize = 33;

/// The name of the files of `instance`.
pub(crate) fn of(instance: &Instance) -> String {
    file(instance.service(), instance.id())
}

/// The name of the files of an instance; the kit's escape writes neither `@` nor `+`.
pub(crate) fn file(service: &ServiceName, id: &InstanceId) -> String {
    prefix(service) + &shortened(id.as_str())
}

/// What the names of all files of a service begin with, and no other's.
pub(crate) fn prefix(service: &ServiceName) -> String {
    shortened(service.as_str()) + "@"
}

/// The escaped name; of a long one the beginning, and a digest of the whole.
fn shortened(name: &str) -> String {
    let mut key = escape(name);
    if key.len() > LONGEST {
        key.truncate(LONGEST - DIGEST);
        key.push_str(&format!("+{:032x}", fnv1a(name.as_bytes())));
    }
    key
}

/// FNV-1a of 128 bits (draft-eastlake-fnv), which is the same in every build. Collisions are made, not
/// met; whoever can write here needs none.
fn fnv1a(bytes: &[u8]) -> u128 {
    const PRIME: u128 = (1 << 88) + 0x13b;
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    let step = |hash: u128, byte: &u8| (hash ^ u128::from(*byte)).wrapping_mul(PRIME);
    bytes.iter().fold(BASIS, step)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_name_is_a_file_of_its_own_and_none_is_too_long() {
        let long = [
            "/".repeat(128),
            "/".repeat(127) + "%",
            "x".repeat(128),
            "ü".repeat(64),
        ];
        let short = ["a", "a@b", "a+b", "..", "a/b", "a%2Fb"].map(str::to_owned);
        let names: Vec<_> = long.into_iter().chain(short).collect();
        let mut files = BTreeSet::new();
        for service in &names {
            for id in &names {
                let file = file(&service.parse().unwrap(), &id.parse().unwrap());
                assert!(file.len() <= 255 && file.is_ascii() && !file.contains('/'));
                assert!(files.insert(file), "{service} {id}");
            }
        }
    }

    #[test]
    fn the_digest_is_the_published_one() {
        // The vectors of draft-eastlake-fnv, appendix B.
        assert_eq!(fnv1a(b""), 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
        assert_eq!(fnv1a(b"a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
        assert_eq!(fnv1a(b"foobar"), 0x343e_1662_793c_64bf_6f0d_3597_ba44_6f18);
    }
}
