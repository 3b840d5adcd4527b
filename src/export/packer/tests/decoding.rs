//! The messages as an independent decoder reads them.

use netflow_parser::NetflowParser;
use serde_json::Value;

use super::START;

/// The messages as an independent decoder reads them; they must all be well-formed and preceded by their templates.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    /// One string of values for each flow record.
    pub(super) flows: Vec<String>,
    pub(super) options: Vec<String>,
    pub(super) templates: usize,
}

pub(super) fn decode(messages: &[Vec<u8>]) -> Decoded {
    let mut all = Decoded::default();
    for decoded in decode_each(messages) {
        all.flows.extend(decoded.flows);
        all.options.extend(decoded.options);
        all.templates += decoded.templates;
    }
    all
}

/// The same, message by message.
pub(super) fn decode_each(messages: &[Vec<u8>]) -> Vec<Decoded> {
    let mut parser = NetflowParser::default();
    let decode = |message: &Vec<u8>| decode_one(&mut parser, message);
    messages.iter().map(decode).collect()
}

fn decode_one(parser: &mut NetflowParser, message: &[u8]) -> Decoded {
    let mut decoded = Decoded::default();
    let result = parser.parse_bytes(message);
    assert!(result.error.is_none(), "{:?}", result.error);
    assert_eq!(result.packets.len(), 1);
    let packet = serde_json::to_value(&result.packets[0]).unwrap();
    let (version, packet) = packet.as_object().unwrap().iter().next().unwrap();
    let sets = packet["flowsets"].as_array().unwrap();
    if version == "V5" {
        assert_eq!(packet["header"]["count"], sets.len());
        decoded.flows.extend(sets.iter().map(Value::to_string));
        return decoded;
    }
    for set in sets {
        let (kind, body) = set["body"].as_object().unwrap().iter().next().unwrap();
        match kind.as_str() {
            "Data" => decoded.flows.extend(rows(&body["fields"])),
            "OptionsData" => decoded.options.extend(rows(&body["fields"])),
            "Template" | "OptionsTemplate" => {
                decoded.templates += body["templates"].as_array().map_or(1, Vec::len);
            }
            "Templates" | "OptionsTemplates" => {
                decoded.templates += body.as_array().unwrap().len();
            }
            other => panic!("{other}: {body}"),
        }
    }
    if version == "V9" {
        let records = decoded.flows.len() + decoded.options.len() + decoded.templates;
        assert_eq!(packet["header"]["count"], records);
    }
    decoded
}

fn rows(records: &Value) -> Vec<String> {
    let records = records.as_array().unwrap().iter();
    records
        .map(|record| match record.get("options_fields") {
            Some(options) => row(options),
            None => row(record),
        })
        .collect()
}

fn row(fields: &Value) -> String {
    let values: Vec<_> = fields
        .as_array()
        .unwrap()
        .iter()
        .map(|field| field_text(&field[1]))
        .collect();
    values.join(" ")
}

/// `{"DataNumber": {"U16": 443}}` as `443`; times as milliseconds after the start, or after boot (`@`).
fn field_text(value: &Value) -> String {
    match value {
        Value::Object(object) if object.contains_key("secs") => {
            let millis = object["secs"].as_u64().unwrap() * 1000
                + object["nanos"].as_u64().unwrap() / 1_000_000;
            match millis.checked_sub(START) {
                Some(after) => format!("+{after}"),
                None => format!("@{millis}"),
            }
        }
        Value::Object(object) => field_text(object.values().next().unwrap()),
        // The decoder does not know the type of these elements in v9.
        Value::Array(bytes) => bytes
            .iter()
            .fold(0, |number, byte| number << 8 | byte.as_u64().unwrap())
            .to_string(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
