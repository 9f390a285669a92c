//! Random lives against a model of what may never happen.

use std::collections::BTreeSet;

use proptest::prelude::*;
use sys::signal::SIGKILL;

use super::{ask, exited, launched, rules, state};
use crate::step::*;

/// What the world can do, apart from what the state says is under way.
#[derive(Clone, Debug)]
enum Act {
    Ask(Request),
    /// Completes one of the pending effects, well or badly.
    Complete(prop::sample::Index, bool),
    /// News of a run that is over.
    Stale(Input),
    Oom,
    Die(i32),
    Boot,
}

fn request() -> impl Strategy<Value = Request> {
    let signal = prop_oneof![Just(9), Just(15), Just(1)];
    let how = (prop::option::of(signal.clone()), 0_u64..20).prop_map(|(signal, seconds)| Stop {
        signal,
        timeout: match seconds {
            0 => None,
            1 => Some(Timeout::Never),
            more => Some(Timeout::After(Duration::from_secs(more))),
        },
    });
    prop_oneof![
        3 => Just(Request::Start),
        2 => how.clone().prop_map(Request::Stop),
        1 => how.prop_map(Request::Restart),
        2 => signal.prop_map(|signal| Request::Kill { signal }),
        1 => Just(Request::Pause),
        1 => Just(Request::Unpause),
        1 => (any::<bool>(), any::<bool>())
            .prop_map(|(force, volumes)| Request::Remove { force, volumes }),
        1 => Just(Request::Rename { name: "other".into() }),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => request().prop_map(Act::Ask),
        8 => (any::<prop::sample::Index>(), prop::bool::weighted(0.8))
            .prop_map(|(which, well)| Act::Complete(which, well)),
        1 => prop_oneof![Just(exited(0, 1)), Just(launched(0)), Just(Input::Elapsed { timer: 0 })]
            .prop_map(Act::Stale),
        1 => Just(Act::Oom),
        3 => (0..3).prop_map(Act::Die),
        1 => Just(Act::Boot),
    ]
}

fn any_rules() -> impl Strategy<Value = Rules> {
    let policy = prop_oneof![
        Just(RestartPolicy::No),
        Just(RestartPolicy::Always),
        Just(RestartPolicy::UnlessStopped),
        (0_u32..3).prop_map(|max| RestartPolicy::OnFailure { max }),
    ];
    (policy, any::<bool>()).prop_map(|(restart, auto_remove)| Rules {
        auto_remove: auto_remove && restart == RestartPolicy::No,
        restart,
        ..rules()
    })
}

/// What is under way beside the machine.
#[derive(Clone, Debug)]
enum Pending {
    Effect(Effect),
    /// A launch that was interrupted: it fails, or has begun already and is ended.
    Aborted(u64),
    /// The end of a run that was interrupted when it had begun.
    Lost(u64),
}

impl Pending {
    /// Whether it waits for the one before it, as [`crate::effects`] has it.
    fn is_in_order(&self) -> bool {
        match self {
            Self::Aborted(_)
            | Self::Effect(
                Effect::Launch { .. } | Effect::Retire { .. } | Effect::Destroy { .. },
            ) => true,
            Self::Lost(_)
            | Self::Effect(
                Effect::Answer(..)
                | Effect::Abort { .. }
                | Effect::Signal { .. }
                | Effect::Force { .. }
                | Effect::Freeze { .. }
                | Effect::Thaw { .. }
                | Effect::Timer { .. }
                | Effect::ReleaseName(_),
            ) => false,
        }
    }

    fn is_timer(&self) -> bool {
        matches!(self, Self::Effect(Effect::Timer { .. }))
    }
}

/// The world beside the machine: which effects are under way, whether an init lives, who waits.
struct World {
    state: State,
    pending: Vec<Pending>,
    /// The run whose init lives.
    alive: Option<u64>,
    /// The run whose shim, cgroup and run directory are there.
    parts: Option<u64>,
    waiting: BTreeSet<u64>,
    asked: u64,
    killed: bool,
}

impl World {
    fn take(&mut self, input: Input) {
        let was_gone = self.state.life == Life::Gone;
        let next = step(&self.state, 0, input.clone());
        assert!(
            next.save != Save::Nothing
                || next.state.facts == self.state.facts
                || matches!(next.state.life, Life::Starting { .. }),
            "facts changed and were not saved by {input:?}"
        );
        self.state = next.state;
        assert!(
            !was_gone || self.state.life == Life::Gone,
            "a removed container came back"
        );
        for effect in next.effects {
            match effect {
                Effect::Answer(ticket, _) => {
                    assert!(self.waiting.remove(&ticket.0), "answered twice: {ticket:?}");
                }
                Effect::Launch { .. } => {
                    assert_eq!(self.alive, None, "two inits at once");
                    let two = self.pending.iter().any(|pending| {
                        matches!(
                            pending,
                            Pending::Aborted(_) | Pending::Effect(Effect::Launch { .. })
                        )
                    });
                    assert!(!two, "two launches at once");
                    self.pending.push(Pending::Effect(effect));
                }
                Effect::Abort { run } => {
                    let launching = |pending: &&mut Pending| match pending {
                        Pending::Effect(Effect::Launch { run: of, .. }) => *of == run,
                        Pending::Effect(_) | Pending::Aborted(_) | Pending::Lost(_) => false,
                    };
                    let launch = self.pending.iter_mut().find(launching);
                    *launch.expect("only a launch under way is interrupted") =
                        Pending::Aborted(run);
                }
                Effect::Retire { run } => {
                    assert_eq!(self.alive, None, "let go while it runs");
                    assert_eq!(self.parts, Some(run), "let go twice");
                    self.pending.push(Pending::Effect(effect));
                }
                Effect::Destroy { .. } => {
                    assert_eq!(self.alive, None, "destroyed while it runs");
                    self.pending.push(Pending::Effect(effect));
                }
                Effect::Signal { signal, .. } => {
                    self.killed |= signal == SIGKILL;
                    self.pending.push(Pending::Effect(effect));
                }
                Effect::Force { .. }
                | Effect::Freeze { .. }
                | Effect::Thaw { .. }
                | Effect::Timer { .. } => {
                    self.pending.push(Pending::Effect(effect));
                }
                Effect::ReleaseName(_) => {}
            }
        }
    }

    fn complete(&mut self, mut index: usize, well: bool) {
        if self.pending[index].is_in_order() {
            let first = self.pending.iter().position(Pending::is_in_order);
            index = first.expect("at least this one");
        }
        match self.pending.remove(index) {
            Pending::Effect(effect) => self.complete_effect(effect, well),
            Pending::Aborted(run) if well => {
                self.begin(run);
                self.pending.push(Pending::Lost(run));
            }
            Pending::Aborted(run) => self.fail(run, 137),
            Pending::Lost(run) if self.alive == Some(run) => self.die(137),
            Pending::Lost(run) => self.take(exited(run, 137)),
        }
    }

    fn begin(&mut self, run: u64) {
        assert_eq!(self.parts, None, "it begins where another run still lies");
        self.alive = Some(run);
        self.parts = Some(run);
        self.killed = false;
        self.take(launched(run));
    }

    fn fail(&mut self, run: u64, exit_code: i32) {
        assert_eq!(self.parts, None, "it fails where another run still lies");
        let failure = Failure {
            exit_code,
            class: crate::Class::Internal,
            message: "failed".to_owned(),
        };
        self.take(Input::LaunchFailed { run, failure });
    }

    fn complete_effect(&mut self, effect: Effect, well: bool) {
        let result = || match well {
            true => Ok(()),
            false => Err(Refusal::SignalFailed("refused".to_owned())),
        };
        match effect {
            Effect::Launch { run, .. } if well => self.begin(run),
            Effect::Launch { run, .. } => self.fail(run, 128),
            Effect::Retire { run } => {
                assert_eq!(self.parts.take(), Some(run), "another run is let go");
            }
            Effect::Signal {
                run, ticket, thaw, ..
            } => {
                self.take(Input::Signalled {
                    run,
                    ticket,
                    result: result(),
                });
                if thaw {
                    self.take(Input::Thawed {
                        run,
                        result: result(),
                    });
                }
            }
            Effect::Force { run } if well && self.alive == Some(run) => self.die(137),
            Effect::Force { .. } => {}
            Effect::Freeze { run } => self.take(Input::Frozen {
                run,
                result: result(),
            }),
            Effect::Thaw { run, .. } => self.take(Input::Thawed {
                run,
                result: result(),
            }),
            Effect::Timer { timer, .. } => self.take(Input::Elapsed { timer }),
            Effect::Destroy { .. } => {
                assert_eq!(self.parts, None, "destroyed while a run still lies there");
                let result = result().map_err(|_| "not removed".to_owned());
                self.take(Input::Destroyed { result });
            }
            Effect::Answer(..) | Effect::Abort { .. } | Effect::ReleaseName(_) => {
                unreachable!("never pending")
            }
        }
    }

    fn die(&mut self, code: i32) {
        if let Some(run) = self.alive.take() {
            self.take(exited(run, code));
        }
    }

    /// Lets everything under way come to its end: then nobody may be left waiting.
    fn settle(&mut self) {
        for _ in 0..200 {
            let next = self.pending.iter().position(|pending| !pending.is_timer());
            if let Some(index) = next {
                self.complete(index, true);
            } else if self.killed && self.alive.is_some() {
                self.die(137);
            } else if !self.waiting.is_empty() && !self.pending.is_empty() {
                // Only time can help: a deadline must lead to SIGKILL.
                self.complete(0, true);
            } else {
                return;
            }
        }
    }
}

proptest! {
    #[test]
    fn no_life_breaks_the_rules(rules in any_rules(), acts in prop::collection::vec(act(), 1..60)) {
        let mut world = World {
            state: state(rules),
            pending: Vec::new(),
            alive: None,
            parts: None,
            waiting: BTreeSet::new(),
            asked: 0,
            killed: false,
        };
        let mut forever = false;
        for act in acts {
            match act {
                Act::Ask(request) => {
                    let never = Some(Timeout::Never);
                    forever |= matches!(&request, Request::Stop(how) | Request::Restart(how) if how.timeout == never);
                    world.asked += 1;
                    world.waiting.insert(world.asked);
                    let ticket = world.asked;
                    world.take(ask(ticket, request));
                }
                Act::Complete(which, well) if !world.pending.is_empty() => {
                    let index = which.index(world.pending.len());
                    world.complete(index, well);
                }
                Act::Complete(..) => {}
                Act::Stale(input) => {
                    let before = world.state.clone();
                    world.take(input);
                    prop_assert_eq!(&world.state, &before, "news of an older run changed something");
                }
                Act::Oom => {
                    let run = world.state.facts.run;
                    world.take(Input::OutOfMemory { run });
                }
                Act::Die(code) => world.die(code),
                Act::Boot => world.take(Input::Boot),
            }
            // What clients are told fits what is there.
            let has_process = world.state.status().has_process();
            prop_assert_eq!(has_process, world.alive.is_some(), "{:?}", world.state);
        }
        world.settle();
        prop_assert!(world.alive.is_some() || world.parts.is_none(), "a run is not let go: {:?}", world.state);
        if !forever {
            prop_assert!(world.waiting.is_empty(), "never answered: {:?} in {:?}", world.waiting, world.state);
        }
    }
}
