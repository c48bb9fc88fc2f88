//! A program that is measured: a process that sleeps until a line on its standard input gives it its turn, and answers every
//! turn with a line of JSON.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

/// A running program.
pub(super) struct Program {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Program {
    /// Starts a command under a name for messages.
    pub(super) fn start(name: impl Into<String>, mut command: Command) -> Result<Self> {
        let name = name.into();
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {name}: {command:?}"))?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("a program without standard output")?;
        Ok(Self { name, child, input, output: BufReader::new(output) })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The next thing that it says.
    pub(super) fn line<L: DeserializeOwned>(&mut self) -> Result<L> {
        loop {
            let mut text = String::new();
            if self.output.read_line(&mut text)? == 0 {
                bail!("{} ended early ({}); what it wrote above says why", self.name, self.child.wait()?);
            }
            // Libraries print what they like; only JSON objects are meant for us.
            if text.starts_with('{') {
                // Python writes what JSON has no word for.
                return serde_json::from_str(&text.replace("NaN", "null"))
                    .with_context(|| format!("{} said {text:?}", self.name));
            }
        }
    }

    /// Gives it its turn; returns what it says of it.
    pub(super) fn turn<L: DeserializeOwned>(&mut self) -> Result<L> {
        let input = self.input.as_mut().context("a program that has ended")?;
        // A program that is gone shows in its output.
        let _ = input.write_all(b"go\n").and_then(|()| input.flush());
        self.line()
    }

    /// Says that there are no more turns; returns its last line.
    pub(super) fn end<L: DeserializeOwned>(mut self) -> Result<L> {
        drop(self.input.take());
        let last = self.line()?;
        self.child.wait()?;
        Ok(last)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Does nothing to one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
