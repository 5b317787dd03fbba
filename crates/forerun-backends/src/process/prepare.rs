//! A service's command with everything put in that depends on the instance.

use super::{procfs, why};
use crate::hooks;
use forerun_types::{InstanceId, Launch, ServiceSpec, Specialise};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where an instance finds its key, and the folder of its files.
const KEY: &str = "FORERUN_KEY";
const FILES: &str = "FORERUN_FILES";

/// What is there for one attempt at an instance.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) instance: InstanceId,
    pub(super) port: u16,
    /// Where its files go, whether it has any or not.
    pub(super) files: &'a Path,
}

#[derive(Debug)]
pub(super) struct Prepared<'a> {
    pub(super) command: Command,
    pub(super) text: CommandText<'a>,
    /// Relative to the folder of its files; `None` if it has no such folder.
    pub(super) files: Option<Vec<(PathBuf, String)>>,
}

/// What a message about a failed spawn needs.
#[derive(Debug)]
pub(super) struct CommandText<'a> {
    program: &'a str,
    folder: Option<&'a str>,
    path: Option<&'a str>,
}

impl CommandText<'_> {
    pub(super) fn not_spawned(&self, error: &io::Error) -> String {
        why::not_spawned(error, self.program, self.folder, self.path)
    }
}

/// Forerun's own settings and secrets (`FORERUN_*`) stay out of the environment; the rest of Forerun's is handed on,
/// beneath the service's own.
///
/// # Errors
/// What cannot be run as it is described, or not for this key.
pub(super) fn prepare<'a>(place: Place<'_>, spec: &'a ServiceSpec) -> Result<Prepared<'a>, String> {
    let Launch::Process { command, env, folder } = &spec.launch else {
        return Err("the process backend runs commands, and this service has none".to_owned());
    };
    hooks::check_ready(&spec.ready)?;
    let (program, args) = command.split_first().ok_or("the command is empty")?;
    let special = Special::of(place, spec)?;
    let own = command.iter().chain(env.values()).chain(folder);
    check_nul(own.chain(&special.args).chain(special.env.values()))?;
    let fill = |text: &str| put_in(text, place);
    let mut prepared = begin(&fill(program));
    prepared.args(args.iter().map(|arg| fill(arg))).args(&special.args);
    prepared.env("PORT", place.port.to_string()).env(procfs::MARK, place.instance.to_string());
    set_env(&mut prepared, env.iter().map(|(name, value)| (name.as_str(), fill(value))))?;
    set_env(&mut prepared, special.env.iter().map(|(name, value)| (name.as_str(), value.clone())))?;
    if special.files.is_some() {
        prepared.env(FILES, place.files);
    }
    if let Some(variant) = &spec.variant {
        prepared.env(KEY, &variant.key);
    }
    if let Some(folder) = folder {
        prepared.current_dir(folder);
    }
    let path = env.get("PATH").map(String::as_str);
    let text = CommandText { program, folder: folder.as_deref(), path };
    Ok(Prepared { command: prepared, text, files: special.files })
}

/// A command that is run beside an instance: a hook, or a question. It sees what the instance sees of its place.
///
/// # Errors
/// An empty command, or names that cannot be.
pub(super) fn beside(place: Place<'_>, spec: &ServiceSpec, command: &[String]) -> Result<Command, String> {
    let (program, args) = command.split_first().ok_or("the command is empty")?;
    check_nul(command)?;
    let fill = |text: &str| put_in(text, place);
    let mut prepared = begin(&fill(program));
    prepared.args(args.iter().map(|arg| fill(arg)));
    prepared.env("PORT", place.port.to_string()).env(procfs::MARK, place.instance.to_string());
    prepared.env(FILES, place.files);
    if let Launch::Process { env, folder, .. } = &spec.launch {
        set_env(&mut prepared, env.iter().map(|(name, value)| (name.as_str(), fill(value))))?;
        if let Some(folder) = folder {
            prepared.current_dir(folder);
        }
    }
    if let Some(variant) = &spec.variant {
        hooks::check_key(&variant.key).map_err(|error| error.to_string())?;
        prepared.env(KEY, &variant.key);
    }
    Ok(prepared)
}

fn put_in(text: &str, place: Place<'_>) -> String {
    text.replace("{port}", &place.port.to_string()).replace("{files}", &place.files.to_string_lossy())
}

/// The system's texts end at the first such byte.
fn check_nul<'a>(texts: impl IntoIterator<Item = &'a String>) -> Result<(), String> {
    match texts.into_iter().find(|text| text.contains('\0')) {
        Some(text) => Err(format!("`{}` has a nul byte, which no command can be given", text.escape_debug())),
        None => Ok(()),
    }
}

fn begin(program: &str) -> Command {
    let mut command = Command::new(program);
    without_ours(&mut command);
    command
}

/// Takes what is Forerun's own out of a command's environment.
pub(super) fn without_ours(command: &mut Command) {
    let ours = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b"FORERUN_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| ours(name)) {
        command.env_remove(name);
    }
}

fn set_env<'a>(command: &mut Command, env: impl Iterator<Item = (&'a str, String)>) -> Result<(), String> {
    for (name, value) in env {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(format!("`{name}` cannot be the name of an environment variable"));
        }
        command.env(name, value);
    }
    Ok(())
}

/// What an instance of a key gets beside the rest.
#[derive(Debug, Default)]
struct Special {
    env: BTreeMap<String, String>,
    args: Vec<String>,
    files: Option<Vec<(PathBuf, String)>>,
}

impl Special {
    fn of(place: Place<'_>, spec: &ServiceSpec) -> Result<Self, String> {
        let Some(special) = &spec.specialise else {
            if let Some(variant) = &spec.variant {
                hooks::check_key(&variant.key).map_err(|error| error.to_string())?;
            }
            return Ok(Self::default());
        };
        if !special.mounts.is_empty() {
            return Err("a process has no mounts: use `files`, or a path in `env`".to_owned());
        }
        let Some(variant) = &spec.variant else {
            // A generic instance has the folder for the files of the key that it may become.
            let files = (!special.files.is_empty()).then(Vec::new);
            return Ok(Self { files, ..Self::default() });
        };
        hooks::check_key(&variant.key).map_err(|error| error.to_string())?;
        let key = &variant.key;
        // The key last: what it may hold of `{port}` is its own.
        let env =
            special.env.iter().map(|(name, value)| (name.clone(), hooks::fill(&put_in(value, place), key)));
        let args: Vec<String> = special.args.iter().map(|arg| put_in(arg, place)).collect();
        let args = hooks::fill_args(&args, key).map_err(|error| error.to_string())?;
        let files = (!special.files.is_empty()).then(|| files(place, special, key)).transpose()?;
        Ok(Self { env: env.collect(), args, files })
    }
}

/// A key's files, relative to the folder that they go into.
///
/// # Errors
/// A path that leaves the folder.
pub(super) fn files(
    place: Place<'_>,
    special: &Specialise,
    key: &str,
) -> Result<Vec<(PathBuf, String)>, String> {
    let files =
        special.files.iter().map(|(path, content)| (put_in(path, place), put_in(content, place))).collect();
    hooks::fill_files(&files, key, Some(place.files)).map_err(|error| error.to_string())
}
