//! What is logged, for those who check it or fail in it.

use std::fmt::{Debug, Write};
use std::sync::{Arc, LazyLock, Mutex};

use tracing::field::{Field, Visit};
use tracing::{Dispatch, Event, Metadata, Subscriber, span};

/// A subscriber that calls this with each event as `LEVEL field=value …`, `message` a field too.
pub struct Listener<F>(pub F);

impl<F: Fn(&str) + 'static> Subscriber for Listener<F> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(format!("{} ", event.metadata().level()));
        event.record(&mut fields);
        (self.0)(fields.0.trim_end());
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// What this thread logs meanwhile, a line each event.
pub fn lines_of(what: impl FnOnce()) -> Vec<String> {
    // With one subscriber alive, `tracing` asks the thread that first comes to an event, and
    // another test's thread, which has none, would turn that event off for all.
    static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(Listener(|_: &str| ())));
    LazyLock::force(&SECOND);
    let lines = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&lines);
    let listener = Listener(move |line: &str| kept.lock().unwrap().push(line.to_owned()));
    tracing::subscriber::with_default(listener, what);
    let mut lines = lines.lock().unwrap();
    std::mem::take(&mut *lines)
}

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}
