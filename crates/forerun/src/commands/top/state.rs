//! What is shown, and what becomes of a key: no terminal, no clock, no network.

use forerun_api::{ServiceStatus, Status};
use ratatui::crossterm::event::{KeyCode, KeyModifiers};
use std::cmp::Ordering;

/// Of a filter or a name that is typed.
const TYPED_CHARS_MAX: usize = 63;
/// Rows that a page key goes.
const PAGE: usize = 10;

/// What keys do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Rows,
    /// What is typed behind `/`.
    Filter,
    /// What is typed behind `:`.
    Jump(String),
    /// Whether a service is to be told something.
    Question {
        service: String,
        verb: &'static str,
    },
    /// A text about a service, or the help, from a line on.
    Text {
        what: Text,
        from: u16,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Text {
    Help,
    Explain(String),
    Failure(String),
    Json(String),
}

/// What the rows are in order of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Given,
    Name,
    Load,
    Memory,
    Waiting,
    Cold,
}

/// What is to be done past the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Do {
    Quit,
    Tell { service: String, verb: &'static str },
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) status: Status,
    /// Whether colours may be shown.
    pub(super) colours: bool,
    pub(super) mode: Mode,
    pub(super) filter: String,
    pub(super) sort: Sort,
    pub(super) reversed: bool,
    /// By name, so that it stays on its service when rows move.
    pub(super) selected: Option<String>,
    /// What was said last, and whether it is trouble.
    pub(super) said: Option<(String, bool)>,
}

impl State {
    pub(super) fn new(colours: bool) -> Self {
        Self {
            status: Status::default(),
            colours,
            mode: Mode::Rows,
            filter: String::new(),
            sort: Sort::Given,
            reversed: false,
            selected: None,
            said: None,
        }
    }

    /// A new status; trouble is over.
    pub(super) fn heard(&mut self, status: Status) {
        self.status = status;
        if self.said.as_ref().is_some_and(|(_, trouble)| *trouble) {
            self.said = None;
        }
        self.stay();
    }

    pub(super) fn say(&mut self, said: String) {
        self.said = Some((said, false));
    }

    pub(super) fn trouble(&mut self, what: String) {
        self.said = Some((what, true));
    }

    /// Requests at a time.
    pub(super) fn load(s: &ServiceStatus) -> u32 {
        s.in_flight + s.waiting
    }

    /// The services that are shown, in order.
    pub(super) fn rows(&self) -> Vec<&ServiceStatus> {
        let wanted = self.filter.to_lowercase();
        let mut rows: Vec<&ServiceStatus> =
            self.status.services.iter().filter(|s| s.name.to_lowercase().contains(&wanted)).collect();
        // Figures: the largest first, and of the same the order that was given.
        let by = |a: &ServiceStatus, b: &ServiceStatus| match self.sort {
            Sort::Given => Ordering::Equal,
            Sort::Name => a.name.cmp(&b.name),
            Sort::Load => Self::load(b).cmp(&Self::load(a)),
            Sort::Memory => b.memory_bytes.cmp(&a.memory_bytes),
            Sort::Waiting => b.waiting.cmp(&a.waiting),
            Sort::Cold => b.cold_starts.cmp(&a.cold_starts),
        };
        rows.sort_by(|a, b| by(a, b));
        if self.reversed {
            rows.reverse();
        }
        rows
    }

    /// Where the selected row is.
    pub(super) fn at(&self) -> Option<usize> {
        let name = self.selected.as_ref()?;
        self.rows().iter().position(|s| s.name == *name)
    }

    pub(super) fn service(&self, name: &str) -> Option<&ServiceStatus> {
        self.status.services.iter().find(|s| s.name == name)
    }

    /// What a key does.
    pub(super) fn key(&mut self, code: KeyCode, modifiers: KeyModifiers) -> Option<Do> {
        if modifiers.contains(KeyModifiers::CONTROL) && matches!(code, KeyCode::Char('c' | 'd')) {
            return Some(Do::Quit);
        }
        match self.mode.clone() {
            Mode::Rows => return self.rows_key(code),
            Mode::Filter => self.filter_key(code),
            Mode::Jump(typed) => self.jump_key(code, typed),
            Mode::Question { service, verb } => {
                self.mode = Mode::Rows;
                if matches!(code, KeyCode::Char('y' | 'Y')) {
                    return Some(Do::Tell { service, verb });
                }
                self.say(format!("{service} is left as it is"));
            }
            Mode::Text { what, from } => self.text_key(code, what, from),
        }
        None
    }

    fn rows_key(&mut self, code: KeyCode) -> Option<Do> {
        match code {
            KeyCode::Char('q') => return Some(Do::Quit),
            KeyCode::Char('j') | KeyCode::Down => self.go(1),
            KeyCode::Char('k') | KeyCode::Up => self.go(-1),
            KeyCode::PageDown => self.go(PAGE as isize),
            KeyCode::PageUp => self.go(-(PAGE as isize)),
            KeyCode::Char('g') | KeyCode::Home => self.go(isize::MIN),
            KeyCode::Char('G') | KeyCode::End => self.go(isize::MAX),
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Char(':') => self.mode = Mode::Jump(String::new()),
            KeyCode::Char('?' | 'h') => self.mode = Mode::Text { what: Text::Help, from: 0 },
            KeyCode::Enter => self.read(Text::Explain),
            KeyCode::Char('l') => self.read(Text::Failure),
            KeyCode::Char('y') => self.read(Text::Json),
            KeyCode::Char('w') => self.question("wake"),
            KeyCode::Char('p') => self.question("pause"),
            KeyCode::Char('r') => self.question("resume"),
            KeyCode::Char('N') => self.order(Sort::Name),
            KeyCode::Char('L') => self.order(Sort::Load),
            KeyCode::Char('M') => self.order(Sort::Memory),
            KeyCode::Char('W') => self.order(Sort::Waiting),
            KeyCode::Char('C') => self.order(Sort::Cold),
            KeyCode::Char('0') => self.order(Sort::Given),
            KeyCode::Char('I') => self.reversed = !self.reversed,
            // What is narrowed is widened first; nothing is lost by it.
            KeyCode::Esc if !self.filter.is_empty() => self.filter.clear(),
            _ => {}
        }
        self.stay();
        None
    }

    fn filter_key(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.mode = Mode::Rows,
            KeyCode::Esc => {
                self.filter.clear();
                self.mode = Mode::Rows;
            }
            _ => typed(&mut self.filter, code),
        }
        self.stay();
    }

    fn jump_key(&mut self, code: KeyCode, mut name: String) {
        match code {
            KeyCode::Esc => self.mode = Mode::Rows,
            KeyCode::Enter => {
                self.mode = Mode::Rows;
                let begins = |s: &&ServiceStatus| s.name.starts_with(&name);
                let has = |s: &&ServiceStatus| s.name.contains(&name);
                let all = &self.status.services;
                let found = all.iter().find(begins).or_else(|| all.iter().find(has)).map(|s| s.name.clone());
                match found {
                    Some(found) => {
                        self.filter.clear();
                        self.selected = Some(found);
                    }
                    None => self.trouble(format!("no service's name has {name} in it")),
                }
            }
            _ => {
                typed(&mut name, code);
                self.mode = Mode::Jump(name);
            }
        }
    }

    fn text_key(&mut self, code: KeyCode, what: Text, from: u16) {
        let from = match code {
            KeyCode::Char('j') | KeyCode::Down => from.saturating_add(1),
            KeyCode::Char('k') | KeyCode::Up => from.saturating_sub(1),
            KeyCode::PageDown => from.saturating_add(PAGE as u16),
            KeyCode::PageUp => from.saturating_sub(PAGE as u16),
            KeyCode::Char('g') | KeyCode::Home => 0,
            KeyCode::Esc | KeyCode::Enter | KeyCode::Char('q' | '?') => {
                self.mode = Mode::Rows;
                return;
            }
            _ => from,
        };
        self.mode = Mode::Text { what, from };
    }

    fn read(&mut self, text: fn(String) -> Text) {
        if let Some(name) = self.selected.clone() {
            self.mode = Mode::Text { what: text(name), from: 0 };
        }
    }

    fn question(&mut self, verb: &'static str) {
        if let Some(service) = self.selected.clone() {
            self.said = None;
            self.mode = Mode::Question { service, verb };
        }
    }

    /// The same key again turns it round, as in htop.
    fn order(&mut self, sort: Sort) {
        self.reversed = self.sort == sort && !self.reversed;
        self.sort = sort;
    }

    fn go(&mut self, by: isize) {
        let rows = self.rows();
        let last = rows.len().saturating_sub(1);
        let at = self.at().unwrap_or(0).saturating_add_signed(by).min(last);
        self.selected = rows.get(at).map(|s| s.name.clone());
    }

    /// There is always a row selected where there is one.
    fn stay(&mut self) {
        if self.at().is_none() {
            self.selected = self.rows().first().map(|s| s.name.clone());
        }
    }
}

fn typed(text: &mut String, code: KeyCode) {
    match code {
        KeyCode::Backspace => drop(text.pop()),
        KeyCode::Char(c) if !c.is_control() && text.chars().count() < TYPED_CHARS_MAX => text.push(c),
        _ => {}
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
