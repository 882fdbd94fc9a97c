//! The URL of a Kinesis other than AWS's own.

use std::net::Ipv6Addr;
use std::num::NonZero;

use http::Uri;

use super::form::Fault;

/// Reads an endpoint and brings it into one form: scheme and host in lower case, no slash at the end.
pub(super) fn parse(text: &str) -> Result<String, Fault> {
    // First of all, what may carry a password: nothing of such a text is shown, whatever else is wrong with it.
    if text.contains('@') {
        return Err(Fault::new(
            "has a user name or password in it (all up to the @)",
            "leave that part out; credentials go into accessKey and privateKey",
        )
        .unquotable());
    }
    if text.contains(['?', '#']) {
        return Err(Fault::new(
            "has a query or a fragment (all from the ? or # on)",
            "leave that part out",
        )
        .unquotable());
    }
    if !text.contains("://") {
        let fault = Fault::new(
            "does not begin with http:// or https://",
            "write it as https://host or http://host:port",
        );
        return Err(match parse(&format!("{}://{text}", likely_scheme(text))) {
            Ok(corrected) => fault.correct_to(corrected),
            Err(_) => fault,
        });
    }
    normalise(text).ok_or_else(|| {
        Fault::new(
            "is not a URL with http:// or https://, a host and, where it needs one, a port from 1 to 65535",
            "write a URL such as http://localhost:4566, or clear it to use AWS's own endpoint of the region",
        )
    })
}

fn normalise(text: &str) -> Option<String> {
    // The parser lets some characters pass which never stand in a URL.
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let uri: Uri = text.parse().ok()?;
    let scheme = uri
        .scheme_str()
        .filter(|scheme| matches!(*scheme, "http" | "https"))?;
    let host = uri.host().filter(|host| is_host(host))?;
    let mut endpoint = format!("{scheme}://{}", host.to_ascii_lowercase());
    // It also takes a port that is no number for none at all.
    match uri.authority()?.as_str().strip_prefix(host)? {
        "" => {}
        port => endpoint += &format!(":{}", parse_port(port.strip_prefix(':')?)?),
    }
    endpoint += uri.path().trim_end_matches('/');
    Some(endpoint)
}

fn parse_port(text: &str) -> Option<NonZero<u16>> {
    // A number's parser also takes a sign.
    text.starts_with(|first: char| first.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

/// A name, an IPv4 address, or an IPv6 address in brackets.
fn is_host(host: &str) -> bool {
    if let Some(address) = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    host.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        && host.bytes().any(|byte| byte.is_ascii_alphanumeric())
}

/// Emulators speak plain HTTP on a port of their own, all that is real speaks HTTPS.
fn likely_scheme(text: &str) -> &'static str {
    let host = text.split('/').next().unwrap_or_default();
    let is_public_name = host.contains('.')
        && !host.contains(':')
        && host.bytes().any(|byte| byte.is_ascii_alphabetic());
    if is_public_name { "https" } else { "http" }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn urls_come_out_in_one_form() {
        for (text, expected) in [
            ("http://localhost:4566", "http://localhost:4566"),
            ("http://localhost:4566/", "http://localhost:4566"),
            ("http://localhost:4566///", "http://localhost:4566"),
            (
                "HTTPS://Kinesis.US-East-1.amazonaws.com",
                "https://kinesis.us-east-1.amazonaws.com",
            ),
            ("http://127.0.0.9:80", "http://127.0.0.9:80"),
            ("http://[::1]:4567/", "http://[::1]:4567"),
            ("http://my_kinesis:4566", "http://my_kinesis:4566"),
            (
                "https://proxy.example.com/Kinesis/",
                "https://proxy.example.com/Kinesis",
            ),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_missing_scheme_is_shown_with_the_correction() {
        for (text, corrected) in [
            ("localhost:4566", "http://localhost:4566"),
            ("127.0.0.9", "http://127.0.0.9"),
            ("127.0.0.9/", "http://127.0.0.9"),
            ("[::1]:4566", "http://[::1]:4566"),
            ("kinesis", "http://kinesis"),
            (
                "kinesis.us-east-1.amazonaws.com",
                "https://kinesis.us-east-1.amazonaws.com",
            ),
            (
                "kinesis.example.com:4566",
                "http://kinesis.example.com:4566",
            ),
        ] {
            let fault = parse(text).unwrap_err();
            assert_eq!(fault.corrected(), Some(corrected), "{text}");
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for text in [
            "http://",
            "http:///",
            "http://:4566",
            "http://localhost:",
            "http://localhost:0",
            "http://localhost:65536",
            "http://localhost:+80",
            "http://localhost:port",
            "http://local host",
            "http://localhost:4566/a b",
            "http://exämple.com",
            "http://localhost/ä",
            "http://a,b",
            "http://-",
            "http://[::1",
            "http://::1",
            "http://[x]",
            "ftp://localhost",
            "://localhost",
            "http:/localhost",
            "http:localhost",
            "//localhost",
            "/",
            "http://http://localhost",
        ] {
            let fault = parse(text).unwrap_err();
            assert_eq!(fault.corrected(), None, "{text}");
            assert!(fault.is_quotable(), "{text}");
        }
    }

    #[test]
    fn what_may_carry_a_secret_is_not_to_be_shown() {
        for text in [
            "http://user:password@localhost",
            "https://token@localhost:4566/",
            "user:password@localhost",
            "http://localhost/?token=password",
            "http://localhost#password",
            "localhost?password",
        ] {
            let fault = parse(text).unwrap_err();
            assert!(!fault.is_quotable(), "{text}");
            assert_eq!(fault.corrected(), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_is_a_url_and_stays_as_it_is(text in prop_oneof![
            any::<String>(),
            "(http|https|HTTP|ftp)?(://)?[a-z0-9.:\\[\\]/@?#_-]{0,30}",
            "https?://[a-zA-Z0-9.-]{1,20}(:[0-9]{0,6})?(/[a-z/]{0,10})?",
        ]) {
            let Ok(endpoint) = parse(&text) else { return Ok(()) };
            let uri: Uri = endpoint.parse().unwrap();
            prop_assert!(uri.host().is_some_and(|host| !host.is_empty()));
            prop_assert!(matches!(uri.scheme_str(), Some("http" | "https")));
            prop_assert!(!endpoint.ends_with('/'));
            prop_assert_eq!(parse(&endpoint).unwrap(), endpoint);
        }

        #[test]
        fn every_correction_is_taken(text in prop_oneof![any::<String>(), "[a-z0-9.:/_-]{0,30}"]) {
            if let Err(fault) = parse(&text) && let Some(corrected) = fault.corrected() {
                prop_assert_eq!(&parse(corrected).unwrap(), corrected);
            }
        }
    }
}
