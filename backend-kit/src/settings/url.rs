//! Registry URLs: `scheme://user:password@host1,host2/root?option=value`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use plimsoll_discovery_api::{Error, ErrorKind, Result};

use crate::{Credential, invalid_setting};

/// Where a registry is and how to use it.
///
/// Like a URL of RFC 3986, but the authority may list several hosts. User and password are never
/// shown by `Debug` or in an error; what in them would end them (`/`, `?`, `#`, `@`) is
/// percent-encoded.
///
/// ```
/// let url: plimsoll_backend_kit::RegistryUrl = "zk://h1:2181,h2:2181/root?session_timeout=10s".parse()?;
/// assert_eq!((url.scheme(), url.hosts().len(), url.path()), ("zk", 2, "root"));
/// # Ok::<(), plimsoll_discovery_api::Error>(())
/// ```
#[derive(Clone)]
pub struct RegistryUrl {
    scheme: String,
    user: Option<String>,
    password: Option<String>,
    hosts: Vec<String>,
    path: String,
    options: BTreeMap<String, String>,
}

impl RegistryUrl {
    /// The scheme, in lower case.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The user, if one is given.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The password, if one is given. A secret.
    #[must_use]
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// What the user authenticates with: the password, or what is in `file`, of the option
    /// `password_file`, whenever it is used. `None` without a user.
    ///
    /// # Errors
    /// [`InvalidConfig`](ErrorKind::InvalidConfig) if there is a password besides, or no user, or the
    /// file cannot be read now.
    pub fn password_or_file(&self, file: Option<String>) -> Result<Option<Credential>> {
        let is_given = self.password().is_some_and(|password| !password.is_empty());
        match (self.user(), file) {
            (None, None) => Ok(None),
            (Some(_), None) => Ok(Some(self.password().unwrap_or_default().into())),
            (Some(_), Some(path)) if !is_given => Credential::file("password_file", path).map(Some),
            (_, Some(path)) => Err(invalid_setting(
                "password_file",
                &path,
                "is for a user without a password in the URL",
            )),
        }
    }

    /// The hosts as given (`host` or `host:port`), in order. May be empty.
    #[must_use]
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// The path without its outer slashes. May be empty.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The options after the question mark, to be taken one by one.
    #[must_use]
    pub fn options(&self) -> Options {
        Options {
            scheme: self.scheme.clone(),
            rest: self.options.clone(),
        }
    }
}

impl FromStr for RegistryUrl {
    type Err = Error;

    /// # Errors
    /// [`InvalidConfig`](ErrorKind::InvalidConfig) naming the part at fault.
    fn from_str(text: &str) -> Result<Self> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(invalid("no scheme; expected scheme://host…"));
        };
        let scheme_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            || !scheme.bytes().all(scheme_byte)
        {
            return Err(invalid(
                "the scheme is not a letter followed by letters and digits",
            ));
        }
        if rest.contains('#') {
            return Err(invalid("a fragment (#) has no meaning here"));
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        if rest[end..].contains('@') {
            // Of a user or a password cut in two: neither half may be taken for anything else.
            return Err(invalid(
                "an @ behind the hosts; in a user, a password and anywhere else / is written %2F, \
                 ? is %3F and @ is %40",
            ));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (Some(credentials), hosts),
            None => (None, authority),
        };
        let (user, password) = match credentials.map(|c| c.split_once(':').unwrap_or((c, ""))) {
            Some((user, "")) => (Some(decode("user", user)?), None),
            Some((user, password)) => (
                Some(decode("user", user)?),
                Some(decode("password", password)?),
            ),
            None => (None, None),
        };
        Ok(Self {
            scheme: scheme.to_ascii_lowercase(),
            user,
            password,
            hosts: read_hosts(hosts)?,
            path: decode("path", path.trim_matches('/'))?,
            options: read_options(query)?,
        })
    }
}

fn read_hosts(text: &str) -> Result<Vec<String>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let read = |host: &str| {
        let host = decode("host", host)?;
        if host.is_empty() || host.contains(char::is_whitespace) {
            return Err(invalid(
                "an empty host, or one with white space, in the list of hosts",
            ));
        }
        Ok(host)
    };
    text.split(',').map(read).collect()
}

fn read_options(text: &str) -> Result<BTreeMap<String, String>> {
    let mut options = BTreeMap::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| invalid("an option without a value").with_context("option", pair))?;
        let name = decode("option", name)?;
        let value = decode("value", value).map_err(|e| e.with_context("option", &*name))?;
        if options.insert(name.clone(), value).is_some() {
            return Err(invalid("an option is given twice").with_context("option", name));
        }
    }
    Ok(options)
}

fn decode(part: &'static str, text: &str) -> Result<String> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        // The text itself may be a secret.
        Err(_) => Err(invalid("percent-encoding that is not UTF-8").with_context("part", part)),
    }
}

fn invalid(why: &str) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("registry URL: {why}"))
}

/// Option values may be secrets too, so only their names are shown.
impl fmt::Debug for RegistryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryUrl")
            .field("scheme", &self.scheme)
            .field("credentials", &self.user.as_ref().map(|_| "(hidden)"))
            .field("hosts", &self.hosts)
            .field("path", &self.path)
            .field("options", &self.options.keys())
            .finish()
    }
}

/// The options of a URL, taken one by one; what is left at the end is a mistake.
#[derive(Clone)]
pub struct Options {
    scheme: String,
    rest: BTreeMap<String, String>,
}

impl Options {
    /// Takes the option `name` and reads it.
    ///
    /// # Errors
    /// [`InvalidConfig`](ErrorKind::InvalidConfig) naming the option if it cannot be read.
    pub fn take<T>(&mut self, name: &'static str) -> Result<Option<T>>
    where
        T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
    {
        let Some(value) = self.rest.remove(name) else {
            return Ok(None);
        };
        value
            .parse()
            .map(Some)
            .map_err(|e| unreadable(name, &value).with_source(e))
    }

    /// Takes the option `name` as a span of time such as `500ms`, `10s` or `2min`.
    ///
    /// # Errors
    /// [`InvalidConfig`](ErrorKind::InvalidConfig) naming the option if it cannot be read.
    pub fn take_duration(&mut self, name: &'static str) -> Result<Option<Duration>> {
        let Some(value) = self.rest.remove(name) else {
            return Ok(None);
        };
        humantime::parse_duration(&value)
            .map(Some)
            .map_err(|e| unreadable(name, &value).with_source(e))
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`InvalidConfig`](ErrorKind::InvalidConfig) naming an option that was not taken.
    pub fn finish(self) -> Result<()> {
        match self.rest.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(invalid("an option that this registry does not have")
                .with_context("scheme", self.scheme)
                .with_context("option", name)),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Options").field(&self.rest.keys()).finish()
    }
}

fn unreadable(name: &'static str, value: &str) -> Error {
    invalid("an option's value cannot be read")
        .with_context("option", name)
        .with_context("value", value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_are_read_and_decoded() {
        let url: RegistryUrl = "ETCD://us%40er:p%3Aw@h1:1,[::1]:2,h3.:3/a/b%20c/?lease_ttl=10s&n=3"
            .parse()
            .unwrap();
        assert_eq!(url.scheme(), "etcd");
        assert_eq!((url.user(), url.password()), (Some("us@er"), Some("p:w")));
        assert_eq!(url.hosts(), ["h1:1", "[::1]:2", "h3.:3"]);
        assert_eq!(url.path(), "a/b c");
        let mut options = url.options();
        assert_eq!(
            options.take_duration("lease_ttl").unwrap(),
            Some(Duration::from_secs(10))
        );
        assert_eq!(options.take::<u32>("n").unwrap(), Some(3));
        assert_eq!(options.take::<u32>("absent").unwrap(), None);
        options.finish().unwrap();
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("localhost", "no scheme"),
            ("1x://h", "scheme"),
            ("zk://h,,i", "host"),
            ("zk://h?x", "option: x"),
            ("zk://h?x=1&x=2", "twice (option: x)"),
            ("zk://h#f", "fragment"),
            ("zk://%FF", "UTF-8"),
            ("zk://h?x=%FF", "option: x"),
            ("zk://h/a@b", "%40"),
        ] {
            let error = text.parse::<RegistryUrl>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.to_string().contains(part), "{text}: {error}");
        }
        let url: RegistryUrl = "zk://h?typo=1&t=soon".parse().unwrap();
        let mut options = url.options();
        let error = options.take_duration("t").unwrap_err();
        assert!(
            error.to_string().contains("option: t, value: soon"),
            "{error}"
        );
        assert!(
            options
                .finish()
                .unwrap_err()
                .to_string()
                .contains("option: typo")
        );
    }

    #[test]
    fn secrets_are_never_shown() {
        let url: RegistryUrl = "etcd://root:hunter2@h?token=hunter2".parse().unwrap();
        let shown = format!("{url:?} {:?}", url.options());
        assert!(
            !shown.contains("hunter2") && !shown.contains("root"),
            "{shown}"
        );
        for text in [
            "etcd://root:hunter2%FF@h",
            "etcd://root:hunter2/x@h",
            "etcd://root:12/hunter2@h",
            "etcd://root:x?hunter2@h",
            "etcd://root:x?y=hunter2@h",
            "etcd://root:hunter2#x@h",
            "etcd://root:x@y/hunter2@h",
        ] {
            let error = text.parse::<RegistryUrl>().unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("hunter2"), "{text}: {shown}");
        }
    }
}
