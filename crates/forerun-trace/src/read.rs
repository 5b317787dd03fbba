//! From files to a trace.

use crate::access_log::AccessLogParser;
use crate::azure2019::{Azure2019, DayFile};
use crate::build::Builder;
use crate::csv::{AzureService, CsvParser};
use crate::record::{Sink, SinkFull};
use crate::source::{Line, Lines};
use crate::time::quoted;
use crate::trace::{MinuteTrace, ReadReport, Trace};
use crate::{ColumnMap, Format, ServiceRule, TraceError, UserFrom, minutes};
use std::path::PathBuf;

/// Where a trace comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    Path(PathBuf),
    Stdin,
    /// Bytes at hand, and what to call them.
    Bytes {
        name: &'static str,
        bytes: &'static [u8],
    },
}

impl Input {
    /// `-` is standard input.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        if text == "-" { Self::Stdin } else { Self::Path(text.into()) }
    }

    pub(crate) fn name(&self) -> String {
        match self {
            Self::Path(path) => path.display().to_string(),
            Self::Stdin => "standard input".to_owned(),
            Self::Bytes { name, .. } => (*name).to_owned(),
        }
    }
}

/// How to read.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// `None` guesses from the first lines.
    pub format: Option<Format>,
    pub map: Option<ColumnMap>,
    /// `path:N`, `host` or a name for access logs; `app` or `func` for the Azure traces.
    pub service: Option<String>,
    /// `address`, `login` or `none`, for access logs.
    pub user: Option<String>,
    /// A line that cannot be read is an error.
    pub strict: bool,
    /// Longer lines are skipped.
    pub line_bytes_max: usize,
    /// A trace of more requests is refused.
    pub events_max: usize,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            format: None,
            map: None,
            service: None,
            user: None,
            strict: false,
            line_bytes_max: 1 << 20,
            // 8 GB of requests; more than that is not held in memory at once.
            events_max: 80_000_000,
        }
    }
}

/// What was read.
#[derive(Clone, Debug)]
pub enum Recorded {
    Requests(Trace),
    Minutes(MinuteTrace),
}

/// Reads a whole trace. `progress` is told of the lines read so far, now and then.
///
/// # Errors
/// Files that cannot be opened or read, of no known or of different formats, without a single request; and with
/// `strict` the first line that cannot be read.
pub fn read(
    inputs: &[Input],
    options: &ReadOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<Recorded, TraceError> {
    if let Some(folder) = minutes_folder(inputs, options)? {
        return minutes::read(folder, options).map(Recorded::Minutes);
    }
    let mut builder = Builder::new(options.events_max);
    let (format, report) = read_into(inputs, options, &mut builder, progress)?;
    let trace = builder.finish(format == Format::Azure2021, report);
    if trace.events.is_empty() {
        let name = inputs.first().map_or(String::new(), Input::name);
        return Err(TraceError::Nothing { name, why: "no minute has an invocation".to_owned() });
    }
    Ok(Recorded::Requests(trace))
}

/// Hands every request to `sink`, in the order of the files.
///
/// # Errors
/// As [`read`], and what the sink refuses.
pub fn read_records(
    inputs: &[Input],
    options: &ReadOptions,
    sink: &mut dyn Sink,
    progress: &mut dyn FnMut(u64),
) -> Result<ReadReport, TraceError> {
    if minutes_folder(inputs, options)?.is_some() {
        let why = "a folder of the format minutes holds no single requests".to_owned();
        return Err(TraceError::Option { option: "--format", why });
    }
    read_into(inputs, options, sink, progress).map(|(_, report)| report)
}

fn minutes_folder<'a>(inputs: &'a [Input], options: &ReadOptions) -> Result<Option<&'a PathBuf>, TraceError> {
    let wanted = options.format == Some(Format::Minutes);
    let bad = |why: &str| Err(TraceError::Option { option: "--format minutes", why: why.to_owned() });
    match inputs {
        [Input::Path(path)] if wanted || (options.format.is_none() && minutes::is_minutes(path)) => {
            Ok(Some(path))
        }
        [_] if wanted => bad("name a folder, standard input is none"),
        _ if wanted => bad("name one folder"),
        _ => Ok(None),
    }
}

/// A file that has been opened and whose format is known.
struct Opened {
    lines: Lines,
    first_line: Vec<u8>,
}

pub(crate) fn open_lines(input: &Input, options: &ReadOptions) -> Result<Lines, TraceError> {
    match input {
        Input::Path(path) => Lines::open(path, options.line_bytes_max),
        Input::Stdin => Lines::stdin(options.line_bytes_max),
        Input::Bytes { name, bytes } => {
            Lines::new((*name).to_owned(), Box::new(*bytes), options.line_bytes_max)
        }
    }
}

fn open(input: &Input, options: &ReadOptions) -> Result<(Opened, Format), TraceError> {
    let mut lines = open_lines(input, options)?;
    let head = lines.head()?;
    let name = lines.name.clone();
    let first = head.split(|&b| b == b'\n').map(<[u8]>::trim_ascii_end).find(|l| !l.is_empty());
    let Some(first) = first else { return Err(TraceError::Empty { name }) };
    let guess = || if options.map.is_some() { Some(Format::Csv) } else { Format::guess(&head) };
    let Some(format) = options.format.or_else(guess) else {
        return Err(TraceError::UnknownFormat { name, head: quoted(first).trim_matches('"').to_owned() });
    };
    Ok((Opened { lines, first_line: first.to_vec() }, format))
}

fn read_into(
    inputs: &[Input],
    options: &ReadOptions,
    sink: &mut dyn Sink,
    progress: &mut dyn FnMut(u64),
) -> Result<(Format, ReadReport), TraceError> {
    let Some(first) = inputs.first() else {
        return Err(TraceError::Option { option: "TRACE", why: "name at least one file".to_owned() });
    };
    let (file, format) = open(first, options)?;
    let name = file.lines.name.clone();
    let mut parser = Parser::new(format, options)?;
    let mut run = Run { options, sink, progress, report: ReadReport::default(), requests: 0 };
    let mut opened = Some(file);
    for at in reading_order(inputs, format, options)? {
        // The first has been opened already, and standard input cannot be opened twice.
        let reused = if at == 0 { opened.take() } else { None };
        let mut file = match reused {
            Some(file) => file,
            None => open_alike(&inputs[at], options, &name, format)?,
        };
        run.file(&mut file, &mut parser)?;
    }
    if run.requests == 0 {
        let why = match &run.report.first_offender {
            Some(o) => format!("{}:{}: {}", o.file, o.line, o.why),
            None => "there is only a header".to_owned(),
        };
        return Err(TraceError::Nothing { name, why });
    }
    Ok((format, run.report))
}

fn open_alike(
    input: &Input,
    options: &ReadOptions,
    first: &str,
    expected: Format,
) -> Result<Opened, TraceError> {
    let (file, format) = open(input, options)?;
    if format == expected {
        return Ok(file);
    }
    let (found, expected) = (format.name(), expected.name());
    Err(TraceError::Mixed { name: file.lines.name, found, first: first.to_owned(), expected })
}

/// Positions in `inputs`. Of an azure2019 day, durations and memory must be known before the invocations that they
/// belong to.
fn reading_order(inputs: &[Input], format: Format, options: &ReadOptions) -> Result<Vec<usize>, TraceError> {
    let mut order: Vec<usize> = (0..inputs.len()).collect();
    if format == Format::Azure2019 && inputs.len() > 1 {
        let mut late = vec![false; inputs.len()];
        for (at, input) in inputs.iter().enumerate() {
            if let Input::Path(_) = input {
                late[at] = DayFile::of(&open(input, options)?.0.first_line) == Some(DayFile::Invocations);
            }
        }
        order.sort_by_key(|&at| late[at]);
    }
    Ok(order)
}

/// One of the line formats, with what it remembers between lines.
enum Parser {
    Csv(Option<CsvParser>, CsvKind),
    AccessLog(AccessLogParser),
    Azure2019(Azure2019, Option<DayFile>),
}

enum CsvKind {
    Forerun,
    Map(ColumnMap),
    Azure2021(AzureService),
}

impl Parser {
    fn new(format: Format, options: &ReadOptions) -> Result<Self, TraceError> {
        let wrong = |option, why| TraceError::Option { option, why };
        let is_log = format == Format::AccessLog;
        let is_azure = matches!(format, Format::Azure2019 | Format::Azure2021);
        if options.user.is_some() && !is_log {
            return Err(wrong("--user", format!("is for access logs, and this is {}", format.name())));
        }
        if options.map.is_some() && format != Format::Csv {
            return Err(wrong("--map", format!("is for --format csv, and this is {}", format.name())));
        }
        if options.service.is_some() && !is_log && !is_azure {
            return Err(wrong(
                "--service",
                format!("a file of the format {} has a column for it", format.name()),
            ));
        }
        let azure = match options.service.as_deref() {
            Some("func") => Ok(AzureService::Function),
            None | Some("app") => Ok(AzureService::App),
            Some(other) if is_azure => {
                Err(wrong("--service", format!("{other:?} is unknown: write app or func")))
            }
            Some(_) => Ok(AzureService::App),
        }?;
        Ok(match format {
            Format::Forerun => Self::Csv(None, CsvKind::Forerun),
            Format::Azure2021 => Self::Csv(None, CsvKind::Azure2021(azure)),
            Format::Azure2019 => Self::Azure2019(Azure2019::new(azure), None),
            Format::Csv => {
                let why = "say which column is what, at=COL,service=COL".to_owned();
                Self::Csv(None, CsvKind::Map(options.map.clone().ok_or_else(|| wrong("--map", why))?))
            }
            Format::AccessLog | Format::Minutes => {
                let service = options.service.as_deref().map(ServiceRule::parse).transpose();
                let user = options.user.as_deref().map(UserFrom::parse).transpose();
                Self::AccessLog(AccessLogParser::new(
                    service.map_err(|why| wrong("--service", why))?.unwrap_or_default(),
                    user.map_err(|why| wrong("--user", why))?.unwrap_or_default(),
                ))
            }
        })
    }

    /// Whether the first line of a file is a header, which is then taken.
    fn header(&mut self, line: &[u8]) -> Result<bool, String> {
        match self {
            Self::AccessLog(_) => return Ok(false),
            Self::Csv(parser, kind) => {
                *parser = Some(match kind {
                    CsvKind::Forerun => CsvParser::forerun(line)?,
                    CsvKind::Map(map) => CsvParser::mapped(line, map)?,
                    CsvKind::Azure2021(service) => CsvParser::azure2021(line, *service)?,
                });
            }
            Self::Azure2019(azure, file) => {
                let kind = DayFile::of(line).ok_or(
                    "the header is that of neither invocations, durations nor memory of the azure2019 trace",
                )?;
                azure.begin(kind, line)?;
                *file = Some(kind);
            }
        }
        Ok(true)
    }
}

/// A reading under way.
struct Run<'a> {
    options: &'a ReadOptions,
    sink: &'a mut dyn Sink,
    progress: &'a mut dyn FnMut(u64),
    report: ReadReport,
    requests: u64,
}

/// How often progress is told, in lines.
const PROGRESS_LINES: u64 = 1 << 16;

impl Run<'_> {
    fn file(&mut self, file: &mut Opened, parser: &mut Parser) -> Result<(), TraceError> {
        let lines = &mut file.lines;
        let name = lines.name.clone();
        let mut header = true;
        let mut latest = i64::MIN;
        loop {
            let number = lines.number + 1;
            let Some(line) = lines.next()? else { break };
            let Line::Text(text) = line else {
                self.line_read();
                self.skip(&name, number, format!("longer than {} bytes", self.options.line_bytes_max))?;
                continue;
            };
            if text.is_empty() {
                continue;
            }
            self.line_read();
            if std::mem::take(&mut header)
                && parser.header(text).map_err(|why| TraceError::Header { name: name.clone(), why })?
            {
                continue;
            }
            match self.line(parser, text, &mut latest) {
                Ok(taken) => taken.map_err(|full| full.at(&name, number))?,
                Err(why) => self.skip(&name, number, why)?,
            }
        }
        Ok(())
    }

    fn line(
        &mut self,
        parser: &mut Parser,
        text: &[u8],
        latest: &mut i64,
    ) -> Result<Result<(), SinkFull>, String> {
        let record = match parser {
            Parser::Csv(Some(csv), _) => csv.parse(text)?,
            Parser::AccessLog(log) => log.parse(text)?,
            Parser::Azure2019(azure, Some(file)) => {
                self.requests += u64::from(*file == DayFile::Invocations);
                return azure.parse(*file, text, self.sink);
            }
            // A header has been taken before any line.
            Parser::Csv(None, _) | Parser::Azure2019(_, None) => return Err("there is no header".to_owned()),
        };
        self.requests += 1;
        self.report.out_of_order += u64::from(record.at_us < *latest);
        *latest = record.at_us.max(*latest);
        Ok(self.sink.record(&record))
    }

    fn line_read(&mut self) {
        self.report.lines += 1;
        if self.report.lines.is_multiple_of(PROGRESS_LINES) {
            (self.progress)(self.report.lines);
        }
    }

    fn skip(&mut self, name: &str, line: u64, why: String) -> Result<(), TraceError> {
        if self.options.strict {
            return Err(TraceError::Line { name: name.to_owned(), line, why });
        }
        self.report.skip(name, line, why);
        Ok(())
    }
}
