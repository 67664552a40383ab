//! Every variable of Sapwood's own, in one list: what the documentation and the help print, and what a name in the
//! environment is compared with. A variable that is not in here does not exist.

/// One environment variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnvironmentVariable {
    /// Its name.
    pub name: &'static str,
    /// What it says, in a sentence without an end.
    pub meaning: &'static str,
    /// What holds where it is absent.
    pub default: &'static str,
    /// The source file that reads it, the only one.
    pub read_by: &'static str,
}

const fn variable(
    name: &'static str,
    meaning: &'static str,
    default: &'static str,
    read_by: &'static str,
) -> EnvironmentVariable {
    EnvironmentVariable {
        name,
        meaning,
        default,
        read_by,
    }
}

const OWN: &str = "src/bootstrap/environment/own.rs";
const VERBS: &str = "src/fabric/verbs/settings.rs";
const TCP: &str = "src/fabric/tcp/settings.rs";

/// All of them, in the order in which they are of interest.
pub const ENVIRONMENT: &[EnvironmentVariable] = &[
    variable(
        "SAPWOOD_RANK",
        "this process's rank, from 0",
        "what the launcher says",
        OWN,
    ),
    variable(
        "SAPWOOD_SIZE",
        "ranks in the job, 1 to 4096",
        "what the launcher says",
        OWN,
    ),
    variable(
        "SAPWOOD_LOCAL_RANK",
        "this rank's number among those on its host: it spreads them over the host's devices",
        "what the launcher says, else the rank",
        OWN,
    ),
    variable(
        "SAPWOOD_RENDEZVOUS",
        "where the ranks meet: `@NAME` (an abstract socket), `/PATH` (a socket), or `HOST:PORT` of rank 0",
        "follows from the launcher's job",
        OWN,
    ),
    variable(
        "SAPWOOD_RENDEZVOUS_SUBNET",
        "in which subnet ranks of several hosts meet, where hosts have several addresses: `10.9.0.0/24`",
        "any",
        OWN,
    ),
    variable(
        "SAPWOOD_SECRET_FILE",
        "a file (mode 600) with the job's secret, at least 16 bytes, or a descriptor as `/dev/fd/N`",
        "none is needed where another launcher starts ranks of one host",
        OWN,
    ),
    variable(
        "SAPWOOD_TIMEOUT",
        "how long a blocking step waits for other ranks, in seconds",
        "60",
        OWN,
    ),
    variable(
        "SAPWOOD_FABRIC",
        "what carries the bytes: `auto`, `shm`, `verbs` or `tcp`",
        "`auto`: shared memory inside a host; across, verbs where every rank has a device, else tcp",
        OWN,
    ),
    variable(
        "SAPWOOD_HOST",
        "the host that this rank says it is on; for tests of several hosts on one",
        "the one it is on",
        OWN,
    ),
    variable(
        "SAPWOOD_TUNING",
        "the file of `sapwood tune` that plans are chosen from; rank 0's counts for all ranks",
        "a built-in table",
        OWN,
    ),
    variable(
        "SAPWOOD_DELAY",
        "by how many milliseconds every message between ranks is held back, which then load and store no peer's memory; \
         for tests of slow links on one host",
        "0",
        OWN,
    ),
    variable(
        "SAPWOOD_ATTEMPT",
        "set by `sapwood run --on-death restart`: how often this rank has been started anew",
        "0",
        OWN,
    ),
    variable(
        "SAPWOOD_RETURNS",
        "1: a rank that has died and is started anew comes back to its backup workers (set by `sapwood run --on-death \
         restart`); the same for all ranks",
        "0",
        OWN,
    ),
    variable(
        "SAPWOOD_LOG",
        "what the `sapwood` command logs: a level, or `info,sapwood::fabric=debug` (tracing's filters)",
        "`warn`",
        "tools/src/main.rs",
    ),
    variable(
        "SAPWOOD_VERBS_DEVICE",
        "RDMA devices to use, in order: `mlx5_0,mlx5_1:2`",
        "every active port",
        VERBS,
    ),
    variable(
        "SAPWOOD_VERBS_PORT",
        "the port of each device",
        "the first active one",
        VERBS,
    ),
    variable(
        "SAPWOOD_VERBS_GID_INDEX",
        "the index of the GID",
        "chosen: a routable RoCE v2 address",
        VERBS,
    ),
    variable(
        "SAPWOOD_VERBS_SUBNET",
        "the subnet that the GID's address must be in",
        "any",
        VERBS,
    ),
    variable(
        "SAPWOOD_VERBS_QUEUE_PAIRS",
        "queue pairs for each peer",
        "1",
        VERBS,
    ),
    variable(
        "SAPWOOD_VERBS_QUEUE_DEPTH",
        "work requests that a queue holds",
        "512",
        VERBS,
    ),
    variable(
        "SAPWOOD_VERBS_INLINE_SIZE",
        "bytes that travel in a work request",
        "220",
        VERBS,
    ),
    variable(
        "SAPWOOD_VERBS_TRAFFIC_CLASS",
        "the traffic class of packets",
        "0",
        VERBS,
    ),
    variable(
        "SAPWOOD_VERBS_SERVICE_LEVEL",
        "the service level of paths",
        "0",
        VERBS,
    ),
    variable(
        "SAPWOOD_VERBS_FLOW_LABEL",
        "the flow label of packets, 0: the driver's",
        "0",
        VERBS,
    ),
    variable(
        "SAPWOOD_VERBS_HOP_LIMIT",
        "how many routers a packet passes",
        "64",
        VERBS,
    ),
    variable(
        "SAPWOOD_VERBS_PARTITION_KEY",
        "the partition, `0x8001`",
        "entry 0 of the port's table",
        VERBS,
    ),
    variable(
        "SAPWOOD_VERBS_MTU",
        "an upper limit of the bytes in a packet, 256 to 4096",
        "the ports'",
        VERBS,
    ),
    variable(
        "SAPWOOD_VERBS_TIMEOUT",
        "4.096 µs times 2 to this until a packet is sent again",
        "16",
        VERBS,
    ),
    variable("SAPWOOD_VERBS_RETRY_COUNT", "how often it is, 0 to 7", "6", VERBS),
    variable(
        "SAPWOOD_VERBS_RECEIVER_RETRY",
        "the same where the receiver is not ready, 7: for ever",
        "7",
        VERBS,
    ),
    variable(
        "SAPWOOD_VERBS_RECEIVER_TIMER",
        "how long a receiver that is not ready asks for",
        "12",
        VERBS,
    ),
    variable(
        "SAPWOOD_VERBS_READ_DEPTH",
        "reads and atomics in flight for each queue pair",
        "16",
        VERBS,
    ),
    variable(
        "SAPWOOD_VERBS_RELAXED_ORDERING",
        "relaxed ordering of memory writes, 0 or 1",
        "1",
        VERBS,
    ),
    variable(
        "SAPWOOD_TCP_SUBNET",
        "the subnet of the address at which other hosts' ranks connect: `10.9.0.0/24`",
        "the address by which the other host is reached",
        TCP,
    ),
    variable(
        "SAPWOOD_TCP_INTERFACE",
        "the interface of that address: `eth0`",
        "any",
        TCP,
    ),
    variable(
        "SAPWOOD_TCP_SILENCE",
        "how long another host may acknowledge nothing before it counts as gone, in seconds",
        "9",
        TCP,
    ),
    variable(
        "SAPWOOD_TCP_BUFFER",
        "bytes of the kernel's send buffer of each connection",
        "the kernel's choice",
        TCP,
    ),
];

/// The list as a table of Markdown, as `docs/environment.md` holds it.
pub fn environment_table() -> String {
    let mut table =
        String::from("| variable | what it says | where it is absent | read in |\n|---|---|---|---|\n");
    for EnvironmentVariable {
        name,
        meaning,
        default,
        read_by,
    } in ENVIRONMENT
    {
        let read_by = if read_by.contains('/') {
            format!("`{read_by}`")
        } else {
            (*read_by).to_owned()
        };
        table.push_str(&format!("| `{name}` | {meaning} | {default} | {read_by} |\n"));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::unknown::unknown_variables;
    use super::*;
    use std::path::Path;

    fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR"))
    }

    #[test]
    fn the_documentation_has_this_table() {
        let page = std::fs::read_to_string(root().join("docs/environment.md")).unwrap();
        assert!(
            page.contains(&environment_table()),
            "docs/environment.md must hold this table:\n{}",
            environment_table()
        );
    }

    #[test]
    fn every_variable_is_read_where_it_is_said_to_be() {
        for known in ENVIRONMENT.iter().filter(|known| known.read_by.contains('/')) {
            let source = std::fs::read_to_string(root().join(known.read_by)).unwrap();
            let short = known
                .name
                .trim_start_matches("SAPWOOD_")
                .trim_start_matches("VERBS_");
            assert!(source.contains(short), "{} in {}", known.name, known.read_by);
        }
    }

    /// No source mentions a variable that is not in the list, but for the one that is about slips.
    #[test]
    fn the_list_is_complete() {
        let mut folders = vec![root().join("src"), root().join("tools/src")];
        let mut mentioned = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs")
                    && !["table.rs", "unknown.rs"].iter().any(|own| path.ends_with(own))
                {
                    let source = std::fs::read_to_string(&path).unwrap();
                    let after = source.split("SAPWOOD_").skip(1);
                    mentioned.extend(after.map(|rest| {
                        let end = rest.find(|letter: char| !letter.is_ascii_uppercase() && letter != '_');
                        format!("SAPWOOD_{}", &rest[..end.unwrap_or(rest.len())])
                    }));
                }
            }
        }
        // What ends in an underscore speaks of several.
        mentioned.retain(|name| !name.ends_with('_'));
        assert!(mentioned.len() > 50);
        let unknown = unknown_variables(mentioned);
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}
