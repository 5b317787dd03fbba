//! A [`State`] on a screen, whatever its size.

use super::state::{Mode, Sort, State, Text};
use crate::commands::explain;
use crate::commands::status::{seconds, why};
use crate::terminal::bytes;
use forerun_api::{LoadForecast, ServiceStatus};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Row, Table, TableState, Wrap};

const HELP: &str = "\
Keys
  j k, arrows   a row down, up          g G, Home End   first, last
  Enter         why it is up            l               why it failed last
  y             all of it, as JSON      Esc             back; clears the filter
  /             filter by name          :               jump to a name
  w             wake it                 p r             pause it, resume it
  N L M W C     in order of name, load, memory, waiting, cold starts; again turns it round
  0 I           in the given order; turn round
  ? h           this                    q, ctrl-C       quit

Columns
  LOAD      requests at a time, those that wait included
  SEEN      the most that is foreseen of it, at nine of ten
  RDY ST PA DR   instances that are ready, starting, paused, draining
  WAIT      requests that are held for an instance
  COLD      requests since the start that no ready instance could take
  P99       how long the slowest of a hundred waited for an instance";

pub(super) fn draw(frame: &mut Frame<'_>, state: &State) {
    let parts = Layout::vertical([Constraint::Length(2), Constraint::Min(1), Constraint::Length(1)]);
    let [head, body, foot] = parts.areas(frame.area());
    frame.render_widget(Paragraph::new(header(state)), head);
    rows(frame, body, state);
    frame.render_widget(Paragraph::new(footer(state)), foot);
    match &state.mode {
        Mode::Text { what, from } => text(frame, body, state, what, *from),
        Mode::Question { service, verb } => question(frame, body, state, service, verb),
        _ => {}
    }
}

fn coloured(state: &State, colour: Color) -> Style {
    if state.colours { Style::new().fg(colour) } else { Style::new() }
}

fn header(state: &State) -> Vec<Line<'_>> {
    let status = &state.status;
    let count = |pick: fn(&ServiceStatus) -> u32| status.services.iter().map(pick).sum::<u32>();
    let waiting = count(|s| s.waiting);
    let first = format!(
        "forerun {}, up for {}   {} services   {} ready, {} starting   {} in flight, {waiting} waiting",
        status.version,
        seconds(status.uptime_seconds),
        status.services.len(),
        count(|s| s.instances.ready),
        count(|s| s.instances.starting),
        count(|s| s.in_flight),
    );
    let site = |s: &forerun_api::SiteStatus| {
        let of = match s.memory_capacity_bytes {
            0 => String::new(),
            all => format!(" of {}", bytes(all)),
        };
        format!("{}: {}{of} reserved", s.name, bytes(s.memory_reserved_bytes))
    };
    let budget = |b: &forerun_api::BudgetStatus| {
        format!("class {}: {:.0}% of its cold starts spent", b.class, b.spent * 100.0)
    };
    let second: Vec<String> =
        status.sites.iter().map(site).chain(status.budgets.iter().map(budget)).collect();
    vec![
        Line::from(Span::styled(first, Style::new().add_modifier(Modifier::BOLD))),
        Line::from(second.join("   ")),
    ]
}

fn rows(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let shown = state.rows();
    if shown.is_empty() {
        let said = match state.filter.is_empty() {
            true => "no services yet; forerun.toml or a container's label describes one",
            false => "no service's name has that in it; Esc clears the filter",
        };
        frame.render_widget(Paragraph::new(said), area);
        return;
    }
    let arrow = if state.reversed { "^" } else { "v" };
    let head = [
        ("SERVICE", Some(Sort::Name)),
        ("MODE", None),
        ("LOAD", Some(Sort::Load)),
        ("SEEN", None),
        ("RDY", None),
        ("ST", None),
        ("PA", None),
        ("DR", None),
        ("WAIT", Some(Sort::Waiting)),
        ("COLD", Some(Sort::Cold)),
        ("P99", None),
        ("MEM", Some(Sort::Memory)),
        ("WHY", None),
    ];
    let head = head.map(|(name, sort)| match sort == Some(state.sort) {
        true => format!("{name}{arrow}"),
        false => name.to_owned(),
    });
    let longest = shown.iter().map(|s| s.name.chars().count()).max().unwrap_or(0);
    let widths = [longest.clamp(7, 24) as u16, 7, 5, 5, 3, 2, 2, 2, 5, 5, 6, 6];
    let widths = widths.map(Constraint::Length).into_iter().chain([Constraint::Fill(1)]);
    // Only what fits is made: there may be ten thousand.
    let height = usize::from(area.height.saturating_sub(1)).max(1);
    let at = state.at().unwrap_or(0);
    let from = (at + 1).saturating_sub(height);
    let visible = shown.iter().skip(from).take(height).map(|s| row(s, state));
    let table = Table::new(visible, widths)
        .header(Row::new(head).style(Style::new().add_modifier(Modifier::BOLD)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut selected = TableState::new().with_selected(Some(at - from));
    frame.render_stateful_widget(table, area, &mut selected);
}

fn row<'a>(s: &ServiceStatus, state: &State) -> Row<'a> {
    let some = |n: u32| if n == 0 { "-".to_owned() } else { n.to_string() };
    let style = match () {
        () if s.reason.starts_with("failing") || !s.last_failure.is_empty() => coloured(state, Color::Red),
        () if s.waiting > 0 || s.instances.starting > 0 => coloured(state, Color::Yellow),
        () if s.instances.ready > 0 => coloured(state, Color::Green),
        () => Style::new(),
    };
    Row::new([
        s.name.clone(),
        s.mode.clone(),
        State::load(s).to_string(),
        s.forecast.as_ref().and_then(foreseen).map_or_else(|| "-".to_owned(), |most| format!("{most:.1}")),
        some(s.instances.ready),
        some(s.instances.starting),
        some(s.instances.paused),
        some(s.instances.draining),
        some(s.waiting),
        s.cold_starts.to_string(),
        s.wait_seconds.map_or_else(|| "-".to_owned(), |w| seconds(w.p99)),
        bytes(s.memory_bytes),
        why(s, state.status.at),
    ])
    .style(style)
}

/// The most that is foreseen, at nine of ten.
fn foreseen(told: &LoadForecast) -> Option<f64> {
    let at = told.levels.iter().position(|level| (level - 0.9).abs() < 1e-9)?;
    told.steps.iter().filter_map(|step| step.get(at)).copied().reduce(f64::max)
}

fn footer(state: &State) -> Line<'_> {
    match (&state.mode, &state.said) {
        (Mode::Filter, _) => Line::from(format!("/{}_   Enter keeps it, Esc clears it", state.filter)),
        (Mode::Jump(name), _) => Line::from(format!(":{name}_   Enter jumps, Esc leaves")),
        (_, Some((said, true))) => {
            Line::styled(said.as_str(), coloured(state, Color::Red).add_modifier(Modifier::BOLD))
        }
        (_, Some((said, false))) => Line::from(said.as_str()),
        (_, None) if !state.filter.is_empty() => {
            Line::from(format!("only names with {}   Esc shows all   ? help", state.filter))
        }
        (_, None) => {
            Line::from("Enter explain   / filter   : jump   w wake   p pause   r resume   ? help   q quit")
        }
    }
}

fn text(frame: &mut Frame<'_>, area: Rect, state: &State, what: &Text, from: u16) {
    let gone = |name: &str| format!("{name} is no longer there");
    let (title, said) = match what {
        Text::Help => ("help".to_owned(), HELP.to_owned()),
        Text::Explain(name) => {
            let said =
                state.service(name).map_or_else(|| gone(name), |s| explain::in_short(s, state.status.at));
            (format!("explain {name}"), said)
        }
        Text::Failure(name) => {
            let said = state.service(name).map_or_else(
                || gone(name),
                |s| match s.last_failure.is_empty() {
                    true => "nothing of it has failed".to_owned(),
                    false => s.last_failure.clone(),
                },
            );
            (format!("the last failure of {name}"), said)
        }
        Text::Json(name) => {
            let said = state.service(name).map(serde_json::to_string_pretty);
            (name.clone(), said.and_then(Result::ok).unwrap_or_else(|| gone(name)))
        }
    };
    let block = Block::bordered().title(format!(" {title} ")).title_bottom(" Esc back, j k scroll ");
    // What a service printed may hold anything; a terminal must not take it for its own.
    let said: String = said.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect();
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(said).wrap(Wrap { trim: false }).scroll((from, 0)).block(block), area);
}

fn question(frame: &mut Frame<'_>, area: Rect, state: &State, service: &str, verb: &str) {
    let means = match verb {
        "pause" => "It stays as it is now until it is resumed.",
        "resume" => "The plan decides of it again.",
        _ => "It comes up as for a request.",
    };
    let said = format!("{verb} {service}? {means}\n\ny does it, any other key leaves it");
    let (width, height) = (area.width.min(64), area.height.min(6));
    let place =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    let block = Block::bordered().border_style(coloured(state, Color::Yellow));
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(said).wrap(Wrap { trim: true }).block(block), place);
}
