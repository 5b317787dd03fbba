//! A person's word that something kept is out of date.

use crate::core::Core;
use crate::identity::tenant_key;
use forerun_types::TenantKey;
use hyper::Uri;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What is no longer served, nor kept of fetches that began before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purge {
    /// One URL, with all its variants: `http://shop.example/a?x=1`, scheme optional.
    Url(String),
    /// All URLs that begin so.
    Prefix(String),
    /// All answers with this tag in `Surrogate-Key` or `Cache-Tag`.
    Tag(String),
    All,
}

/// Why nothing was purged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PurgeError {
    #[error("{0:?} is no url; write it as http://HOST/PATH")]
    NoUrl(String),
    #[error("{0:?} is no tag; a tag is one word")]
    NoTag(String),
    #[error("no service is of tenant {0}")]
    NoTenant(String),
}

/// Host and target. The path stays as it is written.
fn split(text: &str) -> Result<(&str, &str), PurgeError> {
    let bad = || PurgeError::NoUrl(text.chars().take(200).collect());
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).unwrap_or(text);
    let (host, target) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let target = target.split('#').next().unwrap_or(target);
    let whole = format!("http://{host}{target}");
    match whole.parse::<Uri>() {
        Ok(uri)
            if !host.is_empty()
                && !host.ends_with(':')
                && uri.authority().is_some_and(|a| a.as_str() == host) =>
        {
            Ok((host, target))
        }
        _ => Err(bad()),
    }
}

/// Purges for one tenant, or for all.
pub(crate) fn purge(core: &Arc<Core>, purge: &Purge, tenant: Option<&str>) -> Result<(), PurgeError> {
    let known: BTreeSet<TenantKey> = core.table.load().entries().iter().map(|e| e.tenant).collect();
    let tenants: Vec<TenantKey> = match tenant {
        None => known.into_iter().collect(),
        Some(name) => match tenant_key(name) {
            key if known.contains(&key) => vec![key],
            _ => return Err(PurgeError::NoTenant(name.chars().take(63).collect())),
        },
    };
    let every = tenant.is_none();
    // What names nothing is told even where nothing has been kept yet.
    let place = match purge {
        Purge::Url(text) | Purge::Prefix(text) => Some(split(text)?),
        Purge::Tag(tag) => {
            let word =
                !tag.is_empty() && !tag.contains(|c: char| c == ',' || c.is_whitespace() || c.is_control());
            if !word {
                return Err(PurgeError::NoTag(tag.chars().take(200).collect()));
            }
            None
        }
        Purge::All => None,
    };
    let Some(cache) = core.cache.get() else { return Ok(()) };
    let mut pages = cache.pages();
    match (purge, place) {
        (Purge::All, _) if every => pages.purge_all(),
        (Purge::All, _) => tenants.iter().for_each(|tenant| pages.purge_tenant(*tenant)),
        (Purge::Tag(tag), _) => tenants.iter().for_each(|tenant| pages.purge_tag(*tenant, tag)),
        (Purge::Prefix(_), Some((host, prefix))) if every => pages.purge_prefix(None, host, prefix),
        (Purge::Prefix(_), Some((host, prefix))) => {
            tenants.iter().for_each(|tenant| pages.purge_prefix(Some(*tenant), host, prefix));
        }
        (Purge::Url(_), Some((host, target))) => {
            tenants.iter().for_each(|tenant| pages.purge_url(*tenant, host, target));
        }
        (Purge::Url(_) | Purge::Prefix(_), None) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_or_refused() {
        for (text, expect) in [
            ("http://shop/a?x=1", Some(("shop", "/a?x=1"))),
            ("https://shop:8443/a%2fb/#x", Some(("shop:8443", "/a%2fb/"))),
            ("shop", Some(("shop", "/"))),
            ("shop/a", Some(("shop", "/a"))),
            ("/a", None),
            ("", None),
            ("http://", None),
            ("sh op/a", None),
            ("shop?x", None),
            ("ftp://shop/a", None),
        ] {
            assert_eq!(split(text).ok(), expect, "{text}");
        }
    }
}
