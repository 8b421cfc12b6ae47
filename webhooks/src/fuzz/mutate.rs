//! Tampering that knows JSON: values and types are replaced, parts repeated, nested, moved and taken away; then the bytes
//! are cut and garbled now and then.

use serde_json::{Map, Value, json};

/// Chance that can be had again: a run's own sequence from the seed and its number (SplitMix64).
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn of(seed: u64, run: u64) -> Self {
        let mut dice = Self(seed.rotate_left(32) ^ run);
        dice.0 = dice.next();
        dice
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, count: usize) -> usize {
        (self.next() % count.max(1) as u64) as usize
    }

    pub(super) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub(super) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// Words that some reader of ours takes for a number, a name, a path or a range.
const WORDS: [&str; 44] = [
    "",
    " ",
    "0",
    "-1",
    "+1",
    "1e3",
    "1e99999",
    "1e-99999",
    "1E400",
    "0.0000000001",
    "999999999999999999999999999999999999999999",
    "18446744073709551616",
    "9223372036854775807",
    "99999Ei",
    "16Ei",
    "15Ei",
    ".5Gi",
    "1.",
    ".",
    "1..2",
    "1n",
    "NaN",
    "inf",
    "0x10",
    "01",
    "1,5",
    "\u{0661}\u{0662}",
    "::/0",
    "0.0.0.0/0",
    "10.0.0.1/8",
    "1.2.3.4/99999999999",
    "::1/128",
    "::ffff:1.2.3.4/120",
    "1.2.3.4/-0",
    "/",
    "//",
    "/../..",
    "/dev/../proc",
    "/a/./b//c",
    "NVIDIA_VISIBLE_DEVICES",
    "SUPERCARGO_",
    "a\u{0}b",
    "\u{202e}\u{10ffff}e\u{0301}",
    "2026-02-30T25:61:61Z",
];

/// One to three changes of the value.
pub(super) fn mutate(value: &mut Value, dice: &mut Dice, donors: &[Value]) {
    for _ in 0..=dice.below(3) {
        change(descend(value, dice), dice, donors);
    }
}

/// Some part of the value, mostly a deep one.
fn descend<'a>(value: &'a mut Value, dice: &mut Dice) -> &'a mut Value {
    let children = match value {
        Value::Object(object) => object.len(),
        Value::Array(items) => items.len(),
        _ => 0,
    };
    if children == 0 || dice.one_in(6) {
        return value;
    }
    let index = dice.below(children);
    let child = match value {
        Value::Object(object) => object.values_mut().nth(index),
        Value::Array(items) => items.get_mut(index),
        _ => None,
    };
    descend(child.expect("it was counted"), dice)
}

fn change(value: &mut Value, dice: &mut Dice, donors: &[Value]) {
    match dice.below(12) {
        // Of the same type: what can still be read is judged.
        0..=2 if value.is_number() => *value = number(dice),
        0..=2 if value.is_string() || dice.one_in(4) => *value = Value::from(*dice.pick(&WORDS)),
        3 => *value = number(dice),
        4 => *value = another_type(value.take(), dice),
        5 => nest(value, dice),
        6 => repeat(value, dice),
        7 => lose(value, dice),
        8 => gain(value, dice),
        9 => *value = descend(&mut dice.pick(donors).clone(), dice).take(),
        10 => exchange(value, dice),
        _ => garble(value, dice),
    }
}

fn number(dice: &mut Dice) -> Value {
    let numbers = [
        json!(0),
        json!(-1),
        json!(i64::MIN),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(i32::MAX),
        json!(1e308),
        json!(-0.0),
        json!(5e-324),
        json!(1.5),
    ];
    dice.pick(&numbers).clone()
}

fn another_type(value: Value, dice: &mut Dice) -> Value {
    match (value, dice.below(3)) {
        (Value::Object(object), 0) => Value::Array(object.into_iter().map(|(_, value)| value).collect()),
        (Value::Array(items), 0) => {
            items.into_iter().enumerate().map(|(index, item)| (index.to_string(), item)).collect::<Map<_, _>>().into()
        }
        (value, 0) => Value::Array(vec![value]),
        (value, 1) => Value::String(value.to_string()),
        (Value::String(text), _) => text.parse().map_or(Value::Null, Value::Number),
        _ => Value::Bool(dice.one_in(2)),
    }
}

/// Deeper than readers care to go, sometimes.
fn nest(value: &mut Value, dice: &mut Dice) {
    let most = if dice.one_in(8) { 300 } else { 8 };
    for _ in 0..dice.below(most) {
        let inner = value.take();
        *value = if dice.one_in(2) { Value::Array(vec![inner]) } else { Map::from_iter([("a".to_owned(), inner)]).into() };
    }
}

fn repeat(value: &mut Value, dice: &mut Dice) {
    let times = if dice.one_in(40) { 600 } else { 1 << dice.below(5) };
    match value {
        Value::Array(items) => {
            let once = items.clone();
            items.extend((0..times).flat_map(|_| once.iter().cloned()).take(600));
        }
        Value::String(text) => *text = text.repeat(times).chars().take(16_384).collect(),
        Value::Object(object) => {
            let once: Vec<_> = object.values().take(8).cloned().collect();
            object.extend(
                (0..times).flat_map(|time| once.iter().cloned().enumerate().map(move |(index, value)| (format!("k{time}-{index}"), value))),
            );
        }
        _ => {}
    }
}

fn lose(value: &mut Value, dice: &mut Dice) {
    match value {
        Value::Object(object) if !object.is_empty() => {
            let name = object.keys().nth(dice.below(object.len())).expect("it was counted").clone();
            object.shift_remove(&name);
        }
        Value::Array(items) if !items.is_empty() => {
            items.remove(dice.below(items.len()));
        }
        _ => *value = Value::Null,
    }
}

fn gain(value: &mut Value, dice: &mut Dice) {
    let gained = match dice.below(3) {
        0 => json!({ "name": dice.pick(&WORDS), "mountPath": dice.pick(&WORDS), "scratch": { "size": dice.pick(&WORDS) } }),
        1 => json!({ "cidr": dice.pick(&WORDS), "ports": [number(dice)] }),
        _ => json!(dice.pick(&WORDS)),
    };
    const NAMES: [&str; 8] = ["hostPath", "volumes", "env", "network", "gpus", "deletionTimestamp", "", "\u{0}\u{ffff}"];
    match value {
        Value::Object(object) => {
            let name = *dice.pick(&NAMES);
            let gained = if matches!(name, "volumes" | "env" | "gpus") { json!([gained]) } else { gained };
            object.insert(name.to_owned(), gained);
        }
        Value::Array(items) => items.push(gained),
        _ => *value = gained,
    }
}

/// Two fields' values change places.
fn exchange(value: &mut Value, dice: &mut Dice) {
    let Value::Object(object) = value else { return };
    let (one, other) = (dice.below(object.len()), dice.below(object.len()));
    let taken = object.values_mut().nth(one).map(Value::take);
    let Some(taken) = taken else { return };
    let taken = object.values_mut().nth(other).map(|place| std::mem::replace(place, taken));
    if let (Some(place), Some(taken)) = (object.values_mut().nth(one), taken)
        && one != other
    {
        *place = taken;
    }
}

fn garble(value: &mut Value, dice: &mut Dice) {
    let Value::String(text) = value else { return nest(value, dice) };
    let mut letters: Vec<char> = text.chars().collect();
    let at = dice.below(letters.len() + 1);
    match dice.below(4) {
        0 => letters.truncate(at),
        1 => letters.insert(at, char::from_u32(dice.below(0x0011_0000) as u32).unwrap_or('\u{fffd}')),
        2 => letters.insert(at, *dice.pick(&['.', '-', '/', ':', '0', '9', 'e', 'i', '\u{0}', '\n'])),
        _ => letters.reverse(),
    }
    *text = letters.into_iter().collect();
}

const PIECES: [&[u8]; 8] = [b"\\ud800", b"\xff\xfe", b"\\u0000", b"[[[[[[[[", b"{\"a\":", b"1e9999", b"&a *a ", b"!!binary "];
const STARTS: [&[u8]; 5] = [b"\xef\xbb\xbf", b" ", b"null", b"\0", b"---\n"];

/// Every fourth time the bytes themselves suffer.
pub(super) fn tamper(mut bytes: Vec<u8>, dice: &mut Dice) -> Vec<u8> {
    if !dice.one_in(4) || bytes.is_empty() {
        return bytes;
    }
    let at = dice.below(bytes.len());
    let end = (at + 1 + dice.below(40)).min(bytes.len());
    let (range, with) = match dice.below(8) {
        0 => (at..bytes.len(), Vec::new()),
        1 => (at..at + 1, vec![bytes[at] ^ (1 << dice.below(8))]),
        2 => (at..at, vec![dice.below(256) as u8]),
        3 => (at..end, Vec::new()),
        4 => (at..at, bytes[at..end].to_vec()),
        5 => (at..at, dice.pick(&PIECES).to_vec()),
        6 => (at..end, vec![*dice.pick(b"[{\"9 -"); 1 << dice.below(13)]),
        _ => (0..0, dice.pick(&STARTS).to_vec()),
    };
    bytes.splice(range, with);
    bytes
}
