//! What a fabric can do. Everything above decides by these and never by a provider's name.

/// How far the order in which writes were posted is the order in which the target sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderingScope {
    /// An immediate (or a later write's last byte) says that everything posted before it on its queue pair is visible.
    QueuePair,
    /// Only an immediate says so; the last byte of a write says nothing (relaxed ordering).
    ImmediateOnly,
}

/// Who performs atomic operations on a word: words of different domains must never be mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtomicDomain {
    /// The CPUs of the host: the fabric's atomics and the owner's own instructions are atomic to each other.
    Cpu,
    /// One device: the owner, too, must go through the fabric.
    Device,
    /// No atomics.
    None,
}

/// What a provider offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// A peer's region can be mapped and then loaded and stored directly.
    pub load_store: bool,
    /// The largest send or write whose bytes are taken at the post, so that the memory may be used again at once.
    pub inline_size: usize,
    /// Regions of GPU memory can be registered.
    pub gpu_memory: bool,
    /// Regions that cannot be shared by descriptor (a caller's own memory) can be read and written by peers.
    pub foreign_memory: bool,
    /// See [`OrderingScope`].
    pub ordering: OrderingScope,
    /// See [`AtomicDomain`].
    pub atomic_domain: AtomicDomain,
    /// One-sided operations complete while the target process is stopped.
    pub progress_while_stopped: bool,
    /// The most requests, and receives, that one queue pair holds.
    pub queue_depth: usize,
}
