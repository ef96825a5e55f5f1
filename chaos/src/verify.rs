//! The verdict on an epoch: what was sent and not received, and whether that may be.
//!
//! A message that was sent may be missing if
//! - it was still queued when the last reader of its channel died or left: then it is behind all that was
//!   received of its stream, and nobody has seen the end of the channel;
//! - a receiver was killed while it was receiving: one message for each such death;
//! - a receiver got an error instead, which says so (`FdsLost`, `UnexpectedFds`): exactly one for each error,
//!   and only messages that could cause it.

use std::sync::atomic::Ordering;

use crate::ledger::{Channel, Count, ROWS, Row, STREAMS, Stream, as_index, ended, entry, ledger};
use crate::plan::{Kind, Plan};

/// What an epoch came to.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) violations: Vec<String>,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Of these, the ones whose sender was killed before it knew that it had sent them.
    pub(crate) sent_unknown: u64,
    /// Missing, and rightly so: killed with a receiver, or queued when the last one died.
    pub(crate) died_in_hands: u64,
    pub(crate) died_in_queues: u64,
}

/// What is missing from a channel, by what can explain it.
#[derive(Debug, Default)]
struct Missing {
    /// Messages that cannot have been lost for want of descriptors.
    plain: u64,
    /// Those that can, but have none beside.
    with_fds: u64,
    /// Those that can, and have some beside.
    beside: u64,
    /// All that errors of receivers can have consumed, whether it was clear that it was sent or not.
    candidates: u64,
    example: String,
}

impl Missing {
    fn add(&mut self, state: u64, name: String) {
        match state {
            _ if state & entry::BESIDE != 0 => self.beside += 1,
            _ if state & entry::FDS != 0 => self.with_fds += 1,
            _ => self.plain += 1,
        }
        self.example = name;
    }

    /// How many kills it takes to explain it, next to these errors.
    fn kills_needed(&self, fds_lost: u64, unclaimed: u64) -> u64 {
        let (one, two) = (self.plain, self.plain + self.with_fds);
        let three = two + self.beside;
        one.max(two.saturating_sub(fds_lost))
            .max(three.saturating_sub(fds_lost + unclaimed))
    }
}

fn row(row: usize, field: Row) -> u64 {
    ledger().row(row, field).load(Ordering::SeqCst)
}

fn stream(stream: usize, field: Stream) -> u64 {
    ledger().stream(stream, field).load(Ordering::SeqCst)
}

fn channel(channel: usize, field: Channel) -> u64 {
    ledger().channel(channel, field).load(Ordering::SeqCst)
}

/// Goes through the whole account, once everybody has ended.
pub(crate) fn verify(plan: &Plan) -> Verdict {
    let mut verdict = Verdict::default();
    let rows = ledger().used(Count::NextRow, ROWS);
    let streams = ledger().used(Count::NextStream, STREAMS);
    for index in 0..rows {
        if row(index, Row::End) == 0 {
            verdict
                .violations
                .push(format!("row {index} has not ended"));
        }
    }
    let mut held = vec![0_u64; rows];
    let mut undecided = vec![0_u64; rows];
    let mut missing: Vec<Missing> = plan.channels.iter().map(|_| Missing::default()).collect();
    for index in 0..streams {
        examine(
            plan,
            index,
            &mut verdict,
            &mut missing,
            &mut held,
            &mut undecided,
        );
    }
    for index in 0..rows {
        let may_be = u64::from(row(index, Row::End) == ended::KILLED);
        if held[index] > may_be {
            verdict.violations.push(format!(
                "row {index} received {} messages and neither used them up nor passed them on (allowed: {may_be})",
                held[index]
            ));
        }
        if undecided[index] > may_be {
            verdict.violations.push(format!(
                "row {index} was in the middle of {} sends at its end (allowed: {may_be})",
                undecided[index]
            ));
        }
    }
    explain(plan, rows, &missing, &mut verdict);
    verdict
}

/// Goes through the messages of a stream.
fn examine(
    plan: &Plan,
    index: usize,
    verdict: &mut Verdict,
    missing: &mut [Missing],
    held: &mut [u64],
    undecided: &mut [u64],
) {
    let to = as_index(stream(index, Stream::Channel));
    let sender = as_index(stream(index, Stream::Sender)).wrapping_sub(1);
    let count = as_index(stream(index, Stream::Count));
    if sender >= held.len() || to >= missing.len() {
        return; // its sender was killed before the first message
    }
    let state = |number: usize| {
        let entry = ledger().entry(index, number);
        entry.map_or(0, |entry| entry.load(Ordering::SeqCst))
    };
    let states: Vec<u64> = (0..count).map(state).collect();
    let received = |state: &u64| state & entry::RECEIVED != 0;
    let behind = states.iter().rposition(received).map_or(0, |last| last + 1);
    let is_strict = saw_the_end(plan, index, to);
    for (number, &state) in states.iter().enumerate() {
        if state & entry::SENT != 0 {
            verdict.sent += 1;
        }
        if received(&state) {
            verdict.received += 1;
            verdict.sent_unknown += u64::from(state & entry::SENT == 0);
            let receiver = as_index(state >> entry::RECEIVER);
            match held.get_mut(receiver) {
                Some(held) => *held += u64::from(state & entry::FINISHED == 0),
                None => verdict
                    .violations
                    .push(format!("message {index}/{number}: received by {receiver}")),
            }
            continue;
        }
        let begun = state & entry::TRYING != 0 && state & entry::FAILED == 0;
        if begun && state & entry::SENT == 0 {
            undecided[sender] += 1;
        }
        if begun && state & entry::FDS != 0 {
            missing[to].candidates += 1;
        }
        if state & entry::SENT == 0 {
            continue;
        }
        let name = format!("{index}/{number} of row {sender}");
        if is_strict || number < behind {
            missing[to].add(state, name);
        } else if may_die_in_queue(plan, index, to) {
            verdict.died_in_queues += 1;
        } else {
            let what =
                format!("message {name} is still queued in channel {to}, whose readers live");
            verdict.violations.push(what);
        }
    }
}

/// Whether some receiver came to the end of a channel, or of a connection, so that nothing may be left in it.
fn saw_the_end(plan: &Plan, index: usize, to: usize) -> bool {
    match plan.channels[to].kind {
        Kind::Listener => stream(index, Stream::EndSeen) != 0,
        Kind::Kept | Kind::Mortal => channel(to, Channel::EndSeen) != 0,
    }
}

/// Whether all receivers of a channel, or the one of a connection, died or left.
fn may_die_in_queue(plan: &Plan, index: usize, to: usize) -> bool {
    let is_dead = |row: usize| self::row(row, Row::End) & (ended::KILLED | ended::LEFT) != 0;
    let incarnations = |actor: usize| {
        let rows = 0..ledger().used(Count::NextRow, ROWS);
        rows.filter(move |&row| self::row(row, Row::Actor) == actor as u64 + 1)
    };
    let mut readers =
        (0..plan.actors.len()).filter(|&actor| plan.actors[actor].inputs.contains(&to));
    match (plan.channels[to].kind, stream(index, Stream::Acceptor)) {
        (Kind::Listener, 0) => readers.any(|actor| incarnations(actor).any(is_dead)),
        (Kind::Listener, acceptor) => is_dead(as_index(acceptor) - 1),
        // Only the last incarnation: before that, others came after.
        _ => readers.all(|actor| incarnations(actor).next_back().is_none_or(is_dead)),
    }
}

/// Explains what is missing by errors and by deaths, each of which explains one message.
fn explain(plan: &Plan, rows: usize, missing: &[Missing], verdict: &mut Verdict) {
    let mut needed = Vec::new();
    for (index, missing) in missing.iter().enumerate() {
        let (lost, unclaimed) = (
            channel(index, Channel::FdsLost),
            channel(index, Channel::Unclaimed),
        );
        if lost + unclaimed > missing.candidates {
            verdict.violations.push(format!(
                "receivers of channel {index} lost {lost} + {unclaimed} messages, but only {} can be missing",
                missing.candidates
            ));
        }
        needed.push(missing.kills_needed(lost, unclaimed));
    }
    // Each killed receiver can explain one message of one of the channels that it was receiving from.
    let mut killed: Vec<Vec<usize>> = Vec::new();
    for index in 0..rows {
        let actor = as_index(row(index, Row::Actor)).wrapping_sub(1);
        if let (ended::KILLED, Some(actor)) = (row(index, Row::End), plan.actors.get(actor)) {
            let receiving = row(index, Row::Receiving);
            let inputs = actor.inputs.iter().enumerate();
            let channels = inputs.filter(|(place, _)| receiving >> place & 1 == 1);
            killed.push(channels.map(|(_, &channel)| channel).collect());
        }
    }
    let mut explains: Vec<Option<usize>> = vec![None; killed.len()];
    for (index, &count) in needed.iter().enumerate() {
        for _ in 0..count {
            let mut seen = vec![false; killed.len()];
            if find_death(index, &killed, &mut explains, &mut seen) {
                verdict.died_in_hands += 1;
            } else {
                let Missing {
                    plain,
                    with_fds,
                    beside,
                    example,
                    ..
                } = &missing[index];
                verdict.violations.push(format!(
                    "channel {index} lost messages: {} of those missing have no explanation, \
                     for example {example}",
                    (plain + with_fds + beside).min(count)
                ));
                break;
            }
        }
    }
}

/// Finds a death that explains a missing message of a channel, if need be by giving others other explanations.
fn find_death(
    channel: usize,
    killed: &[Vec<usize>],
    explains: &mut [Option<usize>],
    seen: &mut [bool],
) -> bool {
    for death in 0..killed.len() {
        if seen[death] || !killed[death].contains(&channel) {
            continue;
        }
        seen[death] = true;
        let is_free = match explains[death] {
            None => true,
            Some(other) => find_death(other, killed, explains, seen),
        };
        if is_free {
            explains[death] = Some(channel);
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_explains_one_message() {
        let killed = [vec![0, 1], vec![0]];
        let mut explains = [None, None];
        let mut find = |channel| find_death(channel, &killed, &mut explains, &mut [false, false]);
        assert!(find(0));
        assert!(find(1)); // the first death, while the second explains what that did
        assert!(!find(0));
        assert!(!find(2));
    }

    #[test]
    fn errors_explain_only_messages_that_could_cause_them() {
        let missing = |plain, with_fds, beside| Missing {
            plain,
            with_fds,
            beside,
            ..Missing::default()
        };
        assert_eq!(missing(0, 3, 2).kills_needed(3, 2), 0);
        assert_eq!(missing(1, 3, 2).kills_needed(9, 9), 1);
        assert_eq!(missing(0, 3, 0).kills_needed(1, 9), 2);
        assert_eq!(missing(0, 1, 3).kills_needed(3, 0), 1);
    }
}
