//! `forerun cache purge`: a person's word that what the router keeps is out of date.

use crate::ask::Asked;
use crate::cli::{CacheCommand, PurgeArgs};
use crate::failure::Failure;
use forerun_api::{PurgeOrder, Purged};
use std::io::Write;

/// # Errors
/// Nobody answers, or what is to be purged is no URL, tag or tenant.
pub(crate) fn run(command: &CacheCommand, out: &mut dyn Write) -> Result<(), Failure> {
    let CacheCommand::Purge(args) = command;
    let PurgeArgs { url, prefix, tag, all, tenant, api, json } = args;
    let order = PurgeOrder {
        url: url.clone(),
        prefix: prefix.clone(),
        tag: tag.clone(),
        all: *all,
        tenant: tenant.clone(),
    };
    let odd = |e: serde_json::Error| Failure::Running(format!("the api gives no answer to a purge: {e}"));
    let body = serde_json::to_string(&order).map_err(odd)?;
    let answer = Asked::of(api)?.post("/v1/cache/purge", &body)?;
    let purged: Purged = serde_json::from_slice(&answer).map_err(odd)?;
    if *json {
        return Ok(writeln!(out, "{}", serde_json::to_string_pretty(&purged).map_err(odd)?)?);
    }
    Ok(writeln!(out, "{}", purged.said)?)
}
