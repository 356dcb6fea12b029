//! Every reason that Countersign gives, in conditions, events, refusals and the checks of the command line: its name, its code, which
//! never changes or comes to mean something else, and a page that says what it means and what to do.
//!
//! To add one: the next number of its block here, and its page in `docs/reasons/`; then `cargo xtask codegen`, which writes the list.
//!
//! A code that is given up is not used again, since messages of earlier releases have it: `GIVEN_UP` in the tests below keeps it taken,
//! and its page goes.

use std::{fmt, str::FromStr};

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

            /// Its page, in Markdown: what it says, why, and what to do.
            #[must_use]
            pub const fn page(self) -> &'static str {
                match self {
                    $(Self::$name => {
                        include_str!(concat!("../../../docs/reasons/CS", stringify!($number), ".md"))
                    })+
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
    NotReconciling = 1040,
    NotStalled = 1041,

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

    // 1300: delivery to pods.
    AgentNotConnected = 1300,
    NothingDelivered = 1301,
    SocketDiffers = 1302,
    FilesDiffer = 1303,
    AgentClockDiffers = 1304,

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

    // 2200: polls of endpoints.
    Resolve = 2200,
    AddressRefused = 2201,
    Connect = 2202,
    Timeout = 2203,
    Tls = 2204,
    UntrustedCertificate = 2205,
    WrongEndpointId = 2206,
    Redirect = 2207,
    Status = 2208,
    WrongMetadata = 2209,
    TooLong = 2210,
    Interrupted = 2211,
    Malformed = 2212,
    WrongTrustDomain = 2213,
    LowerSequence = 2214,

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
    MalformedObject = 3012,
    TooLarge = 3013,
    Busy = 3014,
    Late = 3015,
    Broken = 3016,
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
    PodNotCreated = 4011,
    ContainerLeftOut = 4012,
    OtherSocket = 4013,

    // 4100: what is verified, shown and changed from the command line.
    NotPermitted = 4100,
    InputUnrecognized = 4101,
    PrivateKeyFound = 4102,
    SVIDRuleBroken = 4103,
    SVIDExpired = 4104,
    SVIDNotYetValid = 4105,
    NoBundleGiven = 4106,
    NotSignedByAuthority = 4107,
    SigningKeyUnknown = 4108,
    AudienceDiffers = 4109,
    BundleRuleBroken = 4110,
    AuthorityExpired = 4111,
    NoValidAuthority = 4112,
    KeysIgnored = 4113,
    BundleNotPublished = 4114,
    BundleBehindStatus = 4115,
    NotAmongAuthorities = 4116,
    PollOverdue = 4117,
    NotAuthorityHere = 4130,
    AlreadyRequested = 4131,
    NotComplete = 4132,

    // 4140: renewal on request.
    Renewed = 4140,
    NotRenewed = 4141,
    NoAgent = 4142,

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
    // 5081 was NotAllowed: NotPermitted says the same.
    HandshakeRefused = 5090,
    PeerUnreachable = 5091,
    HandshakeFailed = 5092,
    HandshakeNotRun = 5093,
}

impl Reason {
    /// Whether it says that nothing is to be done.
    #[must_use]
    pub const fn is_well(self) -> bool {
        matches!(
            self,
            Self::Admitted
                | Self::Complete
                | Self::Issued
                | Self::NoSubPathMount
                | Self::AllReplicasAsked
                | Self::NotReconciling
                | Self::NotStalled
                | Self::Identity
                | Self::Signing
                | Self::Acknowledged
                | Self::Scheduled
                | Self::Replaced
                | Self::Known
                | Self::Consistent
                | Self::Separated
                | Self::Unique
                | Self::Polled
                | Self::Bootstrapped
                | Self::NotNamed
                | Self::Renewed
                | Self::AlreadyRequested
        )
    }

    /// A message for people, with the code by which they find the page, unless nothing is to be done or it has a code already: that of
    /// a cause is of more use.
    #[must_use]
    pub fn with_code(self, message: &str) -> String {
        if self.is_well() || Self::at_end(message).is_some() {
            return message.to_owned();
        }
        format!("{message} ({})", self.code())
    }

    /// The reason whose code ends a message.
    #[must_use]
    pub fn at_end(message: &str) -> Option<Self> {
        let (_, code) = split(message)?;
        Self::ALL.iter().find(|reason| reason.code() == code).copied()
    }

    /// A message as it was before [`Self::with_code`], also of a later release, whose codes are not all known here.
    #[must_use]
    pub fn without_code(message: &str) -> &str {
        split(message).map_or(message, |(text, _)| text)
    }

    /// What to do, in general: the last paragraph of its page.
    #[must_use]
    pub fn remedy(self) -> String {
        let section = self.page().lines().skip_while(|line| *line != "## What to do").skip(2);
        section.collect::<Vec<_>>().join(" ")
    }

    /// What it says, in one or two sentences: the first paragraph of its page.
    #[must_use]
    pub fn summary(self) -> String {
        let paragraph = self.page().lines().skip(2).take_while(|line| !line.is_empty());
        paragraph.collect::<Vec<_>>().join(" ")
    }
}

/// A message that ends with a code: without it, and the code.
fn split(message: &str) -> Option<(&str, &str)> {
    let (text, code) = message.strip_suffix(')')?.rsplit_once(" (")?;
    let digits = code.strip_prefix("CS")?;
    (digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some((text, code))
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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    #[test]
    fn codes_and_names_are_unique_and_in_order() {
        assert!(Reason::ALL.is_sorted_by_key(|reason| reason.code()));
        let names: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.name().to_lowercase()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert_eq!(reason.code().parse(), Ok(*reason));
            assert_eq!(reason.name().to_lowercase().parse(), Ok(*reason));
        }
        assert_eq!("CS0000".parse::<Reason>(), Err(UnknownReason));
    }

    #[test]
    fn a_message_ends_with_one_code_that_of_the_cause() {
        assert_eq!(Reason::Admitted.with_code("granted"), "granted");
        let message = Reason::NotGranted.with_code("not granted");
        assert_eq!(message, "not granted (CS1003)");
        assert_eq!(Reason::NoIdentity.with_code(&message), message);
        assert_eq!(Reason::at_end(&message), Some(Reason::NotGranted));
        assert_eq!(Reason::at_end("of three (CS9999)"), None);
        assert_eq!(Reason::without_code(&message), "not granted");
        assert_eq!(Reason::without_code("of a later release (CS9999)"), "of a later release");
    }

    #[test]
    fn the_code_at_the_end_of_a_message_is_left_out_and_nothing_else() {
        assert_eq!(Reason::without_code("1/2; not yet: a (CS2032)"), "1/2; not yet: a");
        for whole in ["", "a", "a (b)", "a (CS20)", "(CS2032) a", "a (CS2o32)"] {
            assert_eq!(Reason::without_code(whole), whole);
        }
    }

    /// Codes that reasons of earlier releases had.
    const GIVEN_UP: &[&str] = &["CS5081"];

    #[test]
    fn a_code_that_was_given_up_is_not_used_again() {
        assert!(GIVEN_UP.iter().all(|code| code.parse::<Reason>().is_err()));
    }

    /// That each reason has a page, the compiler knows.
    #[test]
    fn every_page_is_that_of_a_reason_and_says_what_why_and_what_to_do() {
        for reason in Reason::ALL {
            let page = reason.page();
            assert!(page.starts_with(&format!("# {}: {}\n\n", reason.code(), reason.name())), "{page}");
            for text in [reason.summary(), reason.remedy()] {
                assert!(text.ends_with('.'), "{reason}: {text}");
            }
            let sections: Vec<_> = page.lines().filter(|line| line.starts_with("## ")).collect();
            assert_eq!(sections, ["## Why", "## What to do"], "{reason}");
        }
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reasons");
        for file in fs::read_dir(folder).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            let code = name.strip_suffix(".md").unwrap_or(&name);
            assert!(name == "README.md" || code.parse::<Reason>().is_ok(), "{name} is the page of no reason");
        }
    }
}
