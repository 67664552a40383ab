//! Which rank is on which host, and how that is written in a plan's name. Knows nothing of real hosts: numbers only.

use std::collections::HashMap;

use super::MAX_RANKS;
use super::lowered::Rank;

/// A map from ranks to hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hosts {
    /// By rank; hosts are numbered from 0 in the order in which they first appear.
    host: Vec<u32>,
    /// By rank: which of its host's ranks it is.
    position: Vec<u32>,
    /// By host, ascending.
    members: Vec<Vec<Rank>>,
}

impl Hosts {
    /// From any number for each rank's host.
    pub fn of(numbers: impl IntoIterator<Item = u32>) -> Self {
        let mut known: HashMap<u32, u32> = HashMap::new();
        let mut hosts = Self {
            host: Vec::new(),
            position: Vec::new(),
            members: Vec::new(),
        };
        for (number, rank) in numbers.into_iter().zip(0..) {
            let next = known.len() as u32;
            let host = *known.entry(number).or_insert(next);
            if host == next {
                hosts.members.push(Vec::new());
            }
            let members = &mut hosts.members[host as usize];
            hosts.host.push(host);
            hosts.position.push(members.len() as u32);
            members.push(rank);
        }
        hosts
    }

    /// Neighbouring ranks share a host, `size` to each; the last may have fewer.
    pub fn contiguous(ranks: u32, size: u32) -> Self {
        Self::of((0..ranks).map(|rank| rank / size))
    }

    pub fn ranks(&self) -> u32 {
        self.host.len() as u32
    }

    pub fn count(&self) -> u32 {
        self.members.len() as u32
    }

    pub fn of_rank(&self, rank: Rank) -> u32 {
        self.host[rank as usize]
    }

    pub fn position(&self, rank: Rank) -> u32 {
        self.position[rank as usize]
    }

    pub fn members(&self, host: u32) -> &[Rank] {
        &self.members[host as usize]
    }

    pub fn by_rank(&self) -> &[u32] {
        &self.host
    }

    /// The shortest way to write it.
    fn text(&self) -> String {
        let size = self.members.first().map_or(1, Vec::len) as u32;
        if *self == Self::contiguous(self.ranks(), size) {
            return size.to_string();
        }
        let runs = self.host.chunk_by(|a, b| a == b);
        let written = runs.map(|run| match run.len() {
            1 => run[0].to_string(),
            count => format!("{}*{count}", run[0]),
        });
        written.collect::<Vec<_>>().join("/")
    }
}

/// What the parameter of a hierarchical plan says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Topology {
    /// Hosts of so many neighbouring ranks, for any number of ranks.
    Size(u32),
    /// Each rank's host.
    Map(Hosts),
}

impl Topology {
    /// Reads `4`, `0,0,1,0,1`, `0*8/1*8` or a mixture of the last two.
    ///
    /// # Errors
    /// In words, what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<u32>().ok();
        let refuse = |item: &str| {
            format!(
                "\"{item}\" is neither a number of ranks per host (hierarchical:4) nor part of a list of each rank's \
                 host, as in hierarchical:0,0,1,0,1 or hierarchical:0*8/1*8"
            )
        };
        if !text.contains([',', '/', '*']) {
            let size = number(text).filter(|size| *size > 0);
            return size.map(Self::Size).ok_or_else(|| refuse(text));
        }
        let mut numbers: Vec<u32> = Vec::new();
        for item in text.split([',', '/']) {
            let (host, count) = item.split_once('*').unwrap_or((item, "1"));
            let (host, count) = number(host)
                .zip(number(count).filter(|count| *count > 0))
                .ok_or_else(|| refuse(item))?;
            if count > MAX_RANKS || numbers.len() as u32 + count > MAX_RANKS {
                return Err(format!("it gives hosts to more than {MAX_RANKS} ranks"));
            }
            numbers.extend(std::iter::repeat_n(host, count as usize));
        }
        Ok(Self::Map(Hosts::of(numbers)))
    }

    /// The map for so many ranks.
    ///
    /// # Errors
    /// In words: it is a map for another number of them.
    pub fn hosts(self, ranks: u32) -> Result<Hosts, String> {
        match self {
            Self::Size(size) => Ok(Hosts::contiguous(ranks, size)),
            Self::Map(hosts) if hosts.ranks() == ranks => Ok(hosts),
            Self::Map(hosts) => Err(format!(
                "it says for {} ranks on which host they are, but there are {ranks}",
                hosts.ranks()
            )),
        }
    }
}

/// The name of the hierarchical plan for ranks on these hosts: one number per rank, equal on one host, as
/// `Membership::hosts` gives them. Two lists that group the ranks alike give the same name, so all ranks agree on it.
///
/// ```
/// use sapwood::plan::hierarchical_name;
///
/// assert_eq!(hierarchical_name(&[5, 5, 5, 9, 9]), "hierarchical:3");
/// assert_eq!(hierarchical_name(&[0, 0, 1, 0]), "hierarchical:0*2/1/0");
/// ```
pub fn hierarchical_name(hosts: &[u32]) -> String {
    format!("hierarchical:{}", Hosts::of(hosts.iter().copied()).text())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_forms_of_a_map_are_read() {
        let map = |numbers: &[u32]| Ok(Topology::Map(Hosts::of(numbers.iter().copied())));
        assert_eq!(Topology::parse("4"), Ok(Topology::Size(4)));
        assert_eq!(Topology::parse("0,0,1,0,1"), map(&[0, 0, 1, 0, 1]));
        assert_eq!(Topology::parse("0*3/1*2"), map(&[0, 0, 0, 1, 1]));
        assert_eq!(Topology::parse("7/3*2,7"), map(&[0, 1, 1, 0]));
        assert_eq!(Topology::parse("0*1"), map(&[0]));
        let hosts = Topology::parse("4").unwrap().hosts(6).unwrap();
        assert_eq!(
            (hosts.members(0), hosts.members(1)),
            (&[0, 1, 2, 3][..], &[4, 5][..])
        );
        assert!(
            Topology::parse("0,1,1")
                .unwrap()
                .hosts(4)
                .unwrap_err()
                .contains("3 ranks")
        );
    }

    #[test]
    fn what_is_no_map_is_refused() {
        for text in [
            "",
            "0",
            "x",
            "-1",
            "0,",
            ",0",
            "0*0",
            "0**2",
            "*",
            "0,1,x",
            "0*70000",
            "0*65536/1",
            "0*4294967295/0*4294967295",
        ] {
            assert!(Topology::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_name_says_who_shares_a_host(numbers in proptest::collection::vec(0u32..5, 1..40)) {
            let name = hierarchical_name(&numbers);
            let parameter = name.strip_prefix("hierarchical:").unwrap();
            let hosts = Topology::parse(parameter).unwrap().hosts(numbers.len() as u32).unwrap();
            prop_assert_eq!(hosts, Hosts::of(numbers));
        }
    }
}
