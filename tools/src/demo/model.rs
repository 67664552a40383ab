//! A perceptron with two hidden layers of tanh units, its gradients written straight into memory that somebody else owns.
//!
//! Forward and backward work on `ndarray` views. A layer's gradient goes into one slice of `inputs * outputs` weights
//! (row by row, one row per input) and `outputs` biases: the slice of a registered region, so nothing is copied between
//! the backward pass and the fabric. Single-threaded and free of timing: same inputs, same bits.
//!
//! The units are smooth on purpose. With rectifiers a difference in rounding of 1e-8 now and then decides on which side
//! of the kink a unit is, and two correct runs end 1e-3 apart; with tanh they stay within 1e-6 over thousands of
//! steps, so that a comparison of weights can tell a wrong sum from rounding.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView1, ArrayView2, ArrayViewMut1, ArrayViewMut2, s};

use super::dataset::{CLASSES, PIXELS};
use super::random::SplitMix;

/// Widths from the pixels to the classes.
pub const WIDTHS: [usize; 4] = [PIXELS, 256, 128, CLASSES];
/// How many layers, and so how many gradient buckets.
pub const LAYERS: usize = WIDTHS.len() - 1;

const MOMENTUM: f32 = 0.9;

/// Weights and biases of a layer.
pub const fn layer_size(layer: usize) -> usize {
    WIDTHS[layer] * WIDTHS[layer + 1] + WIDTHS[layer + 1]
}

/// All weights and biases.
pub fn parameters() -> usize {
    (0..LAYERS).map(layer_size).sum()
}

/// The weights and their momenta. Two replicas that started alike and applied the same gradients are bit-identical.
#[derive(Clone, Debug)]
pub struct Model {
    parameters: [Vec<f32>; LAYERS],
    velocity: [Vec<f32>; LAYERS],
}

impl Model {
    /// Weights normal with variance 1 / inputs, biases 0.
    pub fn new(seed: u64) -> Self {
        let mut random = SplitMix::new(seed, 1);
        let parameters = std::array::from_fn(|layer| {
            let scale = (1.0 / WIDTHS[layer] as f64).sqrt();
            let weights = WIDTHS[layer] * WIDTHS[layer + 1];
            (0..layer_size(layer))
                .map(|index| {
                    if index < weights {
                        (random.normal() * scale) as f32
                    } else {
                        0.0
                    }
                })
                .collect()
        });
        let velocity = std::array::from_fn(|layer| vec![0.0; layer_size(layer)]);
        Self { parameters, velocity }
    }

    /// All weights and biases, layer by layer.
    pub fn weights(&self) -> impl Iterator<Item = f32> + '_ {
        self.parameters.iter().flatten().copied()
    }

    /// A layer's weights, then its biases.
    pub fn parameters(&self, layer: usize) -> &[f32] {
        &self.parameters[layer]
    }

    /// The momenta of a layer's weights and biases.
    pub fn velocity(&self, layer: usize) -> &[f32] {
        &self.velocity[layer]
    }

    /// Replaces a layer by another replica's.
    pub fn replace(&mut self, layer: usize, parameters: &[f32], velocity: &[f32]) {
        self.parameters[layer].copy_from_slice(parameters);
        self.velocity[layer].copy_from_slice(velocity);
    }

    /// One step of gradient descent with momentum on a layer.
    pub fn update(&mut self, layer: usize, mean_gradient: &[f32], learning_rate: f32) {
        assert_eq!(
            mean_gradient.len(),
            layer_size(layer),
            "a gradient of another layer"
        );
        let momenta = self.velocity[layer].iter_mut().zip(mean_gradient);
        for (weight, (velocity, gradient)) in self.parameters[layer].iter_mut().zip(momenta) {
            *velocity = MOMENTUM * *velocity + gradient;
            *weight -= learning_rate * *velocity;
        }
    }

    fn layer(&self, layer: usize) -> (ArrayView2<'_, f32>, ArrayView1<'_, f32>) {
        let (inputs, outputs) = (WIDTHS[layer], WIDTHS[layer + 1]);
        let (weights, biases) = self.parameters[layer].split_at(inputs * outputs);
        let weights = ArrayView2::from_shape((inputs, outputs), weights).expect("sizes follow from WIDTHS");
        (weights, ArrayView1::from(biases))
    }
}

/// What forward leaves for backward; made once, reused every step.
#[derive(Debug)]
pub struct Workspace {
    activations: [Array2<f32>; LAYERS],
    errors: [Array2<f32>; LAYERS],
}

impl Workspace {
    /// For at most `samples` at once.
    pub fn new(samples: usize) -> Self {
        let sheet = |layer: usize| Array2::zeros((samples, WIDTHS[layer + 1]));
        Self {
            activations: std::array::from_fn(sheet),
            errors: std::array::from_fn(sheet),
        }
    }

    /// Computes the class probabilities of each row of `images` and returns the cross-entropy summed over the rows
    /// and how many were classified rightly.
    pub fn forward(&mut self, model: &Model, images: ArrayView2<'_, f32>, labels: &[u8]) -> (f64, usize) {
        let samples = images.nrows();
        for layer in 0..LAYERS {
            let (below, rest) = self.activations.split_at_mut(layer);
            let input = below
                .last()
                .map_or(images, |sheet| sheet.slice(s![..samples, ..]));
            let mut output = rest[0].slice_mut(s![..samples, ..]);
            let (weights, biases) = model.layer(layer);
            general_mat_mul(1.0, &input, &weights, 0.0, &mut output);
            let hidden = layer + 1 < LAYERS;
            for mut row in output.outer_iter_mut() {
                row += &biases;
                if hidden {
                    row.mapv_inplace(f32::tanh);
                }
            }
        }
        let mut loss = 0.0;
        let mut right = 0;
        let mut scores = self.activations[LAYERS - 1].slice_mut(s![..samples, ..]);
        for (row, &label) in scores.outer_iter_mut().zip(labels) {
            let (row_loss, row_right) = softmax(row, usize::from(label));
            loss += row_loss;
            right += usize::from(row_right);
        }
        (loss, right)
    }

    /// Starts backward for the samples of the last [`forward`](Self::forward): the error of each score, times `scale`.
    pub fn begin_backward(&mut self, labels: &[u8], scale: f32) {
        let samples = labels.len();
        let mut errors = self.errors[LAYERS - 1].slice_mut(s![..samples, ..]);
        errors.assign(&self.activations[LAYERS - 1].slice(s![..samples, ..]));
        for (mut row, &label) in errors.outer_iter_mut().zip(labels) {
            row[usize::from(label)] -= 1.0;
            row *= scale;
        }
    }

    /// Writes a layer's gradient (weights, then biases) over whatever `gradient` held. Layers go from last to first.
    pub fn layer_gradient(&self, images: ArrayView2<'_, f32>, layer: usize, gradient: &mut [f32]) {
        let samples = images.nrows();
        let (inputs, outputs) = (WIDTHS[layer], WIDTHS[layer + 1]);
        let (weights, biases) = gradient.split_at_mut(inputs * outputs);
        let mut weights =
            ArrayViewMut2::from_shape((inputs, outputs), weights).expect("sizes follow from WIDTHS");
        let mut biases = ArrayViewMut1::from(biases);
        let errors = self.errors[layer].slice(s![..samples, ..]);
        let below = match layer {
            0 => images,
            _ => self.activations[layer - 1].slice(s![..samples, ..]),
        };
        general_mat_mul(1.0, &below.t(), &errors, 0.0, &mut weights);
        biases.fill(0.0);
        for row in errors.outer_iter() {
            biases += &row;
        }
    }

    /// Carries the error from `layer` to the one below it; call it after the layer's gradient was written.
    pub fn propagate(&mut self, model: &Model, layer: usize, samples: usize) {
        let (below, rest) = self.errors.split_at_mut(layer);
        let Some(below) = below.last_mut() else { return };
        let mut below = below.slice_mut(s![..samples, ..]);
        let (weights, _) = model.layer(layer);
        general_mat_mul(
            1.0,
            &rest[0].slice(s![..samples, ..]),
            &weights.t(),
            0.0,
            &mut below,
        );
        let activations = self.activations[layer - 1].slice(s![..samples, ..]);
        below.zip_mut_with(&activations, |error, &activation| {
            *error *= 1.0 - activation * activation;
        });
    }

    /// The class probabilities of the last forward's rows.
    #[cfg(test)]
    fn probabilities(&self) -> ArrayView2<'_, f32> {
        self.activations[LAYERS - 1].view()
    }
}

/// Turns scores into probabilities; returns the cross-entropy and whether the label has the highest score.
fn softmax(mut row: ArrayViewMut1<'_, f32>, label: usize) -> (f64, bool) {
    let highest = row.fold(f32::NEG_INFINITY, |highest, &score| highest.max(score));
    let right = row.iter().position(|&score| score == highest) == Some(label);
    let distance = f64::from(highest - row[label]);
    row.mapv_inplace(|score| (score - highest).exp());
    let sum = row.sum();
    row /= sum;
    (f64::from(sum).ln() + distance, right)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(samples: usize) -> (Array2<f32>, Vec<u8>) {
        let mut random = SplitMix::new(11, 9);
        let images = Array2::from_shape_simple_fn((samples, PIXELS), || random.uniform() as f32);
        (
            images,
            (0..samples).map(|number| (number * 7 % CLASSES) as u8).collect(),
        )
    }

    fn gradients(model: &Model, images: &Array2<f32>, labels: &[u8], poison: f32) -> Vec<Vec<f32>> {
        let mut workspace = Workspace::new(images.nrows() + 3);
        workspace.forward(model, images.view(), labels);
        workspace.begin_backward(labels, 1.0 / labels.len().max(1) as f32);
        let mut gradients: Vec<_> = (0..LAYERS).map(|layer| vec![poison; layer_size(layer)]).collect();
        for layer in (0..LAYERS).rev() {
            workspace.layer_gradient(images.view(), layer, &mut gradients[layer]);
            workspace.propagate(model, layer, labels.len());
        }
        gradients
    }

    #[test]
    fn the_gradient_agrees_with_finite_differences() {
        let (images, labels) = sample(8);
        let model = Model::new(3);
        let gradients = gradients(&model, &images, &labels, 0.0);
        let mut workspace = Workspace::new(8);
        let mut random = SplitMix::new(1, 1);
        let mut loss = |layer: usize, index: usize, change: f32| {
            let mut changed = model.clone();
            changed.parameters[layer][index] += change;
            workspace.forward(&changed, images.view(), &labels).0 / 8.0
        };
        for layer in 0..LAYERS {
            let weights = WIDTHS[layer] * WIDTHS[layer + 1];
            let drawn: Vec<usize> = (0..100)
                .map(|_| (random.uniform() * weights as f64) as usize)
                .collect();
            for index in drawn.into_iter().chain(weights..layer_size(layer)) {
                let step = 5e-3;
                let difference =
                    (loss(layer, index, step) - loss(layer, index, -step)) / (2.0 * f64::from(step));
                let gradient = f64::from(gradients[layer][index]);
                let error = (difference - gradient).abs();
                assert!(
                    error < 1e-4 + 0.005 * gradient.abs(),
                    "layer {layer}, {index}: {difference} and {gradient}"
                );
            }
        }
    }

    #[test]
    fn whatever_a_bucket_held_before_is_overwritten_even_by_no_samples() {
        let model = Model::new(3);
        for samples in [0, 1, 5] {
            let (images, labels) = sample(samples);
            let clean = gradients(&model, &images, &labels, 0.0);
            let poisoned = gradients(&model, &images, &labels, f32::NAN);
            assert_eq!(clean, poisoned, "{samples} samples");
            assert!(samples > 0 || clean.iter().flatten().all(|&value| value == 0.0));
        }
    }

    #[test]
    fn probabilities_sum_to_one_and_the_loss_is_theirs() {
        let (images, labels) = sample(4);
        let mut workspace = Workspace::new(4);
        let (loss, right) = workspace.forward(&Model::new(5), images.view(), &labels);
        let mut expected = 0.0;
        let mut expected_right = 0;
        for (row, &label) in workspace.probabilities().outer_iter().zip(&labels) {
            assert!((row.sum() - 1.0).abs() < 1e-6);
            expected -= f64::from(row[usize::from(label)]).ln();
            expected_right += usize::from(row.iter().all(|&other| other <= row[usize::from(label)]));
        }
        assert!((loss - expected).abs() < 1e-4, "{loss} {expected}");
        assert_eq!(right, expected_right);
    }

    #[test]
    fn same_seed_same_bits() {
        let bits = |seed| Model::new(seed).weights().map(f32::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(1), bits(1));
        assert_ne!(bits(1), bits(2));
        assert_eq!(bits(1).len(), parameters());
    }
}
