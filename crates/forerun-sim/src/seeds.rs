//! The file of every seed that ever failed.

use std::io::Write;
use std::path::Path;

/// The seeds of a file: one a line, what follows `#` is for people. A file that is not there has none.
///
/// # Errors
/// One line that names the file, the line and the mend.
pub fn read(path: &Path) -> Result<Vec<u64>, String> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    parse(&text).map_err(|(line, word)| {
        format!(
            "{}:{line}: `{word}` is no seed; write a whole number, and what it found after a #",
            path.display()
        )
    })
}

fn parse(text: &str) -> Result<Vec<u64>, (usize, String)> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let numbered = lines.enumerate().filter(|(_, word)| !word.is_empty());
    numbered.map(|(at, word)| word.parse().map_err(|_| (at + 1, word.to_owned()))).collect()
}

/// Adds a seed at the end.
///
/// # Errors
/// The file cannot be written.
pub fn add(path: &Path, seed: u64, what: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    writeln!(file, "{seed} # {}", what.lines().next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_read_and_a_bad_line_is_named() {
        let check = |text: &str, expect: Result<Vec<u64>, (usize, String)>| assert_eq!(parse(text), expect);
        check("", Ok(vec![]));
        check("# about\n\n12 # forgotten\n 7\n", Ok(vec![12, 7]));
        check("1\nx1 # why\n", Err((2, "x1".to_owned())));
    }
}
