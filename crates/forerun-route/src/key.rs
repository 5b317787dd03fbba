//! Which key a request brings to a service that specialises.
//!
//! A key is part of names, paths and environments later on, and it comes from outside: what does not fit is no key,
//! and its request is for the generic instances.

use forerun_types::{KeyFrom, ServiceSpec, UserFrom, UserKey, Variant};
use std::borrow::Cow;

/// The key of a request, if it brings one that the service specialises for.
///
/// A person's identity does not leave the router: by user, also when the key's header is the one that names the user,
/// the key is the user's keyed hash in hexadecimal. `header` gives the value of a header that is there exactly once;
/// `path` is without the query.
#[must_use]
pub fn request_key<'h>(
    spec: &ServiceSpec,
    user: UserKey,
    path: &str,
    header: impl Fn(&str) -> Option<&'h [u8]>,
) -> Option<String> {
    let specialise = spec.specialise.as_ref()?;
    let key = match &specialise.by {
        KeyFrom::User => user_hash(user)?,
        KeyFrom::Header(name) if names_user(spec, name) => user_hash(user)?,
        KeyFrom::Header(name) => std::str::from_utf8(header(name)?).ok()?.trim().to_owned(),
        KeyFrom::Group => spec.group.clone()?,
        KeyFrom::Tenant => spec.tenant.clone(),
        KeyFrom::Path(place) => segment(path, *place)?.into_owned(),
    };
    let listed = specialise.keys.is_empty() || specialise.keys.contains(&key);
    (listed && is_key(&key)).then_some(key)
}

fn user_hash(user: UserKey) -> Option<String> {
    user.is_known().then(|| format!("{:016x}", user.0))
}

fn names_user(spec: &ServiceSpec, header: &str) -> bool {
    matches!(&spec.user, UserFrom::Header(name) if name.eq_ignore_ascii_case(header))
}

fn segment(path: &str, place: u32) -> Option<Cow<'_, str>> {
    let place = usize::try_from(place).ok()?;
    let segment = path.strip_prefix('/')?.split('/').nth(place)?;
    percent_decoded(segment)
}

fn percent_decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        // `from_str_radix` takes a sign.
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        out.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

/// No control characters, which would break lines and environments, and nothing that leads elsewhere in a path.
fn is_key(key: &str) -> bool {
    let odd = |c: char| c.is_control() || matches!(c, '/' | '\\' | '\u{2028}' | '\u{2029}');
    (1..=Variant::KEY_BYTES_MAX).contains(&key.len()) && key != "." && key != ".." && !key.contains(odd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_types::{ServiceId, Specialise};

    fn spec(by: KeyFrom, keys: &[&str]) -> ServiceSpec {
        let keys = keys.iter().map(|k| (*k).to_owned()).collect();
        ServiceSpec {
            group: Some("pro".to_owned()),
            tenant: "acme".to_owned(),
            user: UserFrom::Header("X-User".to_owned()),
            specialise: Some(Specialise { by, keys, ..Specialise::default() }),
            ..ServiceSpec::named(ServiceId(0), "s")
        }
    }

    fn check(spec: &ServiceSpec, user: u64, path: &str, set: &str, expect: Option<&str>) {
        let header = |name: &str| name.eq_ignore_ascii_case("x-data").then_some(set.as_bytes());
        assert_eq!(request_key(spec, UserKey(user), path, header).as_deref(), expect, "{path} {set:?}");
    }

    #[test]
    fn keys_are_where_the_service_says() {
        let header = || KeyFrom::Header("X-Data".to_owned());
        check(&spec(header(), &[]), 0, "/", " blue ", Some("blue"));
        check(&spec(header(), &["red", "blue"]), 0, "/", "blue", Some("blue"));
        check(&spec(header(), &["red"]), 0, "/", "blue", None);
        check(&spec(KeyFrom::Header("X-Other".to_owned()), &[]), 0, "/", "blue", None);
        check(&spec(KeyFrom::Group, &[]), 0, "/", "", Some("pro"));
        check(&spec(KeyFrom::Tenant, &[]), 0, "/", "", Some("acme"));
        check(&spec(KeyFrom::Path(1), &[]), 0, "/maps/nord/7", "", Some("nord"));
        check(&spec(KeyFrom::Path(1), &[]), 0, "/maps/a%20b", "", Some("a b"));
        check(&spec(KeyFrom::Path(2), &[]), 0, "/maps/nord", "", None);
        check(&ServiceSpec { specialise: None, ..spec(header(), &[]) }, 0, "/", "blue", None);
    }

    #[test]
    fn a_persons_identity_is_a_hash_wherever_it_stands() {
        check(&spec(KeyFrom::User, &[]), 0xab, "/", "", Some("00000000000000ab"));
        check(&spec(KeyFrom::User, &[]), 0, "/", "", None);
        let by_header = spec(KeyFrom::Header("x-user".to_owned()), &[]);
        let anna = |_: &str| Some(&b"anna"[..]);
        assert_eq!(request_key(&by_header, UserKey(0xab), "/", anna).as_deref(), Some("00000000000000ab"));
    }

    #[test]
    fn what_could_lead_elsewhere_is_no_key() {
        let spec_path = spec(KeyFrom::Path(0), &[]);
        for path in
            ["", "/", "/..", "/.", "/%2e%2e", "/a%2fb", "/a%5cb", "/a%0ab", "/a%00", "/%", "/%+1", "/%ff"]
        {
            check(&spec_path, 0, path, "", None);
        }
        let header = spec(KeyFrom::Header("x-data".to_owned()), &[]);
        for value in ["", " ", "a\nb", "../x", "a\u{2028}b", &"x".repeat(129)] {
            check(&header, 0, "/", value, None);
        }
        check(&header, 0, "/", &"x".repeat(128), Some(&"x".repeat(128)));
        check(&header, 0, "/", "naïve:v1.2", Some("naïve:v1.2"));
    }
}
