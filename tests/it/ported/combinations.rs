//! Every combination of three arms in every state that a channel or descriptor can be in.
//!
//! What crossbeam-channel's `select.rs` and Go's `test/chan/select3.go` and `select5.go` try one by one.

use std::fs::File;
use std::io::{Read, Write};
use std::time::Duration;

use wormhole::{Error, Receiver, Select, Selected, Sender, channel, select};

use super::small;
use crate::support::{in_own_process, pipe, until_asleep};

/// The message that waits in a channel, or that an arm sends.
const MESSAGE: u32 = 7;

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    RecvEmpty,
    RecvMessage,
    RecvMessageThenClosed,
    RecvClosed,
    SendRoom,
    SendFull,
    SendClosed,
    SendFullThenClosed,
    NotReady,
    Ready,
    AtEnd,
}

use State::{
    AtEnd, NotReady, Ready, RecvClosed, RecvEmpty, RecvMessage, RecvMessageThenClosed, SendClosed,
    SendFull, SendFullThenClosed, SendRoom,
};

const STATES: [State; 11] = [
    RecvEmpty,
    RecvMessage,
    RecvMessageThenClosed,
    RecvClosed,
    SendRoom,
    SendFull,
    SendClosed,
    SendFullThenClosed,
    NotReady,
    Ready,
    AtEnd,
];

/// Three of them, in every combination.
fn threes(states: &[State]) -> impl Iterator<Item = [State; 3]> {
    let count = states.len();
    (0..count.pow(3)).map(move |number| {
        [
            states[number / count / count],
            states[number / count % count],
            states[number % count],
        ]
    })
}

impl State {
    fn can_happen(self) -> bool {
        !matches!(self, RecvEmpty | SendFull | NotReady)
    }
}

/// An arm with the other side of its channel.
enum Arm {
    Recv(Receiver<u32>, Option<Sender<u32>>),
    Send(Sender<u32>, Option<Receiver<u32>>),
    Ready(File, Option<File>),
}

/// Fills a channel, and says how many messages that took.
fn fill(tx: &Sender<u32>) -> usize {
    std::iter::repeat_with(|| tx.try_send(0))
        .take_while(Result::is_ok)
        .count()
}

impl Arm {
    fn new(state: State) -> Self {
        let (tx, rx) = small().channel().unwrap();
        let (reader, mut writer) = pipe();
        match state {
            RecvEmpty | RecvMessage | RecvMessageThenClosed | RecvClosed => {
                if matches!(state, RecvMessage | RecvMessageThenClosed) {
                    tx.send(MESSAGE).unwrap();
                }
                Arm::Recv(rx, matches!(state, RecvEmpty | RecvMessage).then_some(tx))
            }
            SendRoom | SendFull | SendClosed | SendFullThenClosed => {
                if matches!(state, SendFull | SendFullThenClosed) {
                    fill(&tx);
                }
                Arm::Send(tx, matches!(state, SendRoom | SendFull).then_some(rx))
            }
            NotReady | Ready | AtEnd => {
                if state == Ready {
                    writer.write_all(b"x").unwrap();
                }
                Arm::Ready(reader, (state != AtEnd).then_some(writer))
            }
        }
    }

    fn add<'a>(&'a self, select: &mut Select<'a>) -> usize {
        match self {
            Arm::Recv(rx, _) => select.recv(rx),
            Arm::Send(tx, _) => select.send(tx, MESSAGE),
            Arm::Ready(reader, _) => select.ready(reader),
        }
    }

    /// Checks what came of this arm, and that what was chosen has happened, once.
    fn check_chosen(&self, state: State, selected: Selected) {
        match (self, state) {
            (Arm::Recv(rx, _), RecvMessage | RecvMessageThenClosed) => {
                assert_eq!(selected.recv(rx).unwrap(), MESSAGE);
                let next = if state == RecvMessage {
                    RecvEmpty
                } else {
                    RecvClosed
                };
                self.check_untouched(next);
            }
            (Arm::Recv(rx, _), _) => assert!(matches!(selected.recv(rx), Err(Error::Disconnected))),
            (Arm::Send(_, Some(rx)), _) => {
                selected.sent().unwrap();
                assert_eq!(rx.try_recv().unwrap(), MESSAGE);
                assert!(matches!(rx.try_recv(), Err(Error::Empty)));
            }
            (Arm::Send(..), _) => assert!(matches!(selected.sent(), Err(Error::Disconnected))),
            (Arm::Ready(..), _) => self.check_untouched(state),
        }
    }

    /// Checks that nothing has happened here.
    fn check_untouched(&self, state: State) {
        match self {
            Arm::Recv(rx, _) => match (state, rx.try_recv()) {
                (RecvMessage | RecvMessageThenClosed, message) => {
                    assert_eq!(message.unwrap(), MESSAGE)
                }
                (RecvEmpty, message) => assert!(matches!(message, Err(Error::Empty))),
                (_, message) => assert!(matches!(message, Err(Error::Disconnected))),
            },
            Arm::Send(_, Some(rx)) => {
                assert!(rx.try_iter().all(|message| message.unwrap() == 0));
            }
            Arm::Send(_, None) => {}
            Arm::Ready(reader, _) => {
                if state.can_happen() {
                    let mut reader = reader;
                    assert_eq!(reader.read(&mut [0]).unwrap(), usize::from(state == Ready));
                }
            }
        }
    }

    /// Makes the arm happen: by a message, room or a byte, or by closing the other side.
    fn trigger(self, close: bool) -> Arm {
        match self {
            Arm::Recv(rx, tx) => {
                let tx = tx.filter(|tx| close || tx.send(MESSAGE).is_ok());
                Arm::Recv(rx, tx.filter(|_| !close))
            }
            Arm::Send(tx, rx) => {
                let rx = rx.filter(|rx| close || rx.try_iter().all(|message| message.is_ok()));
                Arm::Send(tx, rx.filter(|_| !close))
            }
            Arm::Ready(reader, writer) => {
                let writer = writer.filter(|mut writer| close || writer.write_all(b"x").is_ok());
                Arm::Ready(reader, writer.filter(|_| !close))
            }
        }
    }

    /// Closes this process's copy of the other side.
    fn leave_other_side(self) -> Arm {
        match self {
            Arm::Recv(rx, _) => Arm::Recv(rx, None),
            Arm::Send(tx, _) => Arm::Send(tx, None),
            Arm::Ready(reader, _) => Arm::Ready(reader, None),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Try,
    WithTime(Duration),
    Wait,
}

impl Way {
    /// All of them, but not to wait for ever when nothing can happen.
    fn all(possible: bool) -> Vec<Way> {
        let mut ways = vec![Way::Try, Way::WithTime(Duration::ZERO)];
        if possible {
            ways.extend([Way::WithTime(Duration::from_secs(3600)), Way::Wait]);
        } else {
            ways.push(Way::WithTime(Duration::from_micros(200)));
        }
        ways
    }
}

fn choose(arms: &[Arm; 3], way: Way) -> Option<Selected> {
    let mut select = Select::new();
    for (index, arm) in arms.iter().enumerate() {
        assert_eq!(arm.add(&mut select), index);
    }
    let within = |select: &mut Select<'_>, timeout| match select.select_timeout(timeout) {
        Err(Error::TimedOut { .. }) => None,
        selected => Some(selected.unwrap()),
    };
    match way {
        Way::Try => select.try_select().unwrap(),
        Way::WithTime(timeout) => within(&mut select, timeout),
        Way::Wait => Some(select.select().unwrap()),
    }
}

#[test]
fn exactly_one_arm_that_can_happen_does_in_every_combination_of_three() {
    in_own_process(|| {
        for states in threes(&STATES) {
            let possible = states.iter().filter(|state| state.can_happen()).count();
            for way in Way::all(possible > 0) {
                let arms = states.map(Arm::new);
                let chosen = choose(&arms, way);
                assert_eq!(chosen.is_some(), possible > 0, "{states:?} {way:?}");
                let index = chosen.as_ref().map(Selected::index);
                if let Some(selected) = chosen {
                    let index = selected.index();
                    assert!(states[index].can_happen(), "{states:?} {way:?}");
                    arms[index].check_chosen(states[index], selected);
                }
                for at in 0..3 {
                    if Some(at) != index {
                        arms[at].check_untouched(states[at]);
                    }
                }
            }
        }
    });
}

#[test]
fn every_arm_that_can_happen_is_chosen_sooner_or_later_in_every_combination_of_three() {
    in_own_process(|| {
        for states in threes(&STATES) {
            let mut missing: Vec<_> = (0..3).filter(|&at| states[at].can_happen()).collect();
            for _ in 0..300 {
                if missing.is_empty() {
                    break;
                }
                let chosen = choose(&states.map(Arm::new), Way::Wait).unwrap().index();
                missing.retain(|&at| at != chosen);
            }
            assert!(missing.is_empty(), "{states:?}: never {missing:?}");
        }
    });
}

#[test]
fn each_arm_of_every_combination_of_three_that_waits_is_woken_by_a_message_and_by_closing() {
    in_own_process(|| {
        for waiting in threes(&[RecvEmpty, SendFull, NotReady]) {
            for at in 0..3 {
                for close in [false, true] {
                    let arms = waiting.map(Arm::new);
                    let mut arms = arms.map(Some);
                    let (chosen, choices) = channel::<usize>().unwrap();
                    let child = child!(without (choices) {
                        let arms = arms.each_mut().map(|arm| arm.take().unwrap().leave_other_side());
                        chosen.send(choose(&arms, Way::Wait).unwrap().index()).unwrap();
                    });
                    until_asleep(child.pid);
                    arms[at] = arms[at].take().map(|arm| arm.trigger(close));
                    drop(chosen);
                    assert_eq!(choices.recv().unwrap(), at, "{waiting:?} {at} {close}");
                    child.join();
                }
            }
        }
    });
}

#[test]
fn the_macro_chooses_as_the_builder_does() {
    in_own_process(|| {
        let states = threes(&STATES).filter(|states| {
            let kinds = states.map(Arm::new);
            matches!(kinds, [Arm::Recv(..), Arm::Send(..), Arm::Ready(..)])
        });
        for states in states {
            let possible = states.iter().any(|state| state.can_happen());
            for way in Way::all(possible) {
                let arms = states.map(Arm::new);
                let [Arm::Recv(rx, _), Arm::Send(tx, _), Arm::Ready(reader, _)] = &arms else {
                    unreachable!();
                };
                let chosen = match way {
                    Way::Wait => select! {
                        recv(rx) -> message => Some((0, message.is_ok())),
                        send(tx, MESSAGE) -> sent => Some((1, sent.is_ok())),
                        ready(reader) => Some((2, true)),
                    },
                    Way::Try => select! {
                        recv(rx) -> message => Some((0, message.is_ok())),
                        send(tx, MESSAGE) -> sent => Some((1, sent.is_ok())),
                        ready(reader) => Some((2, true)),
                        default => None,
                    },
                    Way::WithTime(timeout) => select! {
                        recv(rx) -> message => Some((0, message.is_ok())),
                        send(tx, MESSAGE) -> sent => Some((1, sent.is_ok())),
                        ready(reader) => Some((2, true)),
                        default(timeout) => None,
                    },
                };
                assert_eq!(chosen.is_some(), possible, "{states:?} {way:?}");
                if let Some((index, is_ok)) = chosen {
                    assert!(states[index].can_happen(), "{states:?} {way:?}");
                    let closed =
                        matches!(states[index], RecvClosed | SendClosed | SendFullThenClosed);
                    assert_eq!(is_ok, !closed, "{states:?} {way:?}");
                }
            }
        }
    });
}
