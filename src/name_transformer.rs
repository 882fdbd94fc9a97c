//! Which Kinesis stream an Airbyte stream goes to.
//!
//! The rules are those of the first, Java, edition of this connector, down to its idea of white space: a consumer that
//! reads a stream must find it under the same name after an upgrade.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Longest stream name in characters, which here are all ASCII: `StreamName` in the
/// [API reference](https://docs.aws.amazon.com/kinesis/latest/APIReference/API_CreateStream.html).
pub const STREAM_NAME_CHARS_MAX: usize = 128;

/// The name of the Kinesis stream for the Airbyte stream `name` in `namespace`.
///
/// `<namespace>_<name>`, where a missing namespace counts as empty. Accents are dropped (NFKD, then all combining marks),
/// a run of ASCII white space becomes one `_`, any other character outside `[A-Za-z0-9_]` one `_` each, and what is longer than
/// [`STREAM_NAME_CHARS_MAX`] is cut. Two streams can come out at one name.
#[must_use]
pub fn stream_name(namespace: Option<&str>, name: &str) -> String {
    to_allowed_characters(&[namespace.unwrap_or_default(), "_", name].concat())
}

fn to_allowed_characters(text: &str) -> String {
    let mut allowed = String::with_capacity(STREAM_NAME_CHARS_MAX);
    let mut in_white_space = false;
    // The marks go first: white space around a dropped mark is one run.
    for character in text.nfkd().filter(|&c| !is_combining_mark(c)) {
        let after_white_space = in_white_space;
        in_white_space = is_java_white_space(character);
        if in_white_space && after_white_space {
            continue;
        }
        if allowed.len() == STREAM_NAME_CHARS_MAX {
            break;
        }
        allowed.push(if is_allowed(character) {
            character
        } else {
            '_'
        });
    }
    allowed
}

fn is_allowed(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// What `\s` matches in a Java pattern. Unlike [`char::is_ascii_whitespace`] it has the vertical tab.
fn is_java_white_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\x0B' | '\x0C' | '\r')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The rules once more, one pass for each and as plain as can be.
    fn reference(namespace: Option<&str>, name: &str) -> String {
        let joined = format!("{}_{name}", namespace.unwrap_or(""));
        let decomposed: String = joined.nfkd().collect();
        let without_marks: Vec<char> = decomposed
            .chars()
            .filter(|&c| !is_combining_mark(c))
            .collect();

        let mut single_spaced = Vec::new();
        for c in without_marks {
            let white = [' ', '\t', '\n', '\u{B}', '\u{C}', '\r'].contains(&c);
            if !white {
                single_spaced.push(c);
            } else if single_spaced.last() != Some(&'\0') {
                single_spaced.push('\0'); // stands for one run
            }
        }
        single_spaced
            .into_iter()
            .map(|c| if is_allowed(c) { c } else { '_' })
            .take(128)
            .collect()
    }

    #[test]
    fn examples() {
        for (namespace, name, expected) in [
            (Some("namespace"), "stream", "namespace_stream"),
            (Some("**namespace^h"), "##stream", "__namespace_h___stream"),
            (None, "users", "_users"),
            (Some(""), "users", "_users"),
            (Some("Public"), "Users", "Public_Users"),
            (None, "", "_"),
            (None, "a.b-c", "_a_b_c"),
            // White space: one `_` for a run, the vertical tab included.
            (None, "a \t\n\x0B\x0C\r b", "_a_b"),
            (Some(" a "), " b ", "_a___b_"),
            (None, "a - b", "_a___b"),
            // A no-break space becomes a blank under NFKD; the information separators are not white space in Java.
            (None, "a\u{A0} b", "_a_b"),
            (None, "a\x1C\x1Db", "_a__b"),
            (None, "a\u{85}b", "_a_b"),
            // Accents and compatibility forms.
            (Some("café"), "Ünïcödé", "cafe_Unicode"),
            (None, "cafe\u{301}", "_cafe"),
            (None, "ﬁle½", "_file1_2"),
            (None, "Å", "_A"),
            (None, "a \u{301} b", "_a_b"),
            // A spacing mark (Mc) and an enclosing one (Me) are marks as well.
            (None, "a\u{903}b\u{20DD}", "_ab"),
            // One `_` for a code point, not for each of its UTF-16 halves.
            (None, "日本", "___"),
            (None, "😀", "__"),
            // A letter without a decomposition stays foreign.
            (None, "øß", "___"),
        ] {
            assert_eq!(
                stream_name(namespace, name),
                expected,
                "{namespace:?} {name:?}"
            );
        }
    }

    #[test]
    fn a_name_is_cut_at_128_characters() {
        assert_eq!(stream_name(None, &"x".repeat(127)).len(), 128);
        assert_eq!(
            stream_name(Some("n"), &"é".repeat(500)),
            format!("n_{}", "e".repeat(126))
        );
        // The cut comes last: what is dropped or joined on the way does not count.
        let spaced = format!("{}{}", " \u{301}".repeat(200), "x".repeat(126));
        assert_eq!(stream_name(None, &spaced), format!("__{}", "x".repeat(126)));
    }

    fn any_name() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            "[\\PCa-zA-Z0-9_ \t\n\x0B\x0C\r\u{A0}\u{301}é]{0,40}",
            "[ \t\n\x0B\x0C\r\\p{M}ab]{0,300}",
        ]
    }

    proptest! {
        #[test]
        fn equals_the_reference(namespace in prop::option::of(any_name()), name in any_name()) {
            prop_assert_eq!(stream_name(namespace.as_deref(), &name), reference(namespace.as_deref(), &name));
        }

        #[test]
        fn has_only_allowed_characters_and_never_too_many(namespace in prop::option::of(any_name()), name in any_name()) {
            let result = stream_name(namespace.as_deref(), &name);
            prop_assert!(result.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{}", result);
            prop_assert!((1..=128).contains(&result.len()));
        }

        #[test]
        fn a_plain_name_stays_as_it_is(namespace in "[A-Za-z0-9_]{0,50}", name in "[A-Za-z0-9_]{0,50}") {
            prop_assert_eq!(stream_name(Some(&namespace), &name), format!("{namespace}_{name}"));
        }

        #[test]
        fn a_second_pass_changes_nothing(name in any_name()) {
            let once = to_allowed_characters(&name);
            prop_assert_eq!(to_allowed_characters(&once), once);
        }

        #[test]
        fn every_combining_mark_is_dropped(marks in "\\p{M}{1,5}") {
            prop_assert_eq!(stream_name(None, &format!("a{marks}b")), "_ab");
        }
    }
}
