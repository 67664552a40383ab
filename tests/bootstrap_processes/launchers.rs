//! Ranks that other launchers start, where those are installed. All of them, Slurm's and torch's too, are run by
//! `tools/checks/launchers`.

use std::path::Path;
use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};

use crate::ranks::{ROLE, Ranks, expect, free_port};

const RANKS: usize = 3;

pub fn trials() -> Vec<Trial> {
    let open_mpi: &[&str] = &["mpirun.openmpi", "--oversubscribe", "--bind-to", "none"];
    let hydra: &[&str] = &["mpiexec.hydra"];
    // Two process managers on this host, each of which knows of a part of the ranks: the rest goes through PMI-1.
    let two_managers: &[&str] = &[
        "mpiexec.hydra",
        "-launcher",
        "fork",
        "-hosts",
        "localhost:2,127.0.0.1:1",
    ];
    [
        ("launchers::open_mpi_s_mpirun", open_mpi),
        ("launchers::mpich_s_mpiexec", hydra),
        ("launchers::mpich_s_mpiexec_through_pmi_1", two_managers),
    ]
    .map(|(name, launcher)| {
        Trial::test(name, move || all_meet(launcher, false)).with_ignored_flag(!is_installed(launcher[0]))
    })
    .into_iter()
    .chain([Trial::test("launchers::open_mpi_s_mpirun_at_a_port", move || {
        all_meet(open_mpi, true)
    })
    .with_ignored_flag(!is_installed(open_mpi[0]))])
    .collect()
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| Path::new(&folder).join(program).exists())
}

fn all_meet(launcher: &[&str], at_a_port: bool) -> Result<(), Failed> {
    let mut command = Command::new(launcher[0]);
    command
        .args(&launcher[1..])
        .args(["-n", &RANKS.to_string()])
        .arg(std::env::current_exe()?)
        .env(ROLE, "exchange")
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .stdin(Stdio::null());
    let secret = Ranks::new(1);
    if at_a_port {
        command
            .env(
                "SAPWOOD_RENDEZVOUS",
                format!("127.0.0.1:{}", free_port("127.0.0.1")),
            )
            .env("SAPWOOD_SECRET_FILE", secret.folder.path().join("secret"));
    }
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    expect(
        output.status.success(),
        format!("{}: {complaints}", output.status),
    )?;
    let met = said.lines().filter(|line| line.ends_with("0 1 2")).count();
    expect(
        met == RANKS,
        format!("the ranks said {said:?} and {complaints:?}"),
    )
}
