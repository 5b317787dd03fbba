//! The API's description, made from the handlers and the types that they answer with; only tests need it.

use crate::auth::{Access, Reach};
use crate::routes::ROUTES;
use crate::{cache, control, events, lists, status};
use axum::http::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Forerun",
        description = "What Forerun foresees, wants and does, and what a person may tell it. Times are seconds since 1970 UTC.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
        version = "1",
    ),
    paths(
        status::status,
        status::audit,
        events::events,
        lists::services,
        lists::service,
        lists::forecast,
        lists::instances,
        lists::plan,
        lists::overrides,
        lists::sla,
        cache::purge,
        control::wake,
        control::pause,
        control::resume,
        control::scale,
        control::act,
        control::advise,
        control::observe,
    )
)]
struct Description;

/// What is said of every operation by the table of routes.
fn described() -> String {
    let text = Description::openapi().to_json().expect("it is made of texts");
    let mut document: Value = serde_json::from_str(&text).expect("it is JSON");
    document["components"]["securitySchemes"] = json!({ "token": { "type": "http", "scheme": "bearer" } });
    document["components"]["schemas"]["Problem"] = json!({
        "type": "object",
        "description": "RFC 9457. `detail` says what is wrong, and the mend.",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": { "type": "string" }, "title": { "type": "string" },
            "status": { "type": "integer" }, "detail": { "type": "string" },
        },
    });
    for route in ROUTES {
        let operation = &mut document["paths"][route.path][route.method.as_str().to_lowercase()];
        let (Access::Least(least, reach), false) = (route.access, operation.is_null()) else { continue };
        let whose = if reach == Reach::All { " It is about all tenants." } else { "" };
        let text = operation["description"].as_str().unwrap_or_default();
        let text = format!("{text}\n\nNeeds the role {least}.{whose}").trim().to_owned();
        operation["description"] = text.into();
        operation["security"] = json!([{}, { "token": [] }]);
        operation["responses"]["default"] = json!({
            "description": "It was not done, and why",
            "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
        });
    }
    // A route that the description does not have was made as `null` by looking for it.
    let paths = document["paths"].as_object_mut().expect("there are paths");
    for operations in paths.values_mut().filter_map(Value::as_object_mut) {
        operations.retain(|_, operation| !operation.is_null());
    }
    paths.retain(|_, operations| operations.as_object().is_some_and(|o| !o.is_empty()));
    format!("{}\n", serde_json::to_string_pretty(&document).expect("it is JSON"))
}

/// Guarantee: the file that is served is what the code does; `FORERUN_BLESS=1` writes it.
#[test]
fn the_description_is_of_this_code() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    let described = described();
    if std::env::var_os("FORERUN_BLESS").is_some() {
        std::fs::write(path, &described).expect("the file can be written");
    }
    let file = std::fs::read_to_string(path).unwrap_or_default();
    let differ = described.lines().zip(file.lines()).find(|(code, file)| code != file);
    assert!(
        described == file,
        "openapi.json is not of this code, first at {differ:?}; FORERUN_BLESS=1 cargo test -p forerun-api writes it anew"
    );
}

#[test]
fn every_route_of_our_own_is_described() {
    let document: Value = serde_json::from_str(&described()).expect("it is JSON");
    let mut described = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().expect("there are paths") {
        described.extend(
            operations.as_object().into_iter().flatten().map(|(m, _)| (m.to_uppercase(), path.clone())),
        );
    }
    // The router's own answers are in its words, and docs/api.md says them; the rest is no part of /v1.
    let beside = ["/health", "/badge.svg", "/wakes"];
    let own = ROUTES.iter().filter(|r| {
        r.handler.is_some() && r.path.starts_with("/v1/") && !beside.iter().any(|end| r.path.ends_with(end))
    });
    let own: BTreeSet<(String, String)> = own.map(|r| (r.method.to_string(), r.path.to_owned())).collect();
    assert_eq!(described, own);
    assert!(own.contains(&(Method::GET.to_string(), "/v1/services".to_owned())));
}
