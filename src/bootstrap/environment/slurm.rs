//! What Slurm's `srun` sets for the tasks of a step. A batch script has some of it too and is no task; nor is the shell
//! that `srun --pty` gives to a person. What that person starts by another `srun` inherits the terminal's variable and
//! is a task all the same.

use super::super::BootstrapError;
use super::hostlist;
use super::placement::{Launcher, Meeting, Names, Placement, derived_port, socket_name};
use super::variables::{Variables, number, refuse};

const NAMES: Names = Names {
    rank: "SLURM_PROCID",
    size: "SLURM_STEP_NUM_TASKS",
    local_rank: "SLURM_LOCALID",
    // Slurm says how many tasks each node has as a list; that all are on one is known from the nodes.
    local_size: "SLURM_NTASKS",
};
const JOB: [&str; 2] = ["SLURM_JOB_ID", "SLURM_JOBID"];
const STEP: [&str; 2] = ["SLURM_STEP_ID", "SLURM_STEPID"];
const SIZES: [&str; 2] = ["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"];
const NODES: [&str; 3] = ["SLURM_STEP_NUM_NODES", "SLURM_NNODES", "SLURM_JOB_NUM_NODES"];
const NODE_LIST: [&str; 3] = ["SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"];
/// Set for a step that a person types into, and for every step that is started from there.
const TERMINAL: &str = "SLURM_PTY_PORT";
/// The step in which `salloc` runs a person's shell (SLURM_INTERACTIVE_STEP); the numbers above it are no tasks' either.
const INTERACTIVE_STEP: u32 = 0xffff_fffa;

/// The variable that says that this is no task but a person's shell, if one does: a shell has a terminal and a step to
/// itself. Whoever starts one single task from there loses nothing by being taken for the shell: alone it meets nobody.
fn is_shell(variables: &Variables<'_>) -> Result<Option<&'static str>, BootstrapError> {
    if let Some((name, step)) = variables.first(&STEP)?
        && step.parse().is_ok_and(|step: u32| step >= INTERACTIVE_STEP)
    {
        return Ok(Some(name));
    }
    let alone = |(_, size): (_, String)| size == "1";
    let terminal = variables.filled(TERMINAL)?.is_some();
    Ok((terminal && variables.first(&SIZES)?.is_none_or(alone)).then_some(TERMINAL))
}

/// Says so where what Slurm has set makes no rank of this process, though it looks as if it could.
pub(super) fn warn_if_ignored(variables: &Variables<'_>) -> Result<(), BootstrapError> {
    if variables.first(&STEP)?.is_some()
        && let Some(name) = is_shell(variables)?
    {
        tracing::warn!(
            "{name} says that this is a person's shell: what else Slurm has set is ignored, and this process is no \
             rank; 'srun -n N' starts ranks from here"
        );
    }
    Ok(())
}

pub(super) fn read(variables: &Variables<'_>) -> Result<Option<Placement>, BootstrapError> {
    let Some((step_name, step_text)) = variables.first(&STEP)? else {
        return Ok(None);
    };
    if is_shell(variables)?.is_some() {
        return Ok(None);
    }
    let Some(size) = variables.first(&SIZES)? else {
        // Without both a step's number is left over from somewhere else.
        return match variables.number(NAMES.rank)? {
            None => Ok(None),
            Some(_) => Err(super::variables::incomplete(
                NAMES.rank,
                SIZES[1],
                "the number of ranks, which srun sets",
            )),
        };
    };
    let names = Names {
        size: size.0,
        local_size: size.0,
        ..NAMES
    };
    let Some(mut placement) = Placement::read(Launcher::Slurm, names, variables)? else {
        return Ok(None);
    };
    let step = number(step_name, &step_text, "a step's number")?;
    let job = variables.first(&JOB)?;
    let nodes = variables.first(&NODES)?;
    let nodes = nodes.map(|(name, text)| number(name, &text, "the number of nodes"));
    let nodes = nodes.transpose()?;
    let list = variables.first(&NODE_LIST)?;
    let first = match &list {
        None => None,
        Some((name, text)) => Some(hostlist::first(text).ok_or_else(|| {
            refuse(
                name,
                text,
                "it must be a list of nodes as Slurm writes it, n[1-4,7] for example",
            )
        })?),
    };
    let one_host = placement.size == 1 || nodes == Some(1);
    placement.local_size = one_host.then_some(placement.size);
    let Some((job_name, job)) = job else {
        placement.meeting = Meeting::Unknown {
            missing: JOB[0],
            hint: "the job's number, which srun sets",
        };
        return Ok(Some(placement));
    };
    let number = number(job_name, &job, "a job's number")?;
    placement.meeting = match first {
        _ if one_host => Meeting::OneHost(socket_name("srun", &[&job, &step_text])?),
        // Tasks are laid out from the first node on, where task 0 is.
        Some(host) => Meeting::Network {
            host,
            port: derived_port(u64::from(number) + 997 * u64::from(step)),
        },
        None => Meeting::Unknown {
            missing: NODE_LIST[0],
            hint: "the nodes of the step, which srun sets",
        },
    };
    Ok(Some(placement))
}
