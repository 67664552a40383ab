//! Reports for people: one HTML file with inline style and SVG, nothing loaded from anywhere. Knows how a page looks,
//! not what is on it.

pub mod chart;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const STYLE: &str = include_str!("style.css");

/// A page; what it is given is HTML.
pub struct Page<'a> {
    /// Which of Sapwood's reports it is.
    pub title: &'a str,
    /// The sentence below the title.
    pub lead: &'a str,
    /// The figures above all, each a [`tile`]. Eight stand in two rows of four.
    pub tiles: &'a [String],
    /// The rest, each a [`card`] or [`wide`].
    pub sections: &'a str,
    /// Sources, and what made it.
    pub footer: &'a str,
}

impl Page<'_> {
    /// The whole document.
    pub fn html(&self) -> String {
        let Self {
            title,
            lead,
            tiles,
            sections,
            footer,
        } = self;
        let rows = if tiles.len() == 8 { "tiles eight" } else { "tiles" };
        let tiles = tiles.concat();
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Sapwood {title}</title>\n\
             <link rel=\"icon\" href=\"data:,\">\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
             <header><h1><span>Sapwood</span> {title}</h1><p class=\"lead\">{lead}</p></header>\n\
             <div class=\"{rows}\">\n{tiles}</div>\n<div class=\"grid\">\n{sections}</div>\n\
             <footer>{footer}</footer>\n</main>\n</body>\n</html>\n",
        )
    }
}

/// Writes the page into the folder as `index.html`, and returns its path.
pub fn write(folder: &Path, html: &str) -> io::Result<PathBuf> {
    write_whole(folder, "index.html", html)
}

/// Writes a file into the folder, all at once, and returns its path.
pub fn write_whole(folder: &Path, name: &str, content: &str) -> io::Result<PathBuf> {
    let file = folder.join(name);
    let unfinished = folder.join(format!(".{name}.unfinished"));
    fs::write(&unfinished, content)?;
    fs::rename(&unfinished, &file)?;
    Ok(file)
}

/// A figure and its name. The class may say that it is "good" or "bad".
pub fn tile(class: &str, figure: impl AsRef<str>, name: &str) -> String {
    let figure = figure.as_ref();
    format!("<div class=\"tile {class}\"><b>{figure}</b><span>{name}</span></div>\n")
}

/// Half as wide as the page.
pub fn card(title: &str, hint: &str, content: &str) -> String {
    section("card", title, hint, content)
}

/// As wide as the page.
pub fn wide(title: &str, hint: &str, content: &str) -> String {
    section("card wide", title, hint, content)
}

fn section(class: &str, title: &str, hint: &str, content: &str) -> String {
    let hint = if hint.is_empty() {
        String::new()
    } else {
        format!("<p class=\"hint\">{hint}</p>")
    };
    format!("<section class=\"{class}\"><h2>{title}</h2>{hint}\n{content}</section>\n")
}

/// An SVG document as part of a page: without its prologue, and without namespaces, which HTML knows.
pub fn inline(svg: &str) -> String {
    let svg = svg.find("<svg").map_or(svg, |start| &svg[start..]);
    let mut text = String::new();
    let mut rest = svg;
    while let Some(start) = rest.find(" xmlns") {
        let (before, attribute) = rest.split_at(start);
        text.push_str(before);
        let mut quotes = attribute.match_indices(['"', '\'']).skip(1);
        rest = quotes.next().map_or("", |(end, _)| &attribute[end + 1..]);
    }
    text.push_str(rest);
    text
}

/// Text as HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawing_is_stripped_of_what_only_files_need() {
        let svg = "<?xml version=\"1.0\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" xmlns:xlink='http://x' width=\"1\"><g/></svg>";
        assert_eq!(inline(svg), "<svg width=\"1\"><g/></svg>");
    }

    #[test]
    fn the_file_is_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["a longer page", "a page"] {
            let page = write(folder.path(), text).unwrap();
            assert_eq!(fs::read_to_string(page).unwrap(), text);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
