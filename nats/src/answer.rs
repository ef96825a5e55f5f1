//! What comes to an inbox: jobs, and what the server says about requests. Pure.

use std::time::{Duration, SystemTime};

use async_nats::Message;

use crate::excerpt::excerpt;

/// A message that is a job.
pub(crate) type Arrived = (Message, Delivered);

/// What a message in an inbox is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A job, and what its acknowledgement subject says of it.
    Job(Delivered),
    /// A sign of life.
    Heartbeat,
    /// The request is over: nothing came.
    Over,
    /// The server has dropped it, as it has too many requests, or too much in flight, or is about to end.
    Busy,
    /// It never answers such a request with a job, for this reason.
    Refused(String),
    /// The consumer is gone.
    Gone,
    /// Nothing that this crate knows.
    Foreign,
}

/// What the subject of an acknowledgement says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delivered {
    /// How often the job was delivered, this time included.
    pub(crate) deliveries: u64,
    /// Its number in the stream.
    pub(crate) sequence: u64,
    /// When it was stored, since 1970.
    pub(crate) stored: Duration,
}

impl Delivered {
    /// Reads the subject: `$JS.ACK`, perhaps domain and account, stream, consumer, how often delivered, number in the
    /// stream and in the consumer, time, and how many wait; and perhaps a random token.
    fn parse(reply: &str, stream: &str, consumer: &str) -> Option<Self> {
        let parts: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
        let parts = match parts.len() {
            7 => parts.as_slice(),
            9.. => parts.get(2..)?,
            _ => return None,
        };
        let [of, by, deliveries, sequence, _, stored, _, ..] = parts else {
            return None;
        };
        if *of != stream || *by != consumer {
            return None;
        }
        Some(Delivered {
            deliveries: deliveries.parse().ok()?,
            sequence: sequence.parse().ok()?,
            stored: Duration::from_nanos(stored.parse().ok()?),
        })
    }

    /// How long ago the job was stored, by the clocks of the server and of this machine.
    pub(crate) fn age(&self) -> Duration {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        now.unwrap_or_default().saturating_sub(self.stored)
    }
}

impl Answer {
    /// Takes a message for what it is.
    ///
    /// A job can be acknowledged, and what the server says cannot. Its status does not tell: whoever publishes a job
    /// writes its headers, and may write there what the server would.
    pub(crate) fn of(message: &Message, stream: &str, consumer: &str) -> Self {
        if let Some(reply) = &message.reply {
            let delivered = Delivered::parse(reply, stream, consumer);
            return delivered.map_or(Answer::Foreign, Answer::Job);
        }
        let status = message.status.map(|status| status.as_u16());
        let description = message.description.as_deref().unwrap_or_default();
        Self::of_status(status, description)
    }

    fn of_status(status: Option<u16>, description: &str) -> Self {
        match status {
            Some(100) => Answer::Heartbeat,
            Some(404 | 408) => Answer::Over,
            Some(409) if description.contains("Deleted") => Answer::Gone,
            // By the settings of a consumer that others have made.
            Some(400) => Answer::refused(400, description),
            Some(409)
                if ["MaxRequest", "push"]
                    .iter()
                    .any(|word| description.contains(word)) =>
            {
                Answer::refused(409, description)
            }
            Some(409) => Answer::Busy,
            // Nothing listens: the consumer is gone, or not there yet.
            Some(503) => Answer::Gone,
            _ => Answer::Foreign,
        }
    }

    fn refused(status: u16, description: &str) -> Self {
        let description = excerpt(description);
        Answer::Refused(format!(
            "the consumer has no job for such a request: {description} (status {status})"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(reply: &str) -> Option<Delivered> {
        Delivered::parse(reply, "jobs", "workers")
    }

    #[test]
    fn both_forms_of_the_subject_are_read() {
        let expected = Some(Delivered {
            deliveries: 3,
            sequence: 17,
            stored: Duration::from_nanos(1_700_000_000_000_000_001),
        });
        assert_eq!(
            parse("$JS.ACK.jobs.workers.3.17.20.1700000000000000001.5"),
            expected
        );
        let long = "$JS.ACK.hub.ACCHASH.jobs.workers.3.17.20.1700000000000000001.5";
        assert_eq!(parse(long), expected);
        assert_eq!(parse(&format!("{long}.random")), expected);
    }

    #[test]
    fn other_subjects_are_no_jobs() {
        for reply in [
            "",
            "$JS.ACK",
            "$JS.ACK.",
            "$JS.ACK.jobs.workers.3.17.20.1700000000000000001",
            "$JS.ACK.jobs.others.3.17.20.1700000000000000001.5",
            "$JS.ACK.other.workers.3.17.20.1700000000000000001.5",
            "$JS.ACK.jobs.workers.-3.17.20.1700000000000000001.5",
            "$JS.ACK.jobs.workers.3.17.20.99999999999999999999999.5",
            "$JS.ACK.jobs.workers.a.b.c.d.e",
            "_INBOX.jobs.workers.3.17.20.1700000000000000001.5",
        ] {
            assert_eq!(parse(reply), None, "{reply}");
        }
    }

    #[test]
    fn statuses_are_told_apart() {
        let of = Answer::of_status;
        assert_eq!(of(Some(100), "Idle Heartbeat"), Answer::Heartbeat);
        assert_eq!(of(Some(404), "No Messages"), Answer::Over);
        assert_eq!(of(Some(408), "Request Timeout"), Answer::Over);
        assert_eq!(of(Some(409), "Consumer Deleted"), Answer::Gone);
        assert_eq!(of(Some(409), "Exceeded MaxWaiting"), Answer::Busy);
        assert_eq!(of(Some(409), "Leadership Change"), Answer::Busy);
        assert_eq!(of(Some(409), "Server Shutdown"), Answer::Busy);
        for (status, description) in [
            (400, "Bad Request - Priority Group missing"),
            (409, "Exceeded MaxRequestExpires of 1s"),
            (409, "Consumer is push based"),
        ] {
            let answer = of(Some(status), description);
            let names = |reason: &String| reason.contains(description);
            assert!(
                matches!(&answer, Answer::Refused(reason) if names(reason)),
                "{answer:?}"
            );
        }
        assert_eq!(of(None, ""), Answer::Foreign);
        assert_eq!(of(Some(777), ""), Answer::Foreign);
    }
}
