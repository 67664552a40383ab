//! `sapwood help`: what is not about one sub-command. Prints; reads nothing.

use std::io::Write;
use std::process::ExitCode;

use sapwood::bootstrap::{ENVIRONMENT, EnvironmentVariable};

/// Explains what several commands share: environment
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  sapwood help environment")]
pub struct HelpArguments {
    /// What is to be explained; without it, the commands are listed
    #[arg(value_enum)]
    topic: Option<Topic>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Topic {
    /// The environment variables
    Environment,
}

/// Prints a topic, or the help of the whole command.
pub fn run(arguments: &HelpArguments, mut command: clap::Command) -> ExitCode {
    let text = match arguments.topic {
        None => command.render_help().to_string(),
        Some(Topic::Environment) => environment(),
    };
    // A reader that went away (`| head`) is not worth an error message.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn environment() -> String {
    let mut text = String::from(
        "Environment variables. A value that cannot be used is refused, an unknown name warned about.\n\n",
    );
    for EnvironmentVariable {
        name,
        meaning,
        default,
        ..
    } in ENVIRONMENT
    {
        let plain = |text: &str| text.replace('`', "");
        text.push_str(&format!(
            "{name}\n    {}\n    absent: {}\n",
            plain(meaning),
            plain(default)
        ));
    }
    text.push_str(
        "\nUnderstood where SAPWOOD_RANK and SAPWOOD_SIZE are absent: what torchrun, Open MPI's mpirun, MPICH's mpiexec and\n\
         Slurm's srun set. Ranks of several hosts need SAPWOOD_SECRET_FILE there, except under mpiexec, and under mpirun\n\
         SAPWOOD_RENDEZVOUS too.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_is_explained() {
        let text = environment();
        for variable in ENVIRONMENT {
            assert!(
                text.contains(&format!("{}\n    ", variable.name)),
                "{}",
                variable.name
            );
        }
        assert!(!text.contains('`'));
    }
}
