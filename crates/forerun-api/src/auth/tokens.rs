//! Tokens: 256 random bits, of which only the SHA-256 is kept, in `tokens.json` of the state folder (mode 0600).
//!
//! The file is the only truth. A running API looks at it before each request, so that a token counts, and ceases to,
//! without a restart; a file that cannot be read lets nobody in.

use super::{Caller, Role};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use subtle::ConstantTimeEq;

/// What a token begins with: scanners for leaked secrets and other people's bearer tokens are told apart by it.
pub(crate) const PREFIX: &str = "forerun_";
/// More than anyone hands out; each request is compared with all of them.
const TOKENS_MAX: usize = 1_000;
/// A thousand of them take a third of it.
const FILE_BYTES_MAX: u64 = 1 << 20;
const NAME_CHARS_MAX: usize = 63;

/// What is known of a token; never the token itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenInfo {
    pub name: String,
    pub role: Role,
    /// `null` is every tenant.
    pub tenant: Option<String>,
    /// Seconds since 1970 UTC.
    pub created: f64,
    /// `null` where it never does.
    pub expires: Option<f64>,
}

/// A token as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    name: String,
    role: Role,
    tenant: Option<String>,
    /// 64 hexadecimal digits.
    sha256: String,
    created: f64,
    expires: Option<f64>,
    /// What it was before it was rotated, while that still counts.
    before: Option<Before>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Before {
    sha256: String,
    until: f64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tokens {
    version: u32,
    tokens: Vec<Stored>,
}

/// Why tokens cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: can be read by others (mode {mode:o}); chmod 600 it", path.display())]
    Mode { path: PathBuf, mode: u32 },
    #[error("{}: {what}; restore it, or remove it and make new tokens", path.display())]
    Broken { path: PathBuf, what: String },
    #[error("a token is called \"{0}\" already; rotate or revoke it, or take another name")]
    Taken(String),
    #[error("no token is called \"{name}\"; {there}")]
    Unknown { name: String, there: String },
    #[error("\"{0}\" is no name for a token; it takes 1 to 63 letters, digits, `-`, `_` and `.`")]
    Name(String),
    #[error("there are {TOKENS_MAX} tokens already; revoke some first")]
    TooMany,
}

/// By this a changed file is told.
type Seen = (SystemTime, u64, u64);

/// The tokens of a state folder.
#[derive(Debug)]
pub struct TokenStore {
    path: PathBuf,
    read: Mutex<Option<(Seen, Arc<Tokens>)>>,
}

impl TokenStore {
    /// Of a state folder, which need not be there yet.
    #[must_use]
    pub fn of(folder: &Path) -> Self {
        Self { path: folder.join("tokens.json"), read: Mutex::default() }
    }

    /// All that are there, in order of their names.
    ///
    /// # Errors
    /// [`TokenError`] of the file.
    pub fn list(&self) -> Result<Vec<TokenInfo>, TokenError> {
        let info = |t: &Stored| TokenInfo {
            name: t.name.clone(),
            role: t.role,
            tenant: t.tenant.clone(),
            created: t.created,
            expires: t.expires,
        };
        Ok(self.load()?.tokens.iter().map(info).collect())
    }

    /// Whether anybody could come in by a token now.
    ///
    /// # Errors
    /// [`TokenError`] of the file.
    pub fn any(&self) -> Result<bool, TokenError> {
        let now = now();
        Ok(self.load()?.tokens.iter().any(|t| t.expires.is_none_or(|at| now < at)))
    }

    /// Makes a token and returns it; it cannot be read again. `expires_in` is from now on.
    ///
    /// # Errors
    /// The name is taken or is none, there are too many, or the file cannot be read or written.
    pub fn create(
        &self,
        name: &str,
        role: Role,
        tenant: Option<&str>,
        expires_in: Option<Duration>,
    ) -> Result<String, TokenError> {
        if !is_name(name) {
            return Err(TokenError::Name(name.chars().take(NAME_CHARS_MAX).collect()));
        }
        let secret = self.secret()?;
        self.change(|tokens| {
            if tokens.iter().any(|t| t.name == name) {
                return Err(TokenError::Taken(name.to_owned()));
            }
            if tokens.len() >= TOKENS_MAX {
                return Err(TokenError::TooMany);
            }
            let created = now();
            tokens.push(Stored {
                name: name.to_owned(),
                role,
                tenant: tenant.map(str::to_owned),
                sha256: digest(&secret),
                created,
                expires: expires_in.map(|time| created + time.as_secs_f64()),
                before: None,
            });
            tokens.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(())
        })?;
        Ok(secret)
    }

    /// Replaces a token by a new one of the same name, role and tenant; the old one counts for `overlap` more. One that
    /// expires does so as long after now as it did after it was made.
    ///
    /// # Errors
    /// No token has that name, or the file cannot be read or written.
    pub fn rotate(&self, name: &str, overlap: Duration) -> Result<String, TokenError> {
        let secret = self.secret()?;
        self.change(|tokens| {
            let there = there(tokens);
            let found = tokens.iter_mut().find(|t| t.name == name);
            let token = found.ok_or_else(|| TokenError::Unknown { name: name.to_owned(), there })?;
            let now = now();
            let until = token.expires.unwrap_or(f64::INFINITY).min(now + overlap.as_secs_f64());
            let sha256 = std::mem::replace(&mut token.sha256, digest(&secret));
            token.before = (!overlap.is_zero() && until > now).then_some(Before { sha256, until });
            token.expires = token.expires.map(|at| now + (at - token.created));
            token.created = now;
            Ok(())
        })?;
        Ok(secret)
    }

    /// Takes a token away; from the next request on nobody comes in by it.
    ///
    /// # Errors
    /// As [`TokenStore::rotate`].
    pub fn revoke(&self, name: &str) -> Result<(), TokenError> {
        self.change(|tokens| {
            let there = there(tokens);
            let at = tokens.iter().position(|t| t.name == name);
            let at = at.ok_or_else(|| TokenError::Unknown { name: name.to_owned(), there })?;
            tokens.remove(at);
            Ok(())
        })
    }

    /// Who comes by a token; `None` if nobody does.
    ///
    /// # Errors
    /// [`TokenError`] of the file: nobody comes in then.
    pub fn caller(&self, token: &str) -> Result<Option<Caller>, TokenError> {
        let (tokens, hash, now) = (self.load()?, digest(token), now());
        let same = |sha256: &str| bool::from(sha256.as_bytes().ct_eq(hash.as_bytes()));
        let mut found = None;
        // All are looked at, whichever it is.
        for stored in &tokens.tokens {
            let counts = stored.expires.is_none_or(|at| now < at);
            let before = stored.before.as_ref().is_some_and(|b| same(&b.sha256) & (now < b.until));
            if (same(&stored.sha256) & counts) | before {
                found = Some(stored);
            }
        }
        let caller =
            |t: &Stored| Caller { who: format!("token {}", t.name), role: t.role, tenant: t.tenant.clone() };
        Ok(found.map(caller))
    }

    fn fail(&self) -> impl Fn(io::Error) -> TokenError + '_ {
        |source| TokenError::Io { path: self.path.clone(), source }
    }

    fn secret(&self) -> Result<String, TokenError> {
        let mut bytes = [0; 32];
        let path = PathBuf::from("/dev/urandom");
        let read = File::open(&path).and_then(|mut file| file.read_exact(&mut bytes));
        read.map_err(|source| TokenError::Io { path, source })?;
        Ok(format!("{PREFIX}{}", hex(&bytes)))
    }

    fn load(&self) -> Result<Arc<Tokens>, TokenError> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Arc::default()),
            Err(error) => return Err(self.fail()(error)),
        };
        let metadata = file.metadata().map_err(self.fail())?;
        let changed = metadata.modified().map_err(self.fail())?;
        let seen = (changed, metadata.len(), metadata.ino());
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(TokenError::Mode { path: self.path.clone(), mode });
        }
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((before, tokens)) = &*read
            && *before == seen
        {
            return Ok(Arc::clone(tokens));
        }
        let broken = |what: String| TokenError::Broken { path: self.path.clone(), what };
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(self.fail())?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(broken(format!("is larger than {FILE_BYTES_MAX} bytes")));
        }
        let tokens: Tokens = serde_json::from_slice(&bytes).map_err(|e| broken(e.to_string()))?;
        if tokens.version != 1 {
            return Err(broken(format!("is of version {}, this forerun knows 1", tokens.version)));
        }
        let tokens = Arc::new(tokens);
        *read = Some((seen, Arc::clone(&tokens)));
        Ok(tokens)
    }

    /// Reads, changes and writes while nobody else does; the file is whole at any time.
    fn change(
        &self,
        change: impl FnOnce(&mut Vec<Stored>) -> Result<(), TokenError>,
    ) -> Result<(), TokenError> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(self.fail())?;
        let mut private = OpenOptions::new();
        private.create(true).write(true).mode(0o600);
        let lock = private.open(folder.join("tokens.lock")).map_err(self.fail())?;
        lock.lock().map_err(self.fail())?;
        let mut tokens = self.load()?.tokens.clone();
        change(&mut tokens)?;
        let text = serde_json::to_string_pretty(&Tokens { version: 1, tokens })
            .map_err(|e| TokenError::Broken { path: self.path.clone(), what: e.to_string() })?;
        let part = self.path.with_extension("part");
        let mut file = private.truncate(true).open(&part).map_err(self.fail())?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(self.fail())?;
        fs::rename(&part, &self.path).map_err(self.fail())
    }
}

fn is_name(name: &str) -> bool {
    let fits = (1..=NAME_CHARS_MAX).contains(&name.len());
    fits && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// For a refusal.
fn there(tokens: &[Stored]) -> String {
    match tokens {
        [] => "there is none at all".to_owned(),
        _ => {
            let names: Vec<&str> = tokens.iter().take(5).map(|t| t.name.as_str()).collect();
            let more = if tokens.len() > names.len() { ", ..." } else { "" };
            format!("there are {}{more}", names.join(", "))
        }
    }
}

fn digest(token: &str) -> String {
    hex(&Sha256::digest(token.as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub(super) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
#[path = "tokens_tests.rs"]
mod tests;
