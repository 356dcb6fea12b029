//! How this cluster makes and renews what it signs.

#![allow(unreachable_pub, reason = "KubeSchema copies each struct into a function body")]

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Lifetime;

const HOUR: Duration = Duration::from_secs(3600);

/// The default of `taint.maxDelay`.
const TAINT_DELAY: Duration = Duration::from_secs(600);

/// How this cluster makes and renews what it signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "duration(self.x509.caTTL) >= duration(has(self.x509.maxSVIDTTL) ? self.x509.maxSVIDTTL : self.x509.svidTTL) \
         + duration(has(self.x509.maxSVIDTTL) ? self.x509.maxSVIDTTL : self.x509.svidTTL) \
         + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint) \
         + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint)")
        .message("x509.caTTL must be at least 2 × (the longest X.509 SVID life + 3 × bundleRefreshHint): a successor must be known everywhere before it signs"),
    validation = Rule::new(
        "duration(self.x509.caTTL) >= duration(has(self.jwt.maxSVIDTTL) ? self.jwt.maxSVIDTTL : self.jwt.svidTTL) \
         + duration(has(self.jwt.maxSVIDTTL) ? self.jwt.maxSVIDTTL : self.jwt.svidTTL) \
         + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint) \
         + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint)")
        .message("x509.caTTL must be at least 2 × (the longest JWT-SVID life + 3 × bundleRefreshHint): JWT keys live as long as CAs do"),
    validation = Rule::new(
        "!has(self.wit) || duration(self.x509.caTTL) >= duration(has(self.wit.maxSVIDTTL) ? self.wit.maxSVIDTTL : self.wit.svidTTL) \
         + duration(has(self.wit.maxSVIDTTL) ? self.wit.maxSVIDTTL : self.wit.svidTTL) \
         + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint) \
         + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint)")
        .message("x509.caTTL must be at least 2 × (the longest WIT-SVID life + 3 × bundleRefreshHint): WIT keys live as long as CAs do"),
    validation = Rule::new(
        "!has(self.rotation) || !has(self.rotation.maxDelay) || duration(self.x509.caTTL) >= duration(self.rotation.maxDelay) \
         + duration(has(self.x509.maxSVIDTTL) ? self.x509.maxSVIDTTL : self.x509.svidTTL) \
         + duration(has(self.x509.maxSVIDTTL) ? self.x509.maxSVIDTTL : self.x509.svidTTL) \
         + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint) \
         + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint)")
        .message("x509.caTTL must be at least 2 × (the longest X.509 SVID life + 3 × bundleRefreshHint) + rotation.maxDelay: no delay may shorten what is signed"),
    validation = Rule::new(
        "!has(self.rotation) || !has(self.rotation.maxDelay) || duration(self.x509.caTTL) >= duration(self.rotation.maxDelay) \
         + duration(has(self.jwt.maxSVIDTTL) ? self.jwt.maxSVIDTTL : self.jwt.svidTTL) \
         + duration(has(self.jwt.maxSVIDTTL) ? self.jwt.maxSVIDTTL : self.jwt.svidTTL) \
         + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint) \
         + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint)")
        .message("x509.caTTL must be at least 2 × (the longest JWT-SVID life + 3 × bundleRefreshHint) + rotation.maxDelay: no delay may shorten what is signed"),
)]
pub struct Authority {
    /// X.509-SVIDs and the CAs that sign them.
    #[serde(default)]
    pub x509: X509Authority,
    /// JWT-SVIDs and the keys that sign them. These keys live as long as `x509.caTTL` says.
    #[serde(default)]
    pub jwt: JwtAuthority,
    /// WIT-SVIDs and the keys that sign them, which live as long as `x509.caTTL` says: `{}` takes every default. Without it there are none.
    /// Experimental, as the specification is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wit: Option<WitAuthority>,
    /// How often those who trust this domain are asked to look for a new bundle (SPIFFE Trust Domain and Bundle, 4.1.2).
    #[serde(default = "Authority::default_refresh_hint")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s')").message("the refresh hint is at least 1s"))]
    pub bundle_refresh_hint: Lifetime,
    /// When authorities are replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
    /// How tainted authorities leave the bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taint: Option<Taint>,
    /// Authorities that are no longer to be trusted soon, by id or subject key id: the spare signs at once, what they signed is
    /// renewed, and then they leave the bundle. Removing an entry undoes nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 128), regex(pattern = r"^[0-9a-zA-Z:_-]+$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub tainted: Vec<String>,
    /// Authorities whose keys have leaked, by id or subject key id: they leave the bundle at once, and what they signed is refused
    /// by everyone who has the new bundle. If all are named, a new one signs before it can be known everywhere. Removing an entry
    /// undoes nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 128), regex(pattern = r"^[0-9a-zA-Z:_-]+$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub revoked: Vec<String>,
}

/// When authorities are replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    /// Every authority that was prepared before this time is replaced, as soon as its successor is known everywhere. In the
    /// future: then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Time>,
    /// How long a switch may wait for agents to acknowledge the bundle that holds the successor. A tenth of `x509.caTTL` if
    /// absent, at most 1h, or less where `caTTL` leaves less. Whoever has not got the successor of a requested rotation by then
    /// refuses what it signs, until it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("duration(self) <= duration('24h')").message("a switch may wait for at most 24h"))]
    pub max_delay: Option<Lifetime>,
}

/// How tainted authorities leave the bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Taint {
    /// How long a tainted X.509 authority stays in the bundle at most, if not everything that it signed has been renewed before;
    /// 10m if absent. Whoever was offline for longer is then cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s')").message("a taint lasts at least 1s"))]
    pub max_delay: Option<Lifetime>,
}

/// X.509-SVIDs and the CAs that sign them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.maxSVIDTTL) || duration(self.maxSVIDTTL) >= duration(self.svidTTL)")
    .message("maxSVIDTTL must not be below svidTTL"))]
pub struct X509Authority {
    /// The CA's key.
    #[serde(default)]
    pub key_type: KeyType,
    /// How long a CA lives.
    #[serde(default = "X509Authority::default_ca_ttl", rename = "caTTL")]
    #[x_kube(validation = Rule::new("duration(self) <= duration('87600h')").message("a CA lives at most 87600h (ten years)"))]
    pub ca_ttl: Lifetime,
    /// How long an X.509-SVID lives unless its WorkloadIdentity says otherwise.
    #[serde(default = "X509Authority::default_svid_ttl", rename = "svidTTL")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('10s')").message("an SVID lives at least 10s"))]
    pub svid_ttl: Lifetime,
    /// The longest life a WorkloadIdentity may ask for; `svidTTL` if absent.
    #[serde(default, rename = "maxSVIDTTL", skip_serializing_if = "Option::is_none")]
    pub max_svid_ttl: Option<Lifetime>,
}

/// JWT-SVIDs and the keys that sign them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.maxSVIDTTL) || duration(self.maxSVIDTTL) >= duration(self.svidTTL)")
    .message("maxSVIDTTL must not be below svidTTL"))]
pub struct JwtAuthority {
    /// The signing key.
    #[serde(default)]
    pub key_type: KeyType,
    /// How long a JWT-SVID lives unless its WorkloadIdentity says otherwise.
    #[serde(default = "JwtAuthority::default_svid_ttl", rename = "svidTTL")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('10s')").message("an SVID lives at least 10s"))]
    pub svid_ttl: Lifetime,
    /// The longest life a WorkloadIdentity may ask for; `svidTTL` if absent.
    #[serde(default, rename = "maxSVIDTTL", skip_serializing_if = "Option::is_none")]
    pub max_svid_ttl: Option<Lifetime>,
    /// The claim `iss` of JWT-SVIDs; none if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = r"^https://[^?#\s]+$"))]
    pub issuer: Option<String>,
}

/// WIT-SVIDs and the keys that sign them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.maxSVIDTTL) || duration(self.maxSVIDTTL) >= duration(self.svidTTL)")
    .message("maxSVIDTTL must not be below svidTTL"))]
pub struct WitAuthority {
    /// The signing key.
    #[serde(default)]
    pub key_type: KeyType,
    /// How long a WIT-SVID lives unless its WorkloadIdentity says otherwise.
    #[serde(default = "WitAuthority::default_svid_ttl", rename = "svidTTL")]
    #[x_kube(
        validation = Rule::new("duration(self) >= duration('10s')").message("an SVID lives at least 10s"),
        validation = Rule::new("duration(self) <= duration('24h')").message("a WIT-SVID lives at most 24h"),
    )]
    pub svid_ttl: Lifetime,
    /// The longest life a WorkloadIdentity may ask for, at most a day; `svidTTL` if absent.
    #[serde(default, rename = "maxSVIDTTL", skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("duration(self) <= duration('24h')").message("a WIT-SVID lives at most 24h"))]
    pub max_svid_ttl: Option<Lifetime>,
}

/// Which keys are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KeyType {
    /// ECDSA on P-256.
    #[default]
    #[serde(rename = "ec-p256")]
    EcP256,
    /// ECDSA on P-384.
    #[serde(rename = "ec-p384")]
    EcP384,
    /// RSA with 2048 bits.
    #[serde(rename = "rsa-2048")]
    Rsa2048,
}

impl Authority {
    fn default_refresh_hint() -> Lifetime {
        Lifetime::from_minutes(5)
    }

    /// How long a switch may wait for acknowledgements: what is asked for, else a tenth of a CA's life, at most an hour and at
    /// most what that leaves beside twice the time that an SVID and its successor's publication take.
    #[must_use]
    pub fn max_delay(&self) -> Duration {
        let asked = self.rotation.as_ref().and_then(|rotation| rotation.max_delay);
        asked.map_or_else(
            || {
                let life = self.x509.ca_ttl.duration();
                let least = (self.longest_svid_life().duration() + self.bundle_refresh_hint.duration() * 3) * 2;
                (life / 10).min(HOUR).min(life.saturating_sub(least))
            },
            |asked| asked.duration(),
        )
    }

    /// How long a tainted authority stays in the bundle at most.
    #[must_use]
    pub fn taint_max_delay(&self) -> Duration {
        let asked = self.taint.as_ref().and_then(|taint| taint.max_delay);
        asked.map_or(TAINT_DELAY, |asked| asked.duration())
    }

    /// The longest life of anything signed: how long a retired authority must stay in the bundle.
    #[must_use]
    pub fn longest_svid_life(&self) -> Lifetime {
        let wit = self.wit.as_ref().map(WitAuthority::longest_svid_life);
        let longest = self.x509.longest_svid_life().max(self.jwt.longest_svid_life());
        wit.map_or(longest, |wit| longest.max(wit))
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self {
            x509: X509Authority::default(),
            jwt: JwtAuthority::default(),
            wit: None,
            bundle_refresh_hint: Self::default_refresh_hint(),
            rotation: None,
            taint: None,
            tainted: Vec::new(),
            revoked: Vec::new(),
        }
    }
}

impl WitAuthority {
    fn default_svid_ttl() -> Lifetime {
        Lifetime::from_minutes(15)
    }

    /// The longest life a WorkloadIdentity may ask for.
    #[must_use]
    pub fn longest_svid_life(&self) -> Lifetime {
        self.max_svid_ttl.unwrap_or(self.svid_ttl)
    }
}

impl Default for WitAuthority {
    fn default() -> Self {
        Self { key_type: KeyType::default(), svid_ttl: Self::default_svid_ttl(), max_svid_ttl: None }
    }
}

impl X509Authority {
    fn default_ca_ttl() -> Lifetime {
        Lifetime::from_hours(24)
    }

    fn default_svid_ttl() -> Lifetime {
        Lifetime::from_hours(1)
    }

    /// The longest life a WorkloadIdentity may ask for.
    #[must_use]
    pub fn longest_svid_life(&self) -> Lifetime {
        self.max_svid_ttl.unwrap_or(self.svid_ttl)
    }
}

impl Default for X509Authority {
    fn default() -> Self {
        Self {
            key_type: KeyType::default(),
            ca_ttl: Self::default_ca_ttl(),
            svid_ttl: Self::default_svid_ttl(),
            max_svid_ttl: None,
        }
    }
}

impl JwtAuthority {
    fn default_svid_ttl() -> Lifetime {
        Lifetime::from_minutes(5)
    }

    /// The longest life a WorkloadIdentity may ask for.
    #[must_use]
    pub fn longest_svid_life(&self) -> Lifetime {
        self.max_svid_ttl.unwrap_or(self.svid_ttl)
    }
}

impl Default for JwtAuthority {
    fn default() -> Self {
        Self { key_type: KeyType::default(), svid_ttl: Self::default_svid_ttl(), max_svid_ttl: None, issuer: None }
    }
}
