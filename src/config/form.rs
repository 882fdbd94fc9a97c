//! Reading the form that a person filled in, setting by setting, and gathering what is wrong with it.

use std::borrow::Cow;

use serde_json::error::Category;
use serde_json::{Map, Number, Value};

use super::SETTINGS;
use crate::error::Error;

/// A configuration as it was written, and the problems found in it so far.
pub(super) struct Form {
    entries: Map<String, Value>,
    problems: Vec<String>,
}

/// Says that a problem with a setting was reported, and that there is no value for it therefore.
#[derive(Debug)]
pub(super) struct Reported(());

/// A row in the table of settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting {
    /// A text.
    Text(Text),
    /// A whole number.
    Integer(Integer),
    /// One of a few words.
    Choice(Choice),
    /// A list of keys with values.
    Pairs(Pairs),
}

impl Setting {
    /// Its name in the configuration.
    pub(crate) const fn key(&self) -> &'static str {
        match self {
            Self::Text(setting) => setting.key,
            Self::Integer(setting) => setting.key,
            Self::Choice(setting) => setting.key,
            Self::Pairs(setting) => setting.key,
        }
    }
}

/// A setting that is a text. Blank, null and absent are one and the same: not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Text {
    /// Its name in the configuration.
    pub(crate) key: &'static str,
    /// Whether its value must never be shown.
    pub(crate) secret: bool,
}

/// A setting that is a whole number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Integer {
    /// Its name in the configuration.
    pub(crate) key: &'static str,
    /// Its value where it is not set; none where that means something of its own.
    pub(crate) default: Option<u32>,
    /// The smallest value allowed.
    pub(crate) minimum: u32,
    /// The largest value allowed.
    pub(crate) maximum: u32,
}

/// A setting that is one of a few words, in the spelling that is given here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Its name in the configuration.
    pub(crate) key: &'static str,
    /// The words. The first is the default.
    pub(crate) options: &'static [&'static str],
}

/// A setting that is a list of objects, each with a `key` and a `value`: a form can show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pairs {
    /// Its name in the configuration.
    pub(crate) key: &'static str,
    /// How many there may be.
    pub(crate) count_max: usize,
    /// Characters of a key, at most.
    pub(crate) key_chars_max: usize,
    /// Characters of a value, at most.
    pub(crate) value_chars_max: usize,
}

impl Text {
    pub(super) const fn new(key: &'static str) -> Self {
        Self { key, secret: false }
    }

    pub(super) const fn secret(key: &'static str) -> Self {
        Self { key, secret: true }
    }
}

/// Why a text is not a valid value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Goes after the key and the value: "is not …".
    reason: &'static str,
    /// What to do.
    advice: &'static str,
    /// What was meant, most likely.
    corrected: Option<String>,
    /// Whether the value may be shown.
    quotable: bool,
}

impl Fault {
    pub(super) const fn new(reason: &'static str, advice: &'static str) -> Self {
        Self {
            reason,
            advice,
            corrected: None,
            quotable: true,
        }
    }

    /// For a value that could carry a secret.
    pub(super) fn unquotable(self) -> Self {
        Self {
            quotable: false,
            ..self
        }
    }

    /// For a value of which one can tell how it was meant.
    pub(super) fn correct_to(self, corrected: String) -> Self {
        Self {
            corrected: Some(corrected),
            ..self
        }
    }

    #[cfg(test)]
    pub(super) fn corrected(&self) -> Option<&str> {
        self.corrected.as_deref()
    }

    #[cfg(test)]
    pub(super) const fn is_quotable(&self) -> bool {
        self.quotable
    }
}

impl Form {
    /// # Errors
    ///
    /// A config error when the text is not a JSON object.
    pub(super) fn parse(text: &[u8]) -> Result<Self, Error> {
        // Some editors put a byte order mark in front.
        let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
        match serde_json::from_slice(text) {
            Ok(Value::Object(entries)) => Ok(Self {
                entries,
                problems: Vec::new(),
            }),
            Ok(other) => Err(Error::config(format!(
                "The configuration must be a JSON object ({{\"region\": …}}), but is {}.",
                type_name(&other)
            ))),
            // The parser's own words could quote the content, so only the place is told.
            Err(error) => Err(Error::config(format!(
                "The configuration is not valid JSON: {} at line {}, column {}. Correct the file there.",
                match error.classify() {
                    Category::Eof => "it ends too early",
                    Category::Syntax | Category::Data | Category::Io => "there is a mistake",
                },
                error.line(),
                error.column()
            ))),
        }
    }

    /// Reads a text, without the white space around it, by way of `parse`. None when it is not set.
    pub(super) fn text<T>(
        &mut self,
        setting: Text,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Result<Option<T>, Reported> {
        match self.entry(Setting::Text(setting)) {
            None => Ok(None),
            Some(Value::String(text)) => match text.trim() {
                "" => Ok(None),
                text => parse(text)
                    .map(Some)
                    .map_err(|fault| self.report_text(setting, text, fault)),
            },
            Some(other) => Err(self.report(format!(
                "{} must be a text, but is {}: write a text in quotes",
                setting.key,
                if setting.secret {
                    type_name(&other).into()
                } else {
                    self.describe(&other)
                }
            ))),
        }
    }

    /// Reads a whole number; its default when it is not set.
    pub(super) fn integer(&mut self, setting: Integer) -> Result<Option<u32>, Reported> {
        let Integer {
            key,
            default,
            minimum,
            maximum,
        } = setting;
        let value = match self.entry(Setting::Integer(setting)) {
            None => return Ok(default),
            // Where a field of a form was cleared.
            Some(Value::String(text)) if text.trim().is_empty() => return Ok(default),
            Some(value) => value,
        };
        if let Value::Number(number) = &value
            && let Some(number) = whole(number)
            && (minimum..=maximum).contains(&number)
        {
            return Ok(Some(number));
        }
        let is_number_in_quotes = value
            .as_str()
            .is_some_and(|text| text.trim().parse::<f64>().is_ok());
        let quotes = if is_number_in_quotes {
            ", without quotes around it"
        } else {
            ""
        };
        let or_default = default.map_or_else(String::new, |default| {
            format!(" for the default, {default}")
        });
        Err(self.report(format!(
            "{key} must be a whole number from {minimum} to {maximum}{quotes}, but is {}: change it, or leave it \
             out{or_default}",
            self.describe(&value)
        )))
    }

    /// Reads one of a few words, in any case, and gives its place among them; the first when it is not set.
    pub(super) fn choice(&mut self, setting: Choice) -> Result<usize, Reported> {
        let value = match self.entry(Setting::Choice(setting)) {
            None => return Ok(0),
            Some(Value::String(text)) if text.trim().is_empty() => return Ok(0),
            Some(value) => value,
        };
        let chosen = value.as_str().and_then(|text| {
            setting
                .options
                .iter()
                .position(|option| option.eq_ignore_ascii_case(text.trim()))
        });
        chosen.ok_or_else(|| {
            self.report(format!(
                "{} must be one of {}, but is {}: change it, or leave it out for the default, {}",
                setting.key,
                setting.options.join(", "),
                self.describe(&value),
                setting.options[0]
            ))
        })
    }

    /// Reads a list of keys with values; an empty one when it is not set.
    pub(super) fn pairs(&mut self, setting: Pairs) -> Result<Vec<(String, String)>, Reported> {
        let Pairs {
            key,
            count_max,
            key_chars_max,
            value_chars_max,
        } = setting;
        let items = match self.entry(Setting::Pairs(setting)) {
            None => return Ok(Vec::new()),
            Some(Value::String(text)) if text.trim().is_empty() => return Ok(Vec::new()),
            Some(Value::Array(items)) => items,
            Some(other) => {
                return Err(self.report(format!(
                    "{key} must be a list of objects, each with a key and a value, but is {}: write [{{\"key\": \"team\", \
                     \"value\": \"data\"}}]",
                    self.describe(&other)
                )));
            }
        };
        if items.len() > count_max {
            return Err(self.report(format!(
                "{key} has {} entries: leave {count_max} at most",
                items.len()
            )));
        }
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (number, item) in (1..).zip(&items) {
            let text = |field: &str| item.get(field).and_then(Value::as_str);
            let (Some(name), value) = (text("key"), text("value").unwrap_or_default()) else {
                return Err(self.report(format!(
                    "entry {number} of {key} has no text in its key: fill it in"
                )));
            };
            let fits = |text: &str, max: usize| text.chars().count() <= max;
            if name.is_empty() || !fits(name, key_chars_max) || !fits(value, value_chars_max) {
                return Err(self.report(format!(
                    "entry {number} of {key} is empty or too long: a key has 1 to {key_chars_max} characters, and a value \
                     {value_chars_max} at most"
                )));
            }
            if pairs.iter().any(|(other, _)| other == name) {
                return Err(self.report(format!(
                    "entry {number} of {key} repeats a key: leave one of them"
                )));
            }
            pairs.push((name.to_owned(), value.to_owned()));
        }
        Ok(pairs)
    }

    /// Notes a problem: a sentence without its full stop.
    pub(super) fn report(&mut self, problem: String) -> Reported {
        self.problems.push(problem);
        Reported(())
    }

    /// What was read, unless a problem was found.
    ///
    /// # Errors
    ///
    /// One config error with all the problems.
    pub(super) fn finish<T>(self, read: impl FnOnce() -> Result<T, Reported>) -> Result<T, Error> {
        match (read(), self.problems.as_slice()) {
            (Ok(value), []) => Ok(value),
            (_, [problem]) => Err(Error::config(format!("In the configuration, {problem}."))),
            (_, problems) => {
                let list: Vec<_> = (1..)
                    .zip(problems)
                    .map(|(number, problem)| format!(" ({number}) {problem}."))
                    .collect();
                Err(Error::config(format!(
                    "The configuration has {} problems.{}",
                    problems.len(),
                    list.concat()
                )))
            }
        }
    }

    /// What stands under a setting's key. None for null.
    fn entry(&mut self, setting: Setting) -> Option<Value> {
        debug_assert!(
            SETTINGS.contains(&setting),
            "{setting:?} is not in the table"
        );
        self.entries
            .get(setting.key())
            .filter(|value| !value.is_null())
            .cloned()
    }

    fn report_text(&mut self, setting: Text, text: &str, fault: Fault) -> Reported {
        let shown = if setting.secret || !fault.quotable {
            None
        } else {
            self.quote(text)
        };
        let key = setting.key;
        let reason = fault.reason;
        self.report(match (shown, fault.corrected) {
            (Some(shown), Some(corrected)) => {
                format!("{key} {shown} {reason}: write {corrected} instead")
            }
            (Some(shown), None) => format!("{key} {shown} {reason}: {}", fault.advice),
            (None, _) => format!("{key} (not shown here) {reason}: {}", fault.advice),
        })
    }

    /// A value of a setting that is not secret, to be shown.
    fn describe(&self, value: &Value) -> Cow<'static, str> {
        match value {
            Value::Bool(_) | Value::Number(_) => value.to_string().into(),
            Value::String(text) => match self.quote(text) {
                Some(quoted) => format!("the text {quoted}").into(),
                None => format!("a text of {} characters", text.chars().count()).into(),
            },
            Value::Null | Value::Array(_) | Value::Object(_) => type_name(value).into(),
        }
    }

    /// The text in quotes, unless it could be a secret that was pasted into the wrong field.
    fn quote(&self, text: &str) -> Option<String> {
        /// An AWS access key id has 20 letters and digits, a secret key 40, in base64; no region, no number and hardly a host name
        /// has that many in a row.
        const KEY_CHARS_MIN: usize = 20;
        /// Enough to recognise one's own value.
        const SHOWN_BYTES_MAX: usize = 200;
        /// Shorter secrets, as emulators have them ("test"), may well be part of something harmless.
        const SECRET_BYTES_MIN: usize = 8;

        let is_like_a_key = text
            .split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '+' | '/' | '='))
            .any(|run| run.len() >= KEY_CHARS_MIN);
        let repeats_a_secret = self.secrets().any(|secret| {
            text.trim() == secret || secret.len() >= SECRET_BYTES_MIN && text.contains(secret)
        });
        (text.len() <= SHOWN_BYTES_MAX && !is_like_a_key && !repeats_a_secret)
            .then(|| format!("{text:?}"))
    }

    fn secrets(&self) -> impl Iterator<Item = &str> {
        SETTINGS.iter().filter_map(|setting| match setting {
            Setting::Text(Text { key, secret: true }) => {
                self.entries.get(*key)?.as_str().map(str::trim)
            }
            Setting::Text(_) | Setting::Integer(_) | Setting::Choice(_) | Setting::Pairs(_) => None,
        })
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The number when it is a whole one, also where it was written with a point (`5.0`).
fn whole(number: &Number) -> Option<u32> {
    match number.as_u64() {
        Some(whole) => u32::try_from(whole).ok(),
        None => number
            .as_f64()
            .filter(|number| number.fract() == 0.0)
            .and_then(|number| format!("{number:.0}").parse().ok()),
    }
}
