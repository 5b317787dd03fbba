//! Steps of users for next-activity prediction: from any trace, from a list of events, or from sequences.

use crate::error::TraceError;
use crate::read::{Input, ReadOptions, open_lines, read_records};
use crate::record::{Record, Sink, SinkFull};
use crate::source::Line;
use crate::time::quoted;
use crate::trace::ReadReport;
use std::collections::HashMap;

/// Lines between two words to the progress.
const PROGRESS_LINES: u64 = 1 << 16;

/// One thing that a user did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Position in [`Steps::users`].
    pub user: u32,
    /// The user's how-manieth step it is, from 0.
    pub index: u32,
    /// Position in [`Steps::items`].
    pub item: u32,
    /// Position in the groups plus one; 0 is none.
    pub group: u32,
    /// Seconds since 1970, or since the file's own zero; `None` without a clock.
    pub at_s: Option<i64>,
    pub scored: bool,
}

/// All steps of a trace, in the order of the stream.
#[derive(Clone, Debug, Default)]
pub struct Steps {
    pub users: Vec<String>,
    pub items: Vec<String>,
    pub steps: Vec<Step>,
    /// Whether the file says which steps are scored.
    pub marked: bool,
    pub report: ReadReport,
}

/// What of a request is predicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ItemIs {
    #[default]
    Service,
    Action,
    /// The service and the action.
    Both,
}

/// Formats that only prediction reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepFormat {
    /// Tab-separated: user, index, item, time or empty, fit or score.
    Events,
    /// A sequence a line: its id, a tab, items between blanks.
    Sequences,
}

/// Numbers for names, in the order in which they come.
#[derive(Debug, Default)]
struct Names {
    known: HashMap<Box<[u8]>, u32>,
    names: Vec<String>,
}

impl Names {
    fn number(&mut self, name: &[u8]) -> u32 {
        if let Some(number) = self.known.get(name) {
            return *number;
        }
        // There are fewer names than lines, whose number is bounded far below 2^32.
        let number = self.names.len() as u32;
        self.known.insert(name.into(), number);
        self.names.push(String::from_utf8_lossy(name).into_owned());
        number
    }
}

/// Reads a list of events.
///
/// # Errors
/// A file that cannot be read, or holds no event; with `strict` the first line that cannot be read.
pub fn read_events(
    input: &Input,
    options: &ReadOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<Steps, TraceError> {
    let mut lines = open_lines(input, options)?;
    let name = lines.name.clone();
    let (mut users, mut items) = (Names::default(), Names::default());
    let mut out = Steps { marked: true, ..Steps::default() };
    loop {
        let line = lines.next()?;
        let Some(line) = line else { break };
        out.report.lines += 1;
        let step = match line {
            Line::Text([]) => continue,
            Line::Text(text) => event(text, &mut users, &mut items),
            Line::TooLong => Err(format!("is longer than {} bytes", options.line_bytes_max)),
        };
        let number = out.report.lines;
        match step {
            Ok(_) if out.steps.len() >= options.events_max => {
                return Err(TraceError::TooMany { name, line: number, max: options.events_max });
            }
            Ok(step) => out.steps.push(step),
            Err(why) if options.strict => return Err(TraceError::Line { name, line: number, why }),
            Err(why) => out.report.skip(&name, number, why),
        }
        if number.is_multiple_of(PROGRESS_LINES) {
            progress(number);
        }
    }
    (out.users, out.items) = (users.names, items.names);
    something(&out.report, name, out.steps.is_empty())?;
    Ok(out)
}

fn something(report: &ReadReport, name: String, empty: bool) -> Result<(), TraceError> {
    if !empty {
        return Ok(());
    }
    let why = match &report.first_offender {
        Some(first) => format!("{}:{}: {}", first.file, first.line, first.why),
        None => "it is empty".to_owned(),
    };
    Err(TraceError::Nothing { name, why })
}

fn event(text: &[u8], users: &mut Names, items: &mut Names) -> Result<Step, String> {
    let mut fields = [&text[..0]; 5];
    let mut count = 0;
    for field in text.split(|b| *b == b'\t') {
        if let Some(slot) = fields.get_mut(count) {
            *slot = field;
        }
        count += 1;
    }
    if count != 5 {
        return Err(format!("has {count} fields, not the 5 of user, index, item, time, fit or score"));
    }
    let [user, index, item, time, phase] = fields;
    let number = |what: &str, text: &[u8]| -> Result<i64, String> {
        let parsed = std::str::from_utf8(text).ok().and_then(|t| t.trim().parse().ok());
        parsed.ok_or_else(|| format!("{what} {} is no whole number", quoted(text)))
    };
    let index = number("index", index)?;
    let index = u32::try_from(index).map_err(|_| format!("index {index} is not from 0 to 4294967295"))?;
    let scored = match phase.trim_ascii() {
        b"score" => true,
        b"fit" => false,
        other => return Err(format!("phase {} is neither fit nor score", quoted(other))),
    };
    let at_s = if time.is_empty() { None } else { Some(number("time", time)?) };
    Ok(Step { user: users.number(user), index, item: items.number(item), group: 0, at_s, scored })
}

/// Sequences of items.
#[derive(Clone, Debug, Default)]
pub struct Sequences {
    pub items: Vec<String>,
    /// Positions in `items`.
    pub sequences: Vec<Vec<u32>>,
    pub report: ReadReport,
}

impl Sequences {
    /// The sequences one after the other, each a user of its own, called by its number.
    #[must_use]
    pub fn into_steps(self) -> Steps {
        let users = (0..self.sequences.len()).map(|n| n.to_string()).collect();
        let each = |(user, sequence): (usize, Vec<u32>)| {
            sequence.into_iter().enumerate().map(move |(index, item)| Step {
                user: user as u32,
                index: index as u32,
                item,
                group: 0,
                at_s: None,
                scored: false,
            })
        };
        let steps = self.sequences.into_iter().enumerate().flat_map(each).collect();
        Steps { users, items: self.items, steps, marked: false, report: self.report }
    }
}

/// Reads sequences, one a line. A line that cannot be read stands for an empty one, so that the numbers of the others
/// stay.
///
/// # Errors
/// A file that cannot be read, or holds no sequence; with `strict` the first line that cannot be read.
pub fn read_sequences(
    input: &Input,
    options: &ReadOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<Sequences, TraceError> {
    let mut lines = open_lines(input, options)?;
    let name = lines.name.clone();
    let mut items = Names::default();
    let mut out = Sequences::default();
    let mut count = 0usize;
    while let Some(line) = lines.next()? {
        out.report.lines += 1;
        let number = out.report.lines;
        let sequence = match line {
            Line::Text(text) => match text.iter().position(|b| *b == b'\t') {
                Some(tab) => Ok(text[tab + 1..]
                    .split(u8::is_ascii_whitespace)
                    .filter(|item| !item.is_empty())
                    .map(|item| items.number(item))
                    .collect::<Vec<u32>>()),
                None => Err("has no tab between its id and its items".to_owned()),
            },
            Line::TooLong => Err(format!("is longer than {} bytes", options.line_bytes_max)),
        };
        count += sequence.as_ref().map_or(0, Vec::len);
        if count > options.events_max {
            return Err(TraceError::TooMany { name, line: number, max: options.events_max });
        }
        match sequence {
            Ok(sequence) => out.sequences.push(sequence),
            Err(why) if options.strict => return Err(TraceError::Line { name, line: number, why }),
            Err(why) => {
                out.report.skip(&name, number, why);
                out.sequences.push(Vec::new());
            }
        }
        if number.is_multiple_of(PROGRESS_LINES) {
            progress(number);
        }
    }
    out.items = items.names;
    something(&out.report, name, count == 0)?;
    Ok(out)
}

/// Gathers the steps of known users from records.
struct Gather {
    users: Names,
    items: Names,
    groups: Names,
    item_is: ItemIs,
    steps: Vec<(i64, Step)>,
    max: usize,
    text: Vec<u8>,
}

impl Sink for Gather {
    fn record(&mut self, record: &Record<'_>) -> Result<(), SinkFull> {
        if record.user.is_empty() {
            return Ok(());
        }
        if self.steps.len() >= self.max {
            return Err(SinkFull::TooMany { max: self.max });
        }
        self.text.clear();
        // A user is one within a tenant.
        if !record.tenant.is_empty() {
            self.text.extend_from_slice(record.tenant);
            self.text.push(b'/');
        }
        self.text.extend_from_slice(record.user);
        let user = self.users.number(&self.text);
        let group = if record.group.is_empty() { 0 } else { self.groups.number(record.group) + 1 };
        let item = match self.item_is {
            ItemIs::Service => self.items.number(record.service),
            ItemIs::Action => self.items.number(record.action),
            ItemIs::Both => {
                self.text.clear();
                self.text.extend_from_slice(record.service);
                self.text.push(b' ');
                self.text.extend_from_slice(record.action);
                self.items.number(&self.text)
            }
        };
        let at_s = Some(record.at_us.div_euclid(1_000_000));
        self.steps.push((record.at_us, Step { user, index: 0, item, group, at_s, scored: false }));
        Ok(())
    }
}

/// Reads the steps of a recorded trace, in order of time. Requests without a user are left out.
///
/// # Errors
/// As [`read_records`]; and a trace without a user.
pub fn read_steps(
    inputs: &[Input],
    options: &ReadOptions,
    item_is: ItemIs,
    progress: &mut dyn FnMut(u64),
) -> Result<Steps, TraceError> {
    let mut gather = Gather {
        users: Names::default(),
        items: Names::default(),
        groups: Names::default(),
        item_is,
        steps: Vec::new(),
        max: options.events_max,
        text: Vec::new(),
    };
    let report = read_records(inputs, options, &mut gather, progress)?;
    if gather.steps.is_empty() {
        let name = inputs.first().map_or(String::new(), Input::name);
        let why = "no request names a user, and only users have a next step".to_owned();
        return Err(TraceError::Nothing { name, why });
    }
    gather.steps.sort_by_key(|(at, _)| *at);
    let mut seen = vec![0u32; gather.users.names.len()];
    let steps = gather.steps.into_iter().map(|(_, step)| {
        let index = &mut seen[step.user as usize];
        *index += 1;
        Step { index: *index - 1, ..step }
    });
    let steps = steps.collect();
    Ok(Steps { users: gather.users.names, items: gather.items.names, steps, marked: false, report })
}

/// Which of the two formats a beginning is of, if of any.
///
/// # Errors
/// The file cannot be opened or read.
pub fn guess_steps(input: &Input, options: &ReadOptions) -> Result<Option<StepFormat>, TraceError> {
    // What is read from a pipe cannot be read again.
    let Input::Path(path) = input else { return Ok(None) };
    if path.is_dir() {
        return Ok(None);
    }
    let mut lines = open_lines(input, options)?;
    let Some(Line::Text(first)) = lines.next()? else { return Ok(None) };
    let mut fields = first.split(|b| *b == b'\t');
    Ok(match (fields.clone().count(), fields.next_back()) {
        (5, Some(b"fit" | b"score")) => Some(StepFormat::Events),
        (2, _) => Some(StepFormat::Sequences),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &'static str, strict: bool) -> Result<Steps, TraceError> {
        let input = Input::Bytes { name: "e", bytes: text.as_bytes() };
        read_events(&input, &ReadOptions { strict, ..ReadOptions::default() }, &mut |_| {})
    }

    #[test]
    fn a_list_of_events() {
        let steps = events("a\t0\tx y\t\tfit\nb\t0\tz\t17\tscore\na\t1\tz\t-3\tscore\n", true).unwrap();
        assert_eq!(
            (steps.users.as_slice(), steps.items.as_slice()),
            (&["a".into(), "b".into()][..], &["x y".into(), "z".into()][..])
        );
        let told: Vec<_> = steps.steps.iter().map(|s| (s.user, s.index, s.item, s.at_s, s.scored)).collect();
        assert_eq!(told, [(0, 0, 0, None, false), (1, 0, 1, Some(17), true), (0, 1, 1, Some(-3), true)]);
    }

    #[test]
    fn bad_events_are_told_by_line() {
        for (line, why) in [
            ("a\t0\tx\tfit", "e:2: has 4 fields"),
            ("a\tone\tx\t\tfit", "e:2: index \"one\" is no whole number"),
            ("a\t-1\tx\t\tfit", "e:2: index -1 is not from 0"),
            ("a\t0\tx\tnoon\tfit", "e:2: time \"noon\" is no whole number"),
            ("a\t0\tx\t\ttest", "e:2: phase \"test\" is neither fit nor score"),
        ] {
            let text: &'static str = Box::leak(format!("a\t0\tx\t\tfit\n{line}\n").into_boxed_str());
            let error = events(text, true).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            let steps = events(text, false).unwrap();
            assert_eq!((steps.steps.len(), steps.report.skipped), (1, 1));
        }
    }

    #[test]
    fn sequences_keep_their_numbers() {
        let input = Input::Bytes { name: "s", bytes: b"1\ta b a\nno tab\n1\tb\n" };
        let read = read_sequences(&input, &ReadOptions::default(), &mut |_| {}).unwrap();
        assert_eq!(read.sequences, [vec![0, 1, 0], vec![], vec![1]]);
        assert_eq!(read.report.skipped, 1);
    }

    #[test]
    fn steps_of_a_trace_are_those_of_its_users_in_order_of_time() {
        let text = b"at,service,user,action,group\n5,s,ann,go,g\n3,t,bob,go,\n4,s,,go,\n6,t,ann,stop,g\n";
        let input = [Input::Bytes { name: "t", bytes: text }];
        let steps = read_steps(&input, &ReadOptions::default(), ItemIs::Both, &mut |_| {}).unwrap();
        let told: Vec<_> = steps
            .steps
            .iter()
            .map(|s| {
                (
                    steps.users[s.user as usize].as_str(),
                    s.index,
                    steps.items[s.item as usize].as_str(),
                    s.group,
                )
            })
            .collect();
        assert_eq!(told, [("bob", 0, "t go", 0), ("ann", 0, "s go", 1), ("ann", 1, "t stop", 1)]);
    }
}
