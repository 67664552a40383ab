//! An exchange without a plan: every rank pulls every other rank's gradient and sums in rank order.
//!
//! Stands in for `sapwood::exchange` behind the same traits until that is there, and shows the demo's trainer to be
//! independent of it. Reads where the backward pass wrote and stores where the optimizer reads: no copies. It moves
//! (ranks - 1) x the gradient into every rank, which is what plans are there to avoid.

use std::fs::File;
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use sapwood::plan::lowered::Rank;

use super::gradients::{ExchangeError, GradientBucket, GradientExchange, GradientStep, StepOutcome, Traffic};
use super::model::{LAYERS, layer_size, parameters};
use super::spans::{Activity, Span, now};

const PAGE: usize = 4096;

/// Bytes of a rank's part: a page of counters, then the gradients.
fn part() -> usize {
    PAGE + (parameters() * size_of::<f32>()).next_multiple_of(PAGE)
}

fn layer_offset(layer: usize) -> usize {
    PAGE + (0..layer).map(layer_size).sum::<usize>() * size_of::<f32>()
}

/// The counters at the start of a rank's part. Each is written by its rank alone.
#[repr(C)]
struct Counters {
    /// Steps for which the layer's gradient is written.
    ready: [AtomicU64; LAYERS],
    /// Steps for which this rank has read everybody's gradients.
    pulled: AtomicU64,
}

/// The memory that the ranks share.
#[derive(Debug)]
pub struct Shared;

impl Shared {
    /// Memory without a name for this many ranks; children inherit the descriptor.
    pub fn create(ranks: u32) -> Result<OwnedFd, std::io::Error> {
        let file = memfd_create("sapwood-demo", MemfdFlags::empty())?;
        ftruncate(&file, (part() * ranks as usize) as u64)?;
        Ok(file)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Direct {
    base: NonNull<u8>,
    rank: Rank,
    ranks: u32,
    deadline: Duration,
    step: u64,
    means: [Vec<f32>; LAYERS],
    pulled_bytes: u64,
    spans: Vec<Span>,
}

impl Direct {
    /// Maps the shared memory.
    pub fn open(file: OwnedFd, rank: Rank, ranks: u32, deadline: Duration) -> Result<Self, ExchangeError> {
        let file = File::from(file);
        let length = part() * ranks as usize;
        if file.metadata()?.len() != length as u64 {
            return Err(format!("rank {rank}: the shared memory is not for {ranks} ranks").into());
        }
        // SAFETY: a fresh shared mapping at an address of the kernel's choice; the file has `length` bytes.
        let address = unsafe {
            mmap(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file.as_fd(),
                0,
            )
        }?;
        Ok(Self {
            base: NonNull::new(address.cast()).ok_or("mmap answered null")?,
            rank,
            ranks,
            deadline,
            step: 0,
            means: std::array::from_fn(|layer| vec![0.0; layer_size(layer)]),
            pulled_bytes: 0,
            spans: Vec::new(),
        })
    }

    fn counters(&self, rank: Rank) -> &Counters {
        assert!(rank < self.ranks);
        // SAFETY: inside the mapping, page-aligned; atomics of a zeroed page are valid and shared by design.
        unsafe { self.base.add(part() * rank as usize).cast::<Counters>().as_ref() }
    }

    fn gradient(&self, rank: Rank, layer: usize) -> NonNull<f32> {
        assert!(rank < self.ranks && layer < LAYERS);
        // SAFETY: inside the mapping; layers start at multiples of four bytes.
        unsafe { self.base.add(part() * rank as usize + layer_offset(layer)).cast() }
    }

    fn wait(&mut self, peer: Rank, layer: Option<usize>, step: u64) -> Result<(), ExchangeError> {
        let begun = now();
        let mut rounds = 0u32;
        loop {
            let counters = self.counters(peer);
            let counter = layer.map_or(&counters.pulled, |layer| &counters.ready[layer]);
            if counter.load(Ordering::Acquire) >= step {
                break;
            }
            rounds += 1;
            if rounds > 200 {
                std::thread::sleep(Duration::from_micros(50));
                if Duration::from_nanos(now() - begun) > self.deadline {
                    return Err(
                        format!("rank {} waited {:?} for rank {peer}", self.rank, self.deadline).into(),
                    );
                }
            } else {
                std::thread::yield_now();
            }
        }
        if rounds > 0 && peer != self.rank {
            self.span(Activity::Wait, begun, Some(peer), layer);
        }
        Ok(())
    }

    fn span(&mut self, activity: Activity, start: u64, peer: Option<Rank>, layer: Option<usize>) {
        let layer = layer.map(|layer| layer as u32);
        self.spans.push(Span {
            activity,
            step: 0,
            start,
            end: now(),
            peer,
            layer,
        });
    }

    fn pull(&mut self, layer: usize) -> Result<(), ExchangeError> {
        for peer in 0..self.ranks {
            self.wait(peer, Some(layer), self.step)?;
            let begun = now();
            let size = layer_size(layer);
            // SAFETY: `size` floats inside the mapping. The peer published them (acquired in `wait`) and writes them
            // again only after this rank has said `pulled`.
            let gradient = unsafe { std::slice::from_raw_parts(self.gradient(peer, layer).as_ptr(), size) };
            let mean = &mut self.means[layer];
            match peer {
                0 => mean.copy_from_slice(gradient),
                _ => mean
                    .iter_mut()
                    .zip(gradient)
                    .for_each(|(sum, value)| *sum += value),
            }
            if peer + 1 == self.ranks {
                let factor = 1.0 / self.ranks as f32;
                mean.iter_mut().for_each(|sum| *sum *= factor);
            }
            if peer != self.rank {
                self.pulled_bytes += (size * size_of::<f32>()) as u64;
            }
            self.span(Activity::Exchange, begun, Some(peer), Some(layer));
        }
        Ok(())
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        // SAFETY: mapped by `open` with this length; nothing borrowed from it outlives `self`. A failure leaves it mapped.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), part() * self.ranks as usize) };
    }
}

impl GradientExchange for Direct {
    type Step<'a> = DirectStep<'a>;

    fn rank(&self) -> Rank {
        self.rank
    }

    fn ranks(&self) -> u32 {
        self.ranks
    }

    fn begin(&mut self) -> Result<DirectStep<'_>, ExchangeError> {
        for peer in 0..self.ranks {
            self.wait(peer, None, self.step)?;
        }
        self.step += 1;
        Ok(DirectStep {
            exchange: self,
            taken: [false; LAYERS],
        })
    }

    fn traffic(&self) -> Traffic {
        Traffic {
            exchanged: self.pulled_bytes,
            copied: 0,
        }
    }

    fn drain_spans(&mut self, spans: &mut Vec<Span>) {
        spans.append(&mut self.spans);
    }
}

/// A step of [`Direct`].
pub struct DirectStep<'a> {
    exchange: &'a mut Direct,
    taken: [bool; LAYERS],
}

impl<'a> GradientStep for DirectStep<'a> {
    type Bucket = DirectBucket<'a>;
    type Outcome = DirectOutcome<'a>;

    fn take(&mut self, layer: usize) -> Result<DirectBucket<'a>, ExchangeError> {
        assert!(
            !std::mem::replace(&mut self.taken[layer], true),
            "layer {layer} was taken before"
        );
        let exchange = &*self.exchange;
        let ready: *const AtomicU64 = &exchange.counters(exchange.rank).ready[layer];
        let gradient = exchange.gradient(exchange.rank, layer);
        let size = layer_size(layer);
        Ok(DirectBucket {
            gradient,
            size,
            ready,
            step: exchange.step,
            mapped: PhantomData,
        })
    }

    fn finish(self) -> Result<DirectOutcome<'a>, ExchangeError> {
        for layer in (0..LAYERS).rev() {
            self.exchange.pull(layer)?;
        }
        let exchange = self.exchange;
        exchange
            .counters(exchange.rank)
            .pulled
            .store(exchange.step, Ordering::Release);
        Ok(DirectOutcome(&exchange.means))
    }
}

/// A bucket of [`Direct`].
pub struct DirectBucket<'a> {
    gradient: NonNull<f32>,
    size: usize,
    ready: *const AtomicU64,
    step: u64,
    mapped: PhantomData<&'a mut [f32]>,
}

impl GradientBucket for DirectBucket<'_> {
    fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: this layer's part of this rank's memory, mapped as long as the exchange lives. Handed out once a
        // step, after all peers have said that they are done reading it, and read by them only after `ready`.
        unsafe { std::slice::from_raw_parts_mut(self.gradient.as_ptr(), self.size) }
    }

    fn ready(self) -> Result<(), ExchangeError> {
        // SAFETY: points into the mapping, which lives as long as the exchange that is borrowed for it.
        unsafe { &*self.ready }.store(self.step, Ordering::Release);
        Ok(())
    }
}

/// A result of [`Direct`].
pub struct DirectOutcome<'a>(&'a [Vec<f32>; LAYERS]);

impl StepOutcome for DirectOutcome<'_> {
    fn mean(&self, layer: usize) -> &[f32] {
        &self.0[layer]
    }
}
