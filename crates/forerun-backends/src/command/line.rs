//! One shell line, run to its end or to its deadline.

use super::book::Known;
use crate::waited::{self, Waited};
use forerun_types::{Launch, Lines, ServiceSpec};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An instance, for its lines.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) spec: Arc<ServiceSpec>,
    pub(super) known: Known,
}

/// What a `state` line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// With what it prints of itself.
    Runs(String),
    /// It does not run; in its own words, if it has any.
    Not(String),
    /// A person has stopped it.
    ByHand(String),
    /// It has failed, and will not come up.
    Failed(String),
    /// No answer.
    Unknown(String),
}

/// The lines of a service of this backend.
///
/// # Errors
/// What cannot be run as it is described.
pub(super) fn lines(spec: &ServiceSpec) -> Result<&Lines, String> {
    let Launch::Command(lines) = &spec.launch else {
        return Err("the command backend runs shell lines, and this service has none".to_owned());
    };
    if lines.start.trim().is_empty() || lines.stop.trim().is_empty() {
        return Err("the command backend wants a `start` and a `stop` line".to_owned());
    }
    Ok(lines)
}

/// Whether several instances of the service can be told apart.
pub(super) fn has_several(lines: &Lines) -> bool {
    let texts = [&lines.start, &lines.stop, &lines.state, &lines.ready, &lines.address];
    let named = |text: &str| text.contains("{instance}") || text.contains("FORERUN_INSTANCE");
    texts.into_iter().any(|text| named(text)) || lines.env.values().any(|value| named(value))
}

/// Whether each instance needs a port of its own.
pub(super) fn wants_port(lines: &Lines) -> bool {
    lines.address.contains("{port}")
}

pub(super) fn wants_port_of(spec: &ServiceSpec) -> bool {
    lines(spec).is_ok_and(wants_port)
}

/// The port that stands at the end of an address.
pub(super) fn port_of(address: &str) -> Option<u16> {
    address.rsplit_once(':')?.1.parse().ok()
}

impl Subject {
    fn lines(&self) -> Result<&Lines, String> {
        lines(&self.spec)
    }

    fn fill(&self, text: &str) -> String {
        text.replace("{instance}", &self.known.label).replace("{port}", &self.known.port.to_string())
    }

    /// Where requests go. A name is looked up anew each time: a machine may get another address when it wakes.
    ///
    /// # Errors
    /// A sentence that names the address.
    pub(super) fn address(&self) -> Result<SocketAddr, String> {
        let text = self.fill(&self.lines()?.address);
        if let Ok(address) = text.parse() {
            return Ok(address);
        }
        let wrong = |why: &str| format!("the address `{text}` {why}: write it as host:port");
        if port_of(&text).is_none() {
            return Err(wrong("names no port"));
        }
        let mut found =
            text.to_socket_addrs().map_err(|error| wrong(&format!("cannot be looked up ({error})")))?;
        found.next().ok_or_else(|| wrong("has no address"))
    }

    /// Runs a line by `sh -c`. `until` is asked again and again, and may come sooner than it was.
    ///
    /// # Errors
    /// A sentence, if it could not be run.
    pub(super) fn run(
        &self,
        line: &str,
        more: &[(&str, String)],
        until: impl Fn() -> Instant,
    ) -> Result<Waited, String> {
        let lines = self.lines()?;
        let mut command = Command::new("sh");
        command.arg("-c").arg(self.fill(line));
        self.run_command(command, lines, more, until)
    }

    /// The same for a command and its arguments.
    ///
    /// # Errors
    /// A sentence, if it could not be run.
    pub(super) fn run_words(&self, words: &[String], until: impl Fn() -> Instant) -> Result<Waited, String> {
        let (program, args) = words.split_first().ok_or("the command is empty")?;
        let mut command = Command::new(self.fill(program));
        command.args(args.iter().map(|arg| self.fill(arg)));
        self.run_command(command, self.lines()?, &[], until)
    }

    fn run_command(
        &self,
        mut command: Command,
        lines: &Lines,
        more: &[(&str, String)],
        until: impl Fn() -> Instant,
    ) -> Result<Waited, String> {
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"FORERUN_") {
                command.env_remove(name);
            }
        }
        command.env("PORT", self.known.port.to_string());
        for (name, value) in &lines.env {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(format!("`{name}` cannot be the name of an environment variable"));
            }
            command.env(name, self.fill(value));
        }
        command
            .env("FORERUN_SERVICE", &self.spec.name)
            .env("FORERUN_INSTANCE", &self.known.label)
            .envs(more.iter().map(|(name, value)| (*name, value)));
        if let Some(folder) = &lines.folder {
            command.current_dir(folder);
        }
        let (reader, writer) = io::pipe().map_err(|error| no_room(&error))?;
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(writer.try_clone().map_err(|error| no_room(&error))?)
            .stderr(writer)
            .spawn()
            .map_err(|error| not_run(&error, lines.folder.as_deref()))?;
        // Its ends of the pipe must be the child's alone.
        drop(command);
        waited::wait(child, &OwnedFd::from(reader), until).map_err(|error| no_room(&error))
    }

    /// Whether anything says if it runs.
    pub(super) fn says_state(&self) -> bool {
        self.lines().is_ok_and(|lines| !lines.state.trim().is_empty())
    }

    /// Asks whether it runs; `None` if nothing says.
    pub(super) fn state(&self, within: Duration) -> Option<State> {
        let line = match self.lines() {
            Ok(lines) => lines.state.clone(),
            Err(why) => return Some(State::Unknown(why)),
        };
        if line.trim().is_empty() {
            return None;
        }
        let until = Instant::now() + within;
        Some(match self.run(&line, &[], || until) {
            Err(why) => State::Unknown(why),
            Ok(Waited { status, tail }) => match status.map(|status| status.code()) {
                None => State::Unknown(tail.told(format!("its state line was not over within {within:?}"))),
                Some(Some(0)) => State::Runs(tail.summary()),
                Some(Some(2)) => {
                    State::ByHand(words(&tail.summary(), "its state line says that a person stopped it"))
                }
                Some(Some(3)) => State::Failed(words(&tail.summary(), "its state line says that it failed")),
                Some(Some(126 | 127)) => {
                    State::Unknown(tail.told("its state line could not be run".to_owned()))
                }
                Some(Some(_)) => {
                    State::Not(words(&tail.summary(), "its state line says that it does not run"))
                }
                Some(None) => State::Unknown(tail.told("its state line was killed".to_owned())),
            },
        })
    }
}

fn words(printed: &str, otherwise: &str) -> String {
    if printed.is_empty() { otherwise.to_owned() } else { printed.to_owned() }
}

fn no_room(error: &io::Error) -> String {
    format!("the system has no room for another process: {error}")
}

fn not_run(error: &io::Error, folder: Option<&str>) -> String {
    match folder {
        Some(folder) if !Path::new(folder).is_dir() => {
            format!("the working folder `{folder}` does not exist")
        }
        _ => format!("cannot run `sh`: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_types::ServiceId;

    fn subject(lines: Lines) -> Subject {
        let spec = ServiceSpec { launch: Launch::Command(lines), ..ServiceSpec::named(ServiceId(1), "vm") };
        let known = Known { service: "vm".to_owned(), label: "i7".to_owned(), port: 4321 };
        Subject { spec: Arc::new(spec), known }
    }

    fn check(state: &str, expected: Option<State>) {
        let lines = Lines {
            start: "true".to_owned(),
            stop: "true".to_owned(),
            state: state.to_owned(),
            ..Lines::default()
        };
        assert_eq!(subject(lines).state(Duration::from_millis(500)), expected, "{state}");
    }

    #[test]
    fn the_exit_code_tells_the_state() {
        let not = |words: &str| Some(State::Not(words.to_owned()));
        check("", None);
        check("true", Some(State::Runs(String::new())));
        check("echo up 3 days", Some(State::Runs("up 3 days".to_owned())));
        check("false", not("its state line says that it does not run"));
        check("echo status: stopped; exit 1", not("status: stopped"));
        check("exit 42", not("its state line says that it does not run"));
        check("echo locked by jo; exit 2", Some(State::ByHand("locked by jo".to_owned())));
        check("exit 3", Some(State::Failed("its state line says that it failed".to_owned())));
        let unknown = |state: &str, part: &str| {
            let lines = Lines {
                start: "true".to_owned(),
                stop: "true".to_owned(),
                state: state.to_owned(),
                ..Lines::default()
            };
            match subject(lines).state(Duration::from_millis(300)) {
                Some(State::Unknown(why)) => assert!(why.contains(part), "{why}"),
                other => panic!("{state}: {other:?}"),
            }
        };
        unknown("sleep 60", "not over within 300ms");
        unknown("no-such-command-anywhere", "could not be run");
        unknown("kill -9 $$", "was killed");
    }

    #[test]
    fn a_line_sees_its_instance() {
        let env = [("A".to_owned(), "{instance} on {port}".to_owned())].into();
        let lines = Lines { start: "x".to_owned(), stop: "x".to_owned(), env, ..Lines::default() };
        let line = "echo $FORERUN_INSTANCE/$FORERUN_SERVICE/$PORT/{instance}/$A/$MORE";
        let until = Instant::now() + Duration::from_secs(10);
        let waited = subject(lines).run(line, &[("MORE", "1".to_owned())], || until).unwrap();
        assert_eq!(waited.tail.summary(), "i7/vm/4321/i7/i7 on 4321/1");
    }

    #[test]
    fn addresses_are_filled_in_and_looked_up() {
        let address = |text: &str| {
            subject(Lines {
                start: "x".to_owned(),
                stop: "x".to_owned(),
                address: text.to_owned(),
                ..Lines::default()
            })
            .address()
        };
        assert_eq!(address("127.0.0.1:{port}"), Ok("127.0.0.1:4321".parse().unwrap()));
        assert_eq!(address("[::1]:80"), Ok("[::1]:80".parse().unwrap()));
        assert_eq!(address("localhost:80").map(|address| address.port()), Ok(80));
        assert!(address("nas").unwrap_err().contains("`nas` names no port: write it as host:port"));
        assert!(address("").unwrap_err().contains("write it as host:port"));
    }
}
