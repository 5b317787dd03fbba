//! The JSON Schema of the configuration, made from the table of keys.

use super::keys::{Key, ROOT, Shape};
use serde_json::{Map, Value, json};

/// A JSON Schema (2020-12) of `forerun.toml` as the tables that TOML makes of it.
pub(crate) fn schema() -> Value {
    let mut root = table(ROOT);
    if let Value::Object(map) = &mut root {
        map.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        map.insert("title".to_owned(), json!("forerun.toml"));
    }
    root
}

fn table(keys: &[Key]) -> Value {
    let properties: Map<String, Value> =
        keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    json!({ "type": "object", "additionalProperties": false, "properties": properties })
}

fn property(key: &Key) -> Value {
    let mut value = shape(key.shape);
    if let Value::Object(map) = &mut value {
        map.insert("description".to_owned(), json!(key.doc));
        if !key.default.is_empty() {
            map.insert("default".to_owned(), default(key));
        }
    }
    value
}

/// A default in the type that the schema gives its key.
fn default(key: &Key) -> Value {
    let text = key.default;
    match (text.parse::<u64>(), text.parse::<f64>()) {
        (Ok(n), _) => json!(n),
        (_, Ok(x)) => json!(x),
        _ => text.parse::<bool>().map_or(json!(text), |flag| json!(flag)),
    }
}

fn shape(shape: Shape) -> Value {
    let text = || json!({ "type": "string" });
    let texts = || json!({ "type": "array", "items": { "type": "string" } });
    match shape {
        Shape::Text | Shape::Address => text(),
        Shape::Texts | Shape::Command => json!({ "anyOf": [text(), texts()] }),
        Shape::Duration => {
            amount("^[0-9.]+ ?(us|ms|s|m|min|h|d)?( ?[0-9.]+ ?(us|ms|s|m|min|h|d))*$", "number")
        }
        Shape::Bytes => amount("^[0-9.]+ ?(B|[kK]B|[MGT]B|[KMGT]iB?)?$", "integer"),
        Shape::BytesPerSecond => amount("^[0-9.]+ ?(B|[kK]B|[MGT]B|[KMGT]iB?)?(/s)?$", "integer"),
        Shape::Cores => amount("^[0-9.]+m?$", "number"),
        Shape::Share => json!({ "anyOf": [
            { "type": "number", "minimum": 0, "maximum": 1 },
            { "type": "string", "pattern": "^[0-9.]+%?$" },
        ] }),
        Shape::Count(min, max) => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Shape::Number => json!({ "type": "number", "minimum": 0 }),
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::Choice(words) => json!({ "enum": words }),
        Shape::Env => json!({
            "type": "object",
            "additionalProperties": { "type": ["string", "number", "boolean"] },
        }),
        Shape::Table(keys) => table(keys),
        Shape::Tables(keys) => json!({ "anyOf": [table(keys), { "type": "array", "items": table(keys) }] }),
        Shape::TextOr(keys) => json!({ "anyOf": [text(), table(keys)] }),
        Shape::FlagOr(keys) => json!({ "anyOf": [{ "type": "boolean" }, table(keys)] }),
        Shape::TextsOr(keys) => {
            let one = json!({ "anyOf": [text(), table(keys)] });
            json!({ "anyOf": [text(), table(keys), { "type": "array", "items": one }] })
        }
        Shape::Named(keys) => json!({
            "type": "object",
            "propertyNames": { "pattern": "^[A-Za-z0-9_-]{1,63}$" },
            "additionalProperties": table(keys),
        }),
    }
}

fn amount(pattern: &str, bare: &str) -> Value {
    json!({ "anyOf": [{ "type": bare, "minimum": 0 }, { "type": "string", "pattern": pattern }] })
}
