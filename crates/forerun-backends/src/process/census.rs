//! The thread that counts: which sessions still have members, and what those use.

use super::keeper::{Mailbox, Message};
use super::procfs::{self, Watched};
use std::sync::mpsc::Receiver;

/// Asks for one count. The keeper sends the next only after the answer, so the queue holds one at most.
#[derive(Debug)]
pub(super) struct Count {
    /// Comes back with the answer.
    pub(super) number: u64,
    pub(super) sessions: Vec<Watched>,
}

/// Answers until the keeper has gone.
pub(super) fn run(counts: &Receiver<Count>, mailbox: &Mailbox) {
    while let Ok(count) = counts.recv() {
        let sessions = procfs::sessions(&count.sessions);
        mailbox.send(Message::Counted { number: count.number, sessions });
    }
}
