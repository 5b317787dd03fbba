//! Every route by every role and tenant: each cell is tried, and no tenant reads a word of another's.

// Helpers of tests are no tests to clippy.
#![allow(clippy::unwrap_used)]

mod common;

use common::{ANY_PORT, Fake, Folder, ask, ask_until, tell};
use forerun_api::{Api, Role, RouteInfo, routes};

/// A caller, by what its token is.
struct Cell<'a> {
    role: Role,
    tenant: Option<&'a str>,
    token: String,
}

async fn answer(api: &Api, route: &RouteInfo, service: &str, token: &str) -> (u16, String) {
    let path = route.path.replace("{service}", service).replace("{strategy}", "poke");
    assert!(!path.contains('{'), "{path} has a name that this test does not know");
    let more = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
    let answer = match route.method {
        "POST" if path == "/v1/cache/purge" => tell(api, &path, &more, "{\"all\":true}").await,
        "POST" => {
            tell(api, &path, &more, if path.ends_with("/scale") { "{\"instances\":1}" } else { "" }).await
        }
        _ if path == "/v1/events" => {
            let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}");
            ask_until(api, &head, |text| text.contains("data: ") || text.ends_with('}')).await
        }
        _ => ask(api, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}X-Test: 1")).await,
    };
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    (status, answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned())
}

/// What a route must say to a caller who asks for a service of the tenant `of`.
fn expected(route: &RouteInfo, cell: &Cell<'_>, of: &str) -> &'static [u16] {
    let Some(least) = route.least else { return &[200, 202] };
    let foreign = cell.tenant.is_some_and(|tenant| tenant != of);
    match () {
        () if cell.role < least => &[403],
        () if route.all_tenants && cell.tenant.is_some() => &[403],
        () if route.path.contains("{service}") && foreign => &[404],
        () => &[200, 202],
    }
}

#[tokio::test]
async fn every_cell_is_as_the_table_says() {
    let folder = Folder::new("cells");
    let mut cells = Vec::new();
    for tenant in [None, Some("acme"), Some("rival")] {
        for role in Role::ALL {
            let name = format!("{role}-{}", tenant.unwrap_or("all"));
            let token = folder.tokens().create(&name, role, tenant, None).unwrap();
            cells.push(Cell { role, tenant, token });
        }
    }
    let api = Api::start(ANY_PORT, Fake::source(true), folder.guard(true)).await.unwrap();
    let (mut tried, mut wrong) = (0, Vec::new());
    for route in routes() {
        for (service, of) in [("acme-shop", "acme"), ("rival-shop", "rival")] {
            let (status, _) = answer(&api, &route, service, "").await;
            let open = route.least.is_none();
            tried += 1;
            if (status == 401) == open {
                wrong.push(format!("{route:?} without a token: {status}"));
            }
            for cell in &cells {
                let (status, body) = answer(&api, &route, service, &cell.token).await;
                tried += 1;
                let expected = expected(&route, cell, of);
                let read = cell.tenant == Some("acme") && of == "acme" && body.contains("rival");
                if !expected.contains(&status) || read {
                    let who = (cell.role, cell.tenant);
                    wrong.push(format!(
                        "{route:?} of {service} by {who:?}: {status}, not {expected:?}: {body}"
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(tried, routes().len() * 2 * (1 + cells.len()));
}

/// A name that is not there and one that is another tenant's are told in the same words.
#[tokio::test]
async fn what_is_anothers_looks_like_nothing() {
    let folder = Folder::new("looks");
    let token = folder.tokens().create("a", Role::Operator, Some("acme"), None).unwrap();
    let api = Api::start(ANY_PORT, Fake::source(true), folder.guard(true)).await.unwrap();
    for route in routes().iter().filter(|route| route.path.contains("{service}")) {
        let (status, body) = answer(&api, route, "rival-shop", &token).await;
        let (nothing, said) = answer(&api, route, "nobody", &token).await;
        assert_eq!((status, body.replace("rival-shop", "nobody")), (nothing, said), "{route:?}");
    }
}
