//! Reads a table by its keys: notes what is unknown or wrong, and fills in the defaults of the table of keys.

use super::keys::{Key, LATER, Shape};
use super::problems::Source;
use super::units::{self, Scalar};
use super::words;
use forerun_types::Span;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use toml_edit::{Item, TableLike, Value};

/// How like a key a word must be to be taken for a slip of it (1 is the same): `comand`, not `name`.
const LIKENESS_MIN: f64 = 0.75;

/// One table of the file. Every getter notes what is wrong and goes on, so that all is told at once.
#[derive(Clone)]
pub(crate) struct Reader<'a> {
    pub(crate) source: &'a Source<'a>,
    path: String,
    keys: &'static [Key],
    table: Option<&'a dyn TableLike>,
    span: Option<Range<usize>>,
}

/// What a [`Reader`] gives out for a key that holds tables: the value and where it stands.
#[derive(Clone)]
pub(crate) struct Entry<'a> {
    pub(crate) name: String,
    pub(crate) item: Found<'a>,
}

/// One of what [`Reader::each`] gives out.
pub(crate) enum Element<'a> {
    Text(String, Option<Range<usize>>),
    Table(Reader<'a>),
}

/// A value in its two forms in a TOML tree.
#[derive(Clone, Copy)]
pub(crate) enum Found<'a> {
    Item(&'a Item),
    Value(&'a Value),
}

impl<'a> Found<'a> {
    pub(crate) fn span(&self) -> Option<Range<usize>> {
        match self {
            Found::Item(item) => item.span(),
            Found::Value(value) => value.span(),
        }
    }

    pub(crate) fn table(&self) -> Option<&'a dyn TableLike> {
        match self {
            Found::Item(item) => item.as_table_like(),
            Found::Value(value) => value.as_inline_table().map(|t| t as &dyn TableLike),
        }
    }

    /// The elements of a list in brackets. `[[x]]` hands out no items: see [`Reader::tables`].
    pub(crate) fn list(&self) -> Option<Vec<Found<'a>>> {
        let value = match self {
            Found::Item(item) => item.as_value()?,
            Found::Value(value) => value,
        };
        Some(value.as_array()?.iter().map(Found::Value).collect())
    }

    pub(crate) fn is_text(&self) -> bool {
        matches!(self.scalar(), Scalar::Text(_))
    }

    pub(crate) fn scalar(&self) -> Scalar<'a> {
        let value = match self {
            Found::Item(Item::Value(value)) => value,
            Found::Item(Item::ArrayOfTables(_)) => return Scalar::Other("a list of tables"),
            Found::Item(_) => return Scalar::Other("a table"),
            Found::Value(value) => value,
        };
        match value {
            Value::Integer(n) => Scalar::Whole(*n.value()),
            Value::Float(x) => Scalar::Decimal(*x.value()),
            Value::String(text) => Scalar::Text(text.value()),
            Value::Boolean(b) => Scalar::Bool(*b.value()),
            Value::Datetime(_) => Scalar::Other("a date"),
            Value::Array(_) => Scalar::Other("a list"),
            Value::InlineTable(_) => Scalar::Other("a table"),
        }
    }
}

impl<'a> Reader<'a> {
    /// Opens a table, or stands for an absent one, and notes the keys that are not in `keys`.
    pub(crate) fn new(
        source: &'a Source<'a>,
        path: impl Into<String>,
        keys: &'static [Key],
        table: Option<&'a dyn TableLike>,
        span: Option<Range<usize>>,
    ) -> Self {
        let reader = Self { source, path: path.into(), keys, table, span };
        reader.note_unknown();
        reader
    }

    fn note_unknown(&self) {
        let Some(table) = self.table else { return };
        for (name, _) in table.iter() {
            if self.keys.iter().any(|k| k.name == name) {
                continue;
            }
            let span = table.get_key_value(name).and_then(|(k, item)| k.span().or(item.span()));
            let what = if LATER.contains(&name) {
                "is not supported by this version; remove it".to_owned()
            } else {
                match nearest(name, self.keys.iter().map(|k| k.name)) {
                    Some(near) => format!("unknown key; did you mean \"{near}\"?"),
                    None => {
                        let known: Vec<&str> = self.keys.iter().map(|k| k.name).collect();
                        format!("unknown key; known are {}", known.join(", "))
                    }
                }
            };
            self.source.problem(span, &self.field(name), &what);
        }
    }

    /// `service.web` and `max` make `service.web.max`.
    pub(crate) fn field(&self, name: &str) -> String {
        let name = if bare(name) { name.to_owned() } else { format!("{name:?}") };
        if self.path.is_empty() { name } else { format!("{}.{name}", self.path) }
    }

    fn key(&self, name: &str) -> Option<&'static Key> {
        let key = self.keys.iter().find(|k| k.name == name);
        debug_assert!(key.is_some(), "{name} is read but stands in no table of keys");
        key
    }

    /// The value of a key as the file has it.
    pub(crate) fn found(&self, name: &str) -> Option<Found<'a>> {
        self.key(name)?;
        self.table?.get(name).filter(|item| !item.is_none()).map(Found::Item)
    }

    /// Notes a problem with the value of a key, or with the table if the key is absent.
    pub(crate) fn problem(&self, name: &str, what: &str) {
        let span = self.found(name).and_then(|f| f.span()).or_else(|| self.span.clone());
        self.source.problem(span, &self.field(name), what);
    }

    /// Reads one value with `read`, or the key's default. `None` when there is neither, or it is wrong and noted.
    fn scalar<T>(&self, name: &str, read: impl Fn(Scalar<'_>) -> Result<T, String>) -> Option<T> {
        let result = match self.found(name) {
            Some(found) => read(found.scalar()),
            None => match self.key(name)?.default {
                "" => return None,
                text => read(Scalar::of_default(text)),
            },
        };
        result.map_err(|what| self.problem(name, &what)).ok()
    }

    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.scalar(name, |value| text_of(value).map(str::to_owned))
    }

    /// A text that goes into messages, metrics and headers: short and printable.
    pub(crate) fn label(&self, name: &str) -> Option<String> {
        self.scalar(name, |value| {
            let text = text_of(value)?;
            check_name(text)?;
            Ok(text.to_owned())
        })
    }

    pub(crate) fn duration(&self, name: &str) -> Span {
        self.scalar(name, units::duration).unwrap_or_default()
    }

    /// A duration that may not be zero.
    pub(crate) fn duration_some(&self, name: &str) -> Span {
        let nonzero = |value: Scalar<'_>| match units::duration(value)? {
            Span::ZERO => Err("must be more than nothing".to_owned()),
            span => Ok(span),
        };
        self.scalar(name, nonzero).unwrap_or_default()
    }

    pub(crate) fn bytes(&self, name: &str) -> Option<u64> {
        self.scalar(name, units::bytes)
    }

    /// Bytes, and at least so many.
    pub(crate) fn bytes_at_least(&self, name: &str, least: u64) -> u64 {
        self.bytes_from(name, least, false)
    }

    /// At least so many, or with `or_none` 0.
    pub(crate) fn bytes_from(&self, name: &str, least: u64, or_none: bool) -> u64 {
        let read = |value: Scalar<'_>| match units::bytes(value)? {
            0 if or_none => Ok(0),
            n if n < least => Err(format!("must be at least {}", binary(least))),
            n => Ok(n),
        };
        self.scalar(name, read).unwrap_or(least)
    }

    pub(crate) fn bytes_per_second(&self, name: &str) -> u64 {
        self.scalar(name, units::bytes_per_second).unwrap_or_default()
    }

    pub(crate) fn cores_milli(&self, name: &str) -> u64 {
        self.scalar(name, units::cores_milli).unwrap_or_default()
    }

    pub(crate) fn share_milli(&self, name: &str) -> u32 {
        self.scalar(name, units::share_milli).unwrap_or_default()
    }

    pub(crate) fn share_ppm(&self, name: &str) -> Option<u32> {
        self.scalar(name, units::share_ppm)
    }

    pub(crate) fn number(&self, name: &str) -> f64 {
        self.scalar(name, units::number).unwrap_or_default()
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        let read = |value: Scalar<'_>| match value {
            Scalar::Bool(flag) => Ok(flag),
            other => Err(format!("expected true or false, got {}", other.kind())),
        };
        self.scalar(name, read).unwrap_or_default()
    }

    /// What a key that takes true, false or a table asks for: the table, or its defaults.
    pub(crate) fn flag_or(&self, name: &str, keys: &'static [Key]) -> Option<Reader<'a>> {
        match self.found(name).and_then(|found| found.table().map(|table| (found, table))) {
            Some((found, table)) => {
                Some(Reader::new(self.source, self.field(name), keys, Some(table), found.span()))
            }
            None => {
                self.flag(name).then(|| Reader::new(self.source, self.field(name), keys, None, self.span()))
            }
        }
    }

    /// A whole number in the key's range.
    pub(crate) fn count(&self, name: &str) -> Option<u64> {
        let (min, max) = match self.key(name)?.shape {
            Shape::Count(min, max) => (min, max),
            _ => (0, u64::MAX),
        };
        self.scalar(name, |value| match value {
            Scalar::Whole(n) => u64::try_from(n)
                .ok()
                .filter(|n| (min..=max).contains(n))
                .ok_or_else(|| format!("{n} is out of range; it takes {min} to {max}")),
            other => Err(format!("expected a whole number, got {}", other.kind())),
        })
    }

    /// As [`Reader::count`], for ranges that fit 32 bits.
    pub(crate) fn count_u32(&self, name: &str) -> u32 {
        self.count(name).and_then(|n| u32::try_from(n).ok()).unwrap_or_default()
    }

    pub(crate) fn address(&self, name: &str) -> Option<SocketAddr> {
        self.scalar(name, |value| {
            let text = text_of(value)?;
            let host = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
            host.as_deref()
                .unwrap_or(text)
                .parse()
                .map_err(|_| format!("\"{text}\" is no address with a port; write it as \"127.0.0.1:8080\""))
        })
    }

    /// One of the key's words: its place among them.
    pub(crate) fn choice(&self, name: &str) -> Option<&'static str> {
        let words = match self.key(name)?.shape {
            Shape::Choice(words) => words,
            _ => &[],
        };
        self.scalar(name, |value| {
            let text = text_of(value)?;
            words.iter().find(|w| **w == text).copied().ok_or_else(|| {
                match nearest(text, words.iter().copied()) {
                    Some(near) => format!("\"{text}\" is not known; did you mean \"{near}\"?"),
                    None => format!("\"{text}\" is not known; it takes {}", words.join(", ")),
                }
            })
        })
    }

    /// One text or a list of them; empty when absent.
    pub(crate) fn texts(&self, name: &str) -> Vec<(String, Option<Range<usize>>)> {
        let Some(found) = self.found(name) else { return Vec::new() };
        let elements = found.list().unwrap_or_else(|| vec![found]);
        let mut texts = Vec::new();
        for element in elements {
            match text_of(element.scalar()) {
                Ok(text) => texts.push((text.to_owned(), element.span())),
                Err(what) => self.source.problem(element.span(), &self.field(name), &what),
            }
        }
        texts
    }

    /// The texts and tables of a key that takes a text, a table, or a list of both.
    pub(crate) fn each(&self, name: &str, keys: &'static [Key]) -> Vec<Element<'a>> {
        let Some(found) = self.found(name) else { return Vec::new() };
        let tables = match found {
            Found::Item(Item::ArrayOfTables(tables)) => Some(tables),
            _ => None,
        };
        let path = self.field(name);
        if let Some(tables) = tables {
            let of = |t: &'a toml_edit::Table| {
                Element::Table(Reader::new(self.source, path.clone(), keys, Some(t), t.span()))
            };
            return tables.iter().map(of).collect();
        }
        let mut elements = Vec::new();
        for element in found.list().unwrap_or_else(|| vec![found]) {
            match element.table() {
                Some(table) => {
                    let reader = Reader::new(self.source, path.clone(), keys, Some(table), element.span());
                    elements.push(Element::Table(reader));
                }
                None => match text_of(element.scalar()) {
                    Ok(text) => elements.push(Element::Text(text.to_owned(), element.span())),
                    Err(what) => self.source.problem(element.span(), &path, &what),
                },
            }
        }
        elements
    }

    /// Words to run: a list of them, or one text that is split as a shell splits it.
    pub(crate) fn command(&self, name: &str) -> Option<Vec<String>> {
        let found = self.found(name)?;
        if found.list().is_none() {
            let read = text_of(found.scalar()).and_then(words::split);
            return read.map_err(|what| self.problem(name, &what)).ok();
        }
        let words: Vec<String> = self.texts(name).into_iter().map(|(text, _)| text).collect();
        if words.first().is_none_or(String::is_empty) {
            self.problem(name, "is empty; name the program to start");
            return None;
        }
        Some(words)
    }

    /// A path of a URL: it begins with a slash and holds no blanks.
    pub(crate) fn url_path(&self, name: &str) -> Option<String> {
        let text = self.text(name)?;
        check_url_path(&text).map_err(|what| self.problem(name, &what)).ok()?;
        Some(text)
    }

    /// Names with texts; numbers and truth values become texts.
    pub(crate) fn env(&self, name: &str) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        let Some(found) = self.found(name) else { return env };
        let Some(table) = found.table() else {
            let what = format!("expected a table of names and texts, got {}", found.scalar().kind());
            self.problem(name, &what);
            return env;
        };
        for (variable, item) in table.iter() {
            let found = Found::Item(item);
            let text = match found.scalar() {
                Scalar::Text(text) if text.contains('\0') => Err("holds a zero byte".to_owned()),
                Scalar::Text(text) => Ok(text.to_owned()),
                Scalar::Whole(n) => Ok(n.to_string()),
                Scalar::Decimal(x) => Ok(x.to_string()),
                Scalar::Bool(b) => Ok(b.to_string()),
                other => Err(format!("expected a text, got {}", other.kind())),
            };
            let text = match text {
                Ok(_) if variable.is_empty() || variable.contains(['=', '\0']) => {
                    Err("no name of an environment variable; remove \"=\"".to_owned())
                }
                text => text,
            };
            match text {
                Ok(text) => drop(env.insert(variable.to_owned(), text)),
                Err(what) => {
                    self.source.problem(found.span(), &format!("{}.{variable}", self.field(name)), &what);
                }
            }
        }
        env
    }

    /// The table under a key, read by `keys`; an absent one gives the defaults.
    pub(crate) fn table(&self, name: &str, keys: &'static [Key]) -> Reader<'a> {
        let path = self.field(name);
        match self.found(name) {
            Some(found) => match found.table() {
                Some(table) => Reader::new(self.source, path, keys, Some(table), found.span()),
                None => {
                    self.problem(name, &format!("expected a table, got {}", found.scalar().kind()));
                    Reader::new(self.source, path, keys, None, found.span())
                }
            },
            None => Reader::new(self.source, path, keys, None, self.span.clone()),
        }
    }

    /// The tables under a key: `[[x]]`, a list of inline tables, or one table.
    pub(crate) fn tables(&self, name: &str, keys: &'static [Key]) -> Vec<Reader<'a>> {
        let Some(found) = self.found(name) else { return Vec::new() };
        let tables: Vec<(Option<&dyn TableLike>, _)> = match found {
            Found::Item(Item::ArrayOfTables(tables)) => {
                tables.iter().map(|t| (Some(t as &dyn TableLike), t.span())).collect()
            }
            _ => match found.list() {
                Some(list) => list.iter().map(|f| (f.table(), f.span())).collect(),
                None => vec![(found.table(), found.span())],
            },
        };
        let many = tables.len() > 1;
        let mut readers = Vec::new();
        for (at, (table, span)) in tables.into_iter().enumerate() {
            let path = if many { format!("{}[{at}]", self.field(name)) } else { self.field(name) };
            match table {
                Some(_) => readers.push(Reader::new(self.source, path, keys, table, span)),
                None => self.source.problem(
                    span,
                    &path,
                    "expected a table, as { cron = \"0 8 * * 1-5\", for = \"9h\" }",
                ),
            }
        }
        readers
    }

    /// The tables `[name.ANYTHING]` in order of the file; wrong names are noted.
    pub(crate) fn named(&self, name: &str) -> Vec<Entry<'a>> {
        let Some(found) = self.found(name) else { return Vec::new() };
        let Some(table) = found.table() else {
            self.problem(name, &format!("expected tables [{name}.NAME], got {}", found.scalar().kind()));
            return Vec::new();
        };
        let mut entries = Vec::new();
        for (entry, item) in table.iter() {
            let span = table.get_key_value(entry).and_then(|(k, item)| k.span().or(item.span()));
            let path = format!("{}.{entry}", self.field(name));
            if let Err(what) = check_name(entry) {
                self.source.problem(span, &path, &what);
            } else if item.as_table_like().is_none() {
                self.source.problem(
                    span,
                    &path,
                    &format!("expected a table; write it under [{name}.{entry}]"),
                );
            } else {
                entries.push(Entry { name: entry.to_owned(), item: Found::Item(item) });
            }
        }
        entries
    }

    pub(crate) fn span(&self) -> Option<Range<usize>> {
        self.span.clone()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.found(name).is_some()
    }
}

/// `16MiB` or `8KiB`, for powers of two.
fn binary(bytes: u64) -> String {
    if bytes >= 1 << 20 { format!("{}MiB", bytes >> 20) } else { format!("{}KiB", bytes >> 10) }
}

fn bare(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// Names stand in paths, metrics, file names and messages.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    if name.len() <= 63 && bare(name) {
        return Ok(());
    }
    Err("a name is 1 to 63 letters, digits, \"-\" and \"_\"".to_owned())
}

pub(crate) fn text_of(value: Scalar<'_>) -> Result<&str, String> {
    match value {
        Scalar::Text(text) if text.contains('\0') => Err("holds a zero byte".to_owned()),
        Scalar::Text(text) => Ok(text),
        other => Err(format!("expected a text in quotes, got {}", other.kind())),
    }
}

pub(crate) fn check_url_path(path: &str) -> Result<(), String> {
    match path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic()) {
        true => Ok(()),
        false => Err(format!("path \"{path}\" must begin with \"/\" and hold no blanks")),
    }
}

/// The word most like `name`, if one is.
pub(crate) fn nearest<'w>(name: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    words
        .map(|word| (strsim::jaro_winkler(name, word), word))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}
