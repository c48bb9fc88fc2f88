//! What processes do together, along the chain.

use std::sync::mpsc;

use crate::link::{Link, Receive, Send};
use crate::{Group, GroupError};

/// Values that travel together: large enough that a connection is busy, small enough that all of them are at once.
const CHUNK: usize = 1 << 16;

/// Answers the beginning of a call: all processes from here on make the same one.
const READY: u64 = u64::from_le_bytes(*b"tgmready");

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
    /// When another process is gone. The values are then partly sums and partly not, and the group has ended.
    pub fn all_reduce<'a>(
        &mut self,
        values: impl IntoIterator<Item = &'a mut [f32]>,
    ) -> Result<(), GroupError> {
        let chunks: Vec<&mut [f32]> =
            values.into_iter().flat_map(|values| values.chunks_mut(CHUNK)).collect();
        let total = chunks.iter().map(|chunk| chunk.len()).sum::<usize>() as u64;
        self.together(Call::Reduce, total, |before, after| match (before, after) {
            (None, None) => Ok(()),
            (None, Some(Link { receive, send, .. })) => {
                both_ways(chunks, |chunk| push(send, chunk), |chunk| take(receive, chunk))
            }
            (Some(before), None) => chunks.into_iter().try_for_each(|chunk| {
                add(&mut before.receive, chunk)?;
                push(&mut before.send, chunk)
            }),
            (Some(before), Some(after)) => {
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
        })
    }

    /// The messages of all processes, in the order of their ranks.
    ///
    /// # Errors
    /// When another process is gone. The group has ended then.
    pub fn all_gather(&mut self, own: &[u8]) -> Result<Vec<Vec<u8>>, GroupError> {
        let (rank, size) = (self.rank, self.size);
        self.together(Call::Gather, 0, |before, after| {
            let mut all = Vec::with_capacity(size);
            if let Some(before) = &mut *before {
                for _ in 0..rank {
                    all.push(before.receive.message()?);
                }
            }
            all.push(own.to_vec());
            if let Some(after) = after {
                all.iter().try_for_each(|message| after.send.message(message))?;
                after.send.flush()?;
                for _ in all.len()..size {
                    all.push(after.receive.message()?);
                }
            }
            if let Some(before) = before {
                // Those of the processes before are known there.
                all[rank..].iter().try_for_each(|message| before.send.message(message))?;
                before.send.flush()?;
            }
            Ok(all)
        })
    }

    /// The first process's message, in all of them; the others' own is not looked at.
    ///
    /// # Errors
    /// When another process is gone. The group has ended then.
    pub fn broadcast(&mut self, own: Vec<u8>) -> Result<Vec<u8>, GroupError> {
        self.together(Call::Broadcast, 0, |before, after| {
            let message = match before {
                Some(before) => before.receive.message()?,
                None => own,
            };
            if let Some(after) = after {
                after.send.message(&message)?;
                after.send.flush()?;
            }
            Ok(message)
        })
    }

    /// A call of all processes: begun together, and the group's last one if it fails, since nobody knows then what is on its way.
    fn together<T>(
        &mut self,
        call: Call,
        values: u64,
        body: impl FnOnce(&mut Option<Link>, &mut Option<Link>) -> Result<T, GroupError>,
    ) -> Result<T, GroupError> {
        let outcome = self.begin(call, values).and_then(|()| body(&mut self.before, &mut self.after));
        if outcome.is_err() {
            self.before.iter().chain(&self.after).for_each(Link::close);
        }
        outcome
    }

    /// Waits until all processes make this call. Only then values are sent: what a connection cannot get rid of is a sign that the other
    /// end is gone, and not that it is busy elsewhere.
    fn begin(&mut self, call: Call, values: u64) -> Result<(), GroupError> {
        if let Some(Link { receive, .. }) = &mut self.before {
            let theirs = (receive.number()?, receive.number()?);
            if theirs != (call as u64, values) {
                return Err(GroupError::OutOfStep { rank: self.rank - 1 });
            }
        }
        if let Some(Link { receive, send, .. }) = &mut self.after {
            send.number(call as u64)?;
            send.number(values)?;
            send.flush()?;
            if receive.number()? != READY {
                return Err(GroupError::OutOfStep { rank: self.rank + 1 });
            }
        }
        if let Some(Link { send, .. }) = &mut self.before {
            send.number(READY)?;
            send.flush()?;
        }
        Ok(())
    }
}

/// Hands every chunk to `there`, in order, and each that is done to `back`, on a thread of its own.
fn both_ways<'a>(
    chunks: Vec<&'a mut [f32]>,
    mut there: impl FnMut(&mut [f32]) -> Result<(), GroupError>,
    mut back: impl FnMut(&mut [f32]) -> Result<(), GroupError> + std::marker::Send,
) -> Result<(), GroupError> {
    let (done, waiting) = mpsc::channel::<&'a mut [f32]>();
    std::thread::scope(|scope| {
        let returning = std::thread::Builder::new()
            .name("tgm-group".into())
            .spawn_scoped(scope, move || waiting.into_iter().try_for_each(&mut back))?;
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
