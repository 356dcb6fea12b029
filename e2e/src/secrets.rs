//! Search for secrets that must not appear in a text: every key and token that the tests have recorded, in every encoding.
//!
//! The tests are several programs, so what they record is kept in one file until the search is over. Its keys are those of
//! test pods that no longer exist by then.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use aho_corasick::{AhoCorasick, BuildError};
use anyhow::{Context as _, Result, ensure};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};

use crate::Cluster;

/// The file of recorded secrets.
#[derive(Debug)]
pub struct RecordedSecrets(PathBuf);

impl RecordedSecrets {
    /// The secrets recorded on this cluster.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub async fn of(cluster: &Cluster) -> Result<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/e2e");
        std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        Ok(Self(folder.join(format!("seen-{}", cluster.uid().await?))))
    }

    /// Records the private key in a PEM text.
    ///
    /// # Errors
    /// The text has no private key, or the file cannot be written.
    pub fn key(&self, pem: &[u8]) -> Result<()> {
        let key = PrivateKeyDer::from_pem_slice(pem).context("no private key in the PEM")?;
        self.add("key", &STANDARD.encode(key.secret_der()))
    }

    /// Records a token (JWS compact).
    ///
    /// # Errors
    /// It is not a token, or the file cannot be written.
    pub fn token(&self, token: &str) -> Result<()> {
        ensure!(token.split('.').count() == 3, "a token has three parts");
        self.add("token", token)
    }

    /// All recorded secrets, each with a name that does not reveal it.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn secrets(&self) -> Result<Vec<Secret>> {
        let text = match std::fs::read_to_string(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).context("read what was seen"),
        };
        let lines: BTreeSet<_> = text.lines().collect();
        lines
            .into_iter()
            .enumerate()
            .map(|(number, line)| match line.split_once(' ').context("a line of what was seen")? {
                ("key", der) => Ok(Secret::key(format!("key {number}"), &STANDARD.decode(der)?)),
                (_, token) => Ok(Secret::token(format!("token {number}"), token)),
            })
            .collect()
    }

    /// Deletes the file.
    ///
    /// # Errors
    /// The file cannot be deleted.
    pub fn clear(self) -> Result<()> {
        std::fs::remove_file(self.0).context("remove what was seen")
    }

    fn add(&self, kind: &str, value: &str) -> Result<()> {
        let mut file =
            OpenOptions::new().create(true).append(true).mode(0o600).open(&self.0).context("open what was seen")?;
        // One write for each line: other tests write too.
        file.write_all(format!("{kind} {value}\n").as_bytes()).context("remember what was seen")
    }
}

/// A secret to search for.
pub struct Secret {
    /// Its name in messages.
    pub name: String,
    /// The encodings that reveal it, without white space.
    forms: BTreeSet<String>,
}

impl Secret {
    /// A private key (PKCS#8, DER).
    #[must_use]
    pub fn key(name: String, der: &[u8]) -> Self {
        Self { name, forms: key_forms(der) }
    }

    /// A token (JWS compact).
    #[must_use]
    pub fn token(name: String, token: &str) -> Self {
        Self { name, forms: token_forms(token) }
    }
}

/// Finds secrets in texts.
pub struct Search {
    automaton: AhoCorasick,
    names: Vec<String>,
    /// The number of bytes searched, by kind of place.
    pub searched: BTreeMap<String, usize>,
}

impl Search {
    /// Prepares a search for `secrets`.
    ///
    /// # Errors
    /// There are too many.
    pub fn new(secrets: &[Secret]) -> Result<Self, BuildError> {
        let (mut forms, mut names) = (Vec::new(), Vec::new());
        for secret in secrets {
            for form in &secret.forms {
                forms.push(form.as_str());
                names.push(secret.name.clone());
            }
        }
        Ok(Self { automaton: AhoCorasick::new(forms)?, names, searched: BTreeMap::new() })
    }

    /// The names of the secrets found in a text; `place` is the kind of place of the text.
    pub fn find(&mut self, place: &str, text: &str) -> BTreeSet<String> {
        *self.searched.entry(place.to_owned()).or_default() += text.len();
        // PEM has line breaks, JSON escapes them, and lists of numbers contain spaces.
        let squeezed: String =
            text.replace("\\n", "").replace("\\r", "").chars().filter(|c| !c.is_whitespace()).collect();
        let found = self.automaton.find_overlapping_iter(&squeezed);
        found.filter_map(|found| self.names.get(found.pattern().as_usize()).cloned()).collect()
    }
}

/// The forms that reveal a private key: its secret part in any encoding, alone or within a longer value.
fn key_forms(der: &[u8]) -> BTreeSet<String> {
    forms(private_part(der))
}

/// The forms that reveal a token: its signed claims, or the signature.
fn token_forms(token: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for part in token.split('.').skip(1).filter(|part| !part.is_empty()) {
        all.insert(part.to_owned());
        all.extend(forms(part.as_bytes()));
        if let Ok(bytes) = URL_SAFE_NO_PAD.decode(part) {
            all.extend(forms(&bytes));
        }
    }
    all
}

/// The private scalar of an EC key in PKCS#8 (RFC 5915: version 1, then an octet string); for other keys, the whole key.
fn private_part(der: &[u8]) -> &[u8] {
    for (mark, length) in [([2, 1, 1, 4, 32], 32), ([2, 1, 1, 4, 48], 48)] {
        if let Some(at) = der.windows(mark.len()).position(|window| window == mark)
            && let Some(scalar) = der.get(at + mark.len()..at + mark.len() + length)
        {
            return scalar;
        }
    }
    der
}

/// Hexadecimal, list of numbers, and Base64.
fn forms(bytes: &[u8]) -> BTreeSet<String> {
    let hex = |between: &str, upper: bool| {
        let digits = bytes.iter().map(|byte| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") });
        digits.collect::<Vec<_>>().join(between)
    };
    let mut all = BTreeSet::from([hex("", false), hex("", true), hex(":", false), hex(":", true)]);
    all.insert(bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(","));
    all.append(&mut base64_forms(bytes));
    all
}

/// Base64 at each of the three alignments within a longer value.
pub(crate) fn base64_forms(bytes: &[u8]) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for offset in 0..3 {
        let shifted = [&vec![0; offset], bytes].concat();
        for encoded in [STANDARD_NO_PAD.encode(&shifted), URL_SAFE_NO_PAD.encode(&shifted)] {
            // The first and the last character may include bits of the neighbouring bytes.
            let from = (offset * 8).div_ceil(6);
            let to = shifted.len() * 8 / 6;
            all.extend(encoded.get(from..to).map(str::to_owned));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(secret: Secret) -> Search {
        Search::new(&[secret]).unwrap()
    }

    fn ec_key() -> rcgen::KeyPair {
        rcgen::KeyPair::generate().unwrap()
    }

    #[test]
    fn a_key_is_found_in_every_form() {
        let key = ec_key();
        let der = key.serialize_der();
        let scalar = private_part(&der);
        assert_eq!(scalar.len(), 32);
        let mut search = search(Secret::key("key".to_owned(), &der));
        let pem = key.serialize_pem();
        for text in [
            pem.clone(),
            serde_json::json!({ "key": pem }).to_string(),
            STANDARD.encode(&pem),
            format!("dump {:02x?}", scalar).replace(", ", ""),
            format!("{scalar:?}"),
            format!("{:?}", &der),
            URL_SAFE_NO_PAD.encode(scalar),
            STANDARD.encode([b"x", scalar, b"y"].concat()),
            STANDARD.encode([b"xy", scalar, b"z"].concat()),
        ] {
            // The line breaks of a PEM in Base64 are encoded too, so it is searched after decoding.
            let decoded = STANDARD.decode(&text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            assert!(
                !search.find("test", &format!("before {text} after")).is_empty()
                    || decoded.is_some_and(|text| !search.find("test", &text).is_empty()),
                "not found in {text}"
            );
        }
    }

    #[test]
    fn a_token_is_found_whole_and_in_parts() {
        let token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJzcGlmZmU6Ly9hL2IifQ.c2lnbmF0dXJlLXNpZ25hdHVyZQ";
        let mut search = search(Secret::token("token".to_owned(), token));
        for text in [token, "eyJzdWIiOiJzcGlmZmU6Ly9hL2IifQ", "c2lnbmF0dXJlLXNpZ25hdHVyZQ", &STANDARD.encode(token)] {
            assert_eq!(search.find("test", text).len(), 1, "not found in {text}");
        }
        assert!(search.find("test", "eyJhbGciOiJub25lIn0").is_empty(), "the header is no secret");
    }

    #[test]
    fn another_key_is_not_found() {
        let mut search = search(Secret::key("key".to_owned(), &ec_key().serialize_der()));
        assert!(search.find("test", &ec_key().serialize_pem()).is_empty());
    }
}
