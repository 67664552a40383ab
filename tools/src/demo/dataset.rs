//! The images: read, checked line by line, split. Refuses a bad file with the line and what it should have held.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::read::MultiGzDecoder;
use ndarray::{Array2, ArrayView2, s};

use super::random::SplitMix;

/// Pixels of an image.
pub const PIXELS: usize = 64;
/// Different labels.
pub const CLASSES: usize = 10;
const BRIGHTEST: u8 = 16;
const SMALLEST: usize = 50;
/// Refuses what is certainly no set of digits before memory runs out.
const LARGEST_BYTES: u64 = 256 << 20;

static DIGITS: &[u8] = include_bytes!("../../data/digits.csv.gz");
const DIGITS_NAME: &str = "digits.csv.gz (built in)";

/// Why a dataset cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The file could not be opened or read.
    #[error(
        "{file}: {source}; a readable file is needed: CSV or gzipped CSV, 64 pixels from 0 to 16 and a digit per line"
    )]
    Unreadable {
        /// The file's name.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The gzip stream is broken or stops early.
    #[error("{file}: damaged or truncated gzip data after line {line} ({source}); fetch the file again")]
    Truncated {
        /// The file's name.
        file: String,
        /// Whole lines that could be read.
        line: usize,
        /// What the decoder said.
        source: std::io::Error,
    },
    /// A line does not hold an image.
    #[error("{file}, line {line}: {found}; expected {expected}")]
    Malformed {
        /// The file's name.
        file: String,
        /// Counted from 1.
        line: usize,
        /// What stood there.
        found: String,
        /// What should have.
        expected: &'static str,
    },
    /// Too little to train and test on.
    #[error("{file}: {found} images; at least {SMALLEST} are needed to train on and to test with")]
    TooSmall {
        /// The file's name.
        file: String,
        /// Images in the file.
        found: usize,
    },
    /// More than a set of digits can be.
    #[error("{file}: more than {} MiB; a set of 8 x 8 digits is far smaller", LARGEST_BYTES >> 20)]
    TooLarge {
        /// The file's name.
        file: String,
    },
}

/// Images in a fixed, seeded order, the first four fifths for training.
#[derive(Clone, Debug)]
pub struct Dataset {
    name: String,
    images: Array2<f32>,
    labels: Vec<u8>,
    training: usize,
}

impl Dataset {
    /// Reads `path`, or the built-in digits.
    pub fn load(path: Option<&Path>, seed: u64) -> Result<Self, DatasetError> {
        let (name, bytes) = match path {
            None => (DIGITS_NAME.to_owned(), DIGITS.to_vec()),
            Some(path) => {
                let file = path.display().to_string();
                let mut bytes = Vec::new();
                File::open(path)
                    .and_then(|opened| opened.take(LARGEST_BYTES + 1).read_to_end(&mut bytes))
                    .map_err(|source| DatasetError::Unreadable {
                        file: file.clone(),
                        source,
                    })?;
                (file, bytes)
            }
        };
        Self::parse(&name, &bytes, seed)
    }

    fn parse(file: &str, bytes: &[u8], seed: u64) -> Result<Self, DatasetError> {
        let text = unpack(file, bytes)?;
        let mut rows: Vec<([u8; PIXELS], u8)> = Vec::new();
        let body = text.strip_suffix(b"\n").unwrap_or(&text);
        let lines = body
            .split(|&byte| byte == b'\n')
            .take(if body.is_empty() { 0 } else { usize::MAX });
        for (index, line) in lines.enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            rows.push(
                parse_line(line).map_err(|(found, expected)| DatasetError::Malformed {
                    file: file.to_owned(),
                    line: index + 1,
                    found,
                    expected,
                })?,
            );
        }
        if rows.len() < SMALLEST {
            return Err(DatasetError::TooSmall {
                file: file.to_owned(),
                found: rows.len(),
            });
        }
        SplitMix::new(seed, 0).shuffle(&mut rows);
        let mut images = Array2::zeros((rows.len(), PIXELS));
        for (mut row, (pixels, _)) in images.outer_iter_mut().zip(&rows) {
            row.iter_mut()
                .zip(pixels)
                .for_each(|(value, &pixel)| *value = f32::from(pixel) / f32::from(BRIGHTEST));
        }
        let training = rows.len() * 4 / 5;
        Ok(Self {
            name: file.to_owned(),
            images,
            labels: rows.iter().map(|row| row.1).collect(),
            training,
        })
    }

    /// The file's name, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many images there are to train on; they are numbered from 0.
    pub fn training(&self) -> usize {
        self.training
    }

    /// How many images there are to test with.
    pub fn testing(&self) -> usize {
        self.labels.len() - self.training
    }

    /// Copies the training images of these numbers into the first rows of `images`, and their labels into `labels`.
    pub fn gather(&self, numbers: &[usize], images: &mut Array2<f32>, labels: &mut Vec<u8>) {
        labels.clear();
        for (row, &number) in numbers.iter().enumerate() {
            images.row_mut(row).assign(&self.images.row(number));
            labels.push(self.labels[number]);
        }
    }

    /// The test images of a range of numbers from 0, and their labels.
    pub fn test(&self, range: std::ops::Range<usize>) -> (ArrayView2<'_, f32>, &[u8]) {
        let (from, to) = (self.training + range.start, self.training + range.end);
        (self.images.slice(s![from..to, ..]), &self.labels[from..to])
    }
}

fn unpack(file: &str, bytes: &[u8]) -> Result<Vec<u8>, DatasetError> {
    let mut text = Vec::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut decoder = MultiGzDecoder::new(bytes).take(LARGEST_BYTES + 1);
        if let Err(source) = decoder.read_to_end(&mut text) {
            let line = text.iter().filter(|&&byte| byte == b'\n').count();
            return Err(DatasetError::Truncated {
                file: file.to_owned(),
                line,
                source,
            });
        }
    } else {
        text.extend_from_slice(bytes);
    }
    if text.len() as u64 > LARGEST_BYTES {
        return Err(DatasetError::TooLarge {
            file: file.to_owned(),
        });
    }
    Ok(text)
}

/// A line's pixels and label, or what was found and what was expected.
fn parse_line(line: &[u8]) -> Result<([u8; PIXELS], u8), (String, &'static str)> {
    const EXPECTED: &str = "64 pixels from 0 to 16 and a digit from 0 to 9, separated by commas";
    let line = std::str::from_utf8(line).map_err(|_| ("bytes that are no text".to_owned(), EXPECTED))?;
    let fields = line.split(',').count();
    if fields != PIXELS + 1 {
        let found = if line.is_empty() {
            "an empty line".to_owned()
        } else {
            format!("{fields} fields")
        };
        return Err((found, EXPECTED));
    }
    let mut pixels = [0; PIXELS];
    let mut label = 0;
    for (index, field) in line.split(',').enumerate() {
        // Other writers of the same set write 13.0 for 13.
        let digits = field.trim().strip_suffix(".0").unwrap_or(field.trim());
        let limit = if index < PIXELS {
            BRIGHTEST
        } else {
            CLASSES as u8 - 1
        };
        let value = digits
            .parse::<u8>()
            .ok()
            .filter(|&value| value <= limit)
            .ok_or_else(|| {
                let shown: String = field.chars().take(20).collect();
                let expected = if index < PIXELS {
                    "a whole number from 0 to 16"
                } else {
                    "a digit from 0 to 9"
                };
                (
                    format!("field {} is '{}'", index + 1, shown.escape_debug()),
                    expected,
                )
            })?;
        if index < PIXELS {
            pixels[index] = value
        } else {
            label = value
        }
    }
    Ok((pixels, label))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn csv(lines: usize) -> String {
        (0..lines)
            .map(|line| format!("{}{}\n", "3,".repeat(64), line % 10))
            .collect()
    }

    fn error(bytes: &[u8]) -> String {
        Dataset::parse("some.csv", bytes, 0).unwrap_err().to_string()
    }

    #[test]
    fn the_built_in_digits() {
        let data = Dataset::load(None, 1).unwrap();
        assert_eq!((data.training(), data.testing()), (1437, 360));
        let sum: f64 = data.images.iter().map(|&x| f64::from(x) * 16.0).sum();
        assert_eq!(sum, 561_718.0, "the sum of all pixels of the published file");
        let (images, labels) = data.test(0..360);
        assert_eq!((images.nrows(), labels.len()), (360, 360));
    }

    #[test]
    fn the_order_follows_the_seed() {
        let labels = |seed| Dataset::load(None, seed).unwrap().labels;
        assert_eq!(labels(5), labels(5));
        assert_ne!(labels(5), labels(6));
    }

    #[test]
    fn plain_text_other_line_ends_and_a_missing_last_one_are_read() {
        for text in [
            csv(60),
            csv(60).replace('\n', "\r\n"),
            csv(60).trim_end().to_owned(),
            csv(60).replace("3,", "3.0,"),
        ] {
            assert_eq!(
                Dataset::parse("some.csv", text.as_bytes(), 0).unwrap().training(),
                48
            );
        }
    }

    #[test]
    fn bad_files_name_line_and_expectation() {
        let expected = "64 pixels from 0 to 16 and a digit from 0 to 9, separated by commas";
        assert_eq!(
            error(b""),
            "some.csv: 0 images; at least 50 are needed to train on and to test with"
        );
        assert_eq!(
            error((csv(3) + "1,2\n").as_bytes()),
            format!("some.csv, line 4: 2 fields; expected {expected}")
        );
        assert_eq!(
            error((csv(2) + "\n" + &csv(2)).as_bytes()),
            format!("some.csv, line 3: an empty line; expected {expected}")
        );
        assert_eq!(
            error(csv(60).replacen("3,", "17,", 70).as_bytes()),
            "some.csv, line 1: field 1 is '17'; expected a whole number from 0 to 16"
        );
        let wrong_label = csv(2) + &"3,".repeat(64) + "x\n";
        assert_eq!(
            error(wrong_label.as_bytes()),
            "some.csv, line 3: field 65 is 'x'; expected a digit from 0 to 9"
        );
        assert!(error(b"\xff\xfe\n").starts_with("some.csv, line 1: bytes that are no text; expected"));
    }

    #[test]
    fn a_truncated_archive_names_how_far_it_went() {
        let message = error(&DIGITS[..DIGITS.len() / 2]);
        assert!(
            message.contains("damaged or truncated gzip data after line"),
            "{message}"
        );
        let mut damaged = DIGITS.to_vec();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0x55;
        assert!(Dataset::parse("some.csv", &damaged, 0).is_err());
    }

    #[test]
    fn a_gzip_bomb_is_refused() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let zeros = vec![b'0'; 1 << 20];
        for _ in 0..=LARGEST_BYTES >> 20 {
            encoder.write_all(&zeros).unwrap();
        }
        assert!(error(&encoder.finish().unwrap()).contains("more than 256 MiB"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let message = Dataset::load(Some(Path::new("/nonexistent/digits.csv")), 0)
            .unwrap_err()
            .to_string();
        assert!(
            message.starts_with("/nonexistent/digits.csv: No such file"),
            "{message}"
        );
    }
}
