//! What a person sees while a service starts: one small page without anything from elsewhere, and the same as JSON
//! for its script and for everyone who asks for JSON.

use bytes::Bytes;
use forerun_types::{Span, Unavailable};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use std::fmt::Write as _;

/// What a service is doing, on every answer that Forerun gives in its place.
pub(crate) const STATE: HeaderName = HeaderName::from_static("forerun-state");

/// Where the page's script asks how far the start is, on the service's own host.
pub(crate) const STATE_PATH: &str = "/.well-known/forerun/state";

/// How often a page without scripts is loaded again.
pub(crate) const REFRESH: Span = Span::from_secs(5);

/// The same without a script at all.
const REFRESH_BARE: Span = Span::from_secs(2);

/// Lines of a failed instance's output that are shown.
const LOG_LINES_MAX: usize = 12;
const LOG_CHARS_MAX: usize = 300;

/// How a service is doing, as far as a router knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// An instance takes requests.
    Ready,
    /// Nothing is there, and nobody waits.
    Asleep,
    /// Somebody waits; with what the start is at, if anything is known.
    Starting { progress: String },
    /// Nothing will be there soon.
    Failing(Unavailable),
}

impl Condition {
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Condition::Ready => "ready",
            Condition::Asleep => "asleep",
            Condition::Starting { .. } => "starting",
            Condition::Failing(_) => "failing",
        }
    }

    /// A sentence after the service's name.
    fn sentence(&self, usual: Span) -> String {
        match self {
            Condition::Ready => "is ready".to_owned(),
            Condition::Asleep => "is asleep".to_owned(),
            Condition::Starting { progress } if progress.is_empty() => {
                format!("is starting, which usually takes {}", seconds(usual))
            }
            Condition::Starting { progress } => {
                format!("is starting: {progress}; it usually takes {}", seconds(usual))
            }
            Condition::Failing(why) => {
                format!("does not start: {}", why.why.lines().next().unwrap_or("no reason is known"))
            }
        }
    }

    /// What the instance said last, if it failed.
    fn log(&self) -> Vec<String> {
        let Condition::Failing(why) = self else { return Vec::new() };
        let lines: Vec<&str> = why.why.lines().skip(1).filter(|line| !line.trim().is_empty()).collect();
        let first = lines.len().saturating_sub(LOG_LINES_MAX);
        lines[first..].iter().map(|line| line.chars().take(LOG_CHARS_MAX).collect()).collect()
    }
}

/// One service on a page.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) name: String,
    pub(crate) condition: Condition,
    /// How long a start usually takes.
    pub(crate) usual: Span,
    /// The last lines of what failed are not for everyone.
    pub(crate) hide_log: bool,
}

impl Shown {
    pub(crate) fn sentence(&self) -> String {
        format!("{} {}", self.name, self.condition.sentence(self.usual))
    }

    pub(crate) fn log(&self) -> Vec<String> {
        if self.hide_log { Vec::new() } else { self.condition.log() }
    }

    /// When it is worth to ask again.
    fn retry_after(&self) -> Span {
        match &self.condition {
            Condition::Failing(why) => why.retry_after,
            _ => Span::from_secs(1),
        }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        let why = match &self.condition {
            Condition::Failing(why) => why.why.lines().next(),
            _ => None,
        };
        let progress = match &self.condition {
            Condition::Starting { progress } if !progress.is_empty() => Some(progress),
            _ => None,
        };
        serde_json::json!({
            "service": self.name,
            "state": self.condition.word(),
            "text": self.sentence(),
            "progress": progress,
            "usual_seconds": self.usual.as_secs_f64(),
            "why": why,
            "log": self.log(),
        })
    }
}

/// How a page is made.
#[derive(Clone, Debug)]
pub(crate) struct Page<'p> {
    pub(crate) title: &'p str,
    pub(crate) services: &'p [Shown],
    pub(crate) refresh: Span,
    /// Where its script asks; without, it is only loaded again and again.
    pub(crate) poll: Option<String>,
    /// Whether each service has a line of its own.
    pub(crate) details: bool,
    /// A last line, in small.
    pub(crate) note: String,
}

impl Page<'_> {
    pub(crate) fn html(&self) -> String {
        let mut body = String::new();
        for shown in self.services.iter().filter(|_| self.details) {
            let word = shown.condition.word();
            let _ = write!(body, "<p class=\"{word}\">{}</p>", escape(&shown.sentence()));
            let log = shown.log();
            if !log.is_empty() {
                let _ = write!(body, "<pre>{}</pre>", escape(&log.join("\n")));
            }
        }
        let (title, note) = (escape(self.title), escape(&self.note));
        let refresh = self.refresh.0.div_ceil(1_000_000).max(1);
        let script = match &self.poll {
            Some(url) => SCRIPT.replace("URL", &script_text(url)),
            None => String::new(),
        };
        format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\"><meta name=\"robots\" content=\"noindex\">\
             <meta http-equiv=\"refresh\" content=\"{refresh}\"><link rel=\"icon\" href=\"data:,\">\
             <title>{title}</title><style>{STYLE}</style></head>\
             <body><main><h1>{title}</h1><div id=\"s\">{body}</div><i></i><small>{note}</small></main>\
             {script}</body></html>\n"
        )
    }
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:0;display:grid;place-items:center;\
min-height:100vh;background:#fff;color:#222}main{max-width:40rem;padding:1rem;text-align:center}\
h1{font-size:1.3rem}p{margin:.4rem}pre{text-align:left;overflow:auto;background:#8882;padding:.6rem}\
.failing{color:#b00}small{color:#777}i{display:block;height:3px;margin:1rem auto;width:8rem;\
background:linear-gradient(90deg,#8883 40%,#36c 50%,#8883 60%) 0/200%;animation:m 1.4s linear infinite}\
@keyframes m{to{background-position:-200%}}@media(prefers-color-scheme:dark){body{background:#161616;\
color:#ddd}.failing{color:#f77}}@media(prefers-reduced-motion:reduce){i{animation:none}}";

/// Asks once a second, and loads the page again as soon as the service is ready.
const SCRIPT: &str = "<script>(function(){var n=0;function t(){fetch(URL,{cache:'no-store'})\
.then(function(r){if(!r.ok)throw 0;return r.json()}).then(function(j){n=0;if(j.state=='ready'){\
location.reload();return}document.querySelector('#s p').textContent=j.text;setTimeout(t,1000)})\
.catch(function(){if(++n<5)setTimeout(t,2000)})}setTimeout(t,700)})()</script>";

pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A text inside a script: quoted, and without what could end the script.
fn script_text(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('<', "\\u003c").replace('\u{2028}', "\\u2028")
}

/// `0.4 s`, `12 s`, `3 min`.
fn seconds(span: Span) -> String {
    match span.as_secs_f64() {
        s if s < 0.95 => format!("{s:.1} s"),
        s if s < 119.5 => format!("{s:.0} s"),
        s => format!("{:.0} min", s / 60.0),
    }
}

/// What a client reads best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Html,
    Json,
    Text,
}

impl Form {
    /// By the `Accept` header: a browser names HTML first, others ask for JSON by name.
    pub(crate) fn of(accept: &str) -> Self {
        let at = |kind: &str| accept.find(kind);
        match (at("text/html"), at("application/json")) {
            (Some(html), Some(json)) if json < html => Form::Json,
            (Some(_), _) => Form::Html,
            (None, Some(_)) => Form::Json,
            (None, None) => Form::Text,
        }
    }
}

/// 503, since it is not the page that was asked for: no cache and no search engine may take it for that.
pub(crate) fn waiting(shown: &Shown, form: Form, poll: Option<String>) -> Response<Bytes> {
    let (kind, text) = match form {
        Form::Html => {
            let title = format!("{} is on its way", shown.name);
            let page = Page {
                title: match shown.condition {
                    Condition::Failing(_) => &shown.name,
                    _ => &title,
                },
                services: std::slice::from_ref(shown),
                // A script asks more often by itself.
                refresh: if poll.is_some() { REFRESH } else { REFRESH_BARE },
                poll,
                details: true,
                note: "this page goes on by itself".to_owned(),
            };
            ("text/html; charset=utf-8", page.html())
        }
        Form::Json => ("application/json", format!("{}\n", shown.json())),
        Form::Text => {
            let lines = std::iter::once(shown.sentence()).chain(shown.log());
            ("text/plain; charset=utf-8", lines.map(|line| line + "\n").collect())
        }
    };
    let mut response = own(StatusCode::SERVICE_UNAVAILABLE, kind, text);
    let headers = response.headers_mut();
    headers.insert(STATE, HeaderValue::from_static(shown.condition.word()));
    headers.insert(RETRY_AFTER, HeaderValue::from(shown.retry_after().0.div_ceil(1_000_000).max(1)));
    response
}

/// An answer of Forerun's own, which nobody may keep.
pub(crate) fn own(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(condition: Condition) -> Shown {
        Shown { name: "shop".to_owned(), condition, usual: Span::from_secs(12), hide_log: false }
    }

    fn failing(why: &str) -> Condition {
        Condition::Failing(Unavailable { why: why.to_owned(), retry_after: Span::from_secs(7) })
    }

    #[test]
    fn conditions_read_like_a_person_would_say_them() {
        let starting = |progress: &str| Condition::Starting { progress: progress.to_owned() };
        for (condition, expect) in [
            (Condition::Asleep, "shop is asleep"),
            (Condition::Ready, "shop is ready"),
            (starting(""), "shop is starting, which usually takes 12 s"),
            (starting("pulling 40%"), "shop is starting: pulling 40%; it usually takes 12 s"),
            (failing("exit code 1\nline"), "shop does not start: exit code 1"),
            (failing(""), "shop does not start: no reason is known"),
        ] {
            assert_eq!(shown(condition).sentence(), expect);
        }
        for (micros, expect) in [
            (40_000, "0.0 s"),
            (400_000, "0.4 s"),
            (990_000, "1 s"),
            (90_000_000, "90 s"),
            (200_000_000, "3 min"),
        ] {
            assert_eq!(seconds(Span(micros)), expect);
        }
    }

    #[test]
    fn what_an_instance_says_cannot_leave_its_place() {
        let mut shown = shown(failing("exit code 1\n</pre><script>alert(1)</script>\n\n& 'more'"));
        shown.name = "<b>\"shop\"".to_owned();
        let poll = Some("/x?path=</script><script>alert(2)".to_owned());
        let response = waiting(&shown, Form::Html, poll);
        let text = String::from_utf8(response.body().to_vec()).expect("UTF-8");
        assert_eq!(text.matches("<script>").count(), 1, "{text}");
        assert!(text.contains("&lt;/pre&gt;&lt;script&gt;alert(1)") && text.contains("&amp; &#39;more&#39;"));
        assert!(text.contains("&lt;b&gt;&quot;shop&quot; does not start: exit code 1"), "{text}");
        assert!(!text.contains("http://") && !text.contains("https://"), "nothing from elsewhere");
        shown.hide_log = true;
        for form in [Form::Html, Form::Json, Form::Text] {
            let text = String::from_utf8(waiting(&shown, form, None).body().to_vec()).expect("UTF-8");
            assert!(!text.contains("alert") && text.contains("exit code 1"), "{text}");
        }
    }

    #[test]
    fn the_log_is_its_last_lines() {
        let why: String = (0..100).map(|n| format!("line {n}\n")).collect();
        let log = shown(failing(&why)).log();
        assert_eq!((log.len(), log[0].as_str(), log[11].as_str()), (12, "line 88", "line 99"));
        let long = shown(failing(&format!("no\n{}", "é".repeat(5_000)))).log();
        assert_eq!(long[0].chars().count(), LOG_CHARS_MAX);
    }

    #[test]
    fn each_gets_the_form_that_it_asks_for() {
        for (accept, form) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Form::Html),
            ("application/json", Form::Json),
            ("application/json, text/html", Form::Json),
            ("text/html, application/json", Form::Html),
            ("*/*", Form::Text),
            ("", Form::Text),
        ] {
            assert_eq!(Form::of(accept), form, "{accept}");
        }
        let answer = waiting(&shown(failing("no\nlog")), Form::Json, None);
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()["retry-after"], "7");
        assert_eq!(answer.headers()["forerun-state"], "failing");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        let json: serde_json::Value = serde_json::from_slice(answer.body()).expect("JSON");
        assert_eq!(
            (json["state"].as_str(), json["why"].as_str(), json["log"][0].as_str()),
            (Some("failing"), Some("no"), Some("log"))
        );
    }
}
