//! What an action is called: the method and the path, without whom or what it was about.
//!
//! A template leaves the router and is stored; the path does not. So whatever could name a person or a thing is
//! replaced, and where the shape of a segment does not tell, its cardinality does ([`TemplateGuard`]).

use std::collections::BTreeSet;

/// What stands for a segment that named someone or something.
pub const SEGMENT_PLACEHOLDER: &str = "{id}";

/// Deeper segments rarely tell actions apart, and each level multiplies the templates.
const SEGMENTS_MAX: usize = 8;
/// Routes that people write have shorter segments; tokens, slugs and names of documents are longer.
const SEGMENT_BYTES_MAX: usize = 24;
const METHOD_BYTES_MAX: usize = 16;
/// Stands for all that is deeper than [`SEGMENTS_MAX`].
const REST: &str = "{rest}";

/// Words of letters and digits that name a technique, not a thing.
const WORDS: &[&str] = &[
    "2fa", "a11y", "b2b", "b2c", "base64", "e2e", "h2", "h264", "http2", "i18n", "ipv4", "ipv6", "k8s",
    "l10n", "md5", "mp3", "mp4", "oauth1", "oauth2", "p2p", "s3", "sha1", "sha256", "utf8", "web3", "x509",
];

/// The name of an action: `GET /orders/{id}`.
///
/// Numbers, UUIDs, hex of 8 digits or more, long tokens, addresses, and ids that mix letters and digits become
/// `{id}`; a short extension stays (`{id}.jpg`), and so do versions (`v2`). Query, fragment, matrix parameters and
/// slashes at the end are dropped. At most 8 segments are named. The same text comes out when a template goes in.
#[must_use]
pub fn action_template(method: &str, path: &str) -> String {
    let mut text = String::with_capacity(64);
    push_method(&mut text, method);
    text.push(' ');
    let start = text.len();
    let path = path.split(['?', '#']).next().unwrap_or_default();
    for (depth, segment) in path.split('/').filter(|s| !s.is_empty()).enumerate() {
        text.push('/');
        if depth == SEGMENTS_MAX {
            text.push_str(REST);
            break;
        }
        push_segment(&mut text, segment);
    }
    if text.len() == start {
        text.push('/');
    }
    text
}

fn push_method(text: &mut String, method: &str) {
    if !method.is_empty()
        && method.len() <= METHOD_BYTES_MAX
        && method.bytes().all(|b| b.is_ascii_uppercase())
    {
        text.push_str(method);
    } else {
        text.push_str("OTHER");
    }
}

fn push_segment(text: &mut String, segment: &str) {
    let segment = segment.split(';').next().unwrap_or_default();
    if segment == REST {
        text.push_str(REST);
        return;
    }
    match segment.rsplit_once('.') {
        Some((stem, extension)) if is_extension(extension) => {
            let named = stem != SEGMENT_PLACEHOLDER && !stem.is_empty() && !names_something(stem);
            text.push_str(if named { stem } else { SEGMENT_PLACEHOLDER });
            text.push('.');
            text.push_str(extension);
        }
        _ if names_something(segment) => text.push_str(SEGMENT_PLACEHOLDER),
        _ => text.push_str(segment),
    }
}

/// The extensions of formats, few enough that a domain (`alice.example`) is not taken for one.
fn is_extension(text: &str) -> bool {
    matches!(
        text,
        "avif"
            | "css"
            | "csv"
            | "gif"
            | "gz"
            | "htm"
            | "html"
            | "ico"
            | "jpeg"
            | "jpg"
            | "js"
            | "json"
            | "map"
            | "md"
            | "mjs"
            | "mp3"
            | "mp4"
            | "pdf"
            | "php"
            | "png"
            | "svg"
            | "tar"
            | "ts"
            | "txt"
            | "wasm"
            | "webm"
            | "webp"
            | "woff"
            | "woff2"
            | "xml"
            | "yaml"
            | "zip"
    )
}

/// Whether a segment looks like the name of one thing rather than of a kind of things.
fn names_something(segment: &str) -> bool {
    if segment.len() > SEGMENT_BYTES_MAX || segment.is_empty() {
        return true;
    }
    // Escapes, `@`, `=` and the like do not occur in routes that people write.
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~' | b':' | b'*');
    if !segment.bytes().all(plain) {
        return true;
    }
    if is_version(segment) {
        return false;
    }
    let is_hex = segment.len() >= 8 && segment.bytes().all(|b| b.is_ascii_hexdigit());
    is_hex || segment.split(['-', '_', '.', '~', ':']).any(is_mixed_or_number)
}

fn is_mixed_or_number(word: &str) -> bool {
    word.bytes().any(|b| b.is_ascii_digit()) && !is_version(word) && !WORDS.contains(&word)
}

/// `v2`, `v10`, `v1.2`; a longer number is an id.
fn is_version(segment: &str) -> bool {
    segment.strip_prefix(['v', 'V']).is_some_and(|numbers| {
        numbers.split('.').all(|n| (1..=2).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_digit()))
    })
}

/// Replaces segments that turn out to take too many values, as user names do, one guard per service.
///
/// It remembers at most `values_max` texts at each of the first 8 depths; a text that comes when its depth is full
/// becomes `{id}`. What it has let pass it always lets pass.
#[derive(Clone, Debug)]
pub struct TemplateGuard {
    seen: Vec<BTreeSet<Box<str>>>,
    values_max: usize,
}

impl TemplateGuard {
    /// More distinct segments at one depth than any hand-written interface has.
    pub const VALUES_MAX: usize = 500;

    #[must_use]
    pub fn new(values_max: usize) -> Self {
        Self { seen: Vec::new(), values_max }
    }

    /// Takes a template from [`action_template`] and gives the one that may leave.
    #[must_use]
    pub fn admit(&mut self, template: &str) -> String {
        let Some((method, path)) = template.split_once(' ') else {
            return template.to_owned();
        };
        let mut text = String::with_capacity(template.len());
        text.push_str(method);
        text.push(' ');
        if path == "/" {
            text.push('/');
        }
        for (depth, segment) in path.split('/').filter(|s| !s.is_empty()).enumerate() {
            text.push('/');
            text.push_str(if self.lets_pass(depth, segment) { segment } else { SEGMENT_PLACEHOLDER });
        }
        text
    }

    fn lets_pass(&mut self, depth: usize, segment: &str) -> bool {
        if segment.starts_with('{') {
            return true;
        }
        if depth >= SEGMENTS_MAX {
            return false;
        }
        if self.seen.len() <= depth {
            self.seen.resize_with(depth + 1, BTreeSet::new);
        }
        let seen = &mut self.seen[depth];
        if seen.contains(segment) {
            return true;
        }
        let room = seen.len() < self.values_max;
        if room {
            seen.insert(segment.into());
        }
        room
    }
}

impl Default for TemplateGuard {
    fn default() -> Self {
        Self::new(Self::VALUES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(path: &str, expect: &str) {
        assert_eq!(action_template("GET", path), format!("GET {expect}"), "{path}");
    }

    #[test]
    fn routes_keep_their_words() {
        for path in [
            "/",
            "/orders",
            "/api/v2/orders/search",
            "/users/me/profile_picture",
            "/oauth2/token",
            "/static/app.js",
            "/getUserProfile",
            "/v1.2/messages:send",
            "/.well-known/openid-config",
            "/a/b/c/d/e/f/g/h",
        ] {
            check(path, path);
        }
    }

    #[test]
    fn what_names_someone_or_something_is_replaced() {
        for (path, expect) in [
            ("", "/"),
            ("//orders//", "/orders"),
            ("/orders/17", "/orders/{id}"),
            ("/orders/17/lines/3?x=alice@example.com#y", "/orders/{id}/lines/{id}"),
            ("/o/6f9619ff-8b86-d011-b42d-00cf4fc964ff", "/o/{id}"),
            ("/o/deadbeef", "/o/{id}"),
            ("/o/deadbee", "/o/deadbee"),
            ("/u/alice@example.com", "/u/{id}"),
            ("/u/alice%40example.com", "/u/{id}"),
            ("/u/J%C3%BCrgen", "/u/{id}"),
            ("/u/user42", "/u/{id}"),
            ("/u/u-42", "/u/{id}"),
            ("/o/a1b2c3", "/o/{id}"),
            ("/2026-11-25", "/{id}"),
            ("/v123", "/{id}"),
            ("/t/eyJhbGciOiJIUzIXNiJ.eyJzdWIi", "/t/{id}"),
            ("/posts/how-to-build-a-proxy-in-a-week", "/posts/{id}"),
            ("/img/17.jpg", "/img/{id}.jpg"),
            ("/img/.jpg", "/img/{id}.jpg"),
            ("/app.3f2a1b.js", "/{id}.js"),
            ("/cart;jsessionid=1A2B", "/cart"),
            ("/;x", "/{id}"),
            ("/q=secret", "/{id}"),
            ("/a/b/c/d/e/f/g/h/i/j", "/a/b/c/d/e/f/g/h/{rest}"),
        ] {
            check(path, expect);
        }
        assert_eq!(action_template("get", "/"), "OTHER /");
        assert_eq!(action_template("", "*"), "OTHER /*");
        assert_eq!(action_template(&"A".repeat(17), "/x"), "OTHER /x");
    }

    #[test]
    fn a_full_depth_lets_nothing_new_pass() {
        let mut guard = TemplateGuard::new(3);
        for name in ["anna", "bob", "carl"] {
            assert_eq!(guard.admit(&format!("GET /users/{name}")), format!("GET /users/{name}"));
        }
        assert_eq!(guard.admit("GET /users/dora"), "GET /users/{id}");
        assert_eq!(guard.admit("GET /users/anna/dora"), "GET /users/anna/dora");
        assert_eq!(guard.admit("POST /users/bob"), "POST /users/bob");
        assert_eq!(guard.admit("GET /"), "GET /");
        let deep = "GET /a/b/c/d/e/f/g/h/{rest}";
        assert_eq!(TemplateGuard::default().admit(deep), deep);
    }

    proptest! {
        #[test]
        fn a_template_is_bounded_and_its_own_template(method in "[A-Z]{1,9}", path in "\\PC{0,200}") {
            let text = action_template(&method, &path);
            prop_assert_eq!(&text, &action_template(&method, text.split_once(' ').expect("a space").1));
            prop_assert!(text.len() <= 16 + 1 + (SEGMENTS_MAX + 1) * (SEGMENT_BYTES_MAX + 8), "{}", text);
            prop_assert!(text.is_ascii());
            prop_assert!(!text.contains(['@', '%', '?', '#', '=', ';']));
        }

        #[test]
        fn no_number_of_three_digits_survives(path in "(/[a-z]{0,3}[0-9]{3,9}[a-z]{0,3}){1,4}") {
            let path = action_template("GET", &path);
            let words = ["h264", "sha256", "x509"];
            let digits = path.split('/').filter(|s| !words.contains(s)).flat_map(str::bytes);
            prop_assert_eq!(digits.filter(u8::is_ascii_digit).count(), 0);
        }

        #[test]
        fn a_guard_names_no_more_than_it_may(names in prop::collection::vec("[a-z]{1,3}", 0..60)) {
            let mut guard = TemplateGuard::new(10);
            let passed: BTreeSet<String> =
                names.iter().map(|n| guard.admit(&format!("GET /u/{n}"))).collect();
            prop_assert!(passed.len() <= 11, "{:?}", passed);
            for text in passed {
                prop_assert_eq!(guard.admit(&text), text);
            }
        }
    }
}
