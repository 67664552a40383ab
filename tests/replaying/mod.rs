//! Training whose outcome one process can work out again: gradients that follow from rank and step, weights that are the same
//! bits wherever the same results were applied, and who the members of each step were.

/// A gradient element whose sums of a few workers are exact.
pub fn value(rank: u32, step: u64, index: usize) -> f32 {
    ((u64::from(rank) * 31 + step * 7 + index as u64 * 3) % 1021) as f32
}

/// Adds a mean to weights.
pub fn learn(weights: &mut [f32], result: &[f32]) {
    let pairs = weights.iter_mut().zip(result);
    pairs.for_each(|(weight, x)| *weight = *weight * 0.75 + x);
}

/// Stands for the bits of all of them.
pub fn digest(weights: &[f32]) -> u64 {
    let mix = |hash: u64, x: &f32| {
        (hash ^ u64::from(x.to_bits()))
            .wrapping_mul(0x0100_0000_01b3)
            .rotate_left(23)
    };
    weights.iter().fold(0xcbf2_9ce4_8422_2325, mix)
}

/// Of each step, who its members were (a bit each), as those say who have its result.
pub struct Record(Vec<Option<u32>>);

impl Record {
    pub fn new(steps: u64) -> Self {
        Self(vec![None; steps as usize + 1])
    }

    /// Takes down what a rank has said: `step NUMBER MEMBERS`. Other lines say something else.
    pub fn take_down(&mut self, rank: usize, line: &str) -> Result<(), String> {
        let Some((step, mask)) = line.strip_prefix("step ").and_then(|said| said.split_once(' ')) else {
            return Ok(());
        };
        let (step, mask): (usize, u32) = (step.parse().unwrap(), mask.trim().parse().unwrap());
        let known = *self.0[step].get_or_insert(mask);
        match known == mask {
            true => Ok(()),
            false => Err(format!(
                "step {step}: rank {rank} saw the members {mask} (a bit each), another {known}"
            )),
        }
    }

    /// The weights to which `weights` come by all steps, in each of which `needed` of `workers` were members.
    pub fn replay(&self, (workers, needed): (u32, u32), mut weights: Vec<f32>) -> Result<Vec<f32>, String> {
        let mut result = vec![0f32; weights.len()];
        for (step, mask) in (0..).zip(&self.0).skip(1) {
            let mask = mask.ok_or_else(|| format!("nobody has the result of step {step}"))?;
            let ranks = (0..workers)
                .filter(|rank| mask >> rank & 1 != 0)
                .collect::<Vec<_>>();
            if ranks.len() as u32 != needed {
                return Err(format!("step {step} has the members {ranks:?}"));
            }
            for (index, x) in result.iter_mut().enumerate() {
                *x = ranks.iter().map(|rank| value(*rank, step, index)).sum::<f32>() / ranks.len() as f32;
            }
            learn(&mut weights, &result);
        }
        Ok(weights)
    }
}
