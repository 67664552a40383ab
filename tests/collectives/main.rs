//! Every collective, by every plan that has it and by the one that is chosen, against a scalar reference: over a fabric
//! with load/store reach and over one without, in place and out of place, with parts of equal and of different lengths.

mod calls;
mod every_plan;
mod reference;
mod refused;
#[path = "../ranks/mod.rs"]
mod support;

use calls::*;
use every_plan::*;
use refused::*;
use support::{Reach, over_both};

over_both! {
    every_collective_by_every_plan_is_the_reference,
    parts_may_have_different_lengths_or_none,
    parts_may_lie_anywhere,
    displacements_that_do_not_fit_are_refused_on_every_rank,
    a_ring_of_many_ranks_has_slots_enough,
    a_ring_of_several_channels_runs,
    small_operations_leave_a_started_ones_line_alone,
    named_calls_are_the_requests,
    started_collectives_end_in_any_order,
    only_what_is_passed_on_through_slots_is_copied,
    ranks_that_run_ahead_overwrite_nothing,
    a_persistent_collective_is_started_many_times,
    a_group_is_issued_as_one,
    small_all_reduces_of_a_group_are_fused,
    a_failure_in_a_group_names_the_operation,
    what_does_not_fit_is_refused_on_every_rank_and_changes_nothing,
    calls_in_another_order_are_named_on_every_rank,
}
