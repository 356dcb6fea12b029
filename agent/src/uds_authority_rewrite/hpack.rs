//! An HPACK decoder (RFC 7541) that keeps the state of a client's compression within fixed limits, and an encoder without
//! compression. Published decoders bound neither the decoded size nor the work that a block can cause.

use std::collections::VecDeque;

use super::error::HpackError;
use super::huffman;
use super::limits::{DYNAMIC_TABLE_SIZE, MAX_HEADER_LIST};

/// What an entry costs beyond its bytes (RFC 7541, 4.1).
const ENTRY_OVERHEAD: usize = 32;

/// A header field, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    /// Lower case by the standard, which is not checked here.
    pub(super) name: Vec<u8>,
    /// Any bytes.
    pub(super) value: Vec<u8>,
    /// Whether the client asked that it never be indexed (RFC 7541, 6.2.3).
    pub(super) never_indexed: bool,
}

/// The decoding side of one connection's compression.
#[derive(Debug)]
pub(super) struct Decoder {
    table: VecDeque<(Vec<u8>, Vec<u8>)>,
    size: usize,
    max_size: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { table: VecDeque::new(), size: 0, max_size: DYNAMIC_TABLE_SIZE }
    }
}

impl Decoder {
    /// The fields of one whole header block.
    ///
    /// # Errors
    /// See [`HpackError`]. The decoder's state is undefined afterwards: the connection must end.
    pub(super) fn decode(&mut self, block: &[u8]) -> Result<Vec<Field>, HpackError> {
        let mut input = Input(block);
        let mut fields = Vec::new();
        let mut remaining = MAX_HEADER_LIST;
        while let Some(first) = input.peek() {
            let field = match first {
                0x80.. => self.indexed(input.integer(7)?)?,
                0x40.. => {
                    let field = self.literal(&mut input, 6, remaining)?;
                    self.insert(&field);
                    field
                }
                0x20.. => {
                    let size = input.integer(5)?;
                    if size > DYNAMIC_TABLE_SIZE || !fields.is_empty() {
                        return Err(HpackError::TableSize);
                    }
                    self.max_size = size;
                    self.evict(0);
                    continue;
                }
                _ => Field { never_indexed: first & 0x10 != 0, ..self.literal(&mut input, 4, remaining)? },
            };
            let cost = field.name.len() + field.value.len() + ENTRY_OVERHEAD;
            remaining = remaining.checked_sub(cost).ok_or(HpackError::TooLarge)?;
            fields.push(field);
        }
        Ok(fields)
    }

    fn literal(&self, input: &mut Input<'_>, prefix: u8, limit: usize) -> Result<Field, HpackError> {
        let name = match input.integer(prefix)? {
            0 => input.string(limit)?,
            index => self.indexed(index)?.name,
        };
        Ok(Field { name, value: input.string(limit)?, never_indexed: false })
    }

    fn indexed(&self, index: usize) -> Result<Field, HpackError> {
        let index = index.checked_sub(1).ok_or(HpackError::Index)?;
        let (name, value) = match STATIC_TABLE.get(index) {
            Some((name, value)) => (name.as_bytes(), value.as_bytes()),
            None => {
                let (name, value) = self.table.get(index - STATIC_TABLE.len()).ok_or(HpackError::Index)?;
                (name.as_slice(), value.as_slice())
            }
        };
        Ok(Field { name: name.to_vec(), value: value.to_vec(), never_indexed: false })
    }

    /// An entry larger than the table empties it and is not kept (RFC 7541, 4.4).
    fn insert(&mut self, field: &Field) {
        let cost = field.name.len() + field.value.len() + ENTRY_OVERHEAD;
        self.evict(cost);
        if cost <= self.max_size {
            self.size += cost;
            self.table.push_front((field.name.clone(), field.value.clone()));
        }
    }

    /// Makes room for `incoming` bytes.
    fn evict(&mut self, incoming: usize) {
        while self.size + incoming > self.max_size {
            let Some((name, value)) = self.table.pop_back() else {
                return;
            };
            self.size -= name.len() + value.len() + ENTRY_OVERHEAD;
        }
    }
}

/// Appends `field` as a literal without indexing, without Huffman code.
pub(super) fn encode(field: &Field, out: &mut Vec<u8>) {
    out.push(if field.never_indexed { 0x10 } else { 0 });
    for bytes in [&field.name, &field.value] {
        encode_length(bytes.len(), out);
        out.extend_from_slice(bytes);
    }
}

/// An integer of a seven-bit prefix, the eighth bit clear (RFC 7541, 5.1).
fn encode_length(length: usize, out: &mut Vec<u8>) {
    const PREFIX: usize = 0x7f;
    if length < PREFIX {
        out.push((length & PREFIX) as u8);
        return;
    }
    out.push(PREFIX as u8);
    let mut rest = length - PREFIX;
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push((rest & 0x7f) as u8);
}

/// The rest of a block.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn byte(&mut self) -> Result<u8, HpackError> {
        let (first, rest) = self.0.split_first().ok_or(HpackError::Truncated)?;
        self.0 = rest;
        Ok(*first)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], HpackError> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(HpackError::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    /// An integer whose first byte has `prefix` bits of it (RFC 7541, 5.1), up to four further bytes.
    fn integer(&mut self, prefix: u8) -> Result<usize, HpackError> {
        let mask = (1_usize << prefix) - 1;
        let mut value = usize::from(self.byte()?) & mask;
        if value < mask {
            return Ok(value);
        }
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(HpackError::Integer)
    }

    fn string(&mut self, limit: usize) -> Result<Vec<u8>, HpackError> {
        let huffman = self.peek().is_some_and(|byte| byte & 0x80 != 0);
        let length = self.integer(7)?;
        let bytes = self.take(length)?;
        if !huffman {
            return if length > limit { Err(HpackError::TooLarge) } else { Ok(bytes.to_vec()) };
        }
        let mut out = Vec::with_capacity(length.saturating_mul(8).div_ceil(5).min(limit));
        huffman::decode(bytes, limit, &mut out)?;
        Ok(out)
    }
}

/// RFC 7541, appendix A; the first has index 1.
#[rustfmt::skip]
const STATIC_TABLE: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""), ("cache-control", ""),
    ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""), ("etag", ""),
    ("expect", ""), ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""), ("if-modified-since", ""),
    ("if-none-match", ""), ("if-range", ""), ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""),
    ("location", ""), ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""), ("via", ""),
    ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use super::{DYNAMIC_TABLE_SIZE, Decoder, Field, HpackError, MAX_HEADER_LIST, encode};

    fn bytes(hex: &str) -> Vec<u8> {
        let hex: String = hex.split_whitespace().collect();
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
    }

    fn pairs(fields: &[Field]) -> Vec<(&str, &str)> {
        fields.iter().map(|f| (std::str::from_utf8(&f.name).unwrap(), std::str::from_utf8(&f.value).unwrap())).collect()
    }

    /// RFC 7541, C.4: three requests of one connection, Huffman coded, the dynamic table growing.
    #[test]
    fn decodes_the_requests_of_the_standard() {
        let mut decoder = Decoder::default();
        let first = decoder.decode(&bytes("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff")).unwrap();
        assert_eq!(
            pairs(&first),
            [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")]
        );
        let second = decoder.decode(&bytes("8286 84be 5886 a8eb 1064 9cbf")).unwrap();
        assert_eq!(pairs(&second)[3..], [(":authority", "www.example.com"), ("cache-control", "no-cache")]);
        let third = decoder.decode(&bytes("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf")).unwrap();
        assert_eq!(pairs(&third)[3..], [(":authority", "www.example.com"), ("custom-key", "custom-value")]);
        assert_eq!(decoder.size, 164);
    }

    #[test]
    fn evicts_what_the_table_cannot_hold() {
        let mut decoder = Decoder { max_size: 80, ..Decoder::default() };
        decoder.decode(&bytes("40 01 61 01 31  40 01 62 01 32")).unwrap();
        assert_eq!(decoder.table.len(), 2);
        decoder.decode(&bytes("40 01 63 01 33")).unwrap();
        assert_eq!(decoder.table.len(), 2);
        assert_eq!(pairs(&decoder.decode(&bytes("be bf")).unwrap()), [("c", "3"), ("b", "2")]);
        assert_eq!(decoder.decode(&bytes("20 be")), Err(HpackError::Index), "size zero empties the table");
    }

    #[test]
    fn refuses_what_the_standard_refuses() {
        for (hex, why) in [
            ("80", HpackError::Index),
            ("be", HpackError::Index),
            ("40 05 61", HpackError::Truncated),
            ("ff ff ff ff ff ff", HpackError::Integer),
            ("82 20", HpackError::TableSize),
            ("3f e2 1f", HpackError::TableSize),
        ] {
            assert_eq!(Decoder::default().decode(&bytes(hex)), Err(why), "{hex}");
        }
    }

    /// One large entry, named again and again: a few bytes that would become megabytes.
    #[test]
    fn a_small_block_cannot_become_a_large_list() {
        let mut block = bytes("40 01 61 7f 81 1e");
        block.extend(vec![b'x'; 4000]);
        block.extend(vec![0xbe; 1000]);
        assert_eq!(Decoder::default().decode(&block), Err(HpackError::TooLarge));
        let huffman_of_zeros = [bytes("00 01 61 ff 80 fe 01"), vec![0; MAX_HEADER_LIST]].concat();
        assert!(Decoder::default().decode(&huffman_of_zeros).is_err());
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(
            fields in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..300), prop::collection::vec(any::<u8>(), 0..300), any::<bool>()), 0..20)
        ) {
            let fields: Vec<Field> = fields.into_iter().map(|(name, value, never_indexed)| Field { name, value, never_indexed }).collect();
            let mut block = Vec::new();
            fields.iter().for_each(|field| encode(field, &mut block));
            prop_assert_eq!(Decoder::default().decode(&block), Ok(fields));
        }

        #[test]
        fn never_panics_and_keeps_its_table_within_bounds(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..10)) {
            let mut decoder = Decoder::default();
            for block in blocks {
                let _ = decoder.decode(&block);
                assert!(decoder.size <= DYNAMIC_TABLE_SIZE);
                assert_eq!(decoder.size, decoder.table.iter().map(|(n, v)| n.len() + v.len() + 32).sum::<usize>());
            }
        }
    }
}
