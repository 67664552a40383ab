//! Describes a job to its ranks and starts them.

use std::io::IsTerminal;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use sapwood::bootstrap::{Job, Rank, variable};

use super::death::OnDeath;
use super::descendants::{self, Descendants};
use super::guardian::Guardian;
use super::placing::Place;
use super::running::Running;
use super::setup::Setup;
use super::signals::Forwarding;
use super::{Fabric, RunError};

/// The secret's descriptor has this number or the next one that is free.
const SECRET_FROM: RawFd = 200;

/// Where the ranks' output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Output {
    /// As each command says; to the launcher's own output where it says nothing.
    #[default]
    AsGiven,
    /// To the launcher's own output, line by line, with `[rank] ` before each line.
    Tagged,
}

/// Starts the ranks of a job as processes on this host.
#[derive(Debug, Clone)]
pub struct Launcher {
    jobs: Vec<Job>,
    fabric: Fabric,
    timeout: Option<Duration>,
    output: Output,
    on_death: OnDeath,
    places: Vec<Place>,
    alone: bool,
}

impl Launcher {
    /// A launcher of `size` ranks, with a secret and a rendezvous of their own.
    ///
    /// # Errors
    /// [`RunError::Arguments`] for a size that no job can have.
    pub fn new(size: u32) -> Result<Self, RunError> {
        let jobs = Job::local(size).map_err(|error| RunError::Arguments(error.to_string()))?;
        Ok(Self {
            jobs,
            fabric: Fabric::Auto,
            timeout: None,
            output: Output::AsGiven,
            on_death: OnDeath::End,
            places: Vec::new(),
            alone: false,
        })
    }

    /// Which fabric the ranks use.
    pub fn fabric(mut self, fabric: Fabric) -> Self {
        self.fabric = fabric;
        self
    }

    /// How long a rank waits for the others.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Where the ranks' output goes.
    pub fn output(mut self, output: Output) -> Self {
        self.output = output;
        self
    }

    /// Whoever starts the ranks listens to them and talks to them: their standard input is what their command says, and when one
    /// dies it is left to the caller whether the others go on.
    pub fn watched(mut self) -> Self {
        self.on_death = OnDeath::Watch;
        self
    }

    /// What happens when a rank dies. Ranks can be started anew by [`Self::start_for_good`] alone.
    pub(super) fn on_death(mut self, on_death: OnDeath) -> Self {
        self.on_death = on_death;
        self
    }

    /// Which CPUs each rank may use, by rank; as the launcher itself where there are none.
    pub(super) fn places(mut self, places: Vec<Place>) -> Self {
        self.places = places;
        self
    }

    /// This process does nothing but run this one job, and has no other children: what the ranks leave behind becomes
    /// its own, and ends with the job whatever it has done to hide.
    pub(super) fn alone(mut self, alone: bool) -> Self {
        self.alone = alone;
        self
    }

    /// Starts each rank with the command that `command` makes for it. Must be called on a thread that lives as long
    /// as the job: the ranks die with it.
    ///
    /// # Errors
    /// [`RunError::Program`] if a program cannot be started; the ranks that had been are killed.
    pub fn start(&self, mut command: impl FnMut(Rank) -> Command) -> Result<Running, RunError> {
        sapwood::bootstrap::warn_of_unknown_variables();
        let secret = self.secret()?;
        let forwarding = Forwarding::install()?;
        let mark = descendants::mark(&self.jobs[0].rendezvous);
        let mut descendants = Descendants::new(mark.clone());
        if self.alone {
            descendants.adopt()?;
        }
        let guardian = Guardian::start(&mark)?;
        let mut running = Running::new(guardian, forwarding, descendants, self.on_death);
        let group = running.group();
        for job in &self.jobs {
            let child = self.spawn(job, &secret, group, 0, command(job.rank))?;
            running.add(child, self.output == Output::Tagged)?;
        }
        Ok(running)
    }

    /// As [`Self::start`]; `command` may be asked again later, for a rank that is started anew.
    ///
    /// # Errors
    /// As there.
    pub(super) fn start_for_good(
        self,
        mut command: impl FnMut(Rank) -> Command + 'static,
    ) -> Result<Running, RunError> {
        let mut running = self.start(&mut command)?;
        let secret = self.secret()?;
        let group = running.group();
        running.set_again(Box::new(move |rank, attempt| {
            self.spawn(&self.jobs[rank as usize], &secret, group, attempt, command(rank))
        }));
        Ok(running)
    }

    /// Starts one rank, for the so-manieth time.
    fn spawn(
        &self,
        job: &Job,
        secret: &OwnedFd,
        group: i32,
        attempt: u32,
        mut command: Command,
    ) -> Result<Child, RunError> {
        self.describe(job, secret, attempt, &mut command);
        match self.output {
            Output::AsGiven => {}
            Output::Tagged => {
                command.stdout(Stdio::piped()).stderr(Stdio::piped());
            }
        }
        // Only one rank can read the launcher's input; a terminal would stop it, as it is in the background.
        let taken = self.on_death != OnDeath::Watch;
        if taken && (job.rank > 0 || std::io::stdin().is_terminal()) {
            command.stdin(Stdio::null());
        }
        let setup = Setup {
            group,
            secret: secret.as_raw_fd(),
            mask: self.places.get(job.rank as usize).map(Place::mask),
        };
        let report = setup.prepare(&mut command)?;
        command.spawn().map_err(|problem| report.blame(problem, &command))
    }

    fn describe(&self, job: &Job, secret: &OwnedFd, attempt: u32, command: &mut Command) {
        let descriptor = secret.as_raw_fd();
        command
            .env(variable::RANK, job.rank.to_string())
            .env(variable::SIZE, job.size.to_string())
            .env(variable::LOCAL_RANK, job.local_rank.to_string())
            .env(variable::RENDEZVOUS, job.rendezvous.to_string())
            .env(variable::SECRET_FILE, format!("/dev/fd/{descriptor}"))
            .env(variable::FABRIC, self.fabric.name())
            .env(variable::ATTEMPT, attempt.to_string())
            .env(variable::RETURNS, u8::from(self.allows_returns()).to_string());
        if let Some(timeout) = self.timeout {
            command.env(variable::TIMEOUT, timeout.as_secs_f64().to_string());
        }
    }

    fn allows_returns(&self) -> bool {
        matches!(self.on_death, OnDeath::Restart(_))
    }

    /// The secret's descriptor, where no script that uses descriptors by small numbers hits upon it.
    fn secret(&self) -> Result<Arc<OwnedFd>, RunError> {
        let descriptor = self.jobs[0].secret.to_descriptor()?;
        // Where the limit on open files is lower than that, the number that it has will do.
        Ok(Arc::new(
            rustix::io::fcntl_dupfd_cloexec(&descriptor, SECRET_FROM).unwrap_or(descriptor),
        ))
    }
}
