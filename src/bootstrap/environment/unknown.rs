//! Names in the environment that look like Sapwood's and are none: slips, which would be ignored in silence otherwise.

use super::table::ENVIRONMENT;

/// What begins like this belongs to tests and checks of Sapwood itself.
const TESTS: [&str; 5] = [
    "SAPWOOD_TEST_",
    "SAPWOOD_CI_",
    "SAPWOOD_CONFORMANCE_",
    "SAPWOOD_KILL_",
    "SAPWOOD_SHRINK_",
];
/// So does this: where the rig's suites find the programs.
const PROGRAMS: &str = "SAPWOOD_BIN";

/// A name in the environment that begins like one of Sapwood's and is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownVariable {
    /// The name.
    pub name: String,
    /// The one that was probably meant.
    pub meant: Option<&'static str>,
}

impl std::fmt::Display for UnknownVariable {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = &self.name;
        match self.meant {
            Some(meant) => write!(
                formatter,
                "{name} is no variable of Sapwood's: did you mean {meant}?"
            ),
            None => write!(
                formatter,
                "{name} is no variable of Sapwood's ('sapwood help environment' lists them)"
            ),
        }
    }
}

/// Those of the names that begin like Sapwood's variables and are none.
pub fn unknown_variables(names: impl IntoIterator<Item = String>) -> Vec<UnknownVariable> {
    let unknown = |name: &String| {
        name.starts_with("SAPWOOD_")
            && name != PROGRAMS
            && !ENVIRONMENT.iter().any(|known| known.name == name)
            && !TESTS.iter().any(|prefix| name.starts_with(prefix))
    };
    let mut found: Vec<_> = names
        .into_iter()
        .filter(unknown)
        .map(|name| UnknownVariable {
            meant: nearest(&name),
            name,
        })
        .collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

/// The known name that is fewest letters away, if that is few enough for a slip.
fn nearest(name: &str) -> Option<&'static str> {
    let candidates = ENVIRONMENT
        .iter()
        .map(|known| (distance(name, known.name), known.name));
    let (distance, nearest) = candidates.min()?;
    (distance <= 3).then_some(nearest)
}

/// How many letters have to be put in, taken out or changed (Levenshtein's distance, by rows).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (above, letter) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = above + 1;
        for (place, theirs) in other.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *theirs);
            diagonal = row[place + 1];
            row[place + 1] = changed.min(diagonal + 1).min(row[place] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_told_apart_from_what_is_meant_for_others() {
        let names = [
            "SAPWOOD_RNAK",
            "SAPWOOD_TIMOUT",
            "SAPWOOD_COLOUR_OF_BARK",
            "SAPWOOD_RANK",
            "SAPWOOD_TEST_ROLE",
            "SAPWOOD_BIN",
            "SAPWOOD_BIND",
            "PATH",
        ];
        let found: Vec<String> = unknown_variables(names.map(str::to_owned))
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found[0].starts_with("SAPWOOD_BIND "), "{found:?}");
        assert!(
            found[1].contains("COLOUR_OF_BARK") && found[1].contains("help environment"),
            "{found:?}"
        );
        assert!(
            found[2].contains("did you mean SAPWOOD_RANK?")
                && found[3].contains("did you mean SAPWOOD_TIMEOUT?"),
            "{found:?}"
        );
    }

    #[test]
    fn letters_are_counted() {
        for (one, other, letters) in [
            ("", "", 0),
            ("rank", "rank", 0),
            ("rnak", "rank", 2),
            ("", "abc", 3),
            ("size", "sizes", 1),
        ] {
            assert_eq!(distance(one, other), letters, "{one} {other}");
        }
    }
}
