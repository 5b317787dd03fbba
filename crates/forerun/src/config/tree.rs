//! Dotted keys with texts, as labels have them, made into the tables that TOML would have.

use super::keys::{Key, Shape};
use toml_edit::{Array, ArrayOfTables, Item, Table, Value, value};

/// The table that `key.inner = text` pairs describe, and the keys that do not fit together.
///
/// Texts become numbers, truth values and lists (at commas) where the table of keys says so; what does not look like
/// one stays a text, and is refused with the key's own words when it is read.
pub(crate) fn of<'p>(
    keys: &'static [Key],
    pairs: impl Iterator<Item = (&'p str, &'p str)>,
) -> (Table, Vec<(String, String)>) {
    let mut table = Table::new();
    let mut wrong = Vec::new();
    for (path, text) in pairs {
        let parts: Vec<&str> = path.split('.').collect();
        if let Err(what) = insert(&mut table, keys, &parts, text) {
            wrong.push((path.to_owned(), what));
        }
    }
    for key in keys.iter().filter(|key| matches!(key.shape, Shape::Tables(_) | Shape::TextsOr(_))) {
        numbered(&mut table, key.name);
    }
    (table, wrong)
}

fn insert(table: &mut Table, keys: &'static [Key], parts: &[&str], text: &str) -> Result<(), String> {
    let [name, rest @ ..] = parts else { return Ok(()) };
    // A key that is not known is told of by whoever reads the table.
    let Some(key) = keys.iter().find(|key| key.name == *name) else {
        table.insert(name, value(text));
        return Ok(());
    };
    if rest.is_empty() {
        if table.contains_key(name) {
            return Err(format!("stands beside {name}.*; write one of the two"));
        }
        table.insert(name, scalar(key.shape, text));
        return Ok(());
    }
    let inner = match key.shape {
        Shape::Table(inner)
        | Shape::TextOr(inner)
        | Shape::FlagOr(inner)
        | Shape::Tables(inner)
        | Shape::TextsOr(inner) => inner,
        Shape::Env => &[],
        _ => return Err(format!("{name} takes nothing behind it; write {name}=...")),
    };
    let below = table.entry(name).or_insert_with(|| Item::Table(Table::new()));
    let Some(below) = below.as_table_mut() else {
        return Err(format!("stands beside {name}; write one of the two"));
    };
    match (key.shape, rest) {
        // Names of variables and files have dots of their own.
        (Shape::Env, _) => drop(below.insert(&rest.join("."), value(text))),
        (Shape::Tables(_) | Shape::TextsOr(_), [at, rest @ ..])
            if at.parse::<u16>().is_ok() && !rest.is_empty() =>
        {
            let below = below.entry(at).or_insert_with(|| Item::Table(Table::new()));
            let Some(below) = below.as_table_mut() else { return Ok(()) };
            return insert(below, inner, rest, text);
        }
        _ => return insert(below, inner, rest, text),
    }
    Ok(())
}

/// `schedule.0.cron`, `schedule.1.cron`: tables by number become a list in their order.
fn numbered(table: &mut Table, name: &str) {
    let Some(below) = table.get_mut(name).and_then(Item::as_table_mut) else { return };
    let mut places: Vec<u16> =
        below.iter().filter_map(|(at, item)| item.as_table().and(at.parse().ok())).collect();
    if places.is_empty() || places.len() != below.len() {
        return;
    }
    places.sort_unstable();
    let mut list = ArrayOfTables::new();
    for at in places {
        if let Some(Item::Table(one)) = below.remove(&at.to_string()) {
            list.push(one);
        }
    }
    table.insert(name, Item::ArrayOfTables(list));
}

fn scalar(shape: Shape, text: &str) -> Item {
    let text = text.trim();
    match shape {
        Shape::Count(..) => text.parse::<i64>().map_or_else(|_| value(text), value),
        Shape::Number => text.parse::<f64>().map_or_else(|_| value(text), value),
        Shape::Flag | Shape::FlagOr(_) => text.parse::<bool>().map_or_else(|_| value(text), value),
        Shape::Texts | Shape::TextsOr(_) if text.contains(',') => {
            value(Value::Array(text.split(',').map(str::trim).filter(|t| !t.is_empty()).collect::<Array>()))
        }
        // As a Dockerfile has it.
        Shape::Command if text.starts_with('[') => match serde_json::from_str::<Vec<String>>(text) {
            Ok(words) => value(Value::Array(words.into_iter().collect::<Array>())),
            Err(_) => value(text),
        },
        _ => value(text),
    }
}
