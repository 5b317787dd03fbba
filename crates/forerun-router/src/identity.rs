//! Who is behind a request, and what it is called: both hashed before they leave.

use forerun_route::TemplateGuard;
use forerun_types::{ActionKey, GroupKey, ServiceSpec, TenantKey, UserFrom, UserKey};
use hyper::HeaderMap;
use hyper::header::COOKIE;
use std::collections::HashMap;
use std::net::IpAddr;

/// The first 64 bits of a name's BLAKE3, so that two sites name the same thing alike.
fn name_hash(text: &str) -> u64 {
    first_bits(blake3::hash(text.as_bytes()))
}

fn first_bits(hash: blake3::Hash) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    // Zero means nobody, nothing, or the default.
    u64::from_le_bytes(first).max(1)
}

/// The key under which a router with this secret reports the user of an identity: what a header, a cookie or an address
/// says. For those who teach a core beforehand what a router will report later.
#[must_use]
pub fn user_of(secret: &[u8; 32], tenant: &str, identity: &[u8]) -> UserKey {
    let mut hasher = blake3::Hasher::new_keyed(secret);
    hasher.update(tenant.as_bytes()).update(&[0]).update(identity);
    UserKey(first_bits(hasher.finalize()))
}

/// The key under which a router reports an action, by its method and path template.
#[must_use]
pub fn action_of(template: &str) -> ActionKey {
    ActionKey(name_hash(template))
}

pub(crate) fn tenant_key(tenant: &str) -> TenantKey {
    if tenant == "default" { TenantKey(0) } else { TenantKey(name_hash(tenant)) }
}

pub(crate) fn group_key(group: Option<&str>) -> GroupKey {
    group.map_or(GroupKey(0), |name| GroupKey(name_hash(name)))
}

/// The user of a request, keyed with the installation's secret. `address` is the client's.
pub(crate) fn user_key(
    secret: &[u8; 32],
    spec: &ServiceSpec,
    headers: &HeaderMap,
    address: IpAddr,
) -> UserKey {
    let keyed = |identity: &[u8]| user_of(secret, &spec.tenant, identity);
    match &spec.user {
        UserFrom::None => UserKey::NOBODY,
        UserFrom::Address => keyed(address.to_canonical().to_string().as_bytes()),
        UserFrom::Header(name) => match headers.get(name.as_str()).map(|value| value.as_bytes().trim_ascii())
        {
            None | Some([]) => UserKey::NOBODY,
            Some(identity) => keyed(identity),
        },
        UserFrom::Cookie(name) => match cookie(headers, name.as_bytes()) {
            None | Some([]) => UserKey::NOBODY,
            Some(identity) => keyed(identity),
        },
    }
}

fn cookie<'h>(headers: &'h HeaderMap, name: &[u8]) -> Option<&'h [u8]> {
    let pairs = headers.get_all(COOKIE).into_iter().flat_map(|value| value.as_bytes().split(|b| *b == b';'));
    let value = pairs.map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(name)?.strip_prefix(b"="))?;
    Some(value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value))
}

/// The names of one service's actions. Bounded: when full it forgets, and tells names anew.
#[derive(Debug, Default)]
pub(crate) struct Naming {
    guard: TemplateGuard,
    keys: HashMap<String, ActionKey>,
}

impl Naming {
    const NAMES_MAX: usize = 4_096;

    /// The key of a template, and the text to tell if it has not been told.
    pub(crate) fn key(&mut self, template: String) -> (ActionKey, Option<String>) {
        if let Some(key) = self.keys.get(&template) {
            return (*key, None);
        }
        let text = self.guard.admit(&template);
        let key = action_of(&text);
        if self.keys.len() >= Self::NAMES_MAX {
            self.keys.clear();
        }
        let told = self.keys.contains_key(&text);
        self.keys.insert(template, key);
        self.keys.insert(text.clone(), key);
        (key, (!told).then_some(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_types::ServiceId;
    use hyper::header::HeaderValue;

    fn user(from: UserFrom, tenant: &str, headers: &[(&'static str, &str)]) -> UserKey {
        let mut spec = ServiceSpec::named(ServiceId(1), "s");
        (spec.user, spec.tenant) = (from, tenant.to_owned());
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).expect("a header value"));
        }
        user_key(&[7; 32], &spec, &map, [127, 0, 0, 1].into())
    }

    #[test]
    fn users_are_told_apart_by_what_the_service_says() {
        let header = || UserFrom::Header("X-User".to_owned());
        let cookie = || UserFrom::Cookie("sid".to_owned());
        let anna = user(header(), "default", &[("x-user", "anna")]);
        for (from, tenant, headers, same) in [
            (header(), "default", &[("x-user", " anna ")][..], true),
            (cookie(), "default", &[("cookie", "a=b; sid=anna; c=d")], true),
            (cookie(), "default", &[("cookie", "a=b"), ("cookie", "sid=\"anna\"")], true),
            (header(), "default", &[("x-user", "bob")], false),
            (header(), "other", &[("x-user", "anna")], false),
            (cookie(), "default", &[("cookie", "xsid=anna")], false),
            (UserFrom::Address, "default", &[("x-user", "anna")], false),
        ] {
            let key = user(from, tenant, headers);
            assert_eq!(key == anna, same, "{tenant} {headers:?}");
        }
        for (from, headers) in [
            (header(), &[][..]),
            (header(), &[("x-user", "")]),
            (cookie(), &[("cookie", "sid=")]),
            (UserFrom::None, &[("x-user", "anna")]),
        ] {
            assert_eq!(user(from, "default", headers), UserKey::NOBODY, "{headers:?}");
        }
        assert!(anna.is_known());
    }

    #[test]
    fn names_are_told_once_and_bounded() {
        let mut naming = Naming::default();
        let (key, told) = naming.key("GET /orders/{id}".to_owned());
        assert_eq!(told.as_deref(), Some("GET /orders/{id}"));
        assert_eq!(naming.key("GET /orders/{id}".to_owned()), (key, None));
        assert_ne!(naming.key("POST /orders/{id}".to_owned()).0, key);
        let texts: std::collections::BTreeSet<_> =
            (0..20_000).filter_map(|n| naming.key(format!("GET /users/name{n}")).1).collect();
        assert!(texts.len() <= TemplateGuard::VALUES_MAX + 1, "{}", texts.len());
        assert!(naming.keys.len() <= Naming::NAMES_MAX + 1);
    }

    #[test]
    fn the_default_tenant_and_no_group_are_zero() {
        assert_eq!(tenant_key("default"), TenantKey(0));
        assert_ne!(tenant_key("acme"), TenantKey(0));
        assert_eq!(group_key(None), GroupKey(0));
        assert_ne!(group_key(Some("pro")), GroupKey(0));
    }
}
