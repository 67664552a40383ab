//! The thread that moves exchanges on while the loop computes. It holds nothing and decides nothing: any caller that
//! waits does the same work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::engine::Core;

#[derive(Debug)]
pub(super) struct Progress {
    core: Arc<Core>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    pub(super) fn start(core: Arc<Core>) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (its_core, its_stop) = (core.clone(), stop.clone());
        let thread = std::thread::Builder::new()
            .name("sapwood-progress".into())
            .spawn(move || its_core.wait_until(|| its_stop.load(Ordering::Acquire)))?;
        Ok(Self {
            core,
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.core.is_forked() {
            // The thread is the parent's: there is none to wait for.
            std::mem::forget(self.thread.take());
            return;
        }
        self.stop.store(true, Ordering::Release);
        self.core.group().bell().ring();
        if let Some(thread) = self.thread.take() {
            // It looks at `stop` whenever it wakes, which it does at the bell and every few milliseconds anyway.
            let _ = thread.join();
        }
    }
}
