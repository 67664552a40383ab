//! `sapwood sim`: the papers' experiments in virtual time. Each experiment is a module; this file only hands on to it.

mod backup;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::output::Failure;

/// What `sapwood sim` takes.
#[derive(Debug, Args)]
pub struct SimArguments {
    #[command(subcommand)]
    command: SimCommand,
}

/// What exists. A new experiment is one line here and one in [`run`].
#[derive(Debug, Subcommand)]
enum SimCommand {
    Backup(backup::BackupArguments),
}

/// Runs `sapwood sim`.
pub fn run(arguments: &SimArguments) -> Result<ExitCode, Failure> {
    match &arguments.command {
        SimCommand::Backup(arguments) => backup::run(arguments),
    }
}
