//! Several candidates over one store that compares versions, with clocks of their own, slow and lost messages, and pauses:
//! at no moment do two lead by their own judgement, and a dead leader is replaced.

use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::{Just, Strategy, any, prop, prop_assert, prop_oneof, proptest};

use super::{Candidate, Decision, LeaseConfig, MonotonicTime, Record};

/// Everything happens at whole steps of this length.
const STEP: Duration = Duration::from_millis(250);

/// A request: where it is now, and what it carries.
#[derive(Clone, Debug)]
struct Request {
    sent: u64,
    arrives: u64,
    /// `None`: the answer is lost, or the request is when it has not arrived by then.
    answered: Option<u64>,
    /// A write in place of exactly this version (none: nothing stored), or a read.
    write: Option<(Option<u64>, Record)>,
    answer: Option<Answer>,
}

#[derive(Clone, Debug)]
enum Answer {
    Read(Option<(Record, u64)>),
    Written(Record, u64),
    Conflict,
}

struct Replica {
    candidate: Candidate,
    /// How far its monotonic clock is from the step count.
    offset: u64,
    version: Option<u64>,
    request: Option<Request>,
    wakes: u64,
    stale: bool,
    paused_until: u64,
    dead: bool,
}

/// What the network does to the next request: steps to the store, steps back, and whether the answer is lost.
type Fate = (u64, u64, bool);

struct World {
    replicas: Vec<Replica>,
    stored: Option<(Record, u64)>,
    versions: u64,
    step: u64,
}

fn moment(step: u64, offset: u64) -> MonotonicTime {
    MonotonicTime::since_start(STEP * u32::try_from(step + offset).unwrap())
}

impl World {
    fn new(offsets: &[u64]) -> Self {
        let replica = |(at, offset): (usize, &u64)| Replica {
            candidate: Candidate::new(format!("replica-{at}"), LeaseConfig::DEFAULT),
            offset: *offset,
            version: None,
            request: None,
            wakes: 0,
            stale: true,
            paused_until: 0,
            dead: false,
        };
        let replicas = offsets.iter().enumerate().map(replica).collect();
        Self { replicas, stored: None, versions: 0, step: 0 }
    }

    fn leaders(&self) -> Vec<usize> {
        let leads = |replica: &Replica| !replica.dead && replica.candidate.leads(moment(self.step, replica.offset));
        self.replicas.iter().enumerate().filter(|(_, replica)| leads(replica)).map(|(at, _)| at).collect()
    }

    fn step(&mut self, mut fate: impl FnMut() -> Fate) {
        self.step += 1;
        let step = self.step;
        // The store does not care whether a sender lives on.
        for replica in &mut self.replicas {
            let Some(request) = replica.request.as_mut().filter(|request| request.arrives == step) else { continue };
            let answer = match &request.write {
                None => Answer::Read(self.stored.clone()),
                Some((over, _)) if self.stored.as_ref().map(|(_, version)| *version) != *over => Answer::Conflict,
                Some((_, record)) => {
                    self.versions += 1;
                    self.stored = Some((record.clone(), self.versions));
                    Answer::Written(record.clone(), self.versions)
                }
            };
            request.answer = Some(answer);
        }
        for replica in self.replicas.iter_mut().filter(|replica| !replica.dead && replica.paused_until <= step) {
            replica.run(step, &mut fate);
        }
    }
}

impl Replica {
    fn run(&mut self, step: u64, fate: &mut impl FnMut() -> Fate) {
        if let Some(request) = &self.request {
            const GIVE_UP: u64 = 16;
            match request.answered {
                Some(at) if at <= step => {}
                None if request.sent + GIVE_UP <= step => {}
                _ => return,
            }
            self.answered(step);
        }
        if self.wakes > step {
            return;
        }
        let now = moment(step, self.offset);
        let wall = Timestamp::from_second(i64::try_from(self.offset).unwrap()).unwrap();
        let write = match self.candidate.decide(now) {
            _ if self.stale => None,
            Decision::Acquire | Decision::Renew => {
                // The clock of the wall stands still here: the record must change all the same for it to count.
                let mut record = self.candidate.record(wall);
                record.renewed = Timestamp::from_millisecond(i64::try_from(step).unwrap()).unwrap();
                Some((self.version, record))
            }
            Decision::Hold { .. } => return,
            Decision::Follow { .. } => None,
        };
        let (there, back, lost) = fate();
        let arrives = step + 1 + there;
        self.request =
            Some(Request { sent: step, arrives, answered: (!lost).then_some(arrives + back), write, answer: None });
        self.stale = false;
        self.wakes = step + 8;
    }

    fn answered(&mut self, step: u64) {
        let Some(request) = self.request.take() else { return };
        let now = moment(step, self.offset);
        match request.answer.filter(|_| request.answered.is_some()) {
            Some(Answer::Read(stored)) => {
                self.version = stored.as_ref().map(|(_, version)| *version);
                self.candidate.observe(stored.map(|(record, _)| record), now);
                // What is due by now is done at once.
                self.wakes = self.wakes.min(step);
                if matches!(self.candidate.decide(now), Decision::Follow { .. }) {
                    self.wakes = step + 8;
                }
            }
            Some(Answer::Written(record, version)) => {
                self.version = Some(version);
                self.candidate.wrote(record, moment(request.sent, self.offset));
            }
            Some(Answer::Conflict) => {
                self.stale = true;
                self.wakes = step;
            }
            None => self.stale = true,
        }
    }
}

#[derive(Clone, Debug)]
enum Mishap {
    Nothing,
    /// A replica stands still for so many steps.
    Pause(usize, u64),
    /// The leader of the moment does.
    PauseLeader(u64),
    Die(usize),
}

fn mishap() -> impl Strategy<Value = (u64, Mishap)> {
    let what = prop_oneof![
        Just(Mishap::Nothing),
        (0..3_usize, 1..120_u64).prop_map(|(replica, steps)| Mishap::Pause(replica, steps)),
        (1..120_u64).prop_map(Mishap::PauseLeader),
        (0..2_usize).prop_map(Mishap::Die),
    ];
    (1..100_u64, what)
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    // Up to 5 s each way; one answer in four is lost.
    prop::collection::vec((0..20_u64, 0..20_u64, prop::bool::weighted(0.25)), 1..64)
}

proptest! {
    #[test]
    fn no_two_lead_at_once_whatever_is_slow_lost_or_paused(
        offsets in prop::array::uniform3(0..1_000_000_u64),
        fates in fates(),
        mishaps in prop::collection::vec(mishap(), 0..20),
        quick in any::<bool>(),
    ) {
        let mut world = World::new(&offsets);
        let mut fates = fates.into_iter().cycle();
        let mut fate = move || if quick { (0, 0, false) } else { fates.next().unwrap() };
        for (steps, mishap) in mishaps.into_iter().chain([(200, Mishap::Nothing)]) {
            match mishap {
                Mishap::Nothing => {}
                Mishap::Pause(replica, steps) => world.replicas[replica].paused_until = world.step + steps,
                Mishap::PauseLeader(steps) => {
                    for leader in world.leaders() {
                        world.replicas[leader].paused_until = world.step + steps;
                    }
                }
                Mishap::Die(replica) => world.replicas[replica].dead = true,
            }
            for _ in 0..steps {
                world.step(&mut fate);
                prop_assert!(world.leaders().len() <= 1, "{:?} lead at step {}", world.leaders(), world.step);
            }
        }
    }

    #[test]
    fn a_dead_leader_is_replaced_soon_after_its_lease_has_ended(
        offsets in prop::array::uniform3(0..1_000_000_u64),
        before in 8..200_u64,
    ) {
        let mut world = World::new(&offsets);
        for _ in 0..before {
            world.step(|| (0, 0, false));
        }
        let dead = world.leaders();
        prop_assert!(dead.len() == 1, "one leads after {before} steps: {dead:?}");
        world.replicas[dead[0]].dead = true;
        // Its lease was seen to change a look after its death at the latest; then it is another's within a look.
        let terms = LeaseConfig::DEFAULT;
        let longest = terms.lease_duration() + terms.retry_period() * 2 + STEP * 4;
        let steps = u64::try_from(longest.as_millis() / STEP.as_millis()).unwrap();
        let earliest = u64::try_from((terms.lease_duration() - terms.retry_period() * 2).as_millis() / STEP.as_millis()).unwrap();
        let mut taken = None;
        for step in 0..steps {
            world.step(|| (0, 0, false));
            taken = taken.or_else(|| (!world.leaders().is_empty()).then_some(step));
        }
        prop_assert!(taken.is_some_and(|step| step >= earliest), "replaced after {taken:?} steps, not within {steps}");
    }
}
