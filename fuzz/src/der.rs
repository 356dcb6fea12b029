//! A minimal DER writer, which wraps fuzzer input into signed structures.

/// A value of any length below 64 KiB.
pub(crate) fn value(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let [.., high, low] = content.len().to_be_bytes();
    let mut der = match content.len() {
        0..0x80 => vec![tag, low],
        0x80..0x100 => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    der.extend(content);
    der
}

/// A signed object in the form of certificates (RFC 5280, 4.1) and requests (RFC 2986, 4.2): `body`, ecdsa-with-SHA256, and
/// the signature.
pub(crate) fn signed(body: &[u8], signature: &[u8]) -> Vec<u8> {
    const ECDSA_WITH_SHA256: [u8; 12] = [0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
    value(0x30, &[body, &ECDSA_WITH_SHA256, &value(0x03, &[&[0], signature])])
}

/// The first of a signed object's three parts, with its tag and length.
pub(crate) fn body(signed: &[u8]) -> &[u8] {
    let inner = &signed[header(signed)..];
    let content = header(inner);
    &inner[..content + length(inner)]
}

fn header(der: &[u8]) -> usize {
    2 + usize::from(der[1].saturating_sub(0x80) * u8::from(der[1] > 0x80))
}

fn length(der: &[u8]) -> usize {
    match der[1] {
        short @ 0..=0x80 => usize::from(short),
        long => der[2..2 + usize::from(long & 0x7f)].iter().fold(0, |length, byte| length << 8 | usize::from(*byte)),
    }
}
