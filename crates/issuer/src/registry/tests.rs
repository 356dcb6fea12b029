//! Who gets in, who gives way, and what is kept of whoever has left.

use super::{AgentInfo, Full, Registered, Registry, StreamLimits, Superseded};
use crate::acknowledgements::{BundleSequence, tests::counts};
use crate::addresses::MEMORY;
use countersign_runtime::rate::Rate;
use jiff::Timestamp;
use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};
use tokio::time::Instant;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn address(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

fn hold(registry: &Registry, uid: &str, session: &str) -> Registered {
    registry.register(uid, session, Some(HERE), AgentInfo::default(), Instant::now()).expect("room")
}

fn sessions(held: &Registered) -> Vec<&str> {
    let mut sessions: Vec<_> = held.superseded.iter().map(|one| one.session.as_str()).collect();
    sessions.sort_unstable();
    sessions
}

#[test]
fn a_newer_stream_of_a_session_displaces_the_older_and_only_that() {
    let registry = Registry::new(StreamLimits::default());
    let first = hold(&registry, "uid", "app");
    let other = hold(&registry, "uid", "proxy");
    let elsewhere = hold(&registry, "other", "app");
    assert!([&first, &other, &elsewhere].iter().all(|held| held.superseded.is_empty()));
    let second = hold(&registry, "uid", "app");
    assert_eq!(second.superseded, [Superseded { session: "app".to_owned(), address: Some(HERE) }]);
    assert!(first.registration.superseded.is_cancelled());
    assert!([&other, &second, &elsewhere].iter().all(|held| !held.registration.superseded.is_cancelled()));
    drop(first);
    let third = hold(&registry, "uid", "app");
    assert_eq!(sessions(&third), ["app"], "the older stream's end must not free the newer one's session");
}

// A thief that names another session is neither beside the agent nor before it.
#[test]
fn the_session_of_the_pod_and_those_of_its_containers_displace_each_other() {
    let registry = Registry::new(StreamLimits { per_pod: 2, ..StreamLimits::default() });
    let whole = hold(&registry, "uid", "");
    let app = hold(&registry, "uid", "app");
    assert_eq!(sessions(&app), [""]);
    assert!(whole.registration.superseded.is_cancelled() && !app.registration.superseded.is_cancelled());
    let proxy = hold(&registry, "uid", "proxy");
    assert!(proxy.superseded.is_empty());
    let whole = hold(&registry, "uid", "");
    assert_eq!(sessions(&whole), ["app", "proxy"]);
    assert!(app.registration.superseded.is_cancelled() && proxy.registration.superseded.is_cancelled());
    drop((app, proxy));
    assert_eq!(sessions(&hold(&registry, "uid", "app")), [""], "their ends must not free what is not theirs");
}

#[test]
fn streams_of_a_pod_from_several_addresses_are_noticed_also_when_one_has_just_ended() {
    let (registry, begin) = (Registry::new(StreamLimits::default()), Instant::now());
    let from = |uid: &str, session: &str, last: u8, now| {
        registry.register(uid, session, Some(address(last)), AgentInfo::default(), now).expect("room")
    };
    let first = from("uid", "app", 1, begin);
    let beside = from("uid", "app", 1, begin);
    let other = from("other", "app", 2, begin);
    assert!([&first, &beside, &other].iter().all(|held| held.elsewhere.is_empty()));
    let thief = from("uid", "proxy", 3, begin);
    assert_eq!(thief.elsewhere, [address(1)]);
    let mapped = IpAddr::V6(Ipv4Addr::new(10, 0, 0, 2).to_ipv6_mapped());
    let again = registry.register("other", "app", Some(mapped), AgentInfo::default(), begin).expect("room");
    assert!(again.elsewhere.is_empty(), "it is the same address");
    let seen: Vec<_> = registry.addresses(begin).remove("uid").into_iter().flatten().collect();
    assert_eq!(seen, [address(1), address(3)]);

    drop((thief, first, beside));
    let now = Instant::now();
    assert_eq!(from("uid", "", 4, now).elsewhere, [address(1), address(3)], "within a minute");
    assert!(registry.addresses(now).contains_key("uid"));
    let later = Instant::now() + MEMORY;
    assert!(from("uid", "", 5, later).elsewhere.is_empty());
    drop((other, again));
    assert!(registry.addresses(Instant::now() + MEMORY).is_empty());
}

#[test]
fn nothing_is_kept_of_streams_that_ended_but_for_a_minute_their_addresses() {
    let registry = Registry::new(StreamLimits::default());
    drop((registry.admit(HERE, Instant::now()).expect("room"), hold(&registry, "uid", "")));
    assert!(registry.addresses(Instant::now() + MEMORY).is_empty());
    let state = registry.0.state.lock();
    assert!(state.by_pod.is_empty() && state.by_address.is_empty() && state.total == 0);
}

#[test]
fn a_snapshot_shows_each_session_by_its_newest_stream() {
    let registry = Registry::new(StreamLimits::default());
    let hold = |uid: &str, version: &str| {
        registry.register(uid, "", None, AgentInfo::new(version, &[]), Instant::now()).expect("room")
    };
    let _older = hold("uid", "0.1.0");
    let _newer = hold("uid", "0.2.0");
    let _other = hold("other", "0.1.0");
    let mut seen: Vec<_> =
        registry.snapshot().iter().map(|one| (one.pod_uid.clone(), one.agent.version.clone())).collect();
    seen.sort();
    assert_eq!(seen, [("other".to_owned(), "0.1.0".to_owned()), ("uid".to_owned(), "0.2.0".to_owned())]);
}

#[test]
fn only_the_newest_stream_of_each_session_is_awaited() {
    let registry = Registry::new(StreamLimits::default());
    let domain: countersign_core::id::TrustDomain = "example.org".parse().expect("a name");
    let hold = |uid: &str, capability: &str| {
        let agent = AgentInfo::new("0.1.0", &[capability.to_owned()]);
        let held = registry.register(uid, "", None, agent, Instant::now()).expect("room").registration;
        held.record().acks.set_sent([BundleSequence { trust_domain: domain.clone(), sequence: 7 }].into());
        held
    };
    let _superseded = hold("uid", "ack");
    let (newer, other) = (hold("uid", "ack"), hold("other", "move"));
    assert_eq!(counts(&registry.snapshot(), &domain, 7), (0, 1, 1));
    drop((newer, other));
    assert_eq!(counts(&registry.snapshot(), &domain, 7), (0, 0, 0));
}

#[test]
fn caps_hold_for_a_pod_an_address_and_in_all() {
    let (limits, now) = (StreamLimits::default(), Instant::now());
    let registry = Registry::new(StreamLimits { per_pod: 1, per_address: 2, total: 3, ..limits });
    let _kept = (hold(&registry, "uid", "a"), registry.admit(HERE, now), registry.admit(HERE, now));
    let second = registry.register("uid", "b", Some(HERE), AgentInfo::default(), now);
    assert_eq!(second.err(), Some(Full::Pod(1)));
    hold(&registry, "uid", "a");
    assert_eq!(registry.admit(HERE, now).err(), Some(Full::Address(2)));
    let _third = registry.admit(Ipv4Addr::new(10, 0, 0, 1).into(), now).expect("room");
    assert_eq!(registry.admit(Ipv4Addr::new(10, 0, 0, 2).into(), now).err(), Some(Full::Total));
}

#[test]
fn a_stream_that_has_proven_its_pod_counts_no_longer_for_its_address() {
    let (limits, now) = (StreamLimits::default(), Instant::now());
    let registry = Registry::new(StreamLimits { per_address: 1, ..limits });
    let mut first = registry.admit(HERE, now).expect("room");
    assert_eq!(registry.admit(HERE, now).err(), Some(Full::Address(1)));
    first.mark_authenticated();
    first.mark_authenticated();
    let second = registry.admit(HERE, now).expect("room");
    drop(first);
    assert_eq!(registry.admit(HERE, now).err(), Some(Full::Address(1)), "the second still counts");
    drop(second);
    assert!(registry.0.state.lock().by_address.is_empty());
}

#[test]
fn a_namespaces_herd_of_new_streams_leaves_the_others_their_share() {
    let now = Instant::now();
    let begin_proven = Rate { each: Duration::from_millis(1), burst: 100 };
    let registry = Registry::new(StreamLimits { begin_proven, ..StreamLimits::default() });
    assert_eq!((0..1000).filter(|_| registry.begin("hostile", now).is_ok()).count(), 100);
    assert!(matches!(registry.begin("hostile", now), Err(Full::TooSoon(_))));
    assert_eq!((0..20).filter(|_| registry.begin("shop", now).is_ok()).count(), 20);
}

// One address that comes too often is put off, and the others' share is left to them.
#[test]
fn new_streams_come_at_a_rate_and_no_address_uses_up_the_others_share() {
    let now = Instant::now();
    let rate = |burst| Rate { each: Duration::from_secs(1), burst };
    let limits = StreamLimits { begin_per_address: rate(2), begin: rate(3), ..StreamLimits::default() };
    let registry = Registry::new(limits);
    let other = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    let begun: Vec<_> = (0..10).filter_map(|_| registry.admit(HERE, now).ok()).collect();
    assert_eq!(begun.len(), 2);
    assert!(registry.admit(other, now).is_ok());
    assert_eq!(registry.admit(other, now).err(), Some(Full::TooSoon(Duration::from_secs(1))));
    assert!(registry.admit(other, now + Duration::from_secs(1)).is_ok());
}

// Whoever is cut off may go on with what it has, and is not forgotten meanwhile.
#[test]
fn who_has_left_is_remembered_while_its_agent_may_use_what_it_was_issued_and_its_pod_lives() {
    let at = |second| Timestamp::from_second(second).expect("a time");
    let registry = Registry::new(StreamLimits::default());
    let (issued, nothing) = (hold(&registry, "uid", "app"), hold(&registry, "uid", "proxy"));
    issued.registration.record().set_in_use_until(at(100));
    issued.registration.record().set_in_use_until(at(60));
    assert!(registry.departed(at(0), |_| true).is_empty(), "its stream is open");
    drop((issued, nothing));
    let names = |now, alive| {
        let departed = registry.departed(at(now), |_| alive);
        departed.iter().map(|record| record.session.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(99, true), ["app"]);
    let back = hold(&registry, "uid", "app");
    assert!(names(99, true).is_empty(), "it is back");
    back.registration.record().set_in_use_until(at(100));
    drop(back);
    assert!(names(99, false).is_empty(), "its pod has ended");
    assert!(names(99, true).is_empty(), "and is forgotten");
    let again = hold(&registry, "uid", "app");
    again.registration.record().set_in_use_until(at(100));
    drop(again);
    assert!(names(100, true).is_empty(), "what it had has expired");
}
