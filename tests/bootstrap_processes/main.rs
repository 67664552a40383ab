//! The bootstrap between real processes: this program starts itself again as the ranks, kills some of them, and
//! reads what the others say. (Its own `main`, so that a rank is not a test in disguise.)

mod identified;
mod launchers;
#[path = "../name_spaces/mod.rs"]
mod name_spaces;
mod namespaces;
mod network;
mod one_host;
mod ranks;
mod roles;
mod strangers;

use libtest_mimic::Arguments;

fn main() -> std::process::ExitCode {
    if let Ok(role) = std::env::var(ranks::ROLE) {
        match role.strip_prefix("identified ") {
            Some(rank) => identified::play(rank),
            None => roles::play(&role),
        }
        return std::process::ExitCode::SUCCESS;
    }
    let trials = [
        one_host::trials(),
        network::trials(),
        strangers::trials(),
        namespaces::trials(),
        launchers::trials(),
        identified::trials(),
    ];
    let mut arguments = Arguments::from_args();
    // They do nothing but wait.
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    arguments.test_threads.get_or_insert(cores.max(4));
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}
