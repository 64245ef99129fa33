//! Who may do what with the nodes that a handle creates.

use std::fmt;
use std::str::FromStr;

use plimsoll_discovery_api::{Error, ErrorKind, Result};
use zookeeper_client::{Acl as Grant, Acls, AuthId, Permission};

/// Who may do what with the nodes that a handle creates.
///
/// From text: `open`, `creator_all`, or a list as `zkCli.sh` writes it: `scheme:id:permissions`
/// with commas between, the permissions being letters of `cdrwa` (create, delete, read, write,
/// administer). Whoever registers needs `crdw`: an instance is created in a node of its service and
/// deleted from it, and that node is everybody's who registers there. Whoever only looks needs `r`.
///
/// ```
/// use plimsoll_backend_zk::Acl;
///
/// let readable: Acl = "auth::cdrwa,world:anyone:r".parse()?;
/// assert_ne!(readable, Acl::open());
/// # Ok::<(), plimsoll_discovery_api::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Acl(Vec<Grant>);

impl Acl {
    /// Everybody may do everything.
    #[must_use]
    pub fn open() -> Self {
        Self(Acls::anyone_all().to_vec())
    }

    /// Whoever has logged in as the creator has may do everything, and nobody else anything. Needs
    /// a login.
    #[must_use]
    pub fn creator_all() -> Self {
        Self(Acls::creator_all().to_vec())
    }

    /// Whether it names the creator, which the server refuses of somebody who has not logged in.
    pub(crate) fn names_the_creator(&self) -> bool {
        self.0.iter().any(|grant| grant.scheme() == "auth")
    }

    pub(crate) fn as_native(&self) -> Acls<'_> {
        Acls::new(&self.0)
    }
}

impl FromStr for Acl {
    type Err = Error;

    /// # Errors
    /// [`InvalidConfig`](ErrorKind::InvalidConfig) naming the scheme and permissions at fault; the
    /// id may be half of a secret.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "open" => Ok(Self::open()),
            "creator_all" => Ok(Self::creator_all()),
            list => list.split(',').map(read).collect::<Result<_>>().map(Self),
        }
    }
}

/// An id may have colons itself, as that of the scheme `digest` has.
fn read(text: &str) -> Result<Grant> {
    let (scheme, rest) = text.split_once(':').unwrap_or(("", text));
    let (id, letters) = rest.rsplit_once(':').unwrap_or((rest, ""));
    let mut permission = Permission::NONE;
    let mut known = !scheme.is_empty() && !letters.is_empty();
    for letter in letters.chars() {
        let one = match letter {
            'c' => Permission::CREATE,
            'd' => Permission::DELETE,
            'r' => Permission::READ,
            'w' => Permission::WRITE,
            'a' => Permission::ADMIN,
            _ => {
                known = false;
                Permission::NONE
            }
        };
        permission = permission | one;
    }
    if !known {
        return Err(Error::new(
            ErrorKind::InvalidConfig,
            "acl is not open, creator_all or a list of scheme:id:permissions, with permissions of cdrwa",
        )
        .with_context("scheme", scheme)
        .with_context("permissions", letters));
    }
    Ok(Grant::new(permission, AuthId::new(scheme, id)))
}

/// Without the ids: a digest is what a password can be guessed from.
impl fmt::Debug for Acl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grants = self.0.iter();
        f.debug_list()
            .entries(grants.map(|grant| format!("{} {}", grant.scheme(), grant.permission())))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_notation_of_the_command_line_is_read() {
        let acl: Acl = "auth::cdrwa,world:anyone:r,digest:bob:c2VjcmV0:rw,ip:::1:r"
            .parse()
            .unwrap();
        let grants: Vec<_> = acl
            .0
            .iter()
            .map(|g| (g.scheme(), g.id(), g.permission()))
            .collect();
        let expected = [
            ("auth", "", Permission::ALL),
            ("world", "anyone", Permission::READ),
            (
                "digest",
                "bob:c2VjcmV0",
                Permission::READ | Permission::WRITE,
            ),
            ("ip", "::1", Permission::READ),
        ];
        assert_eq!(grants, expected);
        assert!(acl.names_the_creator() && !Acl::open().names_the_creator());
        assert_eq!("open".parse::<Acl>().unwrap(), Acl::open());
        assert_eq!("creator_all".parse::<Acl>().unwrap(), Acl::creator_all());
    }

    #[test]
    fn mistakes_are_named_and_ids_never_shown() {
        for bad in [
            "",
            "closed",
            "world:anyone",
            "world:anyone:x",
            ":anyone:r",
            "a:hunter2:,b:c:r",
        ] {
            let error = bad.parse::<Acl>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{bad}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
        let acl: Acl = "digest:bob:hunter2:r".parse().unwrap();
        assert_eq!(format!("{acl:?}"), r#"["digest READ"]"#);
    }
}
