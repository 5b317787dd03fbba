//! A command line split into words as a shell splits it, without doing anything else that a shell does.

/// What a shell would act on and a started process would only get as text.
const OPERATORS: &str = "|&;<>()`";

/// Splits at blanks; single and double quotes and backslashes keep blanks in a word.
///
/// # Errors
/// An open quote, nothing at all, or something that only a shell understands: that must be given to one.
pub(crate) fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' | '"' => quoted(c, &mut chars, word.get_or_insert_default())?,
            '\\' => word.get_or_insert_default().push(chars.next().ok_or("ends in a backslash")?),
            _ if c.is_whitespace() => words.extend(word.take()),
            _ => {
                let variable =
                    c == '$' && chars.peek().is_some_and(|n| n.is_alphabetic() || "_{(".contains(*n));
                if OPERATORS.contains(c) || variable {
                    return Err(needs_shell(c));
                }
                word.get_or_insert_default().push(c);
            }
        }
    }
    words.extend(word);
    match words.first() {
        None => Err("is empty; name the program to start".to_owned()),
        Some(first) if first.is_empty() => {
            Err("starts with an empty word; name the program to start".to_owned())
        }
        Some(_) => Ok(words),
    }
}

fn quoted(
    quote: char,
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    word: &mut String,
) -> Result<(), String> {
    while let Some(c) = chars.next() {
        match c {
            _ if c == quote => return Ok(()),
            '\\' if quote == '"' => match chars.next() {
                Some(n @ ('"' | '\\' | '$' | '`')) => word.push(n),
                Some(n) => word.extend(['\\', n]),
                None => break,
            },
            '$' if quote == '"' && chars.peek().is_some_and(|n| n.is_alphabetic() || "_{(".contains(*n)) => {
                return Err(needs_shell(c));
            }
            _ => word.push(c),
        }
    }
    Err(format!("has an open quote {quote}; close it"))
}

fn needs_shell(c: char) -> String {
    format!("'{c}' needs a shell; quote it, or write [\"sh\", \"-c\", \"...\"]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Result<&[&str], &str>) {
        match (split(text), expect) {
            (Ok(words), Ok(expect)) => assert_eq!(words, expect, "{text}"),
            (Err(message), Err(part)) => assert!(message.contains(part), "{text}: {message}"),
            (got, expect) => panic!("{text}: got {got:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn words_are_split_as_a_shell_does() {
        check("a  b\tc", Ok(&["a", "b", "c"]));
        check("a 'b c' \"d e\"", Ok(&["a", "b c", "d e"]));
        check("a''b \"\"", Ok(&["ab", ""]));
        check("a\\ b \"q\\\"q\" 'n\\n'", Ok(&["a b", "q\"q", "n\\n"]));
        check("srv --port={port} --cost 5$", Ok(&["srv", "--port={port}", "--cost", "5$"]));
        check("sh -c 'a | b $X'", Ok(&["sh", "-c", "a | b $X"]));
    }

    #[test]
    fn what_only_a_shell_does_is_refused() {
        check("", Err("is empty"));
        check("  ", Err("is empty"));
        check("'' x", Err("empty word"));
        check("a 'b", Err("open quote '"));
        check("a \"b\\", Err("open quote \""));
        check("a \\", Err("backslash"));
        check("a | b", Err("'|' needs a shell"));
        check("a > f", Err("'>' needs a shell"));
        check("a $HOME", Err("'$' needs a shell"));
        check("a \"${HOME}\"", Err("'$' needs a shell"));
    }
}
