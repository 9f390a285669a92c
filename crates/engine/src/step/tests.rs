//! Tables for single steps.

mod world;

use super::*;
use crate::state::Facts;

fn state(rules: Rules) -> State {
    State::idle(rules, "box".into(), Facts::default())
}

fn rules() -> Rules {
    Rules {
        stop_signal: 15,
        stop_timeout: Some(Duration::from_secs(10)),
        ..Rules::default()
    }
}

/// Takes steps in a row; answers the last.
fn run(mut state: State, inputs: Vec<Input>) -> Step {
    let mut last = None;
    for input in inputs {
        let next = step(&state, 0, input);
        state = next.state.clone();
        last = Some(next);
    }
    last.expect("at least one input")
}

fn ask(ticket: u64, request: Request) -> Input {
    Input::Request(Ticket(ticket), request)
}

fn launched(run: u64) -> Input {
    Input::Launched {
        run,
        pid: 42,
        at_ns: 1_000,
        network: None,
    }
}

fn exited(run: u64, code: i32) -> Input {
    let exit = Exit {
        code,
        oom_killed: false,
        at_ns: 2_000,
    };
    Input::Exited { run, exit }
}

fn stop(timeout_s: u64) -> Request {
    Request::Stop(Stop {
        signal: None,
        timeout: Some(Timeout::After(Duration::from_secs(timeout_s))),
    })
}

#[test]
fn a_stop_without_a_deadline_thaws_what_was_being_frozen() {
    let forever = Request::Stop(Stop {
        signal: None,
        timeout: Some(Timeout::Never),
    });
    let frozen = Input::Frozen {
        run: 1,
        result: Ok(()),
    };
    let inputs = vec![
        ask(1, Request::Start),
        launched(1),
        ask(2, Request::Pause),
        ask(3, forever),
        frozen,
    ];
    let last = run(state(rules()), inputs);
    let thaw = Effect::Thaw {
        run: 1,
        doubtful: false,
    };
    assert!(last.effects.contains(&thaw), "{last:?}");
}

/// The shim may have frozen it all the same, or do so later.
#[test]
fn a_pause_that_failed_leaves_open_whether_it_is_frozen() {
    let failed = Input::Frozen {
        run: 1,
        result: Err(Refusal::FreezeFailed("no answer".to_owned())),
    };
    let inputs = vec![
        ask(1, Request::Start),
        launched(1),
        ask(2, Request::Pause),
        failed,
    ];
    let doubtful = run(state(rules()), inputs);
    let told = Err(Refusal::FreezeFailed("no answer".to_owned()));
    assert_eq!(answered(&doubtful), [(2, told)]);
    assert_eq!(doubtful.state.status(), Status::Running);
    let again = step(&doubtful.state, 0, ask(3, Request::Pause));
    assert_eq!(again.effects, [Effect::Freeze { run: 1 }]);
    let thawing = step(&doubtful.state, 0, ask(3, Request::Unpause));
    let thaw = Effect::Thaw {
        run: 1,
        doubtful: true,
    };
    assert_eq!(thawing.effects, [thaw]);
    let refused = Input::Thawed {
        run: 1,
        result: Err(Refusal::NotPaused),
    };
    let refused = step(&thawing.state, 0, refused);
    assert_eq!(refused.state.life, doubtful.state.life, "as open as before");
    assert_eq!(answered(&refused), [(3, Err(Refusal::NotPaused))]);
    let thaws = |request| {
        let next = step(&doubtful.state, 0, ask(3, request));
        let signal = |effect: &Effect| matches!(effect, Effect::Signal { thaw: true, .. });
        next.effects.iter().any(signal)
    };
    assert!(thaws(stop(1)) && thaws(Request::Kill { signal: 9 }));
    assert!(!thaws(Request::Kill { signal: 1 }));
}

/// The shim sees the exit first: who asks meanwhile is told what the next one is told.
#[test]
fn what_meets_the_exit_is_refused_as_after_it() {
    let running = run(state(rules()), vec![ask(1, Request::Start), launched(1)]).state;
    let over = || Err(Refusal::NotRunning);
    let signalled = Input::Signalled {
        run: 1,
        ticket: Some(Ticket(2)),
        result: over(),
    };
    let frozen = Input::Frozen {
        run: 1,
        result: over(),
    };
    for (request, met) in [
        (Request::Kill { signal: 1 }, signalled),
        (Request::Pause, frozen),
    ] {
        let inputs = vec![ask(2, request.clone()), met];
        let refused = run(running.clone(), inputs);
        assert_eq!(answered(&refused), [(2, over())], "{request:?}");
    }
}

#[test]
fn sigkill_thaws_whatever_is_known_of_the_freezer() {
    let inputs = vec![
        ask(1, Request::Start),
        launched(1),
        ask(2, Request::Kill { signal: 9 }),
    ];
    let killed = run(state(rules()), inputs);
    let signal = Effect::Signal {
        run: 1,
        signal: 9,
        thaw: true,
        ticket: None,
    };
    assert!(killed.effects.contains(&signal), "{killed:?}");
}

fn actions(step: &Step) -> Vec<&'static str> {
    step.events.iter().map(|event| event.action).collect()
}

fn answered(step: &Step) -> Vec<(u64, Result<(), Refusal>)> {
    step.effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Answer(ticket, answer) => Some((ticket.0, answer.clone())),
            Effect::Launch { .. }
            | Effect::Abort { .. }
            | Effect::Signal { .. }
            | Effect::Force { .. }
            | Effect::Freeze { .. }
            | Effect::Thaw { .. }
            | Effect::Timer { .. }
            | Effect::Retire { .. }
            | Effect::Destroy { .. }
            | Effect::ReleaseName(_) => None,
        })
        .collect()
}

fn signals(step: &Step) -> Vec<i32> {
    step.effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Signal { signal, .. } => Some(*signal),
            Effect::Answer(..)
            | Effect::Launch { .. }
            | Effect::Abort { .. }
            | Effect::Force { .. }
            | Effect::Freeze { .. }
            | Effect::Thaw { .. }
            | Effect::Timer { .. }
            | Effect::Retire { .. }
            | Effect::Destroy { .. }
            | Effect::ReleaseName(_) => None,
        })
        .collect()
}

#[test]
fn the_start_is_answered_when_its_run_is_saved() {
    let first = step(&state(rules()), 0, ask(1, Request::Start));
    assert_eq!((first.save, answered(&first)), (Save::Nothing, vec![]));
    let launch = Effect::Launch {
        run: 1,
        cause: Cause::Start,
    };
    assert_eq!(first.effects, [launch]);
    let second = step(&first.state, 0, launched(1));
    assert_eq!(
        (second.save, actions(&second), answered(&second)),
        (Save::Row, vec!["start"], vec![(1, Ok(()))])
    );
}

#[test]
fn every_state_refuses_in_dockers_way() {
    let running = run(state(rules()), vec![ask(1, Request::Start), launched(1)]).state;
    let paused = run(
        running.clone(),
        vec![
            ask(2, Request::Pause),
            Input::Frozen {
                run: 1,
                result: Ok(()),
            },
        ],
    )
    .state;
    let removing = run(
        state(rules()),
        vec![ask(
            1,
            Request::Remove {
                force: false,
                volumes: false,
            },
        )],
    )
    .state;
    let gone = run(removing.clone(), vec![Input::Destroyed { result: Ok(()) }]).state;
    let idle = state(rules());
    let gentle = Request::Remove {
        force: false,
        volumes: false,
    };
    let table = [
        (&idle, stop(1), Refusal::AlreadyStopped),
        (&idle, Request::Kill { signal: 9 }, Refusal::NotRunning),
        (&idle, Request::Pause, Refusal::NotRunning),
        (&idle, Request::Unpause, Refusal::NotPaused),
        (&running, Request::Start, Refusal::AlreadyStarted),
        (&running, Request::Unpause, Refusal::NotPaused),
        (
            &running,
            gentle.clone(),
            Refusal::StillRunning(Status::Running),
        ),
        (&paused, Request::Start, Refusal::Paused),
        (&paused, Request::Pause, Refusal::AlreadyPaused),
        (
            &paused,
            gentle.clone(),
            Refusal::StillRunning(Status::Paused),
        ),
        (&removing, Request::Start, Refusal::MarkedForRemoval),
        (&removing, gentle.clone(), Refusal::RemovalInProgress),
        (&removing, stop(1), Refusal::AlreadyStopped),
        (&gone, Request::Start, Refusal::Gone),
        (&gone, gentle, Refusal::Gone),
    ];
    for (state, request, refusal) in table {
        let next = step(state, 0, ask(9, request.clone()));
        assert_eq!(answered(&next), [(9, Err(refusal))], "{request:?}");
        assert_eq!(&next.state, state, "{request:?}");
    }
}

#[test]
fn a_stop_that_is_not_heeded_turns_to_sigkill() {
    let stopping = run(
        state(rules()),
        vec![ask(1, Request::Start), launched(1), ask(2, stop(3))],
    );
    assert_eq!(signals(&stopping), [15]);
    assert!(stopping.effects.contains(&Effect::Timer {
        timer: 1,
        after: Duration::from_secs(3)
    }));
    let killing = step(&stopping.state, 0, Input::Elapsed { timer: 1 });
    assert_eq!(
        (signals(&killing), actions(&killing)),
        (vec![9], vec!["kill"])
    );
    let dead = step(&killing.state, 0, exited(1, 137));
    assert_eq!(actions(&dead), ["stop", "die"]);
    assert_eq!(answered(&dead), [(2, Ok(()))]);
    let forced = step(&killing.state, 0, Input::Elapsed { timer: 2 });
    assert_eq!(answered(&forced), []);
    let left = Duration::from_secs(5);
    let by_the_daemon = [
        Effect::Force { run: 1 },
        Effect::Timer {
            timer: 3,
            after: left,
        },
    ];
    assert_eq!(forced.effects, by_the_daemon);
    let immortal = step(&forced.state, 0, Input::Elapsed { timer: 3 });
    assert_eq!(answered(&immortal), [(2, Err(Refusal::Unkillable))]);
}

#[test]
fn a_second_stop_can_only_shorten_the_first() {
    let stopping = run(
        state(rules()),
        vec![ask(1, Request::Start), launched(1), ask(2, stop(10))],
    );
    let longer = step(&stopping.state, 0, ask(3, stop(20)));
    assert!(
        !longer
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::Timer { .. }))
    );
    let shorter = step(&stopping.state, 0, ask(3, stop(1)));
    assert!(shorter.effects.contains(&Effect::Timer {
        timer: 2,
        after: Duration::from_secs(1)
    }));
    let stale = step(&shorter.state, 0, Input::Elapsed { timer: 1 });
    assert_eq!(signals(&stale), Vec::<i32>::new());
}

#[test]
fn a_forced_removal_is_decided_while_a_stop_runs() {
    let forced = Request::Remove {
        force: true,
        volumes: true,
    };
    let removing = run(
        state(rules()),
        vec![
            ask(1, Request::Start),
            launched(1),
            ask(2, stop(10)),
            ask(3, forced),
        ],
    );
    assert_eq!(signals(&removing), [9]);
    let dead = step(&removing.state, 0, exited(1, 137));
    assert_eq!(dead.state.status(), Status::Removing);
    assert_eq!(answered(&dead), [(2, Ok(()))]);
    let gone = step(&dead.state, 0, Input::Destroyed { result: Ok(()) });
    assert_eq!(
        (gone.save, actions(&gone), answered(&gone)),
        (Save::Delete, vec!["destroy"], vec![(3, Ok(()))])
    );
}

#[test]
fn a_forced_removal_interrupts_a_launch() {
    let forced = Request::Remove {
        force: true,
        volumes: false,
    };
    let aborted = run(state(rules()), vec![ask(1, Request::Start), ask(2, forced)]);
    assert_eq!(aborted.effects, [Effect::Abort { run: 1 }]);
    let failure = Failure {
        exit_code: 137,
        class: crate::Class::Conflict,
        message: "interrupted".to_owned(),
    };
    let failed = step(
        &aborted.state,
        0,
        Input::LaunchFailed {
            run: 1,
            failure: failure.clone(),
        },
    );
    assert_eq!(answered(&failed), [(1, Err(Refusal::StartFailed(failure)))]);
    assert_eq!(failed.state.status(), Status::Removing);
}

#[test]
fn policies_restart_with_growing_pauses_until_a_person_stops_it() {
    let always = Rules {
        restart: RestartPolicy::Always,
        ..rules()
    };
    let mut now = run(state(always), vec![ask(1, Request::Start), launched(1)]);
    let mut pauses = Vec::new();
    for run in 1..=12 {
        now = step(&now.state, 0, exited(run, 1));
        let Some(Effect::Timer { timer, after }) = now
            .effects
            .iter()
            .find(|e| matches!(e, Effect::Timer { .. }))
        else {
            panic!("it is started again");
        };
        pauses.push(after.as_millis());
        now = step(&now.state, 0, Input::Elapsed { timer: *timer });
        now = step(&now.state, 0, launched(run + 1));
    }
    assert_eq!(
        pauses,
        [
            100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 60_000, 60_000
        ]
    );
    assert_eq!(now.state.facts.restart_count, 12);
    let long = Exit {
        code: 1,
        oom_killed: false,
        at_ns: 20_000_000_000,
    };
    let after_long = step(
        &now.state,
        0,
        Input::Exited {
            run: 13,
            exit: long,
        },
    );
    assert!(after_long.effects.contains(&Effect::Timer {
        timer: 13,
        after: BACKOFF_FIRST
    }));
    let stopped = run(now.state, vec![ask(2, stop(1)), exited(13, 0)]);
    assert_eq!(stopped.state.status(), Status::Exited);
    let boot = step(&stopped.state, 0, Input::Boot);
    assert_eq!(
        boot.effects,
        [Effect::Launch {
            run: 14,
            cause: Cause::Boot
        }],
        "always means also at boot"
    );
}

#[test]
fn an_exit_is_told_in_dockers_order() {
    let removing = Rules {
        auto_remove: true,
        ..rules()
    };
    let dead = run(
        state(removing),
        vec![ask(1, Request::Start), launched(1), exited(1, 3)],
    );
    assert_eq!(actions(&dead), ["die"]);
    assert_eq!(
        dead.effects,
        [Effect::Retire { run: 1 }, Effect::Destroy { volumes: true }],
        "the run is let go before the files are"
    );
    let gone = step(&dead.state, 0, Input::Destroyed { result: Ok(()) });
    assert_eq!(
        (actions(&gone), gone.state.facts.exit_code),
        (vec!["destroy"], 3)
    );
}
