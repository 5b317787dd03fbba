//! The API against its own description: schemathesis asks a running Forerun what the description says may be asked, and what it says may
//! not be, and holds every answer against it.

use crate::cargo::Count;
use crate::run;
use crate::stages::{check, skip};
use crate::tools;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// It is bounded by its own number of examples; this is for a hang.
const LIMIT: Duration = Duration::from_secs(300);
const CONFIGURATION: &str = "[router]\nlisten = \"127.0.0.1:0\"\n[api]\nlisten = \"127.0.0.1:0\"\n[store]\nfolder = \"state\"\n\
    [service.web]\ncommand = [\"sleep\", \"1000\"]\nroute = \"web.test\"\nmode = \"observe\"\n\
    [service.shop]\ncommand = [\"sleep\", \"1000\"]\nroute = \"shop.test\"\nmode = \"observe\"\ntenant = \"acme\"\n";
/// What is asked is drawn from this seed, so that a failure comes again.
const SEED: &str = "9";

/// A running Forerun; killed when dropped.
struct Up {
    child: Child,
    folder: PathBuf,
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

pub(crate) fn run(forerun: &Path) -> Count {
    const WHAT: &str = "the API as it is described (schemathesis)";
    match tools::schemathesis() {
        Ok(program) => check(WHAT, asked(&program, forerun)),
        Err(why) => skip(WHAT, &why),
    }
}

fn asked(schemathesis: &Path, forerun: &Path) -> Result<(), String> {
    let folder = std::env::temp_dir().join(format!("forerun-described-{}", std::process::id()));
    let fail = |e: std::io::Error| format!("{}: {e}", folder.display());
    std::fs::create_dir_all(&folder).map_err(fail)?;
    std::fs::write(folder.join("forerun.toml"), CONFIGURATION).map_err(fail)?;
    let mut command = Command::new(forerun);
    command.arg("up").current_dir(&folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let child = command.spawn().map_err(|e| format!("{}: {e}", forerun.display()))?;
    let mut up = Up { child, folder: folder.clone() };
    let mut line = String::new();
    if let Some(stdout) = up.child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).map_err(fail)?;
    }
    let api = line
        .split_whitespace()
        .find(|word| word.starts_with("http://") && line.contains(&format!("api {word}")));
    let api = api.ok_or_else(|| format!("forerun does not say where it listens: {line:?}"))?;
    let mut command = Command::new(schemathesis);
    command
        .arg("run")
        .arg(format!("{api}/openapi.json"))
        .args(["--url", api, "--seed", SEED])
        .current_dir(&folder);
    command.args(["--phases", "examples,coverage,fuzzing", "--max-examples", "30", "--checks", CHECKS]);
    // A stream has no end.
    command.args(["--exclude-path", "/v1/events", "--no-color"]);
    let ran = run::shown(&mut command, LIMIT);
    match ran.good {
        true => Ok(()),
        false => Err(ran.trouble.unwrap_or_else(|| "see above".to_owned())),
    }
}

/// Those that say something of this API: no 5xx, and nothing that the description does not say.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance,negative_data_rejection,unsupported_method";
