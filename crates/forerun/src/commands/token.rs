//! `forerun token`: what opens the API where it needs a token. It works on the state folder; whether Forerun runs or not.

use crate::cli::{TokenArgs, TokenCommand};
use crate::config::{Config, duration_of};
use crate::failure::Failure;
use crate::terminal;
use forerun_api::{AuditEntry, AuditLog, TokenError, TokenInfo, TokenStore};
use forerun_types::Span;
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// # Errors
/// The configuration is wrong, the name is none or taken, or the state folder cannot be used.
pub(crate) fn run(command: &TokenCommand, out: &mut dyn Write) -> Result<(), Failure> {
    match command {
        TokenCommand::Create { name, role, tenant, expires, more } => {
            let expires = duration("--for", expires.as_deref())?;
            let folder = folder(more)?;
            let made = TokenStore::of(&folder).create(name, *role, tenant.as_deref(), expires);
            let of = tenant.as_ref().map_or_else(String::new, |tenant| format!(" of {tenant}"));
            logged(folder, &format!("create token {name}, {role}{of}"), made.as_ref().err())?;
            printed(name, &made.map_err(failure)?, more, out)
        }
        TokenCommand::Rotate { name, overlap, more } => {
            let overlap = duration("--overlap", overlap.as_deref())?.unwrap_or_default();
            let folder = folder(more)?;
            let made = TokenStore::of(&folder).rotate(name, overlap);
            logged(folder, &format!("rotate token {name}"), made.as_ref().err())?;
            printed(name, &made.map_err(failure)?, more, out)
        }
        TokenCommand::Revoke { name, more } => {
            let folder = folder(more)?;
            let done = TokenStore::of(&folder).revoke(name);
            logged(folder, &format!("revoke token {name}"), done.as_ref().err())?;
            done.map_err(failure)?;
            match more.json {
                true => writeln!(out, "{}", json!({ "name": name, "revoked": true }))?,
                false => writeln!(out, "{name} is revoked: nobody comes in by it from now on")?,
            }
            Ok(())
        }
        TokenCommand::List { more } => {
            let tokens = TokenStore::of(&folder(more)?).list().map_err(failure)?;
            match more.json {
                true => writeln!(out, "{}", json!({ "tokens": tokens }))?,
                false => out.write_all(table(&tokens).as_bytes())?,
            }
            Ok(())
        }
    }
}

fn folder(args: &TokenArgs) -> Result<PathBuf, Failure> {
    Ok(Config::load_or_default(args.file.config.as_deref())?.store.folder)
}

fn duration(flag: &str, text: Option<&str>) -> Result<Option<Duration>, Failure> {
    let parse = |text| duration_of(text).map_err(|what| Failure::Arguments(format!("{flag}: {what}")));
    Ok(text.map(parse).transpose()?.map(Duration::from))
}

fn failure(error: TokenError) -> Failure {
    match error {
        TokenError::Taken(_) | TokenError::Unknown { .. } | TokenError::Name(_) => {
            Failure::Arguments(error.to_string())
        }
        _ => Failure::Running(error.to_string()),
    }
}

/// A change that cannot be logged has been made all the same; it is told.
fn logged(folder: PathBuf, what: &str, error: Option<&TokenError>) -> Result<(), Failure> {
    let entry = AuditEntry {
        who: "command".to_owned(),
        what: what.to_owned(),
        result: error.map_or_else(|| "done".to_owned(), ToString::to_string),
        ..AuditEntry::default()
    };
    let unlogged = |e: std::io::Error| {
        let path = folder.join("audit.jsonl");
        Failure::Running(format!("{}: {what} is done, and cannot be logged: {e}", path.display()))
    };
    match AuditLog::of(&folder).add(entry) {
        Err(e) if error.is_none() => Err(unlogged(e)),
        _ => Ok(()),
    }
}

fn printed(name: &str, token: &str, args: &TokenArgs, out: &mut dyn Write) -> Result<(), Failure> {
    if args.json {
        return Ok(writeln!(out, "{}", json!({ "name": name, "token": token }))?);
    }
    // Alone on its line, for a variable of a shell: what it is goes beside it.
    writeln!(out, "{token}")?;
    out.flush()?;
    let _ = writeln!(
        std::io::stderr(),
        "this is {name}, shown only now; send it as `Authorization: Bearer TOKEN`, or set FORERUN_TOKEN for forerun's commands"
    );
    Ok(())
}

fn table(tokens: &[TokenInfo]) -> String {
    if tokens.is_empty() {
        return "there is no token; forerun token create NAME makes one\n".to_owned();
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let mut table = terminal::table(["TOKEN", "ROLE", "TENANT", "MADE", "ENDS"]);
    for token in tokens {
        table.add_row(vec![
            token.name.clone(),
            token.role.to_string(),
            token.tenant.clone().unwrap_or_else(|| "all".to_owned()),
            date(token.created),
            match token.expires {
                None => "never".to_owned(),
                Some(at) if at <= now => "has ended".to_owned(),
                Some(at) => format!("in {}", Span::from_secs_f64(at - now)),
            },
        ]);
    }
    terminal::lines(&table)
}

fn date(seconds: f64) -> String {
    let at = jiff::Timestamp::from_second(seconds as i64);
    at.map_or_else(|_| "-".to_owned(), |at| at.strftime("%Y-%m-%d").to_string())
}
