//! What each launcher sets, as tables of cases: who a process is, where it meets the others, and what is refused.

use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::time::Duration;

use proptest::prelude::*;

use super::super::{BootstrapError, Job, Secret};
use super::tests::{good, read};
use super::variable;
use crate::fabric::select::Choice;

type Pairs<'pairs> = &'pairs [(&'static str, &'pairs str)];

fn launched(pairs: Pairs<'_>) -> Result<Option<Job>, BootstrapError> {
    let variables: HashMap<_, _> = pairs
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()))
        .collect();
    read(&variables)
}

/// The same variables without some, and with others.
fn but<'pairs>(
    pairs: &[(&'static str, &'pairs str)],
    without: &[&str],
    with: &[(&'static str, &'pairs str)],
) -> Vec<(&'static str, &'pairs str)> {
    let kept = pairs
        .iter()
        .filter(|(name, _)| !without.contains(name) && !with.iter().any(|(replaced, _)| replaced == name));
    kept.chain(with).copied().collect()
}

const TORCHRUN: Pairs<'static> = &[
    ("RANK", "2"),
    ("WORLD_SIZE", "4"),
    ("LOCAL_RANK", "2"),
    ("LOCAL_WORLD_SIZE", "4"),
    ("GROUP_RANK", "0"),
    ("MASTER_ADDR", "node0"),
    ("MASTER_PORT", "29500"),
    ("TORCHELASTIC_RUN_ID", "none"),
    ("TORCHELASTIC_RESTART_COUNT", "0"),
];
const OPEN_MPI: Pairs<'static> = &[
    ("OMPI_COMM_WORLD_RANK", "1"),
    ("OMPI_COMM_WORLD_SIZE", "2"),
    ("OMPI_COMM_WORLD_LOCAL_RANK", "1"),
    ("OMPI_COMM_WORLD_LOCAL_SIZE", "2"),
    ("PMIX_NAMESPACE", "1924792321"),
    ("PMIX_RANK", "1"),
    ("OMPI_MCA_orte_hnp_uri", "1924792320.0;tcp://192.0.2.2:54137"),
];
const SLURM: Pairs<'static> = &[
    ("SLURM_JOB_ID", "42"),
    ("SLURM_STEP_ID", "1"),
    ("SLURM_PROCID", "3"),
    ("SLURM_NTASKS", "4"),
    ("SLURM_STEP_NUM_TASKS", "4"),
    ("SLURM_LOCALID", "3"),
    ("SLURM_STEP_NUM_NODES", "1"),
    ("SLURM_STEP_NODELIST", "node[07-08]"),
];

/// (rank, size, local rank) and where it meets.
fn place(pairs: Pairs<'_>) -> ((u32, u32, u32), String) {
    let job = launched(pairs).unwrap().unwrap();
    ((job.rank, job.size, job.local_rank), job.rendezvous.to_string())
}

#[test]
fn each_launcher_on_one_host_meets_at_a_socket_of_the_user_and_the_job() {
    for (pairs, who, begins, job) in [
        (TORCHRUN, (2, 4, 2), "@sapwood-torchrun-", "MASTER_PORT"),
        (TORCHRUN, (2, 4, 2), "@sapwood-torchrun-", "TORCHELASTIC_RUN_ID"),
        (
            TORCHRUN,
            (2, 4, 2),
            "@sapwood-torchrun-",
            "TORCHELASTIC_RESTART_COUNT",
        ),
        (OPEN_MPI, (1, 2, 1), "@sapwood-mpirun-", "PMIX_NAMESPACE"),
        (OPEN_MPI, (1, 2, 1), "@sapwood-mpirun-", "OMPI_MCA_orte_hnp_uri"),
        (SLURM, (3, 4, 3), "@sapwood-srun-", "SLURM_JOB_ID"),
        (SLURM, (3, 4, 3), "@sapwood-srun-", "SLURM_STEP_ID"),
    ] {
        let (place_here, meets) = place(pairs);
        assert_eq!(place_here, who);
        assert!(meets.starts_with(begins), "{meets}");
        assert_eq!(place(pairs).1, meets, "the same for all ranks");
        let other_job = but(pairs, &[], &[(job, "9")]);
        assert_ne!(place(&other_job).1, meets, "{job} tells jobs apart");
    }
}

#[test]
fn several_hosts_meet_at_a_port_and_need_a_secret() {
    let descriptor = Secret::random().unwrap().to_descriptor().unwrap();
    let secret = format!("/dev/fd/{}", descriptor.as_raw_fd());
    let torchrun = but(TORCHRUN, &[], &[("LOCAL_WORLD_SIZE", "2"), ("LOCAL_RANK", "0")]);
    let slurm = but(
        SLURM,
        &["SLURM_STEP_NUM_NODES"],
        &[("SLURM_NNODES", "2"), ("SLURM_LOCALID", "1")],
    );
    let mpirun = but(
        OPEN_MPI,
        &[],
        &[
            ("OMPI_COMM_WORLD_LOCAL_SIZE", "1"),
            ("OMPI_COMM_WORLD_LOCAL_RANK", "0"),
        ],
    );
    for (pairs, meets) in [(&torchrun, "node0:31500"), (&slurm, "node07:27039")] {
        let with = but(pairs, &[], &[(variable::SECRET_FILE, &secret)]);
        assert_eq!(place(&with).1, meets);
        let error = launched(pairs).unwrap_err().to_string();
        assert!(error.contains("SAPWOOD_SECRET_FILE is not"), "{error}");
    }
    // Rank 0 listens on every address: its own name may mean one that nobody else reaches.
    let rank_0 = but(&torchrun, &[], &[("RANK", "0"), (variable::SECRET_FILE, &secret)]);
    assert_eq!(place(&rank_0).1, "[::]:31500");
    let chosen = but(&rank_0, &[], &[(variable::RENDEZVOUS_SUBNET, "127.0.0.0/8")]);
    assert_eq!(place(&chosen).1, "127.0.0.1:31500");
    let error = launched(&mpirun).unwrap_err().to_string();
    assert!(
        error.contains("SAPWOOD_RENDEZVOUS is not") && error.contains("mpirun -x"),
        "{error}"
    );
    let told = but(
        &mpirun,
        &[],
        &[
            (variable::SECRET_FILE, &secret),
            (variable::RENDEZVOUS, "node0:4000"),
        ],
    );
    assert_eq!(place(&told), ((1, 2, 0), "node0:4000".into()));
}

#[test]
fn sapwoods_own_variables_win() {
    let (_descriptor, own) = good();
    let mut variables = own;
    variables.extend(TORCHRUN.iter().map(|(name, value)| (*name, (*value).to_owned())));
    let job = read(&variables).unwrap().unwrap();
    assert_eq!((job.rank, job.size), (3, 8));
    assert_eq!(job.rendezvous.to_string(), "@meet");
    // One alone goes before what the launcher says of the same.
    let with = but(
        OPEN_MPI,
        &[],
        &[(variable::RENDEZVOUS, "@here"), (variable::LOCAL_RANK, "0")],
    );
    assert_eq!(place(&with), ((1, 2, 0), "@here".into()));
    let with = but(
        SLURM,
        &[],
        &[
            (variable::TIMEOUT, "7"),
            (variable::FABRIC, "shm"),
            (variable::HOST, "left"),
        ],
    );
    let job = launched(&with).unwrap().unwrap();
    assert_eq!((job.timeout, job.fabric), (Duration::from_secs(7), Choice::Shm));
    assert_eq!(job.host.as_deref(), Some("left"));
}

#[test]
fn who_is_no_rank_is_left_alone() {
    let batch_script = but(
        SLURM,
        &["SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS"],
        &[("SLURM_PROCID", "0")],
    );
    let terminal = but(
        SLURM,
        &[],
        &[
            ("SLURM_PTY_PORT", "40000"),
            ("SLURM_PROCID", "0"),
            ("SLURM_LOCALID", "0"),
            ("SLURM_STEP_NUM_TASKS", "1"),
        ],
    );
    // The shell that salloc gives in an allocation of four tasks.
    let interactive = but(
        SLURM,
        &["SLURM_STEP_NUM_TASKS"],
        &[("SLURM_PTY_PORT", "40000"), ("SLURM_STEP_ID", "4294967290")],
    );
    let address_alone: Pairs<'_> = &[("MASTER_ADDR", "node0"), ("LOCAL_RANK", "0")];
    let empty: Pairs<'_> = &[("RANK", ""), ("WORLD_SIZE", "")];
    for pairs in [&batch_script[..], &terminal, &interactive, address_alone, empty] {
        assert!(launched(pairs).unwrap().is_none(), "{pairs:?}");
    }
}

#[test]
fn tasks_that_are_started_from_a_persons_shell_are_ranks() {
    // 'srun -n 4 program' typed in 'srun --pty bash': the terminal's variable is inherited.
    let tasks = but(SLURM, &[], &[("SLURM_PTY_PORT", "40000")]);
    assert_eq!(place(&tasks), place(SLURM));
}

#[test]
fn a_launcher_in_a_launcher_is_the_one_that_counts() {
    // Slurm starts one task on each node, torchrun or mpirun the ranks: what they say differs.
    let outer: Vec<_> = but(
        SLURM,
        &[],
        &[("SLURM_PROCID", "0"), ("SLURM_STEP_NUM_NODES", "4")],
    );
    for (inner, who) in [(TORCHRUN, (2, 4, 2)), (OPEN_MPI, (1, 2, 1))] {
        assert_eq!(place(&but(&outer, &[], inner)).0, who);
        // Whatever is wrong with the outer one.
        let broken = but(
            &outer,
            &[],
            &[("SLURM_NTASKS", "many"), ("SLURM_STEP_NODELIST", "n[")],
        );
        assert_eq!(place(&but(&broken, &[], inner)).0, who);
    }
    // By hand: torch's names with what srun has set, which knows that there is one host.
    let by_hand = but(
        SLURM,
        &[],
        &[
            ("RANK", "3"),
            ("WORLD_SIZE", "4"),
            ("MASTER_ADDR", "node07"),
            ("MASTER_PORT", "29500"),
        ],
    );
    assert_eq!(place(&by_hand), ((3, 4, 3), place(SLURM).1));
    let here = [
        ("RANK", "0"),
        ("WORLD_SIZE", "2"),
        ("MASTER_ADDR", "localhost"),
        ("MASTER_PORT", "29500"),
    ];
    assert!(place(&here).1.starts_with("@sapwood-torchrun-"));
}

#[test]
fn what_contradicts_itself_is_refused_with_the_variables() {
    for (pairs, without, with, said) in [
        (
            TORCHRUN,
            &[][..],
            &[("RANK", "4")][..],
            &["RANK=4", "WORLD_SIZE=4", "the last one is 3"][..],
        ),
        (
            TORCHRUN,
            &["WORLD_SIZE"],
            &[],
            &["RANK is set but WORLD_SIZE is not"],
        ),
        (TORCHRUN, &["RANK"], &[], &["WORLD_SIZE is set but RANK is not"]),
        (
            TORCHRUN,
            &[],
            &[("RANK", "two")],
            &["RANK=\"two\"", "a whole number"],
        ),
        (
            TORCHRUN,
            &[],
            &[("RANK", "-1")],
            &["RANK=\"-1\"", "a whole number"],
        ),
        (
            TORCHRUN,
            &[],
            &[("WORLD_SIZE", "0"), ("RANK", "0")],
            &["WORLD_SIZE", "1 to 4096"],
        ),
        (
            TORCHRUN,
            &[],
            &[("WORLD_SIZE", "5000")],
            &["WORLD_SIZE", "1 to 4096"],
        ),
        (
            TORCHRUN,
            &[],
            &[("LOCAL_RANK", "4")],
            &["LOCAL_RANK=4", "LOCAL_WORLD_SIZE=4"],
        ),
        (
            TORCHRUN,
            &["LOCAL_WORLD_SIZE"],
            &[("LOCAL_RANK", "4")],
            &["LOCAL_RANK=4", "WORLD_SIZE=4"],
        ),
        (
            TORCHRUN,
            &[],
            &[("LOCAL_WORLD_SIZE", "5")],
            &["LOCAL_WORLD_SIZE=5", "WORLD_SIZE=4"],
        ),
        (
            TORCHRUN,
            &[],
            &[("MASTER_PORT", "70000")],
            &["MASTER_PORT", "1 to 65535"],
        ),
        (TORCHRUN, &["MASTER_PORT"], &[], &["MASTER_PORT is not"]),
        (
            TORCHRUN,
            &["MASTER_ADDR"],
            &[("LOCAL_WORLD_SIZE", "3")],
            &["MASTER_ADDR is not"],
        ),
        (
            OPEN_MPI,
            &["OMPI_COMM_WORLD_SIZE"],
            &[],
            &["OMPI_COMM_WORLD_SIZE is not"],
        ),
        (
            OPEN_MPI,
            &[],
            &[("OMPI_COMM_WORLD_RANK", "2")],
            &["OMPI_COMM_WORLD_RANK=2", "OMPI_COMM_WORLD_SIZE=2"],
        ),
        (OPEN_MPI, &["PMIX_NAMESPACE"], &[], &["PMIX_NAMESPACE is not"]),
        (
            OPEN_MPI,
            &[],
            TORCHRUN,
            &["OMPI_COMM_WORLD_RANK=1", "RANK=2", "WORLD_SIZE=4", "disagree"],
        ),
        (
            OPEN_MPI,
            &[],
            &[("PMI_RANK", "0"), ("PMI_SIZE", "2")],
            &["OMPI_COMM_WORLD_RANK=1", "PMI_RANK=0", "disagree"],
        ),
        (
            SLURM,
            &[],
            &[("SLURM_PROCID", "4")],
            &["SLURM_PROCID=4", "SLURM_STEP_NUM_TASKS=4"],
        ),
        (
            SLURM,
            &["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"],
            &[],
            &["SLURM_PROCID", "SLURM_NTASKS is not"],
        ),
        (SLURM, &["SLURM_PROCID"], &[], &["SLURM_PROCID is not"]),
        (
            SLURM,
            &[],
            &[("SLURM_STEP_NODELIST", "n[1-")],
            &["SLURM_STEP_NODELIST", "a list of nodes"],
        ),
        (SLURM, &["SLURM_JOB_ID"], &[], &["SLURM_JOB_ID is not"]),
        (
            &[],
            &[],
            &[("PMI_RANK", "0"), ("PMI_SIZE", "2")],
            &["PMI_FD is not"],
        ),
        (
            &[],
            &[],
            &[("PMI_RANK", "0"), ("PMI_SIZE", "2"), ("PMI_FD", "9999")],
            &["PMI_FD", "not open"],
        ),
        (
            &[],
            &[],
            &[("PMI_RANK", "0"), ("PMI_SIZE", "2"), ("PMI_FD", "x")],
            &["PMI_FD", "descriptor"],
        ),
        (OPEN_MPI, &[], &[("SAPWOOD_RANK", "0")], &["SAPWOOD_SIZE is not"]),
        (
            OPEN_MPI,
            &[],
            &[("SAPWOOD_RENDEZVOUS_SUBNET", "ten")],
            &["SAPWOOD_RENDEZVOUS_SUBNET", "10.9.0.0/24"],
        ),
        (
            OPEN_MPI,
            &[],
            &[("SAPWOOD_LOCAL_RANK", "2")],
            &["SAPWOOD_LOCAL_RANK", "0 to 1"],
        ),
    ] {
        let error = launched(&but(pairs, without, with)).unwrap_err().to_string();
        assert!(
            said.iter().all(|part| error.contains(part)) && !error.contains('\n'),
            "{error}"
        );
    }
}

#[test]
fn one_rank_alone_needs_nothing_else() {
    for pairs in [
        &[("RANK", "0"), ("WORLD_SIZE", "1")][..],
        &[("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "1")],
        &[("PMI_RANK", "0"), ("PMI_SIZE", "1")],
    ] {
        assert_eq!(place(pairs).0, (0, 1, 0));
    }
}

#[test]
fn a_process_manager_on_this_host_names_the_socket_and_is_asked_nothing() {
    let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let number = ours.as_raw_fd().to_string();
    let pairs = [
        ("PMI_RANK", "1"),
        ("PMI_SIZE", "2"),
        ("PMI_FD", number.as_str()),
        ("MPI_LOCALNRANKS", "2"),
        ("MPI_LOCALRANKID", "1"),
    ];
    let (who, meets) = place(&pairs);
    assert_eq!(who, (1, 2, 1));
    assert!(meets.starts_with("@sapwood-mpiexec-"), "{meets}");
    assert_eq!(place(&pairs).1, meets);
}

proptest! {
    #[test]
    fn nothing_that_launchers_set_panics(values in prop::collection::vec(prop::option::of("[0-9]{1,3}|.{0,12}"), 20)) {
        let names = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
            "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "PMIX_NAMESPACE",
            "PMI_RANK", "PMI_SIZE", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_JOB_ID", "SLURM_STEP_ID",
            "SLURM_STEP_NODELIST", "SLURM_NNODES", "SLURM_LOCALID", "SAPWOOD_LOCAL_RANK"];
        let variables: HashMap<_, _> =
            names.into_iter().zip(values).filter_map(|(name, value)| Some((name, value?))).collect();
        let _ = read(&variables);
    }
}
