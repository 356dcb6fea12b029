//! JV-2 to JV-6: the algorithms of JWT-SVID, section 2.1, and no others.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use serde_json::json;

use crate::support::env::{OWN, case};
use crate::support::failure::{Verdict, control};
use crate::support::tokens::{self, JwtKey, encode};

macro_rules! accepted {
    ($($name:ident: $alg:literal;)*) => {$(
        #[tokio::test]
        async fn $name() -> Verdict {
            accepts_algorithm($alg).await
        }
    )*};
}

accepted! {
    jv_2_rs256_is_accepted: "RS256";
    jv_2_rs384_is_accepted: "RS384";
    jv_2_rs512_is_accepted: "RS512";
    jv_2_es256_is_accepted: "ES256";
    jv_2_es384_is_accepted: "ES384";
    jv_2_es512_is_accepted: "ES512";
    jv_2_ps256_is_accepted: "PS256";
    jv_2_ps384_is_accepted: "PS384";
    jv_2_ps512_is_accepted: "PS512";
}

async fn accepts_algorithm(alg: &'static str) -> Verdict {
    case(async |env| {
        let key = JwtKey::generate(alg);
        env.serve_keys(&[(OWN, &[&env.key, &key])]);
        let id = env.own.id("/jv-2");
        env.accepts_soon(&key.token(&id), &id).await
    })
    .await
}

#[tokio::test]
async fn jv_3_alg_none_is_rejected() -> Verdict {
    case(async |env| {
        let header = json!({"alg": "none", "kid": env.key.kid, "typ": "JWT"});
        let token = format!("{}.", tokens::input(&header, &tokens::claims(&env.own.id("/jv-3"))));
        env.rejects_token(&token).await
    })
    .await
}

#[tokio::test]
async fn jv_4_hs256_is_rejected() -> Verdict {
    rejects_hmac("HS256", hmac::HMAC_SHA256, |_| random()).await
}

#[tokio::test]
async fn jv_4_hs384_is_rejected() -> Verdict {
    rejects_hmac("HS384", hmac::HMAC_SHA384, |_| random()).await
}

#[tokio::test]
async fn jv_4_hs512_is_rejected() -> Verdict {
    rejects_hmac("HS512", hmac::HMAC_SHA512, |_| random()).await
}

#[tokio::test]
async fn jv_4_the_public_key_is_no_shared_secret() -> Verdict {
    rejects_hmac("HS256", hmac::HMAC_SHA256, |key| key.public_pem().into_bytes()).await
}

async fn rejects_hmac(alg: &str, algorithm: hmac::Algorithm, secret: impl FnOnce(&JwtKey) -> Vec<u8>) -> Verdict {
    case(async |env| {
        let header = json!({"alg": alg, "kid": env.key.kid, "typ": "JWT"});
        let input = tokens::input(&header, &tokens::claims(&env.own.id("/jv-4")));
        let tag = hmac::sign(&hmac::Key::new(algorithm, &secret(&env.key)), input.as_bytes());
        env.rejects_token(&format!("{input}.{}", encode(tag.as_ref()))).await
    })
    .await
}

fn random() -> Vec<u8> {
    let mut secret = vec![0; 64];
    SystemRandom::new().fill(&mut secret).unwrap();
    secret
}

#[tokio::test]
async fn jv_5_eddsa_is_rejected_although_its_key_is_in_the_bundle() -> Verdict {
    case(async |env| {
        let (edwards, marker) = (JwtKey::generate("EdDSA"), JwtKey::generate("ES256"));
        env.serve_keys(&[(OWN, &[&env.key, &edwards, &marker])]);
        let id = env.own.id("/jv-5");
        control(env.accepts_soon(&marker.token(&id), &id).await)?;
        env.rejects_now(&edwards.token(&id)).await
    })
    .await
}

#[tokio::test]
async fn jv_6_rs256_with_an_ec_key_is_rejected() -> Verdict {
    case(async |env| {
        let header = json!({"alg": "RS256", "kid": env.key.kid, "typ": "JWT"});
        env.rejects_token(&env.key.sign(&header, &tokens::claims(&env.own.id("/jv-6")))).await
    })
    .await
}

#[tokio::test]
async fn jv_6_es384_with_a_p256_key_is_rejected() -> Verdict {
    case(async |env| {
        let header = json!({"alg": "ES384", "kid": env.key.kid, "typ": "JWT"});
        let input = tokens::input(&header, &tokens::claims(&env.own.id("/jv-6")));
        let signature = env.key.p256_signature_over_sha384(input.as_bytes());
        env.rejects_token(&format!("{input}.{}", encode(&signature))).await
    })
    .await
}
