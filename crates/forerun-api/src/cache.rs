//! `POST /v1/cache/purge`: a person's word that what the cache keeps is out of date.

use crate::answer::Content;
use crate::auth::{Caller, Did};
use crate::problem::problem;
use crate::server::Shared;
use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

/// What is to be purged: one of `url`, `prefix`, `tag` and `all`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct PurgeOrder {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// Only of this tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

impl PurgeOrder {
    /// Whether it names one thing, and no more.
    fn is_one(&self) -> bool {
        let named = [self.url.is_some(), self.prefix.is_some(), self.tag.is_some(), self.all];
        named.iter().filter(|named| **named).count() == 1
    }

    /// For the audit log.
    fn in_words(&self) -> String {
        let what = match (&self.url, &self.prefix, &self.tag) {
            (Some(url), _, _) => format!("url {url}"),
            (_, Some(prefix), _) => format!("prefix {prefix}"),
            (_, _, Some(tag)) => format!("tag {tag}"),
            (None, None, None) => "all".to_owned(),
        };
        let of = self.tenant.as_ref().map_or(String::new(), |tenant| format!(" of tenant {tenant}"));
        format!("purge {what}{of}")
    }
}

/// What was purged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Purged {
    /// One sentence for people.
    pub said: String,
}

/// What the router's cache keeps of a URL, a prefix, a tag or all is served no longer.
#[cfg_attr(test, utoipa::path(post, path = "/v1/cache/purge", request_body = PurgeOrder,
    responses((status = 200, body = Purged))))]
pub(crate) async fn purge(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Content(body): Content,
) -> Response {
    let order = match order_of(&body, caller.tenant) {
        Ok(order) => order,
        Err(what) => return problem(StatusCode::BAD_REQUEST, &what),
    };
    let mut response = match shared.source.purge(&order) {
        Ok(purged) => Json(purged).into_response(),
        Err(what) => problem(StatusCode::BAD_REQUEST, &what),
    };
    response.extensions_mut().insert(Did(order.in_words()));
    response
}

/// A caller of one tenant purges that tenant's and no other's.
fn order_of(body: &[u8], tenant: Option<String>) -> Result<PurgeOrder, String> {
    let mend = "send one of {\"url\": \"http://HOST/PATH\"}, {\"prefix\": \"http://HOST/PATH\"}, {\"tag\": \"WORD\"} \
                and {\"all\": true}";
    let mut order: PurgeOrder = serde_json::from_slice(body).map_err(|error| format!("{error}; {mend}"))?;
    if !order.is_one() {
        return Err(mend.to_owned());
    }
    if let Some(own) = tenant {
        if let Some(other) = order.tenant.filter(|other| *other != own) {
            let other: String = other.chars().take(63).collect();
            return Err(format!("no service is of tenant {other}"));
        }
        order.tenant = Some(own);
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_name_one_thing_and_stay_within_a_tenant() {
        let read = |body: &str, tenant: Option<&str>| {
            order_of(body.as_bytes(), tenant.map(str::to_owned)).map(|order| order.in_words())
        };
        for (body, tenant, expect) in [
            ("{\"url\":\"http://a/b\"}", None, Ok("purge url http://a/b")),
            ("{\"tag\":\"x\"}", Some("acme"), Ok("purge tag x of tenant acme")),
            ("{\"all\":true,\"tenant\":\"acme\"}", Some("acme"), Ok("purge all of tenant acme")),
            ("{\"all\":true,\"tenant\":\"other\"}", Some("acme"), Err("no service is of tenant other")),
            ("{\"prefix\":\"http://a/\"}", None, Ok("purge prefix http://a/")),
            ("{}", None, Err("send one of")),
            ("{\"tag\":\"x\",\"all\":true}", None, Err("send one of")),
            ("{\"tags\":\"x\"}", None, Err("unknown field")),
            ("", None, Err("send one of")),
        ] {
            match (read(body, tenant), expect) {
                (Ok(got), Ok(expect)) => assert_eq!(got, expect, "{body}"),
                (Err(got), Err(part)) => assert!(got.contains(part), "{body}: {got}"),
                (got, expect) => panic!("{body}: {got:?}, not {expect:?}"),
            }
        }
    }
}
