//! The algorithms. Each is a function from a collective and a number of ranks to a plan, and nothing else: to add one,
//! write its file and add its line to the registry below.

use super::dataflow::{Collective, Plan, check};
use super::error::PlanError;

/// An algorithm, found by name; some take a parameter after a colon (`k-ary-tree:3`).
#[derive(Clone, Copy, Debug)]
pub struct Builder {
    /// Its name.
    pub name: &'static str,
    /// One sentence for people.
    pub summary: &'static str,
    /// Which collectives it has.
    pub supports: fn(Collective) -> bool,
    /// Whether the name's parameter makes sense, whatever the number of ranks.
    accepts: fn(&str, Option<&str>) -> Result<(), PlanError>,
    /// Makes the plan from the name as it was asked for, the parameter, the collective (supported) and the ranks (in
    /// range).
    make: fn(&str, Option<&str>, Collective, u32) -> Result<Plan, PlanError>,
}

macro_rules! registry {
    ($($module:ident,)*) => {
        $(mod $module;)*
        /// All algorithms.
        pub const ALL: &[Builder] = &[$($module::BUILDER),*];
    };
}

registry! {
    binomial_tree,
    k_nomial,
    k_ary_tree,
    double_binary_tree,
    ring,
    direct,
    halving_doubling,
    hierarchical,
    pairwise,
    dissemination,
    parameter_server,
}

/// A builder together with the parameter that its name carried.
#[derive(Clone, Debug)]
pub struct Found {
    builder: &'static Builder,
    name: String,
}

impl Found {
    /// The builder itself.
    pub fn builder(&self) -> &'static Builder {
        self.builder
    }

    /// The plan for a collective among `ranks` ranks.
    ///
    /// # Errors
    /// [`PlanError::Ranks`], [`PlanError::Root`], [`PlanError::BadParameter`], and [`PlanError::Unsupported`], which
    /// names the builders that have that collective.
    pub fn build(&self, collective: Collective, ranks: u32) -> Result<Plan, PlanError> {
        check(collective, ranks)?;
        if !(self.builder.supports)(collective) {
            let others = ALL.iter().filter(|other| (other.supports)(collective));
            let others = others.map(|other| other.name).collect::<Vec<_>>().join(", ");
            return Err(PlanError::Unsupported {
                name: self.name.clone(),
                collective,
                others,
            });
        }
        let parameter = self.name.split_once(':').map(|(_, parameter)| parameter);
        (self.builder.make)(&self.name, parameter, collective, ranks)
    }
}

/// The algorithm with this name.
///
/// # Errors
/// [`PlanError::UnknownName`], which lists the names there are, and [`PlanError::BadParameter`].
pub fn find(name: &str) -> Result<Found, PlanError> {
    let (stem, parameter) = match name.split_once(':') {
        Some((stem, parameter)) => (stem, Some(parameter)),
        None => (name, None),
    };
    let Some(builder) = ALL.iter().find(|builder| builder.name == stem) else {
        let known = ALL
            .iter()
            .map(|builder| builder.name)
            .collect::<Vec<_>>()
            .join(", ");
        return Err(PlanError::UnknownName {
            name: name.to_owned(),
            known,
        });
    };
    (builder.accepts)(name, parameter)?;
    Ok(Found {
        builder,
        name: name.to_owned(),
    })
}

/// The plan named `name` for a collective among `ranks` ranks.
///
/// # Errors
/// As [`find`] and [`Found::build`].
pub fn build(name: &str, collective: Collective, ranks: u32) -> Result<Plan, PlanError> {
    find(name)?.build(collective, ranks)
}

fn refuse_parameter(name: &str, parameter: Option<&str>) -> Result<(), PlanError> {
    match parameter {
        None => Ok(()),
        Some(_) => Err(PlanError::BadParameter {
            name: name.to_owned(),
            reason: "it takes none".to_owned(),
        }),
    }
}
