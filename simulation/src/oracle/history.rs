//! What clients asked and were told, with the world's times.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use cluster::units::Instant;

/// A value written; each write of a run writes another one.
pub type Value = u64;

/// What an operation did to one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Wrote a value, or deleted the key.
    Write(Option<Value>),
    /// Read a value, or that there is none.
    Read(Option<Value>),
}

/// One operation on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who did it.
    pub client: u32,
    /// On which key.
    pub key: String,
    /// What it did.
    pub action: Action,
    /// When it was asked.
    pub called: Instant,
    /// When it was answered; none if the outcome is unknown: it may take
    /// effect at any time after it was asked, or never.
    pub returned: Option<Instant>,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |at: Instant| at.as_nanos() / 1_000_000;
        write!(f, "c{} ", self.client)?;
        match self.action {
            Action::Write(Some(value)) => write!(f, "put {}={value}", self.key)?,
            Action::Write(None) => write!(f, "delete {}", self.key)?,
            Action::Read(Some(value)) => write!(f, "read {}={value}", self.key)?,
            Action::Read(None) => write!(f, "read {} absent", self.key)?,
        }
        match self.returned {
            Some(returned) => write!(f, " [{}..{} ms]", ms(self.called), ms(returned)),
            None => write!(f, " [{}.. ms, unknown]", ms(self.called)),
        }
    }
}

/// Records operations of many clients.
///
/// A lock, though there is one thread: client tasks must be `Send`.
#[derive(Clone, Debug, Default)]
pub struct History(Arc<Mutex<Vec<Operation>>>);

impl History {
    /// Adds an operation that ended, one way or the other.
    pub fn add(&self, operation: Operation) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(operation);
    }

    /// All operations so far.
    pub fn operations(&self) -> Vec<Operation> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
