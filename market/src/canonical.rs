//! One text for one meaning: JSON with its keys in order and nothing between its parts, so that whoever reads a document and
//! writes it again has the same bytes, and the same hash. Numbers are whole; what needs more than 53 bits is a string.

use crate::journal::Hash;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The one text of a value. Keys are in the order of their bytes.
pub fn text(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

/// The one text of what can be written as JSON at all. Our own types can.
pub fn of(value: &impl Serialize) -> String {
    text(&serde_json::to_value(value).unwrap_or_default())
}

/// The SHA-256 of a value's one text.
pub fn digest(value: &Value) -> Hash {
    Sha256::digest(text(value)).into()
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut names: Vec<&String> = fields.keys().collect();
            names.sort_unstable();
            all(out, ('{', '}'), names, |name, out| {
                // A string is written as any JSON writer does, control characters as \u00xx.
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write(&fields[name], out);
            });
        }
        Value::Array(items) => all(out, ('[', ']'), items, write),
        plain => out.push_str(&plain.to_string()),
    }
}

fn all<T>(out: &mut String, (open, close): (char, char), items: impl IntoIterator<Item = T>, mut one: impl FnMut(T, &mut String)) {
    out.push(open);
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        one(item, out);
    }
    out.push(close);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Value {
        serde_json::from_str(text).expect("JSON")
    }

    #[test]
    fn the_order_of_keys_and_the_room_between_parts_say_nothing() {
        let one = read(r#"{ "b": [1, {"y": null, "x": "é\n\u0001\""}], "a": true }"#);
        assert_eq!(text(&one), r#"{"a":true,"b":[1,{"x":"é\n\u0001\"","y":null}]}"#);
        assert_eq!(digest(&one), digest(&read(r#"{"a":true,"b":[1,{"y":null,"x":"é\n\u0001\""}]}"#)));
        assert_ne!(digest(&one), digest(&read(r#"{"a":true,"b":[1,{"y":null,"x":"e"}]}"#)));
        assert_eq!([text(&read("{}")), text(&read("[]")), of(&"x")], ["{}", "[]", "\"x\""]);
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((".{0,4}", inner), 0..4).prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_read_again_is_written_as_it_was(value in values()) {
            let written = text(&value);
            prop_assert_eq!(&read(&written), &value);
            prop_assert_eq!(text(&read(&written)), written);
        }
    }
}
