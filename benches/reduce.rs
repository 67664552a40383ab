//! Reduction kernels beside what the memory allows: `cargo bench --bench reduce`.
//!
//! GB/s counts every byte touched: each source read and the result written. The limit is `copy` of as many bytes as
//! the kernel touches, half of them read and half written, in the same run. After criterion's figures a table gives
//! the ratio, from alternating rounds, so that a noisy machine disturbs both sides alike; another sets the kernels for
//! several processors beside each other in the same way.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use sapwood::engine::reduce::{Kernel, Operation, copy, kernel, kernels};
use sapwood::memory::DataType;

const SIZES: [(&str, usize); 2] = [("32 KiB", 32 << 10), ("4 MiB", 4 << 20)];
const TYPES: [DataType; 3] = [DataType::F32, DataType::Bf16, DataType::F16];
const SOURCES: [usize; 2] = [2, 4];

/// Memory for one case: sources, and a result that is none of them.
struct Memory {
    sources: Vec<Vec<u64>>,
    result: Vec<u64>,
    bytes: usize,
}

impl Memory {
    fn new(sources: usize, bytes: usize) -> Self {
        // Zeros and small denormals would do as well: no instruction used here takes longer for some values.
        let source = |s: usize| {
            (0..bytes / 8)
                .map(|i| 0x3C00_3C00_3C00_3C00 + (i * 7 + s) as u64 % 512)
                .collect()
        };
        Self {
            sources: (0..sources).map(source).collect(),
            result: vec![1; bytes / 8],
            bytes,
        }
    }

    fn touched(&self) -> usize {
        (self.sources.len() + 1) * self.bytes
    }

    fn reduce(&mut self, data_type: DataType) {
        self.reduce_by(data_type, kernel(data_type, Operation::Sum));
    }

    fn reduce_by(&mut self, data_type: DataType, reduce: Kernel) {
        let sources: [*const u8; 4] =
            std::array::from_fn(|i| self.sources[i.min(self.sources.len() - 1)].as_ptr().cast());
        let count = self.bytes / data_type.size();
        // SAFETY: every vector holds `bytes` bytes, aligned for each type; the result is a vector of its own.
        unsafe {
            reduce(
                self.result.as_mut_ptr().cast(),
                &sources[..self.sources.len()],
                count,
                1,
            )
        };
        black_box(&mut self.result);
    }

    /// Copies whole sources to others until as much was touched as `reduce` touches.
    fn copy(&mut self) {
        let mut left = self.touched() / 2;
        let (from, into) = (self.sources[0].as_ptr(), self.result.as_mut_ptr());
        while left > 0 {
            let bytes = left.min(self.bytes);
            // SAFETY: two vectors of `self.bytes` bytes each.
            unsafe { copy(into.cast(), from.cast(), bytes) };
            black_box(&mut self.result);
            left -= bytes;
        }
    }
}

fn all_kernels(criterion: &mut Criterion) {
    for (name, bytes) in SIZES {
        for sources in SOURCES {
            let mut group = criterion.benchmark_group(format!("reduce/{name} x {sources} sources"));
            let mut memory = Memory::new(sources, bytes);
            group.throughput(Throughput::Bytes(memory.touched() as u64));
            for data_type in TYPES {
                group.bench_function(BenchmarkId::from_parameter(data_type), |b| {
                    b.iter(|| memory.reduce(data_type));
                });
            }
            group.bench_function("copy", |b| b.iter(|| memory.copy()));
            group.finish();
        }
    }
}

/// Seconds that one call takes, from as many calls as fit into a few milliseconds.
fn seconds(mut call: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut calls = 0u32;
    while start.elapsed() < Duration::from_millis(4) {
        for _ in 0..16 {
            call();
        }
        calls += 16;
    }
    start.elapsed().as_secs_f64() / f64::from(calls)
}

fn ratios() {
    println!(
        "\n{:<10} {:<9} {:>7} {:>12} {:>12} {:>7}",
        "size", "type", "sources", "GB/s", "copy GB/s", "ratio"
    );
    for (name, bytes) in SIZES {
        for sources in SOURCES {
            for data_type in TYPES {
                let mut memory = Memory::new(sources, bytes);
                let touched = memory.touched() as f64 / 1e9;
                let (mut reduced, mut copied): (Vec<f64>, Vec<f64>) = (0..15)
                    .map(|_| (seconds(|| memory.reduce(data_type)), seconds(|| memory.copy())))
                    .unzip();
                reduced.sort_by(f64::total_cmp);
                copied.sort_by(f64::total_cmp);
                let (reduced, copied) = (touched / reduced[7], touched / copied[7]);
                println!(
                    "{name:<10} {data_type:<9} {sources:>7} {reduced:>12.1} {copied:>12.1} {:>7.2}",
                    reduced / copied
                );
            }
        }
    }
}

/// Every kernel that this processor can run, in alternating rounds.
fn levels() {
    println!(
        "\n{:<10} {:<9} {:>7}   GB/s of each kernel",
        "size", "type", "sources"
    );
    for (name, bytes) in SIZES {
        for sources in SOURCES {
            for data_type in TYPES {
                let mut memory = Memory::new(sources, bytes);
                let touched = memory.touched() as f64 / 1e9;
                let kernels = kernels(data_type, Operation::Sum);
                let mut rounds = vec![Vec::new(); kernels.len()];
                for _ in 0..15 {
                    for (round, (_, kernel)) in rounds.iter_mut().zip(&kernels) {
                        round.push(seconds(|| memory.reduce_by(data_type, *kernel)));
                    }
                }
                print!("{name:<10} {data_type:<9} {sources:>7}  ");
                for (mut round, (level, _)) in rounds.into_iter().zip(kernels) {
                    round.sort_by(f64::total_cmp);
                    print!(" {level} {:.1}", touched / round[7]);
                }
                println!();
            }
        }
    }
}

criterion_group!(benches, all_kernels);

fn main() {
    benches();
    ratios();
    levels();
    Criterion::default().configure_from_args().final_summary();
}
