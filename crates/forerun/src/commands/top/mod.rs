//! `forerun top`: what a running Forerun does, live in the terminal, with the keys of k9s, lazydocker and htop.
//!
//! A thread asks the API; the loop here turns keys and answers into a [`State`](state::State), and draws it.

mod draw;
mod state;

use crate::ask::Asked;
use crate::cli::TopArgs;
use crate::commands::control::percent;
use crate::config::duration_of;
use crate::failure::Failure;
use forerun_api::{Status, Told};
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use state::{Do, State};
use std::io::{IsTerminal, stdout};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// How long a key may wait to be looked at, and an answer to be shown.
const LOOK: Duration = Duration::from_millis(100);
/// Asking more often would show nothing new: the engine tells no sooner.
const EVERY_LEAST: Duration = Duration::from_millis(200);

/// What the asking thread tells.
enum News {
    Status(Box<Status>),
    Said(String),
    Trouble(String),
}

/// Shows it until `q`.
///
/// # Errors
/// There is no terminal, the API cannot be asked at first, or the terminal fails.
pub(crate) fn run(args: &TopArgs) -> Result<(), Failure> {
    if !stdout().is_terminal() {
        return Err(Failure::Arguments(
            "top needs a terminal; forerun status prints the same once".to_owned(),
        ));
    }
    let every = duration_of(&args.every).map_err(|what| Failure::Arguments(format!("--every: {what}")))?;
    let every = Duration::from(every).max(EVERY_LEAST);
    let asked = Asked::of(&args.api)?;
    // Before the screen is taken: what is wrong is told as by any other command.
    let first = status(&asked)?;
    let mut state = State::new(crate::terminal::colours(stdout().is_terminal()));
    state.heard(first);
    let (to_asker, orders) = channel();
    let (news_of, news) = channel();
    let asker = move || ask(&asked, every, &orders, &news_of);
    std::thread::Builder::new()
        .name("asker".to_owned())
        .spawn(asker)
        .map_err(|e| Failure::Running(format!("cannot start a thread: {e}")))?;
    let fail = |e: std::io::Error| Failure::Running(format!("the terminal fails: {e}"));
    // It is given back as it was on every way out, a panic's too.
    let mut terminal = ratatui::try_init().map_err(fail)?;
    let shown = show(&mut terminal, &mut state, &news, &to_asker);
    ratatui::restore();
    shown.map_err(fail)
}

fn show(
    terminal: &mut ratatui::DefaultTerminal,
    state: &mut State,
    news: &Receiver<News>,
    orders: &Sender<(String, &'static str)>,
) -> std::io::Result<()> {
    loop {
        for news in news.try_iter() {
            match news {
                News::Status(status) => state.heard(*status),
                News::Said(said) => state.say(said),
                News::Trouble(what) => state.trouble(what),
            }
        }
        terminal.draw(|frame| draw::draw(frame, state))?;
        if !event::poll(LOOK)? {
            continue;
        }
        let Event::Key(key) = event::read()? else { continue };
        if key.kind == KeyEventKind::Release {
            continue;
        }
        match state.key(key.code, key.modifiers) {
            Some(Do::Quit) => return Ok(()),
            // The asker lives as long as this loop.
            Some(Do::Tell { service, verb }) => drop(orders.send((service, verb))),
            None => {}
        }
    }
}

/// Asks again and again, and sends orders as they come, until nobody listens.
fn ask(asked: &Asked, every: Duration, orders: &Receiver<(String, &'static str)>, news: &Sender<News>) {
    loop {
        let told = match orders.recv_timeout(every) {
            Ok((service, verb)) => tell(asked, &service, verb).map(News::Said),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                status(asked).map(|s| News::Status(Box::new(s)))
            }
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return,
        };
        if news.send(told.unwrap_or_else(|failure| News::Trouble(failure.to_string()))).is_err() {
            return;
        }
    }
}

fn status(asked: &Asked) -> Result<Status, Failure> {
    let odd = |e: serde_json::Error| Failure::Running(format!("the api gives no status: {e}"));
    serde_json::from_slice(&asked.get("/v1/status")?).map_err(odd)
}

fn tell(asked: &Asked, service: &str, verb: &str) -> Result<String, Failure> {
    let answer = asked.post(&format!("/v1/services/{}/{verb}", percent(service)), "")?;
    let told: Told = serde_json::from_slice(&answer)
        .map_err(|e| Failure::Running(format!("the api gives no answer to {verb}: {e}")))?;
    Ok(told.said)
}
