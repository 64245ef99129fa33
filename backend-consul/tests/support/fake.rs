//! An agent that answers as it is told to, on threads of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// The path and what was asked of it.
    pub target: String,
    pub body: String,
    pub at: Instant,
}

impl Asked {
    /// What is said of `name` behind the path; nothing of a flag.
    pub fn query(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        let mut pairs = query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    fn read(stream: &mut BufReader<TcpStream>) -> Option<Self> {
        let mut line = String::new();
        stream
            .read_line(&mut line)
            .ok()
            .filter(|length| *length > 0)?;
        let mut words = line.split(' ').map(str::to_owned);
        let (method, target) = (words.next()?, words.next()?);
        let mut length = 0;
        loop {
            let mut header = String::new();
            stream.read_line(&mut header).ok()?;
            let header = header.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).ok()?;
        Some(Self {
            method,
            target,
            body: String::from_utf8_lossy(&body).into_owned(),
            at: Instant::now(),
        })
    }
}

/// An answer, byte for byte; with it the connection ends.
#[derive(Clone, Debug)]
pub struct Answer(pub Vec<u8>);

impl Answer {
    /// A whole one.
    pub fn new(status: u16, body: &str) -> Self {
        Self::with(status, "", body)
    }

    /// One that can be waited for.
    pub fn at(index: u64, body: &str) -> Self {
        Self::with(200, &format!("X-Consul-Index: {index}\r\n"), body)
    }

    /// One with further header lines, each with its end.
    pub fn with(status: u16, headers: &str, body: &str) -> Self {
        let length = body.len();
        Self::raw(&format!(
            "HTTP/1.1 {status} X\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        ))
    }

    pub fn raw(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

type Script = Arc<dyn Fn(&Asked) -> Answer + Send + Sync>;

pub struct Fake {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    script: Mutex<Script>,
    asked: Mutex<Vec<Asked>>,
}

impl Fake {
    pub fn start(script: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            script: Mutex::new(Arc::new(script)),
            asked: Mutex::default(),
        });
        let answering = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&answering);
                thread::spawn(move || shared.answer(client));
            }
        });
        Self { address, shared }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers so from now on.
    pub fn set(&self, script: impl Fn(&Asked) -> Answer + Send + Sync + 'static) {
        *lock(&self.shared.script) = Arc::new(script);
    }

    /// What was asked so far, oldest first.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.shared.asked).clone()
    }
}

impl Shared {
    fn answer(&self, client: TcpStream) {
        let mut stream = BufReader::new(client);
        if let Some(asked) = Asked::read(&mut stream) {
            lock(&self.asked).push(asked.clone());
            let script = Arc::clone(&lock(&self.script));
            let _client_gone = stream.get_mut().write_all(&script(&asked).0);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a real agent says to `asked` as it is.
pub fn passed_on(agent: SocketAddr, asked: &Asked) -> Answer {
    relayed(agent, asked, &asked.target, &asked.body)
}

/// What a real agent says to `asked`, at `target` and with `body` instead of its own.
pub fn relayed(agent: SocketAddr, asked: &Asked, target: &str, body: &str) -> Answer {
    let mut answer = Vec::new();
    if let Ok(mut stream) = TcpStream::connect_timeout(&agent, Duration::from_secs(1)) {
        let (method, length) = (&asked.method, body.len());
        let request =
            format!("{method} {target} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}");
        let _cut_short = stream
            .write_all(request.as_bytes())
            .and_then(|()| stream.read_to_end(&mut answer));
    }
    Answer(answer)
}
