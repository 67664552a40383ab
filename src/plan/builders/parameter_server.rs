//! Parameter server: everybody hands its vector to rank 0, which combines them and hands the outcome to everybody. What
//! rank 0 sends and receives grows with the ranks; here to be compared with.
//!
//! F. N. Iandola et al.: FireCaffe: near-linear acceleration of deep neural network training on compute clusters,
//! arXiv:1511.00175 (2015), measures it against reduction trees.

use crate::plan::dataflow::Collective;
use crate::plan::forest;
use crate::plan::nomial::Nomial;

pub(super) const BUILDER: super::Builder = super::Builder {
    name: "parameter-server",
    summary: "everything through rank 0, whose traffic grows with the ranks: to compare others with",
    supports: |collective| collective == Collective::AllReduce,
    accepts: super::refuse_parameter,
    make: |name, _, collective, ranks| {
        forest::plan(name, collective, ranks, vec![Box::new(Nomial::star(ranks))])
    },
};
