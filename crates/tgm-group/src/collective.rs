//! What processes do together, along the chain.

use std::sync::mpsc;

use crate::link::{Link, Receive, Send};
use crate::{Group, GroupError};

/// Values that travel together: large enough that a connection is busy, small enough that all of them are at once.
const CHUNK: usize = 1 << 16;

/// What a call begins with, so that two processes at different points of the program notice.
#[derive(Clone, Copy)]
enum Call {
    Reduce = 1,
    Gather = 2,
    Broadcast = 3,
}

impl Group {
    /// Adds up the values of all processes, in the order of their ranks. All processes must give the same numbers of values, and get the
    /// same sums to the bit.
    ///
    /// # Errors
    /// When another process is gone. The values are then partly sums and partly not.
    pub fn all_reduce<'a>(
        &mut self,
        values: impl IntoIterator<Item = &'a mut [f32]>,
    ) -> Result<(), GroupError> {
        let chunks: Vec<&mut [f32]> =
            values.into_iter().flat_map(|values| values.chunks_mut(CHUNK)).collect();
        let total = chunks.iter().map(|chunk| chunk.len()).sum::<usize>() as u64;
        match (&mut self.before, &mut self.after) {
            (None, None) => Ok(()),
            (None, Some(after)) => {
                open(&mut after.send, Call::Reduce, total)?;
                let Link { receive, send, .. } = after;
                both_ways(chunks, |chunk| push(send, chunk), |chunk| take(receive, chunk))
            }
            (Some(before), None) => {
                check(before, Call::Reduce, total)?;
                for chunk in chunks {
                    add(&mut before.receive, chunk)?;
                    push(&mut before.send, chunk)?;
                }
                Ok(())
            }
            (Some(before), Some(after)) => {
                check(before, Call::Reduce, total)?;
                open(&mut after.send, Call::Reduce, total)?;
                let (from, to) = (&mut before.receive, &mut after.send);
                let (back_from, back_to) = (&mut after.receive, &mut before.send);
                both_ways(
                    chunks,
                    |chunk| {
                        add(from, chunk)?;
                        push(to, chunk)
                    },
                    |chunk| {
                        take(back_from, chunk)?;
                        push(back_to, chunk)
                    },
                )
            }
        }
    }

    /// The messages of all processes, in the order of their ranks.
    ///
    /// # Errors
    /// When another process is gone.
    pub fn all_gather(&mut self, own: &[u8]) -> Result<Vec<Vec<u8>>, GroupError> {
        let mut all = Vec::with_capacity(self.size);
        if let Some(before) = &mut self.before {
            check(before, Call::Gather, 0)?;
            for _ in 0..self.rank {
                all.push(before.receive.message()?);
            }
        }
        all.push(own.to_vec());
        if let Some(after) = &mut self.after {
            open(&mut after.send, Call::Gather, 0)?;
            all.iter().try_for_each(|message| after.send.message(message))?;
            after.send.flush()?;
            for _ in all.len()..self.size {
                all.push(after.receive.message()?);
            }
        }
        if let Some(before) = &mut self.before {
            // Those of the processes before are known there.
            all[self.rank..].iter().try_for_each(|message| before.send.message(message))?;
            before.send.flush()?;
        }
        Ok(all)
    }

    /// The first process's message, in all of them; the others' own is not looked at.
    ///
    /// # Errors
    /// When another process is gone.
    pub fn broadcast(&mut self, own: Vec<u8>) -> Result<Vec<u8>, GroupError> {
        let message = match &mut self.before {
            Some(before) => {
                check(before, Call::Broadcast, 0)?;
                before.receive.message()?
            }
            None => own,
        };
        if let Some(after) = &mut self.after {
            open(&mut after.send, Call::Broadcast, 0)?;
            after.send.message(&message)?;
            after.send.flush()?;
        }
        Ok(message)
    }
}

/// Says which call begins, and how many values it is about.
fn open(send: &mut Send, call: Call, values: u64) -> Result<(), GroupError> {
    send.number(call as u64)?;
    send.number(values)
}

/// Whether the process before makes the same call.
fn check(before: &mut Link, call: Call, values: u64) -> Result<(), GroupError> {
    let theirs = (before.receive.number()?, before.receive.number()?);
    if theirs == (call as u64, values) { Ok(()) } else { Err(GroupError::OutOfStep { rank: before.rank() }) }
}

/// Hands every chunk to `there`, in order, and each that is done to `back`, on a thread of its own.
fn both_ways<'a>(
    chunks: Vec<&'a mut [f32]>,
    mut there: impl FnMut(&mut [f32]) -> Result<(), GroupError>,
    mut back: impl FnMut(&mut [f32]) -> Result<(), GroupError> + std::marker::Send,
) -> Result<(), GroupError> {
    let (done, waiting) = mpsc::channel::<&'a mut [f32]>();
    std::thread::scope(|scope| {
        let returning = scope.spawn(move || waiting.into_iter().try_for_each(&mut back));
        let mut outcome = Ok(());
        for chunk in chunks {
            outcome = there(chunk);
            // A thread that has ended has an error to tell of.
            if outcome.is_err() || done.send(chunk).is_err() {
                break;
            }
        }
        drop(done);
        let returned = returning.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        outcome.and(returned)
    })
}

fn push(send: &mut Send, chunk: &[f32]) -> Result<(), GroupError> {
    let bytes: Vec<u8> = chunk.iter().flat_map(|value| value.to_le_bytes()).collect();
    send.bytes(&bytes)?;
    send.flush()
}

fn take(receive: &mut Receive, chunk: &mut [f32]) -> Result<(), GroupError> {
    with_values(receive, chunk, |own, theirs| *own = theirs)
}

/// The sum so far comes first: the order of the ranks.
fn add(receive: &mut Receive, chunk: &mut [f32]) -> Result<(), GroupError> {
    with_values(receive, chunk, |own, theirs| *own += theirs)
}

fn with_values(
    receive: &mut Receive,
    chunk: &mut [f32],
    put: impl Fn(&mut f32, f32),
) -> Result<(), GroupError> {
    let mut bytes = vec![0; 4 * chunk.len()];
    receive.bytes(&mut bytes)?;
    let (values, _) = bytes.as_chunks::<4>();
    chunk.iter_mut().zip(values).for_each(|(own, theirs)| put(own, f32::from_le_bytes(*theirs)));
    Ok(())
}
