//! The other processes of a run that several machines make together: they compute, and the first one writes everything down.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use tgm_group::{Group, Host};

use super::Trainer;
use super::learner::Learner;
use crate::checkpoint::DataPrint;
use crate::config::{self, Config, Plan};
use crate::progress::Progress;
use crate::stop::Stop;

/// What the first process tells the others before anything else.
#[derive(Serialize, Deserialize)]
struct Invitation {
    /// The configuration of the run, as TOML.
    config: String,
    data: DataPrint,
    /// Which CLIP it is, if there is one.
    clip: Option<String>,
}

impl Trainer {
    /// Makes the run one of `processes` that share the micro-batches of every step; waits for the others. `came` is told how many there are,
    /// and where the last one came from.
    ///
    /// # Errors
    /// When the micro-batches cannot be shared, or a process is gone.
    pub fn lead(
        mut self,
        host: Host,
        processes: usize,
        came: &mut dyn FnMut(usize, SocketAddr),
    ) -> Result<Self> {
        let learner = &mut self.learner;
        Plan::check_share(&learner.config.train, processes)?;
        learner.group = host.wait_for(processes, came)?;
        let invitation = Invitation {
            config: learner.config.to_toml()?,
            data: learner.data_print.clone(),
            clip: learner.guide.clip_identity().map(str::to_owned),
        };
        learner.group.broadcast(serde_json::to_vec(&invitation)?)?;
        learner.share_state()?;
        Ok(self)
    }
}

/// A process that joined a run.
pub struct Member {
    learner: Learner,
    stop: Stop,
}

impl Member {
    /// Joins: takes the configuration from the first process, puts in the settings that are different on this machine (`key=value`) and what
    /// `adjust` does, and takes the weights.
    ///
    /// # Errors
    /// When the data or the CLIP here is not the first process's, or a process is gone.
    pub fn new(
        mut group: Group,
        settings: &[String],
        adjust: &dyn Fn(&mut Config) -> Result<()>,
    ) -> Result<Self> {
        let told = group.broadcast(Vec::new())?;
        let told: Invitation = serde_json::from_slice(&told).context("the first process's configuration")?;
        let mut config = config::from_text("the first process's configuration", &told.config, settings)?;
        adjust(&mut config)?;
        let mut learner = Learner::new(config)?;
        let (there, here) = (&told.data, &learner.data_print);
        ensure!(
            there == here,
            "the training data here is not the first process's: {there} there, {here} here; give a copy of it with --data (paths count as the \
             manifest has them, and so do cuts, captions and labels)"
        );
        let (there, here) = (told.clip.as_deref(), learner.guide.clip_identity());
        ensure!(
            there == here,
            "the CLIP here is not the first process's: {} there, {} here; give a copy of it with --set text.model=FOLDER",
            there.unwrap_or("none"),
            here.unwrap_or("none")
        );
        learner.group = group;
        learner.share_state()?;
        Ok(Self { learner, stop: Stop::new() })
    }

    /// Lets `stop` end the run, in all processes, after a step.
    #[must_use]
    pub fn stopped_by(self, stop: Stop) -> Self {
        Self { stop, ..self }
    }

    /// What this process does, in a line for a person.
    pub fn describe(&self) -> String {
        let learner = &self.learner;
        format!(
            "process {} of {}: {} of {} micro-batches of {} clips, from step {}",
            learner.group.rank(),
            learner.group.size(),
            learner.own_micro_batches(),
            learner.plan.micro_batches,
            learner.plan.micro_batch,
            learner.position.step
        )
    }

    /// Computes to the end of the run, or until a process is asked to stop; returns the steps taken in all, and whether that is the end.
    ///
    /// # Errors
    /// When data fails or another process is gone.
    pub fn run(&mut self) -> Result<(u64, bool)> {
        let _armed = self.stop.arm();
        let learner = &mut self.learner;
        let end = learner.plan.length.stop;
        let progress = Progress::new("pretrain", end);
        progress.set(learner.position.step);
        let mut loader = learner.loader(learner.group.rank())?;
        let mut leave = false;
        while learner.position.step < end && !leave {
            let batch = learner.load(&mut loader, &|line| progress.line(line))?;
            let stepped = learner.step(&batch, self.stop.requested())?;
            leave = stepped.numbers.leave;
            if stepped.fault.is_some_and(|fault| fault.last) {
                bail!("too many steps in a row were not finite: the first process has written down why");
            }
            progress.set(learner.position.step);
        }
        progress.finish();
        Ok((learner.position.step, learner.position.step == end))
    }
}
