//! The verbs fabric against its device, without a peer: choice, inventory, registration, and the faults that people
//! run into, made for real. Cases that need a device, or make a fault on one, are ignored where there is none or where
//! nobody asked for it: `tools/rig/run device` runs all of them.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use sapwood::fabric::verbs::{GidType, Inventory, Scope, Settings, Verbs, inventory};
use sapwood::fabric::{Access, Fabric, FabricError, Registration};
use sapwood::memory::{HugePages, Region};

/// Set to `1` by who lets the faults be made: as root, on devices that nobody needs.
const FAULTS: &str = "SAPWOOD_TEST_FAULTS";
/// What this program does instead of testing, when a case has started it as another user.
const PART: &str = "SAPWOOD_TEST_PART";

fn main() {
    if let Ok(part) = std::env::var(PART) {
        match part.as_str() {
            "permission" => part_permission(),
            "memlock" => part_memlock(),
            "fork" => part_fork(),
            other => panic!("there is no part {other:?}"),
        }
        return;
    }
    let arguments = Arguments::from_args();
    let present = inventory().is_ok_and(|inventory| !inventory.devices.is_empty());
    let faults = present && std::env::var(FAULTS).is_ok_and(|value| value == "1");
    if !present {
        eprintln!(
            "SKIPPED: what needs a verbs device; this machine has none. `tools/rig/run device` runs everything."
        );
    } else if !faults {
        eprintln!("SKIPPED: what makes faults on devices; {FAULTS}=1 allows it, as root.");
    }
    let on_device =
        |name: &str, case: fn() -> Result<(), Failed>| Trial::test(name, case).with_ignored_flag(!present);
    let fault =
        |name: &str, case: fn() -> Result<(), Failed>| Trial::test(name, case).with_ignored_flag(!faults);
    let trials = vec![
        Trial::test("without_a_device_the_error_says_how_to_get_one", no_device).with_ignored_flag(present),
        on_device(
            "the_inventory_says_everything_and_survives_json",
            complete_inventory,
        ),
        on_device("each_device_opens_with_a_routable_gid_and_says_why", each_opens),
        on_device("a_list_of_devices_is_taken_in_turn", in_turn),
        on_device(
            "a_gid_index_or_subnet_that_is_not_there_lists_the_table",
            wrong_gid,
        ),
        on_device("a_registration_pins_until_its_last_handle_goes", pins),
        on_device("memory_that_the_device_cannot_write_is_refused", read_only),
        on_device("a_forked_child_is_refused_and_harms_nobody", forked),
        fault(
            "no_permission_names_the_file_and_what_gives_access",
            no_permission,
        ),
        fault(
            "the_memory_lock_limit_is_found_before_the_kernel_refuses",
            memory_lock,
        ),
        fault("a_port_that_is_down_is_named_with_its_interface", port_down),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

type Outcome = Result<(), Failed>;

#[track_caller]
fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

fn settings(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = Settings::default();
    change(&mut settings);
    settings
}

fn refused(settings: &Settings) -> String {
    match Verbs::open(settings) {
        Ok(verbs) => panic!("{}", verbs.choice()),
        Err(error) => error.to_string(),
    }
}

/// Those that could be used now.
fn names(inventory: &Inventory) -> Vec<String> {
    inventory
        .devices
        .iter()
        .map(|device| device.name.clone())
        .collect()
}

fn no_device() -> Outcome {
    let text = refused(&Settings::default());
    println!("{text}");
    // Either there is no libibverbs, or it knows no device.
    if text.contains("libibverbs.so.1") {
        says(&text, &["cannot load", "libibverbs1"]);
    } else {
        says(
            &text,
            &[
                "fabric verbs: there is no RDMA device here",
                "modprobe rdma_rxe",
                "SAPWOOD_FABRIC=shm",
            ],
        );
    }
    Ok(())
}

fn complete_inventory() -> Outcome {
    let taken = inventory()?;
    let text = serde_json::to_string_pretty(&taken)?;
    println!("{text}");
    let again: Inventory = serde_json::from_str(&text)?;
    assert_eq!(again, taken);
    for device in &taken.devices {
        assert_eq!(device.error, None);
        let limits = device.details.as_ref().expect("opened").limits;
        assert!(limits.queue_pairs > 0 && limits.queue_depth > 0 && limits.registration_size > 0);
        assert_eq!(device.ports.len(), usize::from(limits.ports));
        for port in &device.ports {
            assert_eq!(port.problems, Vec::<String>::new());
            assert!(port.net_device.is_some() && !port.counters.is_empty());
            let gid = port
                .gids
                .iter()
                .find(|gid| gid.ipv4.is_some())
                .expect("an IPv4 address");
            assert!(gid.kind == Some(GidType::RoceV2) && gid.net_device == port.net_device);
        }
    }
    Ok(())
}

fn each_opens() -> Outcome {
    for name in names(&inventory()?) {
        let verbs = Verbs::open(&settings(|s| s.devices = vec![name.clone()]))?;
        let choice = verbs.choice();
        println!("{choice}\n{:?}", verbs.capabilities());
        assert_eq!(
            (choice.device.as_str(), choice.gid.kind),
            (name.as_str(), Some(GidType::RoceV2))
        );
        assert!(choice.gid.gid.scope() == Scope::Routable && choice.gid.index > 0);
        says(
            &choice.to_string(),
            &[&name, "RoCE v2", "the device is set", "a routable address"],
        );
        let capabilities = verbs.capabilities();
        assert!(capabilities.inline_size >= 64 && capabilities.queue_depth >= 64);
        assert!(!capabilities.load_store && capabilities.foreign_memory);
    }
    Ok(())
}

fn in_turn() -> Outcome {
    let names = names(&inventory()?);
    for (local_rank, name) in names.iter().chain(&names).enumerate() {
        let turn = settings(|s| {
            s.devices = names.clone();
            s.local_rank = local_rank;
        });
        assert_eq!(&Verbs::open(&turn)?.choice().device, name);
    }
    Ok(())
}

fn wrong_gid() -> Outcome {
    let name = names(&inventory()?).remove(0);
    let index = settings(|s| {
        s.devices = vec![name.clone()];
        s.gid_index = Some(200);
    });
    let text = refused(&index);
    println!("{text}");
    says(
        &text,
        &[&name, "no GID at index 200", "SAPWOOD_VERBS_GID_INDEX", "RoCE v2"],
    );
    let subnet = settings(|s| {
        s.devices = vec![name.clone()];
        s.subnet = Some("203.0.113.0/24".parse().expect("a subnet"));
    });
    says(
        &refused(&subnet),
        &["203.0.113.0/24", "SAPWOOD_VERBS_SUBNET", "RoCE v2"],
    );
    Ok(())
}

/// KiB that this process has pinned for devices.
fn pinned() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmPin:"));
    let number = line
        .and_then(|line| line.split_whitespace().next())
        .expect("VmPin");
    number.parse().expect("a number")
}

fn pins() -> Outcome {
    let verbs = Verbs::open(&Settings::default())?;
    let before = pinned();
    let region = Region::host(4 << 20, HugePages::WhereAvailable)?;
    let one = verbs.register(&region, Access::ALL)?;
    let two = verbs.register(&region, Access::ALL)?;
    assert!(
        Arc::ptr_eq(&one, &two),
        "the same region with the same rights is registered once"
    );
    assert_eq!(pinned() - before, 4096);
    assert_eq!(one.export()?.bytes, two.export()?.bytes);
    // The registration is the last to hold region and device.
    drop((region, verbs, one));
    assert_eq!(pinned() - before, 4096);
    assert_eq!(two.region().len(), 4 << 20);
    drop(two);
    assert_eq!(pinned(), before);
    // The same address again, perhaps, but another region: another registration.
    let verbs = Verbs::open(&Settings::default())?;
    let (first, second) = (
        Region::host(4096, HugePages::Never)?,
        Region::host(4096, HugePages::Never)?,
    );
    let keys = |registration: &Arc<dyn Registration>| registration.export().map(|parcel| parcel.bytes);
    let (first, second) = (
        verbs.register(&first, Access::READ)?,
        verbs.register(&second, Access::READ)?,
    );
    assert_ne!(keys(&first)?, keys(&second)?);
    let local = verbs.register(first.region(), Access::LOCAL)?;
    assert!(matches!(
        local.export(),
        Err(FabricError::NothingToExport { len: 4096 })
    ));
    Ok(())
}

#[derive(Debug)]
struct Mapped(*mut libc::c_void);
// SAFETY: only unmapped, once.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by `read_only`, unmapped once.
        unsafe { libc::munmap(self.0, 4096) };
    }
}

fn read_only() -> Outcome {
    let verbs = Verbs::open(&Settings::default())?;
    // SAFETY: a fresh anonymous mapping.
    let mapped = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    assert_ne!(mapped, libc::MAP_FAILED);
    let base = std::ptr::NonNull::new(mapped.cast()).expect("mapped");
    // SAFETY: mapped until the owner goes. That it may be written is a lie, which is what this is about.
    let region = unsafe { Region::foreign(base, 4096, Arc::new(Mapped(mapped))) }?;
    match verbs.register(&region, Access::ALL) {
        Ok(_) => panic!("read-only memory was registered for writing"),
        Err(error) => {
            println!("{error}");
            says(
                &error.to_string(),
                &["ibv_reg_mr", "4096 bytes of foreign memory"],
            );
        }
    }
    Ok(())
}

/// Starts this program again for one part, as root; what it prints.
fn play(part: &str) -> String {
    let program = std::env::current_exe().expect("this program");
    let output = Command::new(program).env(PART, part).output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{part}: {}\n{text}\n{errors}",
        output.status
    );
    println!("{text}");
    text
}

/// Becomes nobody, who has no rights that others have not.
fn become_nobody() {
    // SAFETY: plain system calls on this process, which has one thread.
    unsafe {
        assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
        assert_eq!(libc::setgid(65534), 0);
        assert_eq!(libc::setuid(65534), 0);
    }
}

/// The files of all devices with the given mode; the mode that they had when dropped.
struct Mode(Vec<(std::path::PathBuf, u32)>);

impl Mode {
    fn set(mode: u32) -> Self {
        let folder = std::fs::read_dir("/dev/infiniband").expect("/dev/infiniband");
        let files = folder.flatten().map(|entry| entry.path());
        let files = files.filter(|path| path.to_string_lossy().contains("uverbs"));
        let files = files.map(|path| {
            let before = std::fs::metadata(&path).expect("metadata").permissions().mode();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("chmod, as root");
            (path, before)
        });
        Self(files.collect())
    }
}

impl Drop for Mode {
    fn drop(&mut self) {
        for (path, mode) in &self.0 {
            let _ = std::fs::set_permissions(path, PermissionsExt::from_mode(*mode));
        }
    }
}

fn no_permission() -> Outcome {
    let _mode = Mode::set(0o600);
    let text = play("permission");
    says(
        &text,
        &[
            "no permission to open /dev/infiniband/uverbs",
            "mode 600, owner root, group root; asked by user nobody",
            "KERNEL==\"uverbs*\"",
            "chmod 0666 /dev/infiniband/uverbs",
            "--device",
        ],
    );
    Ok(())
}

fn part_permission() {
    become_nobody();
    println!("{}", refused(&Settings::default()));
    let taken = inventory().expect("devices are listed all the same");
    assert!(
        taken.devices.iter().all(|device| device.error.is_some()),
        "{taken:?}"
    );
}

fn memory_lock() -> Outcome {
    let _mode = Mode::set(0o666);
    let text = play("memlock");
    says(
        &text,
        &[
            "registering 67108864 bytes would lock 67108864 bytes, but the limit is 8388608",
            "registering 4096 bytes would lock 8392704 bytes, but the limit is 8388608",
            "ulimit -l unlimited",
            "/etc/security/limits.conf",
            "LimitMEMLOCK=infinity",
        ],
    );
    Ok(())
}

fn part_memlock() {
    let limit = libc::rlimit {
        rlim_cur: 8 << 20,
        rlim_max: 8 << 20,
    };
    // SAFETY: the limit is readable.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) }, 0);
    become_nobody();
    let verbs = Verbs::open(&Settings::default()).unwrap_or_else(|error| panic!("{error}"));
    let register = |len| {
        let region = Region::host(len, HugePages::Never).expect("memory");
        verbs.register(&region, Access::ALL)
    };
    println!("{}", register(64 << 20).expect_err("beyond the limit"));
    // Exactly as much as is allowed, and then a page.
    let kept = [register(4 << 20), register(4 << 20)];
    assert!(kept.iter().all(Result::is_ok), "{kept:?}");
    println!("{}", register(4096).expect_err("one page beyond the limit"));
    drop(kept);
    register(8 << 20).expect("what was given back counts no more");
}

fn port_down() -> Outcome {
    let taken = inventory()?;
    let device = &taken.devices[0];
    let interface = device.ports[0].net_device.clone().expect("an interface");
    let ip = |state: &str| {
        let arguments = ["link", "set", &interface, state];
        let status = Command::new("ip").args(arguments).status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "ip {arguments:?}, as root"
        );
    };
    ip("down");
    let text = refused(&settings(|s| s.devices = vec![device.name.clone()]));
    let others = Verbs::open(&Settings::default()).map(|verbs| verbs.choice().clone());
    ip("up");
    println!("{text}");
    says(
        &text,
        &[
            &device.name,
            "port 1 is DOWN",
            &format!("ip link set {interface} up"),
        ],
    );
    match others {
        Ok(choice) => says(&choice.to_string(), &[&format!("{} port 1 is DOWN", device.name)]),
        // The other end of a veth pair has no carrier then.
        Err(error) => {
            println!("{error}");
            for device in &taken.devices {
                says(
                    &error.to_string(),
                    &[&format!("device {} port 1 is DOWN", device.name)],
                );
            }
        }
    }
    // The address is back a moment later.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while let Err(error) = Verbs::open(&settings(|s| s.devices = vec![device.name.clone()])) {
        assert!(std::time::Instant::now() < deadline, "after 20 s still: {error}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    Ok(())
}

fn forked() -> Outcome {
    says(&play("fork"), &["the parent goes on"]);
    Ok(())
}

fn part_fork() {
    let verbs = Verbs::open(&Settings::default()).unwrap_or_else(|error| panic!("{error}"));
    let region = Region::host(4096, HugePages::Never).expect("memory");
    let registration = verbs.register(&region, Access::ALL).expect("registered");
    // SAFETY: this process has one thread, so the child may do what it likes.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork failed");
    if child == 0 {
        let refused = matches!(verbs.register(&region, Access::READ), Err(FabricError::Forked))
            && matches!(registration.export(), Err(FabricError::Forked))
            && matches!(verbs.endpoint(0, 1), Err(FabricError::Forked));
        drop((registration, verbs, region));
        std::process::exit(if refused { 0 } else { 1 });
    }
    let mut status = -1;
    // SAFETY: our own child, not yet waited for; the status is writable.
    let waited = unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!((waited, status), (child, 0), "the child was not refused");
    assert_eq!(
        pinned(),
        4,
        "the child's drop took the parent's registration away"
    );
    verbs.register(&region, Access::READ).expect("the parent goes on");
    drop((registration, verbs, region));
    assert_eq!(pinned(), 0);
    println!("the parent goes on");
}
