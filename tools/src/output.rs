//! Where a sub-command's figures go and with which status it ends. Prints what it is given; computes nothing.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Why a sub-command does not exit with 0.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The arguments, or what they point at, cannot be used: exit status 2. One line: what was wrong, what would be right.
    #[error("{0}")]
    Arguments(String),
    /// A check did not hold, or the job broke off: exit status 1.
    #[error("{0}")]
    Check(String),
    /// A signal ended the job: exit status 128 and the signal's number.
    #[error("{sentence}")]
    Interrupted {
        /// Which.
        signal: i32,
        /// What it ended.
        sentence: String,
    },
}

impl Failure {
    /// The status of the process.
    pub fn status(&self) -> u8 {
        match self {
            Self::Arguments(_) => 2,
            Self::Check(_) => 1,
            Self::Interrupted { signal, .. } => u8::try_from(128 + signal).unwrap_or(1),
        }
    }
}

/// The target of `--json`: a file, or `-` for standard output (people's tables then go to standard error).
#[derive(Clone, Debug)]
pub enum JsonTarget {
    /// Standard output.
    Stdout,
    /// A file, replaced when the command succeeds in writing it.
    File(PathBuf),
}

/// The figures for people and for programs.
#[derive(Debug)]
pub struct Output {
    json: Option<(JsonTarget, Option<File>)>,
}

impl Output {
    /// Opens the JSON file at once, so that a path that cannot be written is refused before any work is done.
    pub fn open(json: Option<&str>) -> Result<Self, Failure> {
        let json = match json {
            None => None,
            Some("-") => Some((JsonTarget::Stdout, None)),
            Some(path) => {
                let file = File::options()
                    .create(true)
                    .append(true)
                    .open(path)
                    .map_err(|error| {
                        Failure::Arguments(format!(
                            "--json {path}: {error}; name a file that can be written, or '-'"
                        ))
                    })?;
                Some((JsonTarget::File(PathBuf::from(path)), Some(file)))
            }
        };
        Ok(Self { json })
    }

    /// Prints text for people: to standard output, unless that carries the JSON.
    pub fn text(&self, text: &str) {
        // A reader that went away (`| head`) is not worth an error message.
        let _ = match self.json {
            Some((JsonTarget::Stdout, _)) => io::stderr().write_all(text.as_bytes()),
            _ => io::stdout().write_all(text.as_bytes()),
        };
    }

    /// Writes the document for programs, if one was asked for.
    pub fn json(&mut self, document: &impl Serialize) -> Result<(), Failure> {
        let Some((target, file)) = &mut self.json else {
            return Ok(());
        };
        let mut text = serde_json::to_string_pretty(document)
            .map_err(|error| Failure::Check(format!("the figures cannot be written as JSON: {error}")))?;
        text.push('\n');
        match (&*target, file) {
            (JsonTarget::File(path), Some(file)) => file
                .set_len(0)
                .and_then(|()| file.write_all(text.as_bytes()))
                .map_err(|error| Failure::Check(format!("--json {}: {error}", path.display()))),
            _ => io::stdout()
                .write_all(text.as_bytes())
                .map_err(|error| Failure::Check(format!("--json -: standard output: {error}"))),
        }
    }
}

/// Makes a folder for a report, or says what stands in its way.
pub fn report_folder(folder: &Path) -> Result<(), Failure> {
    let usable = fs::create_dir_all(folder)
        .and_then(|()| rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).map_err(io::Error::from));
    usable.map_err(|error| {
        Failure::Arguments(format!(
            "--report {}: {error}; name a folder that exists or can be made, and can be written",
            folder.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unwritable_json_path_is_refused_at_once() {
        let failure = Output::open(Some("/nonexistent-folder/out.json")).unwrap_err();
        assert_eq!(failure.status(), 2);
        assert!(
            failure.to_string().contains("/nonexistent-folder/out.json"),
            "{failure}"
        );
    }

    #[test]
    fn json_replaces_what_the_file_held() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.json");
        fs::write(&path, "x".repeat(1000)).unwrap();
        let mut output = Output::open(path.to_str()).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap().len(),
            1000,
            "untouched until there is something to say"
        );
        output.json(&serde_json::json!({"a": 1})).unwrap();
        let value: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(value["a"], 1);
    }
}
