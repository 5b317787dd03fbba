//! Who may ask for what: tokens with roles and tenants, and the log of what was changed.
//!
//! On a loopback address whoever can reach the API may do everything, unless tokens are required. Anywhere else nothing is
//! answered without a token but health. There are no cookies: a browser sends a token only for a page that knows it.

mod audit;
mod guard;
mod tokens;

pub use audit::{AuditEntry, AuditLog};
pub use guard::Guard;
pub(crate) use guard::{Did, admit};
pub use tokens::{TokenError, TokenInfo, TokenStore};

use std::fmt;
use std::str::FromStr;

/// What a caller may do; each may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Tells services what to do.
    Operator,
    /// Reads the audit log and the configuration.
    Admin,
}

impl Role {
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|role| role.name() == text);
        found.ok_or_else(|| format!("\"{text}\" is no role; there are viewer, operator and admin"))
    }
}

/// Who asks, once it is known that they may ask at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// As the audit log has it: `token ci`, or `local`.
    pub who: String,
    pub role: Role,
    /// Only what is this tenant's; `None` is all of them.
    pub tenant: Option<String>,
}

impl Caller {
    /// Whoever asks a loopback address that needs no token.
    #[must_use]
    pub fn local() -> Self {
        Self { who: "local".to_owned(), role: Role::Admin, tenant: None }
    }

    /// Whether what belongs to a tenant is this caller's to see.
    #[must_use]
    pub fn sees(&self, tenant: &str) -> bool {
        self.tenant.as_deref().is_none_or(|own| own == tenant)
    }
}

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nothing: it says no more than that Forerun is there and whether it does its work.
    Open,
    /// At least a role.
    Least(Role, Reach),
}

/// Whose data a route's answer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Every tenant's: not for a token of one tenant.
    All,
    /// What the handler leaves of it for the caller's tenant.
    Own,
}
