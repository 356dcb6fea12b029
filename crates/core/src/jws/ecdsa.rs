//! ECDSA signatures from the form of X.509 to the form of JOSE.

/// `r` and `s` at full width, one after the other (RFC 7518, section 3.4), of an `Ecdsa-Sig-Value`
/// in DER (RFC 3279, section 2.2.3). `coordinate` is the width of one in octets, less than 62.
/// `None` when `der` is not such a value.
pub(crate) fn der_to_fixed(der: &[u8], coordinate: usize) -> Option<Vec<u8>> {
    let [0x30, length, body @ ..] = der else {
        return None;
    };
    if usize::from(*length) != body.len() || *length >= 0x80 {
        return None;
    }
    let (r, rest) = integer(body)?;
    let (s, rest) = integer(rest)?;
    if !rest.is_empty() {
        return None;
    }
    let mut fixed = Vec::with_capacity(2 * coordinate);
    for number in [r, s] {
        fixed.resize(fixed.len() + coordinate.checked_sub(number.len())?, 0);
        fixed.extend_from_slice(number);
    }
    Some(fixed)
}

/// The magnitude of the INTEGER that `der` begins with, and what follows it.
fn integer(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let [0x02, length, rest @ ..] = der else {
        return None;
    };
    let (content, rest) = rest.split_at_checked(usize::from(*length))?;
    match content {
        [0, magnitude @ ..] => Some((magnitude, rest)),
        [first, ..] if first & 0x80 == 0 => Some((content, rest)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::der_to_fixed;

    #[test]
    fn short_numbers_are_padded_and_signs_dropped() {
        let der = [0x30, 0x07, 0x02, 0x01, 0x05, 0x02, 0x02, 0x00, 0xff];
        assert_eq!(der_to_fixed(&der, 2), Some(vec![0, 5, 0, 0xff]));
    }

    #[test]
    fn what_is_not_a_signature_is_none() {
        for der in [
            &[][..],
            &[0x30, 0x03, 0x02, 0x01, 0x05],
            &[0x30, 0x06, 0x02, 0x01, 0x05, 0x02, 0x01, 0x85],
            &[0x30, 0x07, 0x02, 0x01, 0x05, 0x02, 0x01, 0x05, 0x00],
            &[0x30, 0x08, 0x02, 0x03, 0x05, 0x05, 0x05, 0x02, 0x01, 0x05],
            &[0x30, 0x80, 0x02, 0x01, 0x05, 0x02, 0x01, 0x05],
            &[0x30, 0x07, 0x02, 0x01, 0x05, 0x02, 0x01, 0x05],
            &[0x30, 0x06, 0x02, 0x01, 0x05, 0x02, 0x7f, 0x05],
        ] {
            assert_eq!(der_to_fixed(der, 2), None, "{der:02x?}");
        }
    }
}
