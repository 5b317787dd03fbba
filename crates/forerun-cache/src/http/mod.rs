//! HTTP above the store (RFC 9111, for a cache that users share): what may be kept, how long it is fresh, and what a request is
//! answered from it.
//!
//! What may be stored and its freshness lifetime are judged by `http-cache-semantics` ([`judge`]), which gets the headers in a
//! plain form: that crate reads neither quoted directives, upper case nor old dates. The rest is here: ages, `Vary`
//! ([`vary`]), conditional requests and ranges ([`reply`]), stale answers ([`Stored::may_serve`]), `Cache-Status` (RFC 9211),
//! and purges by URL, prefix and tag ([`Pages`]).
//!
//! Pure: `now` is an argument, nothing waits, nothing is sent.

mod date;
mod directives;
mod judge;
mod key;
mod pages;
mod purges;
mod range;
mod reply;
mod status;
mod stored;
mod vary;

pub use directives::{Asks, Says};
pub use judge::{Fetched, Limits, NotStored, judge};
pub use key::{Bypass, Origin, PageKey, asks_past};
pub use pages::{Found, Pages};
pub use reply::Answer;
pub use status::{Forward, Status};
pub use stored::{Serve, Stored};

#[cfg(test)]
mod tests;
