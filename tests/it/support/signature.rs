//! What AWS does first with a request: it looks whether the signature fits it
//! ([Signature Version 4](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html)).
//!
//! The emulator does not, so this is done here for every request of every test.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::front::Head;
use super::program::{ACCESS_KEY, PRIVATE_KEY};

/// Whether a request is signed with its headers and its body. Only the tests' usual credentials are known here:
/// what is signed with others passes.
pub(super) fn fits(head: &Head, body: &[u8]) -> bool {
    let authorization = head.get("authorization").unwrap_or_default();
    let part = |name: &str| {
        let (_, rest) = authorization.split_once(name)?;
        rest.split(',').next()
    };
    let scope = part("Credential=").and_then(|credential| credential.split_once('/'));
    let Some((ACCESS_KEY, scope)) = scope else {
        return true;
    };
    let names = part("SignedHeaders=").unwrap_or_default();
    let signed: String = names
        .split(';')
        .map(|name| format!("{name}:{}\n", head.get(name).unwrap_or_default()))
        .collect();
    let request = format!(
        "POST\n/\n\n{signed}\n{names}\n{}",
        hex(&Sha256::digest(body))
    );
    let time = head.get("x-amz-date").unwrap_or_default();
    let text = format!(
        "AWS4-HMAC-SHA256\n{time}\n{scope}\n{}",
        hex(&Sha256::digest(request))
    );
    let secret = format!("AWS4{PRIVATE_KEY}").into_bytes();
    let key = scope.split('/').fold(secret, |key, part| mac(&key, part));
    part("Signature=") == Some(&hex(&mac(&key, &text)))
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
