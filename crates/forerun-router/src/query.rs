//! The parameters of a URL's query.

/// Names and values in order, decoded. A percent sign without two hexadecimal digits stands for itself.
pub(crate) fn params(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    })
}

/// The first parameter of this name.
pub(crate) fn param(query: Option<&str>, name: &str) -> Option<String> {
    params(query.unwrap_or_default()).find(|(n, _)| n == name).map(|(_, value)| value)
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let hex = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
        match (byte, hex(at + 1), hex(at + 2)) {
            // Two digits are at most 255.
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
                continue;
            }
            (b'+', ..) => out.push(b' '),
            _ => out.push(*byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A text as a parameter's value.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                out.push(char::from(byte));
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read() {
        let pairs = |query: &str| params(query).map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>();
        for (query, expect) in [
            ("", &[][..]),
            ("a=1&b=2&a=3", &["a=1", "b=2", "a=3"][..]),
            ("a&=x&&b=", &["a=", "=x", "b="]),
            ("a=x%20y+z%2", &["a=x y z%2"]),
            ("p=%C3%A9%ff", &["p=é\u{fffd}"]),
            ("p=%zz%2fa%2F", &["p=%zz/a/"]),
            ("u=a=b", &["u=a=b"]),
        ] {
            assert_eq!(pairs(query), expect, "{query}");
        }
    }

    #[test]
    fn what_is_encoded_is_read_back() {
        for text in ["/a b?c=d&e", "é</script>\"", "a+b%20"] {
            assert_eq!(param(Some(&format!("x=1&path={}", encode(text))), "path").as_deref(), Some(text));
        }
        assert_eq!(param(None, "path"), None);
    }
}
