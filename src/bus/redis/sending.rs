//! A batch of commands, one an event, and what becomes of it.

use anyhow::Result;
use redis::{Cmd, Pipeline, Value};

use super::super::Sent;
use super::connection::{Connection, good, refusal};
use crate::event::{Event, EventId};
use crate::source::refusal::{Verdict, verdict};

/// After so many failures in a row events are sent one by one: so it shows which of them it is that the server cannot take.
const PATIENCE: u32 = 2;

/// More than so many bytes a server may be told not to take: so is the least that can be set as `proto-max-bulk-len`.
const LEAST_LIMIT: usize = 1 << 20;

/// Whether the commands of a batch are done together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Together {
    /// All or none, and nothing of others between them: so what comes later never stands before what has to be sent again.
    Yes,
    /// Each by itself.
    No,
}

/// Sends events, and knows how well that goes.
#[derive(Debug, Default)]
pub struct Sending {
    /// How often it has failed in a row.
    failures: u32,
    /// A large event that was sent by itself when the connection was lost.
    suspect: Option<EventId>,
}

impl Sending {
    /// Sends events by a command each, and adds what has become of them. What the last one was answered.
    pub async fn send(
        &mut self,
        connection: &mut Connection,
        commands: Vec<(&Event, Cmd)>,
        together: Together,
        sent: &mut Vec<Sent>,
    ) -> Result<Option<Value>> {
        let result = match self.failures < PATIENCE {
            true => send_all(connection, commands, together, sent).await,
            false => self.send_each(connection, commands, sent).await,
        };
        self.failures = match result {
            Ok(_) => 0,
            Err(_) => self.failures + 1,
        };
        result
    }

    async fn send_each(
        &mut self,
        connection: &mut Connection,
        commands: Vec<(&Event, Cmd)>,
        sent: &mut Vec<Sent>,
    ) -> Result<Option<Value>> {
        let mut last = None;
        for (event, command) in commands {
            match connection.ask(&command).await {
                Ok(Value::ServerError(error)) => {
                    let refusal = refusal(&error);
                    // What is wrong with the server or with our rights has names of its own; this is about the event.
                    let is_about_event =
                        error.code() == "ERR" && verdict(&refusal) == Verdict::Away;
                    if !is_about_event {
                        return Err(refusal);
                    }
                    sent.push(Sent::Refused(refusal.to_string()));
                }
                Ok(answer) => {
                    last = Some(answer);
                    sent.push(Sent::Taken(event.id));
                }
                Err(error) => {
                    self.suspect(event, sent);
                    return Err(error);
                }
            }
        }
        Ok(last)
    }

    /// The connection was lost over an event. Of one that is too large for it the server says so before it closes the connection, but
    /// that is mostly lost with what we were writing.
    fn suspect(&mut self, event: &Event, sent: &mut Vec<Sent>) {
        if event.payload.bytes.len() < LEAST_LIMIT {
            return;
        }
        if self.suspect.replace(event.id) == Some(event.id) {
            sent.push(Sent::Refused(
                "the server closes the connection when it is sent so much at once (see proto-max-bulk-len in its configuration)"
                    .to_owned(),
            ));
        }
    }
}

async fn send_all(
    connection: &mut Connection,
    commands: Vec<(&Event, Cmd)>,
    together: Together,
    sent: &mut Vec<Sent>,
) -> Result<Option<Value>> {
    let mut pipeline = Pipeline::with_capacity(commands.len());
    let mut events = Vec::with_capacity(commands.len());
    for (event, command) in commands {
        pipeline.add_command(command);
        events.push(event);
    }
    let answers = match events.len() {
        0 => return Ok(None),
        2.. if together == Together::Yes => connection.transact(&mut pipeline).await,
        _ => connection.ask_all(&pipeline).await,
    };
    let answers = answers?;
    let is_good = |answer: &Value| !matches!(answer, Value::ServerError(_));
    let last_good = answers.iter().rposition(is_good);
    let mut last = None;
    for (at, (event, answer)) in events.iter().zip(answers).enumerate() {
        match answer {
            // What is sent again comes behind what is there, and whoever looks at ids would take it for a repetition.
            Value::ServerError(error) if Some(at) < last_good => {
                sent.push(Sent::Refused(refusal(&error).to_string()));
            }
            answer => {
                last = Some(good(answer)?);
                sent.push(Sent::Taken(event.id));
            }
        }
    }
    Ok(last)
}

/// Whether the server would do a command: asked without doing it. An error if it would not, now or ever; No if it does not let
/// commands be done together, so that it cannot be known.
pub async fn try_out(connection: &mut Connection, command: Cmd) -> Result<Together> {
    let multi = connection.ask(&redis::cmd("MULTI")).await?;
    if let Value::ServerError(_) = multi {
        return Ok(Together::No);
    }
    // The server checks a command, and what state it is in itself, when it is queued.
    let queued = connection.ask(&command).await?;
    connection.ask(&redis::cmd("DISCARD")).await?;
    good(queued).map(|_| Together::Yes)
}
