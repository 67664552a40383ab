//! The thread that moves exchanges on while the loop computes. It holds nothing and decides nothing: any caller that
//! waits does the same work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::engine::Engine;

#[derive(Debug)]
pub(super) struct Progress {
    engine: Arc<Engine>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    pub(super) fn start(engine: Arc<Engine>) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (its_engine, its_stop) = (engine.clone(), stop.clone());
        let thread = std::thread::Builder::new()
            .name("sapwood-progress".into())
            .spawn(move || its_engine.wait_until(|| its_stop.load(Ordering::Acquire)))?;
        Ok(Self {
            engine,
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.engine.is_forked() {
            // The thread is the parent's: there is none to wait for.
            std::mem::forget(self.thread.take());
            return;
        }
        self.stop.store(true, Ordering::Release);
        self.engine.nudge();
        if let Some(thread) = self.thread.take() {
            // It looks at `stop` whenever it wakes, which it does at a nudge and every few milliseconds anyway.
            let _ = thread.join();
        }
    }
}
