//! What the terminal is able and allowed to show.

use comfy_table::{Table, presets};

/// Whether colours may be shown where it is a terminal (no-color.org).
pub(crate) fn colours(is_terminal: bool) -> bool {
    is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A table without lines around it; as wide as its content, so that output is the same in a pipe.
pub(crate) fn table<'h>(headers: impl IntoIterator<Item = &'h str>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(headers.into_iter().collect::<Vec<_>>());
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// The table's lines without the blanks at their ends.
pub(crate) fn lines(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// `512MB`, `2.1GB`: in powers of ten, as every GB that Forerun prints.
pub(crate) fn bytes(bytes: u64) -> String {
    let scaled = bytes as f64;
    match bytes {
        0..1_000 => format!("{bytes}B"),
        1_000..1_000_000 => format!("{:.0}kB", scaled / 1e3),
        1_000_000..1_000_000_000 => format!("{:.0}MB", scaled / 1e6),
        _ => format!("{:.1}GB", scaled / 1e9),
    }
}
