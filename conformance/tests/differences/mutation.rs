//! Small changes to texts and bytes.

use rand::{Rng as _, rngs::StdRng};

/// Characters at which parsers part ways.
const CHARACTERS: [char; 24] = [
    'a', 'Z', '0', '/', '.', '-', '_', ':', '@', '%', '?', '#', '\\', ' ', '~', '!', '$', '*', '{', '\u{e9}',
    '\u{ff0f}', '\0', '\n', '[',
];

pub(crate) fn one_of<'a, T>(random: &mut StdRng, choices: &'a [T]) -> &'a T {
    &choices[random.random_range(0..choices.len())]
}

/// One time of so many.
pub(crate) fn once_in(random: &mut StdRng, times: u32) -> bool {
    random.random_ratio(1, times)
}

/// `text` with up to three characters inserted, removed, replaced or repeated.
pub(crate) fn text(random: &mut StdRng, text: &str) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    for _ in 0..random.random_range(0..=3) {
        let at = random.random_range(0..=characters.len());
        let character = *one_of(random, &CHARACTERS);
        match random.random_range(0..4) {
            0 => characters.insert(at, character),
            1 if at < characters.len() => drop(characters.remove(at)),
            2 if at < characters.len() => characters[at] = character,
            _ if at < characters.len() => {
                let piece: Vec<char> = characters[at..].to_vec();
                characters.splice(at..at, piece);
            }
            _ => {}
        }
    }
    characters.into_iter().collect()
}

/// `bytes` with one to three of them changed, inserted or removed, or cut short.
pub(crate) fn bytes(random: &mut StdRng, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..random.random_range(1..=3) {
        let at = random.random_range(0..bytes.len().max(1)).min(bytes.len().saturating_sub(1));
        match random.random_range(0..4) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.random_range(0..8),
            1 if !bytes.is_empty() => bytes[at] = random.random(),
            2 if !bytes.is_empty() => drop(bytes.remove(at)),
            _ => bytes.insert(at, random.random()),
        }
    }
    bytes
}
