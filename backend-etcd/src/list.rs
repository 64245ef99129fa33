//! Reading a service whole.

use etcd_client::{GetOptions, GetResponse, KeyValue};
use plimsoll_backend_kit::{Interest, Rows, unescape};
use plimsoll_discovery_api::{Error, ErrorKind, Result, ServiceName};

use crate::connection::Link;
use crate::error::{is_compacted, is_oversized};
use crate::keys::{Tree, end_of};
use crate::row::{row_of, understand};

/// So many keys are read by one request: few enough that an answer stays far below any limit, many
/// enough that 10,000 instances are ten requests.
const PAGE: i64 = 1_000;
/// A read that is overtaken by a compaction begins again, so often.
const ATTEMPTS: u32 = 3;

/// Reads `service` at one revision, as the whole cluster knows it now.
pub(crate) async fn rows(
    link: &Link,
    tree: &Tree,
    service: &ServiceName,
    interest: Interest,
) -> Result<Rows> {
    let mut attempt = 1;
    loop {
        match try_rows(link, tree, service, interest).await {
            Err(error) if is_compacted(&error) && attempt < ATTEMPTS => attempt += 1,
            done => return done,
        }
    }
}

async fn try_rows(
    link: &Link,
    tree: &Tree,
    service: &ServiceName,
    interest: Interest,
) -> Result<Rows> {
    let (identities, loads) = (tree.identities(service), tree.loads(service));
    let before = link.history().known();
    let first = page(link, identities.as_bytes(), &identities, Pinned::Now).await?;
    let revision = link.history().place(before, first.answer.header())?;
    let at = Pinned::At(
        first
            .answer
            .header()
            .map_or(0, etcd_client::ResponseHeader::revision),
    );
    let mut rows = Rows::new(service.clone(), revision, understand);
    let list = |page: Vec<KeyValue>| {
        for row in page.iter().filter_map(|kv| row_of(kv, &identities)) {
            rows.list(&row);
        }
    };
    let mut loads_read = Vec::new();
    tokio::try_join!(following(link, &identities, first, at, list), async {
        match interest {
            Interest::Loads => {
                let first = page(link, loads.as_bytes(), &loads, at).await?;
                following(link, &loads, first, at, |page| loads_read.push(page)).await
            }
            _ => Ok(()),
        }
    })?;
    for kv in loads_read.iter().flatten() {
        if let Some(row) = row_of(kv, &loads) {
            rows.note_load(&row);
        }
    }
    Ok(rows)
}

#[derive(Clone, Copy)]
enum Pinned {
    Now,
    At(i64),
}

/// A page, and how many keys it was asked for.
struct Page {
    answer: GetResponse,
    limit: i64,
    /// Whether it is of one key alone, whose value is too large to be received.
    is_bare: bool,
}

/// Takes in `first` and what comes after it: each page while the server reads the next one.
async fn following(
    link: &Link,
    prefix: &str,
    first: Page,
    at: Pinned,
    mut take: impl FnMut(Vec<KeyValue>),
) -> Result<()> {
    let mut page = first;
    loop {
        let more = page.answer.more();
        let rows = page.answer.take_kvs();
        let next = rows.last().map(|kv| after(kv.key()));
        let (true, Some(next)) = (more, next) else {
            take(rows);
            return Ok(());
        };
        // One alone was too large; those after it may be of any size.
        let limit = if page.is_bare { PAGE } else { page.limit };
        let asked = page_of(link, &next, prefix, at, limit);
        // In this order: what is asked first is on its way before this task is busy.
        let (answer, ()) = tokio::join!(biased; asked, async { take(rows) });
        page = answer?;
    }
}

fn after(key: &[u8]) -> Vec<u8> {
    let mut key = key.to_vec();
    key.push(0);
    key
}

async fn page(link: &Link, from: &[u8], prefix: &str, at: Pinned) -> Result<Page> {
    page_of(link, from, prefix, at, PAGE).await
}

/// Asks for fewer keys as long as the answer is larger than may be received. Of one whose value is
/// too large by itself it asks for no more than the key, which makes an entry without a meaning.
async fn page_of(
    link: &Link,
    from: &[u8],
    prefix: &str,
    at: Pinned,
    mut limit: i64,
) -> Result<Page> {
    let mut is_bare = false;
    loop {
        let mut options = GetOptions::new()
            .with_range(end_of(prefix))
            .with_limit(limit);
        if let Pinned::At(revision) = at {
            options = options.with_revision(revision);
        }
        if is_bare {
            options = options.with_keys_only();
        }
        match get(link, from, options).await {
            Ok(answer) => {
                return Ok(Page {
                    answer,
                    limit,
                    is_bare,
                });
            }
            Err(error) if is_oversized(&error) && limit > 1 => limit = (limit / 4).max(1),
            Err(error) if is_oversized(&error) && !is_bare => {
                tracing::debug!(prefix, cause = %error, "a value is too large to be received");
                is_bare = true;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn get(link: &Link, key: &[u8], options: GetOptions) -> Result<GetResponse> {
    link.kv(|mut kv| {
        let (key, options) = (key.to_vec(), options.clone());
        async move { kv.get(key, Some(options)).await }
    })
    .await
}

/// The names of all services with an entry: whole pages of keys, and from the last service of each
/// page straight on to the next one.
pub(crate) async fn services(link: &Link, tree: &Tree) -> Result<Vec<ServiceName>> {
    let root = tree.services();
    let mut names = Vec::new();
    let mut from = root.as_bytes().to_vec();
    loop {
        let options = GetOptions::new()
            .with_range(end_of(&root))
            .with_limit(PAGE)
            .with_keys_only();
        let before = link.history().known();
        let answer = get(link, &from, options).await?;
        link.history().place(before, answer.header())?;
        let mut last = None;
        for kv in answer.kvs() {
            let segment = kv
                .key_str()
                .ok()
                .and_then(|key| key.strip_prefix(&root)?.split_once('/'));
            let Some((segment, _)) = segment else {
                continue;
            };
            if last != Some(segment) {
                last = Some(segment);
                // A key that is no name is nobody's service.
                names.extend(unescape(segment).ok().and_then(|name| name.parse().ok()));
            }
        }
        let Some(row) = answer.kvs().last().filter(|_| answer.more()) else {
            return Ok(names);
        };
        let next = match last {
            Some(segment) => end_of(&format!("{root}{segment}/")),
            None => Vec::new(),
        };
        from = next.max(after(row.key()));
    }
}

/// The revision of an answer that must have one.
pub(crate) fn revision_of(header: Option<&etcd_client::ResponseHeader>) -> Result<i64> {
    header
        .map(etcd_client::ResponseHeader::revision)
        .ok_or_else(|| Error::new(ErrorKind::Corrupt, "the server's answer has no header"))
}
