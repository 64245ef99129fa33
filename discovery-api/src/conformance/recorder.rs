//! What is said on the log.

use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{Interest, set_global_default};
use tracing::{Event, Level, Metadata, Subscriber};

/// A line of this crate's or a backend's, at `INFO` or worse.
#[derive(Clone, Debug)]
pub struct Line {
    /// How bad it is.
    pub level: Level,
    /// What it says.
    pub message: String,
    fields: Vec<(&'static str, String)>,
}

impl Line {
    /// The field of this name, where the line has it.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(field, _)| *field == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.level, self.message)?;
        let mut fields = self.fields.iter();
        fields.try_for_each(|(name, value)| write!(f, " {name}={value}"))
    }
}

/// Keeps the lines that plimsoll writes to the log. Clones share what they keep.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<Mutex<Vec<Line>>>);

impl Recorder {
    /// One for all threads of this process.
    ///
    /// # Panics
    /// If another subscriber has been set for them.
    #[must_use]
    pub fn global() -> Self {
        static RECORDER: OnceLock<Recorder> = OnceLock::new();
        let recorder = RECORDER.get_or_init(|| {
            let recorder = Self::default();
            if let Err(cause) = set_global_default(recorder.clone()) {
                panic!("the suite cannot read the log: {cause}");
            }
            recorder
        });
        recorder.clone()
    }

    /// The lines of `service` until now, in order.
    #[must_use]
    pub fn of(&self, service: &str) -> Vec<Line> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_service = lines
            .iter()
            .filter(|line| line.field("service") == Some(service));
        of_service.cloned().collect()
    }
}

fn is_kept(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO && metadata.target().starts_with("plimsoll")
}

impl Subscriber for Recorder {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if metadata.is_event() && is_kept(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && is_kept(metadata)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        // No span is enabled.
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line {
            level: *event.metadata().level(),
            message: String::new(),
            fields: Vec::new(),
        };
        event.record(&mut line);
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push(line);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let value = format!("{value:?}");
        match field.name() {
            "message" => self.message = value,
            name => self.fields.push((name, value)),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.push((field.name(), value.to_owned()));
    }
}
