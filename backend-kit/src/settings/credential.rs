//! Credentials that change while a handle is in use.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use plimsoll_discovery_api::{Error, ErrorKind, Result};
use tokio::time::Instant;

/// A file is read no more often than this, however often its content is asked for.
const REREAD: Duration = Duration::from_secs(1);

/// One credential of a handle: a password, a token, a certificate, a key, or the authorities that
/// are trusted. A secret, which is never shown.
///
/// Clones are the same credential: a value that is [replaced](Self::replace) in one of them is
/// replaced in the handle that was built with another. One that is a [file](Self::file) is read
/// again before it is used, at most once a second, so that what is renewed on disk is taken up by
/// itself; of a file that cannot be read, or is empty, what it had before stays in use, and one
/// warning is logged. Whatever changes takes effect with the next connection, or where each request
/// carries it with the next request; connections that stand are left standing.
///
/// ```
/// use plimsoll_backend_kit::Credential;
///
/// let token = Credential::from("first");
/// let given_to_a_builder = token.clone();
/// token.replace("second");
/// assert_eq!(given_to_a_builder.text()?, "second");
/// assert_eq!(format!("{token:?}"), "Credential(hidden)");
/// # Ok::<(), plimsoll_discovery_api::Error>(())
/// ```
#[derive(Clone)]
pub struct Credential(Arc<Shared>);

struct Shared {
    file: Option<(&'static str, PathBuf)>,
    state: Mutex<State>,
}

struct State {
    bytes: Arc<[u8]>,
    version: u64,
    /// What was last read, when a file was last read, and whether that failed.
    on_disk: Arc<[u8]>,
    read: Instant,
    failed: bool,
}

/// Numbers of values, over all credentials of the process.
fn next_version() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl State {
    fn put(&mut self, bytes: Arc<[u8]>) {
        if self.bytes != bytes {
            self.bytes = bytes;
            self.version = next_version();
        }
    }
}

impl Credential {
    /// What is in a file, without the line breaks at its end. `name` is that of the setting.
    ///
    /// # Errors
    /// [`InvalidConfig`](ErrorKind::InvalidConfig), naming the setting and the file, if it cannot be
    /// read now or is empty.
    pub fn file(name: &'static str, path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let bytes = read(&path).map_err(|cause| {
            Error::new(ErrorKind::InvalidConfig, format!("{name} cannot be read"))
                .with_context(name, path.display().to_string())
                .with_source(cause)
        })?;
        Ok(Self::of(Some((name, path)), bytes))
    }

    fn of(file: Option<(&'static str, PathBuf)>, bytes: Vec<u8>) -> Self {
        let bytes = Arc::<[u8]>::from(bytes);
        Self(Arc::new(Shared {
            file,
            state: Mutex::new(State {
                on_disk: Arc::clone(&bytes),
                bytes,
                version: next_version(),
                read: Instant::now(),
                failed: false,
            }),
        }))
    }

    /// Replaces the value, in all clones. Of a file, until that is next changed.
    pub fn replace(&self, value: impl Into<Vec<u8>>) {
        self.lock().put(value.into().into());
    }

    /// The value as it is now.
    #[must_use]
    pub fn bytes(&self) -> Arc<[u8]> {
        self.current().0
    }

    /// The value as it is now, as text.
    ///
    /// # Errors
    /// [`InvalidConfig`](ErrorKind::InvalidConfig) if it is not UTF-8.
    pub fn text(&self) -> Result<String> {
        let bytes = self.bytes();
        let text = std::str::from_utf8(&bytes);
        let text = text.map_err(|_| {
            let error = Error::new(ErrorKind::InvalidConfig, "a credential is not UTF-8");
            match &self.0.file {
                Some((name, path)) => error.with_context(name, path.display().to_string()),
                None => error,
            }
        })?;
        Ok(text.to_owned())
    }

    /// The value as it is now, and a number that no other value has.
    fn current(&self) -> (Arc<[u8]>, u64) {
        let mut state = self.lock();
        if let Some((name, path)) = &self.0.file
            && state.read.elapsed() >= REREAD
        {
            state.read = Instant::now();
            match read(path) {
                Ok(bytes) => {
                    state.failed = false;
                    if *state.on_disk != *bytes {
                        state.on_disk = bytes.into();
                        let on_disk = Arc::clone(&state.on_disk);
                        state.put(on_disk);
                    }
                }
                Err(cause) if !std::mem::replace(&mut state.failed, true) => {
                    let path = path.display();
                    tracing::warn!(setting = name, %path, %cause, "credential not read again; the old one stays in use");
                }
                Err(_) => {}
            }
        }
        (Arc::clone(&state.bytes), state.version)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held cannot have left it half changed.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = std::fs::read(path)?;
    while bytes
        .last()
        .is_some_and(|byte| matches!(byte, b'\n' | b'\r'))
    {
        bytes.pop();
    }
    use std::io::{Error, ErrorKind};
    if bytes.is_empty() {
        // Whoever writes it anew has only begun.
        return Err(Error::new(ErrorKind::UnexpectedEof, "the file is empty"));
    }
    // Tokens, passwords and PEM are text.
    if std::str::from_utf8(&bytes).is_err() {
        return Err(Error::new(ErrorKind::InvalidData, "the file is not UTF-8"));
    }
    Ok(bytes)
}

impl From<&str> for Credential {
    fn from(value: &str) -> Self {
        Self::of(None, value.into())
    }
}

impl From<&String> for Credential {
    fn from(value: &String) -> Self {
        Self::from(value.as_str())
    }
}

impl From<String> for Credential {
    fn from(value: String) -> Self {
        Self::of(None, value.into())
    }
}

impl From<Vec<u8>> for Credential {
    fn from(value: Vec<u8>) -> Self {
        Self::of(None, value)
    }
}

impl From<&Self> for Credential {
    fn from(credential: &Self) -> Self {
        credential.clone()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.file {
            Some((_, path)) => write!(f, "Credential(hidden, {})", path.display()),
            None => f.write_str("Credential(hidden)"),
        }
    }
}

/// What is made of one or more credentials, such as the settings of TLS; made again when one of
/// them has changed.
///
/// Of credentials that nothing can be made of, such as a certificate that is half written, or one whose
/// key is yet to be where `make` tries both together, what was made before stays in use, and one
/// warning is logged.
pub struct Derived<T> {
    credentials: Vec<Credential>,
    make: Make<T>,
    made: Mutex<Made<T>>,
}

type Make<T> = Box<dyn Fn(&[Arc<[u8]>]) -> Result<T> + Send + Sync>;

struct Made<T> {
    value: T,
    versions: Vec<u64>,
}

impl<T: Clone> Derived<T> {
    /// Of `credentials`, whose values `make` is given in this order.
    ///
    /// # Errors
    /// Those of `make`, which must not show what it was given.
    pub fn new(
        credentials: Vec<Credential>,
        make: impl Fn(&[Arc<[u8]>]) -> Result<T> + Send + Sync + 'static,
    ) -> Result<Self> {
        let (values, versions) = current(&credentials);
        let value = make(&values)?;
        Ok(Self {
            credentials,
            make: Box::new(make),
            made: Mutex::new(Made { value, versions }),
        })
    }

    /// What is made of the credentials as they are now.
    pub fn get(&self) -> T {
        // A panic while the lock was held cannot have left it half changed. Held before the values are
        // read, lest older ones be made something of after newer ones.
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let (values, versions) = current(&self.credentials);
        if made.versions != versions {
            made.versions = versions;
            match (self.make)(&values) {
                Ok(value) => {
                    tracing::info!("credentials have changed");
                    made.value = value;
                }
                Err(cause) => {
                    tracing::warn!(%cause, "credentials not taken up; the old ones stay in use");
                }
            }
        }
        made.value.clone()
    }
}

fn current(credentials: &[Credential]) -> (Vec<Arc<[u8]>>, Vec<u64>) {
    credentials.iter().map(Credential::current).unzip()
}

impl<T> fmt::Debug for Derived<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Derived").field(&self.credentials).finish()
    }
}

/// Whether `bytes` hold whole blocks of PEM whose label ends in `label`, as a file that is being
/// written does not yet.
#[must_use]
pub fn is_pem(bytes: &[u8], label: &str) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let count = |word: &str| {
        let lines = text.lines().map(str::trim);
        let of_label = lines.filter(|line| line.starts_with(word));
        of_label
            .filter(|line| line.ends_with(&format!("{label}-----")))
            .count()
    };
    let (begun, ended) = (count("-----BEGIN "), count("-----END "));
    begun > 0 && begun == ended
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_file_is_read_again_and_what_cannot_be_read_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let missing = Credential::file("token_file", &path).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::InvalidConfig);
        assert!(missing.to_string().contains("token_file"), "{missing}");
        std::fs::write(&path, "first\n").unwrap();
        let token = Credential::file("token_file", &path).unwrap();
        assert_eq!(token.text().unwrap(), "first");
        for (written, expected) in [
            (Some("second\r\n"), "second"),
            (Some(""), "second"),
            (None, "second"),
            (Some("third"), "third"),
        ] {
            match written {
                Some(text) => std::fs::write(&path, text).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            advance(REREAD).await;
            assert_eq!(token.text().unwrap(), expected, "{written:?}");
        }
        assert!(!format!("{token:?}").contains("third"), "{token:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_replaced_is_replaced_for_all_and_until_the_file_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "of the file").unwrap();
        let token = Credential::file("token_file", &path).unwrap();
        let other = token.clone();
        other.replace("replaced");
        advance(REREAD * 2).await;
        assert_eq!(token.text().unwrap(), "replaced");
        std::fs::write(&path, "renewed").unwrap();
        advance(REREAD).await;
        assert_eq!(token.text().unwrap(), "renewed");
    }

    #[test]
    fn what_nothing_can_be_made_of_leaves_what_was_made_before() {
        let (one, two) = (Credential::from("1"), Credential::from("2"));
        let sum = Derived::new(vec![one.clone(), two.clone()], |parts| {
            let numbers = parts.iter().map(|part| {
                let text = String::from_utf8_lossy(part);
                text.parse::<u32>()
                    .map_err(|_| Error::new(ErrorKind::InvalidConfig, "no number"))
            });
            numbers.sum::<Result<u32>>()
        })
        .unwrap();
        assert_eq!(sum.get(), 3);
        one.replace("x");
        assert_eq!(sum.get(), 3);
        two.replace("5");
        assert_eq!(sum.get(), 3);
        one.replace("4");
        assert_eq!(sum.get(), 9);
    }

    #[test]
    fn half_a_block_is_no_pem() {
        let whole = "-----BEGIN EC PRIVATE KEY-----\nAA==\n-----END EC PRIVATE KEY-----";
        assert!(is_pem(whole.as_bytes(), "PRIVATE KEY"));
        assert!(!is_pem(whole.as_bytes(), "CERTIFICATE"));
        assert!(!is_pem(&whole.as_bytes()[..40], "PRIVATE KEY"));
        assert!(!is_pem(b"", "PRIVATE KEY"));
    }
}
