use super::super::draw;
use super::*;
use forerun_api::{BudgetStatus, Instances, SiteStatus, Waits};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;

fn service(name: &str, load: u32, memory_bytes: u64) -> ServiceStatus {
    ServiceStatus {
        name: name.to_owned(),
        mode: "act".to_owned(),
        in_flight: load,
        memory_bytes,
        instances: Instances { ready: load.min(1), ..Instances::default() },
        wait_seconds: Some(Waits { p50: 0.0, p99: 0.25 }),
        reason: format!("{load} needed at the load of now"),
        ..ServiceStatus::default()
    }
}

fn state() -> State {
    let mut state = State::new(false);
    state.heard(Status {
        version: "1.2.3".to_owned(),
        at: 1_000.0,
        uptime_seconds: 600.0,
        services: vec![service("web", 1, 10), service("shop-api", 7, 30), service("shop-db", 0, 20)],
        sites: vec![SiteStatus {
            name: "local".to_owned(),
            memory_capacity_bytes: 8_000_000_000,
            memory_reserved_bytes: 512_000_000,
            ..SiteStatus::default()
        }],
        budgets: vec![BudgetStatus { class: "gold".to_owned(), spent: 0.8, ..BudgetStatus::default() }],
        ..Status::default()
    });
    state
}

/// Keys as they are typed; `<` and `>` hold the names of those that are no letters.
fn press(state: &mut State, keys: &str) -> Option<Do> {
    let mut done = None;
    let mut keys = keys.chars();
    while let Some(c) = keys.next() {
        let name: String =
            if c == '<' { keys.by_ref().take_while(|c| *c != '>').collect() } else { c.to_string() };
        let (code, modifiers) = match name.as_str() {
            "enter" => (KeyCode::Enter, KeyModifiers::NONE),
            "esc" => (KeyCode::Esc, KeyModifiers::NONE),
            "back" => (KeyCode::Backspace, KeyModifiers::NONE),
            "down" => (KeyCode::Down, KeyModifiers::NONE),
            "end" => (KeyCode::End, KeyModifiers::NONE),
            "ctrl-c" => (KeyCode::Char('c'), KeyModifiers::CONTROL),
            _ => (KeyCode::Char(c), KeyModifiers::NONE),
        };
        done = state.key(code, modifiers);
    }
    done
}

fn names(state: &State) -> Vec<&str> {
    state.rows().iter().map(|s| s.name.as_str()).collect()
}

fn screen(state: &State, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw::draw(frame, state)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

#[test]
fn keys_go_where_hands_know() {
    for (keys, selected) in [
        ("", "web"),
        ("j", "shop-api"),
        ("jj", "shop-db"),
        ("jjjj", "shop-db"),
        ("jjk", "shop-api"),
        ("kk", "web"),
        ("G", "shop-db"),
        ("<end>g", "web"),
        ("<down>", "shop-api"),
        (":shop-d<enter>", "shop-db"),
        (":db<enter>", "shop-db"),
        (":shop<esc>", "web"),
        (":x<enter>", "web"),
        // It stays on its service when the order changes.
        ("jN", "shop-api"),
    ] {
        let mut state = state();
        assert_eq!(press(&mut state, keys), None, "{keys}");
        assert_eq!(state.selected.as_deref(), Some(selected), "{keys}");
    }
}

#[test]
fn rows_are_filtered_and_put_in_order() {
    for (keys, expect) in [
        ("", &["web", "shop-api", "shop-db"][..]),
        ("N", &["shop-api", "shop-db", "web"]),
        ("NN", &["web", "shop-db", "shop-api"]),
        ("L", &["shop-api", "web", "shop-db"]),
        ("M", &["shop-api", "shop-db", "web"]),
        ("MI", &["web", "shop-db", "shop-api"]),
        ("L0", &["web", "shop-api", "shop-db"]),
        ("/SHOP<enter>", &["shop-api", "shop-db"]),
        ("/shopx<back><enter>L", &["shop-api", "shop-db"]),
        ("/shop<enter><esc>", &["web", "shop-api", "shop-db"]),
        ("/shop<esc>", &["web", "shop-api", "shop-db"]),
        ("/zzz<enter>", &[]),
    ] {
        let mut state = state();
        press(&mut state, keys);
        assert_eq!(names(&state), expect, "{keys}");
        // What is selected is shown.
        assert_eq!(state.at().is_some(), !expect.is_empty(), "{keys}");
    }
}

#[test]
fn orders_are_asked_about_first() {
    let tell = |verb| Some(Do::Tell { service: "web".to_owned(), verb });
    for (keys, expect) in [
        ("w", None),
        ("wy", tell("wake")),
        ("py", tell("pause")),
        ("rY", tell("resume")),
        ("pn", None),
        ("p<esc>", None),
        ("p<enter>", None),
        // A letter that is typed is no order.
        ("/wy", None),
        ("?p", None),
        ("q", Some(Do::Quit)),
        ("?q", None),
        ("?<esc>q", Some(Do::Quit)),
        ("w<ctrl-c>", Some(Do::Quit)),
    ] {
        assert_eq!(press(&mut state(), keys), expect, "{keys}");
    }
    let mut empty = State::new(false);
    assert_eq!(press(&mut empty, "pyjG<enter>lyw"), None, "there is nobody to tell");
    assert_eq!(empty.mode, Mode::Rows);
}

#[test]
fn a_service_has_its_row() {
    let lines = screen(&state(), 100, 12);
    assert!(
        lines[0].starts_with("forerun 1.2.3, up for 10m   3 services   2 ready, 0 starting   8 in flight"),
        "{lines:#?}"
    );
    assert_eq!(lines[1], "local: 512MB of 8.0GB reserved   class gold: 80% of its cold starts spent");
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(words(&lines[2]), "SERVICE MODE LOAD SEEN RDY ST PA DR WAIT COLD P99 MEM WHY");
    assert!(
        words(&lines[4]).starts_with("shop-api act 7 - 1 - - - - 0 250ms 30B 7 needed at the"),
        "{lines:#?}"
    );
    assert!(lines[11].contains("? help"), "{lines:#?}");
}

#[test]
fn nothing_is_lost_at_any_size() {
    let mut many = state();
    let mut status = many.status.clone();
    status.services = (0..200).map(|n| service(&format!("s{n:03}"), 0, 0)).collect();
    many.heard(status);
    for (keys, shown) in [("", "s000"), ("G", "s199"), ("Gkkkkkkkkkkkkkkkkkkkk", "s179"), ("gjjj", "s003")] {
        press(&mut many, keys);
        assert!(screen(&many, 80, 24).iter().any(|line| line.starts_with(shown)), "{keys}");
    }
    for keys in ["", "?", "<esc><enter>", "<esc>y", "<esc>l", "<esc>p"] {
        press(&mut many, keys);
        for (width, height) in [(1, 1), (2, 2), (5, 3), (20, 4), (80, 24), (300, 100)] {
            assert_eq!(screen(&many, width, height).len(), usize::from(height), "{keys}");
        }
    }
}

#[test]
fn texts_and_questions_stand_above_the_rows() {
    for (keys, parts) in [
        ("?", &["help", "filter by name", "Esc back"][..]),
        ("<enter>", &["explain web", "1 ready"]),
        ("y", &["\"name\": \"web\""]),
        ("l", &["nothing of it has failed"]),
        ("p", &["pause web?", "y does it"]),
        ("pn", &["web is left as it is"]),
        ("/sh", &["/sh_"]),
        ("/sh<enter>", &["only names with sh"]),
        (":we", &[":we_"]),
        (":x<enter>", &["no service's name has x in it"]),
    ] {
        let mut state = state();
        press(&mut state, keys);
        let text = screen(&state, 100, 40).join("\n");
        for part in parts {
            assert!(text.contains(part), "{keys}: {part} is not in {text}");
        }
    }
}

#[test]
fn what_a_service_printed_moves_no_cursor() {
    let mut state = state();
    let mut status = state.status.clone();
    status.services[0].last_failure = "exited 1\n\x1b[2Jgone\x07".to_owned();
    state.heard(status);
    press(&mut state, "l");
    let text = screen(&state, 80, 24).join("\n");
    assert!(text.contains("exited 1") && text.contains("[2Jgone") && !text.contains('\x1b'), "{text}");
}

#[test]
fn colours_are_shown_only_where_they_may_be() {
    for colours in [false, true] {
        let mut state = state();
        state.colours = colours;
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| draw::draw(frame, &state)).unwrap();
        let plain = |cell: &ratatui::buffer::Cell| cell.fg == Color::Reset && cell.bg == Color::Reset;
        assert_eq!(terminal.backend().buffer().content.iter().all(plain), !colours);
    }
}

#[test]
fn trouble_is_shown_until_it_is_over() {
    let mut state = state();
    state.trouble("nothing listens on 127.0.0.1:7070".to_owned());
    assert!(screen(&state, 80, 24)[23].contains("nothing listens"));
    let status = state.status.clone();
    state.heard(status);
    assert!(!screen(&state, 80, 24)[23].contains("nothing listens"));
}
