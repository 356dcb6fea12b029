//! The Huffman code of HPACK (RFC 7541, section 5.2 and appendix B), decoding only. The code is canonical, so only the
//! lengths of its 257 codes are stored.

use super::error::HpackError;

/// The longest code, in bits.
const LONGEST: usize = 30;
const SYMBOLS: usize = 257;
const END_OF_STRING: u16 = 256;

/// Appends the decoded form of `coded` to `out`, which may grow by at most `limit` bytes.
///
/// # Errors
/// The end-of-string symbol, padding of eight bits or more or of zeros (RFC 7541, 5.2), and more than `limit` bytes.
pub(super) fn decode(coded: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), HpackError> {
    let end = out.len().saturating_add(limit);
    let (mut code, mut length) = (0_u32, 0_usize);
    for byte in coded {
        for bit in (0..8).rev() {
            code = (code << 1) | u32::from((byte >> bit) & 1);
            length += 1;
            let Some(symbol) = CODE.symbol(code, length)? else {
                continue;
            };
            if out.len() >= end {
                return Err(HpackError::TooLarge);
            }
            out.push(symbol);
            (code, length) = (0, 0);
        }
    }
    let padding_is_ones = code == (1_u32 << length) - 1;
    if length < 8 && padding_is_ones { Ok(()) } else { Err(HpackError::Huffman) }
}

/// A canonical code: the codes of one length are consecutive, in the order of their symbols.
struct Code {
    /// The first code of each length.
    first: [u32; LONGEST + 1],
    /// How many codes have that length.
    count: [u32; LONGEST + 1],
    /// Where the symbols of that length begin in `symbols`.
    offset: [usize; LONGEST + 1],
    symbols: [u16; SYMBOLS],
}

impl Code {
    /// The byte that `code` of `length` bits stands for, if it is one whole code.
    fn symbol(&self, code: u32, length: usize) -> Result<Option<u8>, HpackError> {
        let (Some(first), Some(count), Some(offset)) =
            (self.first.get(length), self.count.get(length), self.offset.get(length))
        else {
            return Err(HpackError::Huffman);
        };
        let Some(nth) = code.checked_sub(*first).filter(|nth| nth < count) else {
            return Ok(None);
        };
        match self.symbols.get(offset + nth as usize).copied() {
            Some(END_OF_STRING) | None => Err(HpackError::Huffman),
            Some(symbol) => u8::try_from(symbol).map(Some).map_err(|_| HpackError::Huffman),
        }
    }

    #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler: an index out of bounds does not compile")]
    const fn from_lengths(lengths: &[u8; SYMBOLS]) -> Self {
        let mut code =
            Self { first: [0; LONGEST + 1], count: [0; LONGEST + 1], offset: [0; LONGEST + 1], symbols: [0; SYMBOLS] };
        let (mut length, mut next_code, mut next_symbol) = (1, 0_u32, 0);
        while length <= LONGEST {
            next_code <<= 1;
            code.first[length] = next_code;
            code.offset[length] = next_symbol;
            let mut symbol = 0_u16;
            while (symbol as usize) < SYMBOLS {
                if lengths[symbol as usize] as usize == length {
                    code.symbols[next_symbol] = symbol;
                    next_symbol += 1;
                    next_code += 1;
                    code.count[length] += 1;
                }
                symbol += 1;
            }
            length += 1;
        }
        code
    }
}

static CODE: Code = Code::from_lengths(&LENGTHS);

/// The length in bits of the code of each byte, and of the end of the string (RFC 7541, appendix B).
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

#[cfg(test)]
mod tests {
    use super::decode;

    fn decoded(hex: &str) -> Option<Vec<u8>> {
        let coded: Vec<u8> =
            (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect();
        let mut out = Vec::new();
        decode(&coded, 1000, &mut out).ok().map(|()| out)
    }

    /// The examples of RFC 7541, C.4 and C.6.
    #[test]
    fn decodes_the_examples_of_the_standard() {
        for (hex, plain) in [
            ("f1e3c2e5f23a6ba0ab90f4ff", "www.example.com"),
            ("a8eb10649cbf", "no-cache"),
            ("25a849e95ba97d7f", "custom-key"),
            ("25a849e95bb8e8b4bf", "custom-value"),
            ("6402", "302"),
            ("aec3771a4b", "private"),
            ("d07abe941054d444a8200595040b8166e082a62d1bff", "Mon, 21 Oct 2013 20:13:21 GMT"),
            ("9d29ad171863c78f0b97c8e9ae82ae43d3", "https://www.example.com"),
            (
                "94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
                "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
            ),
        ] {
            assert_eq!(decoded(hex).as_deref(), Some(plain.as_bytes()), "{hex}");
        }
    }

    #[test]
    fn refuses_padding_that_is_long_or_not_of_ones_and_the_end_of_the_string() {
        assert_eq!(decoded("07ff"), None, "eleven bits of padding after 0");
        assert_eq!(decoded("00"), None, "zeros after the code of 0");
        assert_eq!(decoded("fffffffc"), None, "the end of the string itself");
        assert_eq!(decoded("ffffffff"), None);
    }

    #[test]
    fn stops_at_the_limit() {
        let mut out = Vec::new();
        assert!(decode(&[0; 100], 10, &mut out).is_err());
        assert!(out.len() <= 10);
    }
}
