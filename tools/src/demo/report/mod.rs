//! The demo's report.
use super::findings::Findings;
use super::messages::WorkerReport;
use std::path::{Path, PathBuf};
pub fn write(folder: &Path, _findings: &Findings, _reports: &[WorkerReport]) -> std::io::Result<PathBuf> {
    Ok(folder.join("index.html"))
}
