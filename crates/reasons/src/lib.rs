//! Every reason that Countersign gives, in conditions, events, refusals and the checks of the command line: its name, its code, which
//! never changes or comes to mean something else, and a page that says what it means and what to do.
//!
//! To add one: the next number of its block here, and its page in `pages/`; then `cargo xtask codegen`, which writes `docs/reasons/`.

mod pages;

use std::{fmt, str::FromStr};

/// What a person finds on the page of a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// What it says.
    pub what: &'static str,
    /// How it comes about.
    pub why: &'static str,
    /// What to do.
    pub mend: &'static str,
}

macro_rules! reasons {
    ($($name:ident = $number:literal,)+) => {
        /// Why something is as it is. The name is that of a condition's `reason`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[expect(missing_docs, reason = "each has a page")]
        pub enum Reason {
            $($name = $number,)+
        }

        impl Reason {
            /// All of them, in the order of their codes.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// CamelCase, unique.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// Its code, such as `CS1001`.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self {
                    $(Self::$name => concat!("CS", stringify!($number)),)+
                }
            }
        }
    };
}

reasons! {
    // 1000: WorkloadIdentities.
    Admitted = 1000,
    NoTrustDomain = 1001,
    RemoteTrustDomain = 1002,
    NotGranted = 1003,
    LabelOnlyNotGranted = 1004,
    Reserved = 1005,
    SelectsEverything = 1006,
    NoClusterName = 1007,
    LifetimeTooLong = 1008,
    LifetimeZero = 1009,
    NamespaceUnknown = 1010,
    Conflict = 1011,
    ClaimedByAnother = 1012,
    Invalid = 1013,
    AuthorityStalled = 1014,
    AuthorityNotReady = 1015,
    FederationNotGranted = 1020,
    NoRemoteTrustDomain = 1021,
    NamespaceNotAdmitted = 1022,
    NoBundle = 1023,
    BundlesTooLong = 1024,
    Complete = 1025,
    NoWITAuthority = 1030,
    Issued = 1031,
    SubPathMount = 1032,
    NoSubPathMount = 1033,
    ReplicaUnreachable = 1034,
    AllReplicasAsked = 1035,

    // 1100: pods without an identity.
    NoWorkloadIdentity = 1100,
    NoSuchContainer = 1101,
    ServiceAccountNotSelected = 1102,
    LabelsDiffer = 1103,
    ContainerNotSelected = 1104,
    Unrenderable = 1105,
    NoLocalTrustDomain = 1106,

    // 1200: events on pods.
    NoIdentity = 1200,
    Identity = 1201,
    SessionDisplaced = 1202,
    StreamsFromSeveralAddresses = 1203,
    TooManyIdentities = 1204,
    AgentOutdated = 1205,
    BundleNotAcknowledged = 1206,

    // 2000: TrustDomains of which a cluster is the authority.
    Signing = 2000,
    Duplicate = 2001,
    NoAuthority = 2002,
    JournalDamaged = 2010,
    JournalFormatUnknown = 2011,
    JournalOfOtherCluster = 2012,
    JournalOfOtherTrustDomain = 2013,
    JournalOlderThanPublished = 2014,
    JournalMissing = 2015,
    JournalNotAdopted = 2016,
    PlanStale = 2017,
    AuthorityNotMade = 2018,
    NotReported = 2030,
    NotPublished = 2031,
    Waiting = 2032,
    Acknowledged = 2033,
    Scheduled = 2034,
    Replaced = 2035,
    UnknownAuthority = 2036,
    Known = 2037,
    NewerSequenceReported = 2038,
    Consistent = 2039,
    OverlappingGrants = 2050,
    UnseparatedDNSNames = 2051,
    Separated = 2052,
    NotAnIssuer = 2060,
    Shared = 2061,
    Unique = 2062,

    // 2100: remote TrustDomains.
    Polled = 2100,
    Bootstrapped = 2101,
    StoredUnreadable = 2102,
    OwnTrustDomain = 2103,
    NotBootstrapped = 2104,
    EndpointNotVerifiable = 2105,
    BootstrapRefused = 2106,
    BootstrapNotNewer = 2107,
    BootstrapReplaceSet = 2108,
    BootstrapExpiring = 2109,
    BootstrapExpired = 2110,
    BootstrapWithoutEnd = 2111,
    BootstrapRemoved = 2112,
    Stale = 2113,
    PollFailing = 2114,
    SequenceMissing = 2115,
    SequenceReused = 2116,
    TrustsNothing = 2117,
    KeysDropped = 2118,
    SharedAnchor = 2119,
    NotNamed = 2120,

    // 3000: admission.
    NotReady = 3000,
    NotAPod = 3001,
    ModeNotOffered = 3002,
    UnknownMode = 3003,
    NamespaceMode = 3004,
    InvalidAnnotation = 3005,
    AnnotatedContainerUnknown = 3006,
    ContainerNameTooLong = 3007,
    NoContainers = 3008,
    NameTaken = 3009,
    MountTaken = 3010,
    LimitExceeded = 3011,
    Malformed = 3012,
    OptedOut = 3020,
    NotAsked = 3021,
    MirrorPod = 3022,
    StaticPod = 3023,
    Windows = 3024,

    // 4000: on the way from a pod to its identity.
    PodNotFound = 4000,
    PodEnded = 4001,
    PodDeleted = 4002,
    NotInjected = 4003,
    TokenVolumeRemoved = 4004,
    NotScheduled = 4005,
    AgentNotStarted = 4006,
    AgentImageNotPulled = 4007,
    AgentCannotRun = 4008,
    AgentWaits = 4009,
    ContainersNotStarted = 4010,

    // 5000: the installation.
    ApiServerUnreachable = 5000,
    KubernetesTooOld = 5001,
    TokensNotProjected = 5002,
    TokenKeysUnavailable = 5003,
    MayNotInstall = 5004,
    ObjectOfAnother = 5005,
    AlreadyInstalled = 5006,
    DefinitionMissing = 5010,
    DefinitionNotEstablished = 5011,
    DefinitionDiffers = 5012,
    ComponentRightMissing = 5015,
    MayNotView = 5016,
    WebhookNotConfigured = 5020,
    CABundleMissing = 5021,
    CABundleExpired = 5022,
    CABundleExpiring = 5023,
    WebhookUnreachable = 5024,
    InjectionInactive = 5025,
    ValidationInactive = 5026,
    TrialRefused = 5027,
    ComponentMissing = 5030,
    ComponentNotReady = 5031,
    ReplicasMissing = 5032,
    NoLeader = 5033,
    LeaseStale = 5034,
    ImagesDiffer = 5035,
    IssuerUnreachable = 5036,
    ControlPlaneNotPublished = 5037,
    VersionsDiffer = 5038,
    AgentImageDiffers = 5039,
    NoTrustDomains = 5040,
    StatusOutdated = 5041,
    SwitchOverdue = 5042,
    StatusUnknown = 5043,
    ClockDiffers = 5050,
    ReplicaClockDiffers = 5051,
    ViewStale = 5052,
    PodsNotServed = 5060,
    ProbeNotCreated = 5070,
    ProbeNotReady = 5071,
    ProbeNotRemoved = 5072,
    Unreadable = 5080,
    NotAllowed = 5081,
    HandshakeRefused = 5090,
    PeerUnreachable = 5091,
    HandshakeFailed = 5092,
    HandshakeNotRun = 5093,
}

impl Reason {
    /// Its page.
    #[must_use]
    pub const fn page(self) -> Page {
        pages::of(self)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no such reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownReason;

impl fmt::Display for UnknownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no reason has this code or name")
    }
}

impl std::error::Error for UnknownReason {}

impl FromStr for Reason {
    type Err = UnknownReason;

    /// From its code or its name, in any case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_it =
            |reason: &&Self| text.eq_ignore_ascii_case(reason.code()) || text.eq_ignore_ascii_case(reason.name());
        Self::ALL.iter().find(is_it).copied().ok_or(UnknownReason)
    }
}
