//! Dma-bufs and the verbs fabric: the way of GPU memory to the device. Nothing here shows anything about GPU memory:
//! the buffer is one that /dev/udmabuf makes of ordinary memory, and the device is made of software. Stock soft-RoCE
//! refuses dma-bufs, and then the refusal is the test; the rig's patched module takes them, and then the real thing is.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use rustix::fs::{MemfdFlags, SealFlags};
use sapwood::fabric::verbs::{Settings, Verbs, VerbsError, inventory};
use sapwood::fabric::{
    Access, Completion, Endpoint, Fabric, FabricError, Operation, Registration, RemoteSlice, Request, Slice,
    Status,
};
use sapwood::memory::{HugePages, Mapping, MemoryKind, Region};

const SIZE: usize = 64 << 10;

fn main() {
    let arguments = Arguments::from_args();
    let present = inventory().is_ok_and(|inventory| !inventory.devices.is_empty());
    let buffers = std::path::Path::new("/dev/udmabuf").exists();
    let takes =
        present && Verbs::open(&Settings::default()).is_ok_and(|verbs| verbs.capabilities().gpu_memory);
    if !present || !buffers {
        eprintln!("SKIPPED: this needs a verbs device and /dev/udmabuf; `tools/rig/run dmabuf` has both.");
    } else if !takes {
        eprintln!(
            "SKIPPED: the device takes no dma-bufs; `tools/rig/run --dmabuf dmabuf-patched` has one that does."
        );
    }
    let taken = |name: &str, case: fn() -> Result<(), Failed>| {
        Trial::test(name, case).with_ignored_flag(!takes || !buffers)
    };
    let trials = vec![
        Trial::test(
            "a_device_that_takes_no_dma_bufs_says_so_with_a_type_of_its_own",
            refused,
        )
        .with_ignored_flag(!present || !buffers || takes),
        taken(
            "patched_soft_roce_lands_writes_reads_and_atomics_in_a_udmabuf",
            lands,
        ),
        taken(
            "patched_soft_roce_registers_from_an_offset_and_refuses_beyond_the_end",
            bounds,
        ),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

/// A dma-buf over a memory file, and the CPU's view of the same memory.
#[derive(Debug)]
struct Buffer {
    dma_buf: OwnedFd,
    mapping: Mapping,
    /// Where in the dma-buf the region starts.
    offset: u64,
}

impl Buffer {
    fn new() -> std::io::Result<Self> {
        let file = rustix::fs::memfd_create("dma-buf", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&file, SIZE as u64)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK)?;
        Ok(Self {
            dma_buf: udmabuf(&file)?,
            mapping: Mapping::of(&file, SIZE, true).map_err(std::io::Error::other)?,
            offset: 0,
        })
    }

    /// The memory from `offset` on, to be registered through the dma-buf.
    fn region(self) -> Region {
        // SAFETY: within the mapping, which the kind keeps.
        let base = unsafe {
            self.mapping
                .base()
                .add(usize::try_from(self.offset).expect("small"))
        };
        let len = SIZE - usize::try_from(self.offset).expect("small");
        // SAFETY: the mapping is that long, writable, and lives in the kind.
        unsafe { Region::of_kind(base, len, Box::new(self)) }
    }
}

impl MemoryKind for Buffer {
    fn name(&self) -> &'static str {
        "udmabuf"
    }
    fn host_accessible(&self) -> bool {
        true
    }
    fn share(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn dma_buf(&self) -> Option<(BorrowedFd<'_>, u64)> {
        Some((self.dma_buf.as_fd(), self.offset))
    }
}

/// `struct udmabuf_create` of linux/udmabuf.h.
#[repr(C)]
struct Create {
    file: u32,
    flags: u32,
    offset: u64,
    size: u64,
}

/// `UDMABUF_CREATE`: `_IOW('u', 0x42, struct udmabuf_create)`.
const CREATE: libc::c_ulong =
    1 << 30 | (size_of::<Create>() as libc::c_ulong) << 16 | (b'u' as libc::c_ulong) << 8 | 0x42;

/// A dma-buf of all pages of a memory file that is sealed against shrinking.
fn udmabuf(file: &OwnedFd) -> std::io::Result<OwnedFd> {
    let device = File::options().read(true).write(true).open("/dev/udmabuf")?;
    let create = Create {
        file: file.as_raw_fd().cast_unsigned(),
        flags: 1, // UDMABUF_FLAGS_CLOEXEC
        offset: 0,
        size: SIZE as u64,
    };
    // SAFETY: the argument is the structure that this request reads.
    let made = unsafe { libc::ioctl(device.as_raw_fd(), CREATE, &raw const create) };
    if made < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

fn refused() -> Result<(), Failed> {
    let verbs = Verbs::open(&Settings::default())?;
    assert!(!verbs.capabilities().gpu_memory);
    let error = verbs
        .register(&Buffer::new()?.region(), Access::ALL)
        .expect_err("no dma-bufs");
    println!("{error}");
    let FabricError::Provider { source, .. } = &error else {
        panic!("{error:?}");
    };
    let error = source.downcast_ref::<VerbsError>();
    let Some(VerbsError::Unsupported(unsupported)) = error else {
        panic!("{error:?}");
    };
    assert_eq!(unsupported.verb, "ibv_reg_dmabuf_mr");
    assert!(
        unsupported.to_string().contains("staged through host memory"),
        "{unsupported}"
    );
    Ok(())
}

/// The fabric of one of the devices; two ranks in this process take different ones where there are two.
fn open(local_rank: usize) -> Result<Verbs, Failed> {
    let settings = Settings {
        local_rank,
        ..Settings::default()
    };
    Ok(Verbs::open(&settings)?)
}

/// Ranks 0 and 1, connected.
fn connected(one: &Verbs, two: &Verbs) -> Result<[Box<dyn Endpoint>; 2], Failed> {
    let (mut one, mut two) = (one.endpoint(0, 1)?, two.endpoint(1, 1)?);
    let (from_one, from_two) = (one.prepare(1)?, two.prepare(0)?);
    one.connect(1, from_two)?;
    two.connect(0, from_one)?;
    Ok([one, two])
}

/// Posts one operation to rank 1 and waits for its end; rank 1 drives its own side meanwhile.
fn run(ends: &mut [Box<dyn Endpoint>; 2], operation: Operation) -> Result<Status, Failed> {
    ends[0].post(
        1,
        &[Request {
            id: 7,
            operation,
            signaled: true,
        }],
    )?;
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut completions: Vec<Completion> = Vec::with_capacity(8);
    while completions.is_empty() {
        assert!(Instant::now() < deadline, "no completion within 30 s");
        ends[0].poll(&mut completions)?;
        ends[1].poll(&mut Vec::with_capacity(8))?;
        std::thread::yield_now();
    }
    Ok(completions[0].status)
}

fn slice(registration: &Arc<dyn Registration>, offset: usize, len: usize) -> Slice {
    Slice {
        registration: registration.clone(),
        offset,
        len,
    }
}

/// What lies in the region now.
fn contents(region: &Region) -> Vec<u8> {
    // SAFETY: the CPU's memory of this length; nothing is under way when this test looks.
    unsafe { std::slice::from_raw_parts(region.base().as_ptr(), region.len()) }.to_vec()
}

/// Puts bytes at the region's start.
fn put(region: &Region, bytes: &[u8]) {
    assert!(bytes.len() <= region.len());
    // SAFETY: the CPU's memory, long enough; nothing is under way when this test writes.
    unsafe {
        region
            .base()
            .copy_from_nonoverlapping(std::ptr::NonNull::from(bytes).cast(), bytes.len())
    };
}

fn word(region: &Region, offset: usize) -> u64 {
    let bytes = contents(region);
    u64::from_ne_bytes(bytes[offset..offset + 8].try_into().expect("8 bytes"))
}

fn lands() -> Result<(), Failed> {
    let (one, two) = (open(0)?, open(1)?);
    let mut ends = connected(&one, &two)?;
    let target = Buffer::new()?.region();
    let target_registration = two.register(&target, Access::ALL)?;
    let source = Region::host(SIZE, HugePages::Never)?;
    let registration = one.register(&source, Access::LOCAL)?;
    let region = ends[0].import(1, target_registration.export()?)?;
    let remote = |offset| RemoteSlice {
        region: region.clone(),
        offset,
    };

    let mut pattern: Vec<u8> = (0..SIZE)
        .map(|number| number as u8 ^ (number >> 8) as u8)
        .collect();
    put(&source, &pattern);
    let write = Operation::Write {
        local: slice(&registration, 0, SIZE),
        remote: remote(0),
        immediate: None,
    };
    assert_eq!(run(&mut ends, write)?, Status::Success);
    assert!(
        contents(&target) == pattern,
        "the write landed in the buffer's pages"
    );

    pattern.reverse();
    put(&target, &pattern);
    let read = Operation::Read {
        local: slice(&registration, 0, SIZE),
        remote: remote(0),
    };
    assert_eq!(run(&mut ends, read)?, Status::Success);
    assert!(
        contents(&source) == pattern,
        "the read came from the buffer's pages"
    );

    let before = word(&target, 4096);
    let add = Operation::FetchAdd {
        local: slice(&registration, 0, 8),
        remote: remote(4096),
        add: 5,
    };
    assert_eq!(run(&mut ends, add)?, Status::Success);
    assert_eq!(
        (word(&source, 0), word(&target, 4096)),
        (before, before.wrapping_add(5))
    );

    let expected = word(&target, 4096);
    let local = slice(&registration, 0, 8);
    let swap = Operation::CompareSwap {
        local,
        remote: remote(4096),
        expected,
        desired: 9,
    };
    assert_eq!(run(&mut ends, swap)?, Status::Success);
    assert_eq!((word(&source, 0), word(&target, 4096)), (expected, 9));
    Ok(())
}

fn bounds() -> Result<(), Failed> {
    let (one, two) = (open(0)?, open(1)?);
    let mut ends = connected(&one, &two)?;
    let mut buffer = Buffer::new()?;
    buffer.offset = 8192;
    let target = buffer.region();
    let target_registration = two.register(&target, Access::ALL)?;
    let registration = one.register(&Region::host(4096, HugePages::Never)?, Access::LOCAL)?;
    put(registration.region(), &[0x77; 4096]);
    let region = ends[0].import(1, target_registration.export()?)?;
    let offset = target.len() - 4096;
    let remote = RemoteSlice { region, offset };
    let write = Operation::Write {
        local: slice(&registration, 0, 4096),
        remote,
        immediate: None,
    };
    assert_eq!(run(&mut ends, write)?, Status::Success);
    let landed = contents(&target);
    assert!(landed[offset..].iter().all(|byte| *byte == 0x77));
    assert!(landed[..offset].iter().all(|byte| *byte == 0));

    let mut beyond = Buffer::new()?;
    beyond.offset = 4096;
    // SAFETY: never accessed: the registration of more than the buffer has is refused.
    let region = unsafe { Region::of_kind(beyond.mapping.base(), SIZE, Box::new(beyond)) };
    let error = two
        .register(&region, Access::ALL)
        .expect_err("beyond the end of the buffer");
    println!("{error}");
    assert!(
        error
            .to_string()
            .contains("ibv_reg_dmabuf_mr (65536 bytes at offset 4096)"),
        "{error}"
    );
    Ok(())
}
