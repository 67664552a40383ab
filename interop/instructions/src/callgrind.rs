//! Reads the profile that `valgrind --tool=callgrind` writes: the own cost of each function and the cost of each call.
//! Format: <https://valgrind.org/docs/manual/cl-format.html>.

use std::collections::{BTreeMap, HashMap};

/// Instructions and locked instructions ("global bus events").
type Cost = [u64; 2];

/// What was counted.
#[derive(Debug, Default)]
pub struct Profile {
    /// By function.
    own: BTreeMap<String, Cost>,
    /// By caller and callee, everything below included.
    calls: BTreeMap<(String, String), Cost>,
}

impl Profile {
    /// Reads a profile with the events `Ir Ge`, that is of `--collect-bus=yes`.
    pub fn read(text: &str) -> Result<Self, String> {
        if !text.lines().any(|line| line.trim_end() == "events: Ir Ge") {
            return Err("the profile does not count 'Ir Ge': valgrind needs --collect-bus=yes".into());
        }
        let mut profile = Self::default();
        let mut names = HashMap::new();
        let (mut function, mut callee) = (String::new(), None);
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("fn=") {
                function = full_name(&mut names, name)?;
            } else if let Some(name) = line.strip_prefix("cfn=") {
                callee = Some(full_name(&mut names, name)?);
            } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
                // Where, then the costs; trailing zeros are left out.
                let mut numbers = line
                    .split(' ')
                    .skip(1)
                    .map(|word| word.parse::<u64>().map_err(|_| line));
                let mut next = || numbers.next().unwrap_or(Ok(0));
                let cost = [next()?, next()?];
                let to = match callee.take() {
                    Some(callee) => profile.calls.entry((function.clone(), callee)).or_default(),
                    None => profile.own.entry(function.clone()).or_default(),
                };
                *to = [to[0] + cost[0], to[1] + cost[1]];
            }
        }
        Ok(profile)
    }

    /// The sum of everything but what happened inside the named functions, and but the own cost of `caller`. All that is
    /// left out must have been there.
    pub fn without(&self, left_out: &[&str], caller: &str) -> Result<Cost, String> {
        let is_out = |name: &str| left_out.contains(&name.rsplit("::").next().unwrap_or(name));
        let add = |sum: Cost, cost: &Cost| [sum[0] + cost[0], sum[1] + cost[1]];
        let all = self.own.values().fold([0; 2], add);
        let inside = self
            .calls
            .iter()
            .filter(|((caller, callee), _)| is_out(callee) && !is_out(caller))
            .fold([0; 2], |sum, (_, cost)| add(sum, cost));
        if inside[0] == 0 {
            return Err(format!("the profile has no call of {}", left_out.join(", ")));
        }
        let outside = self
            .own
            .get(caller)
            .ok_or_else(|| format!("the profile has no function {caller}"))?;
        Ok([all[0] - inside[0] - outside[0], all[1] - inside[1] - outside[1]])
    }

    /// The functions with their own instructions, the heaviest first.
    pub fn heaviest(&self, left_out: &[&str]) -> Vec<(&str, u64)> {
        let mut all: Vec<_> = self
            .own
            .iter()
            .filter(|(name, _)| !left_out.contains(&name.rsplit("::").next().unwrap_or(name)))
            .map(|(name, cost)| (name.as_str(), cost[0]))
            .collect();
        all.sort_by_key(|(_, own)| std::cmp::Reverse(*own));
        all
    }
}

/// `(7) name` defines number 7, `(7)` refers to it.
fn full_name(names: &mut HashMap<String, String>, text: &str) -> Result<String, String> {
    let Some((number, name)) = text.strip_prefix('(').and_then(|rest| rest.split_once(')')) else {
        return Ok(text.to_owned());
    };
    match name.trim() {
        "" => names
            .get(number)
            .cloned()
            .ok_or_else(|| format!("function {number} has no name")),
        name => {
            names.insert(number.to_owned(), name.to_owned());
            Ok(name.to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_inside_the_driver_is_left_out() {
        let profile = Profile::read(
            "events: Ir Ge\n\nfn=(1) measured\n10 5\n+1 7 1\ncfn=(2) driver::stub_post_send\ncalls=1 20\n* 40 2\n\n\
             fn=(2)\n20 30 1\ncfn=(3) memcpy\ncalls=1 0\n21 10 1\n\nfn=(3)\n0 10 1\n\nfn=(4) post\n30 100\n",
        )
        .unwrap();
        assert_eq!(profile.without(&["stub_post_send"], "measured"), Ok([100, 0]));
        assert!(profile.without(&["stub_poll_cq"], "measured").is_err());
        assert!(profile.without(&["stub_post_send"], "unmeasured").is_err());
        assert_eq!(profile.heaviest(&["stub_post_send"])[0], ("post", 100));
    }
}
