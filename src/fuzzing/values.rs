use super::input::Input;
use super::model::is_number;
use crate::wire::value::Value;

/// Any number is written in a form that every server reads, and reads back as itself; any text that
/// has the form is a number.
pub fn values(data: &[u8]) {
    let mut input = Input(data);
    let bits = input.u64();
    written(Value::from(bits));
    written(Value::from(bits as i64));
    written(Value::from(f64::from_bits(bits)));
    written(Value::from(f32::from_bits(bits as u32)));
    // C7: an integer in `u64` is the nearest float from 2^63 on.
    match Value::from(bits) {
        Value::Integer(integer) => assert_eq!(integer as u64, bits),
        Value::Float(float) => assert!(bits > i64::MAX as u64 && float == bits as f64),
    }
    #[cfg(feature = "testing")]
    text(input.0);
}

fn written(value: Value) {
    let text = value.to_text();
    let float = match value {
        Value::Float(float) if !float.is_finite() => return assert_eq!(text, ""),
        Value::Float(float) => float,
        Value::Integer(integer) => return assert_eq!(text.parse(), Ok(integer)),
    };
    assert!(is_number(&text) && text.contains('.'), "{text}");
    assert_eq!(text.parse::<f64>().map(f64::to_bits), Ok(float.to_bits()), "{text}");
    // No shorter digits read back as the same number; `{:e}` is the shortest.
    let digits = |text: &str| {
        let mantissa = text.split('e').next().unwrap_or_default();
        let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
        digits.trim_matches('0').len()
    };
    assert_eq!(digits(&text), digits(&format!("{float:e}")), "{text}");
}

/// What `FakeTsd` makes of a text.
#[cfg(feature = "testing")]
fn text(bytes: &[u8]) {
    let value = crate::testing::parse::accepted_number(bytes);
    if let Ok(text) = std::str::from_utf8(bytes)
        && is_number(text)
    {
        match value {
            Some(Value::Integer(integer)) => assert_eq!(text.parse(), Ok(integer)),
            Some(Value::Float(float)) => assert_eq!(text.parse(), Ok(float)),
            None => assert!(text.parse::<f64>().is_ok_and(f64::is_infinite), "{text} is a number"),
        }
    }
    let Some(value) = value else { return };
    let again = value.to_text();
    assert!(is_number(&again), "{again}");
    assert_eq!(crate::testing::parse::accepted_number(again.as_bytes()), Some(value));
}
