//! The baseline for issuing under load: the three operations that no issuer can avoid, on all processors at the same time. An
//! operator and its callers keep all processors busy, and hyper-threads of one core are slower then.

use std::{
    hint::black_box,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_2048_8192_SHA256,
        RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
    },
};

/// About the length of the signed part of a certificate, a request or a token.
const MESSAGE: [u8; 512] = [0x42; 512];

/// Keys, and a signature by each.
struct Baseline {
    rsa: RsaKeyPair,
    rsa_signature: Vec<u8>,
    p256: EcdsaKeyPair,
    p256_signature: Vec<u8>,
    random: SystemRandom,
}

/// [`microseconds`], measured on threads of its own.
pub(crate) async fn measure(span: Duration) -> Result<f64> {
    tokio::task::spawn_blocking(move || microseconds(span)).await?
}

/// The CPU time in microseconds of one RS256 verification, one P-256 verification and one P-256 signature, with all
/// processors busy.
fn microseconds(span: Duration) -> Result<f64> {
    let baseline = Baseline::new().context("keys for the baseline")?;
    let processors = thread::available_parallelism()?.get();
    let begun = Instant::now();
    let rounds: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..processors).map(|_| scope.spawn(|| baseline.rounds(span))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
            .sum::<Result<usize>>()
    })?;
    Ok(begun.elapsed().as_secs_f64() * 1e6 * processors as f64 / rounds as f64)
}

impl Baseline {
    fn new() -> Result<Self> {
        let random = SystemRandom::new();
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048)?;
        let mut rsa_signature = vec![0; rsa.public_modulus_len()];
        rsa.sign(&RSA_PKCS1_SHA256, &random, &MESSAGE, &mut rsa_signature)?;
        let p256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?;
        let p256_signature = p256.sign(&random, &MESSAGE)?.as_ref().to_vec();
        Ok(Self { rsa, rsa_signature, p256, p256_signature, random })
    }

    fn rounds(&self, span: Duration) -> Result<usize> {
        let rsa = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, self.rsa.public_key());
        let p256 = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.p256.public_key());
        let (begun, mut rounds) = (Instant::now(), 0);
        while begun.elapsed() < span {
            rsa.verify(&MESSAGE, &self.rsa_signature)?;
            p256.verify(&MESSAGE, &self.p256_signature)?;
            black_box(self.p256.sign(&self.random, &MESSAGE)?);
            rounds += 1;
        }
        Ok(rounds)
    }
}
