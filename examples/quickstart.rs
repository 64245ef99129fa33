//! Servers that publish their load, and clients that all start in one instant and still spread
//! evenly: over real sockets, with one server dying and one leaving on the way.
//!
//! ```text
//! cargo run --example quickstart
//! cargo run --example quickstart -- --registry memory://mine
//! cargo run --example quickstart --features zk -- --registry zk://127.0.0.1:2181/mine?load_interval=1s
//! ```
//!
//! Whatever the registry, each change of load is to be published within the interval: hence the
//! option, as small changes take longer by default.
//!
//! It ends by itself, prints what it has shown, and exits with an error if any of it does not
//! hold.

#![expect(clippy::print_stdout, reason = "a program for people")]

use std::error::Error;
use std::future::Ready;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use plimsoll::{Client, Incoming, InstanceId, Registry, Server, ServiceName, registry_from_url};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Barrier, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

const SERVICE: &str = "quickstart";
const SERVERS: usize = 4;
/// Each has its own view and its own counts, as a process of its own would.
const CLIENTS: usize = 20;
/// The users of each client: 400 in all, who connect in the same instant.
const USERS_PER_CLIENT: usize = 20;
const USERS: usize = CLIENTS * USERS_PER_CLIENT;
/// The most connections of a server over the mean.
const EVEN: f64 = 1.25;
/// The width of a bar that shows everything.
const BAR: usize = 40;
/// How long each act is shown.
const ACT: Duration = Duration::from_millis(1_500);
/// What a loaded machine may add to any promised time.
const SLACK: Duration = Duration::from_secs(1);
/// The longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest that a registry which went away and came back may take to be true again: leases run
/// out, and everybody registers anew, not all at once.
const RECOVERY: Duration = Duration::from_secs(45);

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> ExitCode {
    let url = match arguments() {
        Ok(url) => url,
        Err(usage) => {
            println!("{usage}");
            return ExitCode::from(2);
        }
    };
    match run(&url).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\nnot shown: {error}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<String, &'static str> {
    let mut arguments = std::env::args().skip(1);
    match (
        arguments.next().as_deref(),
        arguments.next(),
        arguments.next(),
    ) {
        (None, None, None) => Ok("memory://quickstart".to_owned()),
        (Some("--registry"), Some(url), None) => Ok(url),
        _ => Err("usage: quickstart [--registry URL]"),
    }
}

pub(crate) async fn run(url: &str) -> Fallible<()> {
    run_through(url, None::<Outage<Ready<()>, Ready<()>>>).await
}

/// What takes the registry away, and what brings it back.
pub(crate) struct Outage<Down, Up> {
    pub(crate) down: Down,
    pub(crate) up: Up,
}

/// The same, but the one server dies while the registry is away: until it is back, everybody is
/// served by what the clients last knew.
pub(crate) async fn run_through(
    url: &str,
    outage: Option<Outage<impl Future<Output = ()> + Send, impl Future<Output = ()> + Send>>,
) -> Fallible<()> {
    let start = Instant::now();
    let registry = registry_from_url(url)?;
    let mut fleet = Fleet::start(url).await?;
    let mut users = Users::start(url, &fleet).await?;
    println!("{SERVERS} servers on loopback, registered in {url}\n");

    users.connect_all_at_once().await?;
    let evenness = fleet.evenness(USERS)?;
    fleet.published_is_true(&users, &registry).await?;
    fleet.show(&users, "all connected in one instant").await?;

    let up = match outage {
        Some(outage) => {
            outage.down.await;
            Some(outage.up)
        }
        None => None,
    };
    let orphans = fleet.kill_one();
    users.all_served().await?;
    if let Some(up) = up {
        up.await;
        fleet.recovers(&users).await?;
    }
    fleet.published_is_true(&users, &registry).await?;
    fleet.show(&users, "one server died without a word").await?;

    let moved = fleet.drain_one().await?;
    users.all_served().await?;
    fleet.published_is_true(&users, &registry).await?;
    fleet.show(&users, "one server drained").await?;

    let reconnected = users.leave().await?;
    fleet.all_is_zero(&users, &registry).await?;
    fleet.show(&users, "everybody left").await?;

    println!("shown:");
    println!(
        "  {USERS} users of {CLIENTS} clients connected in one instant; max/mean {evenness:.2}"
    );
    println!("  {orphans} lost their server, {moved} were asked to move and none was cut off;");
    println!("  {reconnected} reconnections, nobody was left unserved");
    println!("  the published load equalled the true number of connections in time, every time");
    println!("  every load is exactly 0 at the end");
    println!("  in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// A server, and what it really has open, counted apart from what it publishes.
struct Member {
    server: Server,
    open: Arc<AtomicUsize>,
}

struct Fleet {
    members: Vec<Member>,
    drawn: usize,
}

impl Fleet {
    async fn start(url: &str) -> Fallible<Self> {
        let mut members = Vec::new();
        for _ in 0..SERVERS {
            let open = Arc::new(AtomicUsize::new(0));
            let counter = Arc::clone(&open);
            let server = Server::builder(registry_from_url(url)?, SERVICE)
                .start(move |incoming| hold(incoming, Arc::clone(&counter)))
                .await?;
            timeout(PATIENCE, server.registration().ready()).await??;
            members.push(Member { server, open });
        }
        Ok(Self { members, drawn: 0 })
    }

    fn kill_one(&mut self) -> usize {
        let Member { server, open } = self.members.remove(0);
        let orphans = open.load(Ordering::Relaxed);
        drop(server);
        orphans
    }

    async fn drain_one(&mut self) -> Fallible<usize> {
        let Member { server, .. } = self.members.remove(0);
        let report = timeout(PATIENCE, server.drain()).await?;
        if report.aborted > 0 {
            return Err(format!("{} connections were cut off by the drain", report.aborted).into());
        }
        Ok(report.finished)
    }

    /// The connections of the fullest server over the mean.
    fn evenness(&self, users: usize) -> Fallible<f64> {
        let open = self
            .members
            .iter()
            .map(|member| member.open.load(Ordering::Relaxed));
        let fullest = open.max().unwrap_or(0) as f64;
        let ratio = fullest * self.members.len() as f64 / users as f64;
        if ratio > EVEN {
            return Err(format!("max/mean is {ratio:.2}, above {EVEN}").into());
        }
        Ok(ratio)
    }

    /// Within the publish interval (and the time a change takes to travel), what clients read is
    /// what is.
    async fn published_is_true(&self, users: &Users, registry: &Arc<dyn Registry>) -> Fallible<()> {
        let capabilities = registry.capabilities();
        let bound = capabilities.load_interval + capabilities.propagation + SLACK;
        let agrees = || {
            self.members.iter().all(|member| {
                let open = member.open.load(Ordering::Relaxed) as u64;
                users.published(member.server.instance().id()) == Some(open)
            })
        };
        until(bound, agrees)
            .await
            .map_err(|_| format!("published load and connections still differ after {bound:?}"))?;
        Ok(())
    }

    /// Everybody is registered again, and seen so with what is true now.
    async fn recovers(&self, users: &Users) -> Fallible<()> {
        let recovered = || {
            self.members.iter().all(|member| {
                let open = member.open.load(Ordering::Relaxed) as u64;
                member.server.registration().state().is_live()
                    && users.published(member.server.instance().id()) == Some(open)
            }) && users.are_up_to_date()
        };
        until(RECOVERY, recovered)
            .await
            .map_err(|_| format!("not everybody is registered again after {RECOVERY:?}"))?;
        Ok(())
    }

    async fn all_is_zero(&self, users: &Users, registry: &Arc<dyn Registry>) -> Fallible<()> {
        let idle = || {
            self.members.iter().all(|member| {
                member.open.load(Ordering::Relaxed) == 0 && member.server.load().current() == 0
            })
        };
        until(PATIENCE, idle)
            .await
            .map_err(|_| "connections are left over")?;
        self.published_is_true(users, registry).await?;
        // Whoever died while the registry was away is listed until its lease has ended.
        let service = ServiceName::new(SERVICE)?;
        let detection = registry.capabilities().crash_detection;
        let end = Instant::now() + detection.unwrap_or_default() + PATIENCE;
        loop {
            let listed = registry.list(&service).await?;
            let busy = listed.members().iter().find(|m| m.load().get() != Some(0));
            let Some(busy) = busy else { return Ok(()) };
            if Instant::now() > end {
                return Err(format!("{} publishes {:?}", busy.id(), busy.load().get()).into());
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Draws the table, again and again while the act lasts if somebody is looking.
    async fn show(&mut self, users: &Users, title: &str) -> Fallible<()> {
        let end = Instant::now() + ACT;
        println!("{title}");
        self.drawn = 0;
        if std::io::stdout().is_terminal() {
            while Instant::now() < end {
                self.draw(users)?;
                sleep(Duration::from_millis(50)).await;
            }
        } else {
            // Long enough for what has just happened to be published.
            sleep(ACT).await;
        }
        self.draw(users)?;
        println!();
        Ok(())
    }

    fn draw(&mut self, users: &Users) -> Fallible<()> {
        let mut out = std::io::stdout().lock();
        if self.drawn > 0 {
            write!(out, "\x1b[{}A", self.drawn)?;
        }
        writeln!(
            out,
            "  {:<22}{:>10}{:>8}{:>9}",
            "server", "published", "true", "share"
        )?;
        let open: Vec<_> = self
            .members
            .iter()
            .map(|m| m.open.load(Ordering::Relaxed))
            .collect();
        let total = open.iter().sum::<usize>().max(1);
        for (member, open) in self.members.iter().zip(open) {
            let address = member.server.local_addr().to_string();
            let published = users.published(member.server.instance().id());
            let published = published.map_or_else(|| "-".to_owned(), |load| load.to_string());
            let bar = "█".repeat(open * BAR / total);
            let share = open as f64 * 100.0 / total as f64;
            writeln!(
                out,
                "  {address:<22}{published:>10}{open:>8}{share:>7.1} %  {bar:<BAR$}"
            )?;
        }
        self.drawn = self.members.len() + 1;
        Ok(())
    }
}

/// Serves one connection: greets, and holds it until the user leaves or the server wants to.
async fn hold(mut incoming: Incoming, open: Arc<AtomicUsize>) {
    let _counted = Counted::new(open);
    if incoming.stream.write_all(b"hi").await.is_err() {
        return;
    }
    let mut byte = [0];
    tokio::select! {
        _ = incoming.stream.read(&mut byte) => {}
        () = incoming.drain.given() => {}
    }
}

struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(counter: Arc<AtomicUsize>) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Users {
    observer: Client,
    tasks: JoinSet<usize>,
    starting_line: Arc<Barrier>,
    served: Arc<AtomicUsize>,
    leave: watch::Sender<bool>,
}

impl Users {
    /// Everybody is ready, and waits for the starting signal.
    async fn start(url: &str, fleet: &Fleet) -> Fallible<Self> {
        let (leave, leaving) = watch::channel(false);
        let starting_line = Arc::new(Barrier::new(USERS + 1));
        let served = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let client = Client::builder(registry_from_url(url)?, SERVICE)
                .build()
                .await?;
            let everybody = || client.endpoints().len() == fleet.members.len();
            until(PATIENCE, everybody)
                .await
                .map_err(|_| "the servers are not all visible")?;
            for _ in 0..USERS_PER_CLIENT {
                let (client, served) = (client.clone(), Arc::clone(&served));
                let (line, leaving) = (Arc::clone(&starting_line), leaving.clone());
                tasks.spawn(async move {
                    line.wait().await;
                    stay_connected(&client, served, leaving).await
                });
            }
            clients.push(client);
        }
        let observer = clients.swap_remove(0);
        Ok(Self {
            observer,
            tasks,
            starting_line,
            served,
            leave,
        })
    }

    async fn connect_all_at_once(&mut self) -> Fallible<()> {
        self.starting_line.wait().await;
        self.all_served().await
    }

    /// Waits until every user has an open connection that was greeted.
    async fn all_served(&self) -> Fallible<()> {
        let served = || self.served.load(Ordering::Relaxed) == USERS;
        until(PATIENCE, served).await.map_err(|_| {
            let unserved = USERS - self.served.load(Ordering::Relaxed);
            format!("{unserved} users are unserved after {PATIENCE:?}").into()
        })
    }

    /// What clients know of a server's load.
    fn published(&self, id: &InstanceId) -> Option<u64> {
        let endpoints = self.observer.endpoints();
        let endpoint = endpoints.iter().find(|endpoint| endpoint.id() == id)?;
        endpoint.published_load().map(|report| report.load)
    }

    fn are_up_to_date(&self) -> bool {
        let known = self.observer.snapshot();
        known.is_some_and(|known| known.freshness().is_live())
    }

    /// Everybody closes; returns how often they had to reconnect on the way.
    async fn leave(&mut self) -> Fallible<usize> {
        self.leave.send_replace(true);
        let mut reconnections = 0;
        while let Some(ended) = timeout(PATIENCE, self.tasks.join_next()).await? {
            reconnections += ended?;
        }
        Ok(reconnections)
    }
}

/// Stays connected to some server until it is time to leave; returns how often it had to
/// reconnect.
async fn stay_connected(
    client: &Client,
    served: Arc<AtomicUsize>,
    mut leaving: watch::Receiver<bool>,
) -> usize {
    let mut reconnections = 0;
    loop {
        // Between the death of a server and the news of it, a few attempts may fail.
        let Ok(mut connection) = client.connect().await else {
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        let mut greeting = [0; 2];
        if connection.read_exact(&mut greeting).await.is_err() {
            continue;
        }
        let counted = Counted::new(Arc::clone(&served));
        let mut byte = [0];
        tokio::select! {
            _ = connection.read(&mut byte) => reconnections += 1,
            _ = leaving.wait_for(|leave| *leave) => return reconnections,
        }
        drop(counted);
    }
}

/// Polls until `holds`, or says that it does not within `limit`.
async fn until(limit: Duration, holds: impl Fn() -> bool + Send + Sync) -> Fallible<()> {
    timeout(limit, async move {
        while !holds() {
            sleep(Duration::from_millis(2)).await;
        }
    })
    .await?;
    Ok(())
}
