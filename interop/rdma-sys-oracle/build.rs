//! Writes a table of what our bindings and rdma-sys each say about the same thing. rdma-sys was configured differently
//! and writes its unions by hand, so that some names differ; what cannot be compared is listed here, with the reason.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use layout::{Aggregate, Alias, Bindings, Constant};

/// Enumerations that it writes as a module of constants.
const MODULES: &[&str] = &[
    "ibv_node_type",
    "ibv_transport_type",
    "ibv_atomic_cap",
    "ibv_mtu",
    "ibv_port_state",
    "ibv_wc_status",
    "ibv_wc_opcode",
    "ibv_mw_type",
    "ibv_rate",
    "ibv_srq_type",
    "ibv_wq_type",
    "ibv_wq_state",
    "ibv_qp_type",
    "ibv_qp_state",
    "ibv_mig_state",
    "ibv_wr_opcode",
    "ibv_ops_wr_opcode",
    "ibv_flow_attr_type",
    "ibv_flow_spec_type",
    "ibv_counter_description",
    "ibv_rereg_mr_err_code",
    "ib_uverbs_advise_mr_advice",
];

/// Enumerations that it writes as a struct around a number.
const WRAPPED: &[&str] = &[
    "ibv_device_cap_flags",
    "ibv_odp_transport_cap_bits",
    "ibv_odp_general_caps",
    "ibv_rx_hash_function_flags",
    "ibv_rx_hash_fields",
    "ibv_raw_packet_caps",
    "ibv_tm_cap_flags",
    "ibv_pci_atomic_op_size",
    "ibv_port_cap_flags",
    "ibv_port_cap_flags2",
    "ibv_create_cq_wc_flags",
    "ibv_wc_flags",
    "ibv_access_flags",
    "ibv_xrcd_init_attr_mask",
    "ibv_rereg_mr_flags",
    "ibv_srq_attr_mask",
    "ibv_srq_init_attr_mask",
    "ibv_wq_init_attr_mask",
    "ibv_wq_flags",
    "ibv_wq_attr_mask",
    "ibv_ind_table_init_attr_mask",
    "ibv_qp_init_attr_mask",
    "ibv_qp_create_flags",
    "ibv_qp_create_send_ops_flags",
    "ibv_qp_open_attr_mask",
    "ibv_qp_attr_mask",
    "ibv_send_flags",
    "ibv_ops_flags",
    "ibv_cq_attr_mask",
    "ibv_flow_flags",
    "ibv_flow_action_esp_mask",
    "ibv_cq_init_attr_mask",
    "ibv_create_cq_attr_flags",
    "ibv_parent_domain_init_attr_mask",
    "ibv_read_counters_flags",
    "ibv_values_mask",
    "ib_uverbs_access_flags",
];

/// The one that it writes as an enumeration of Rust's.
const RUST_ENUM: &str = "ibv_event_type";

/// What bindgen calls `__bindgen_anon_N` and it, by hand, something else.
const RENAMED: &[(&str, &str, &str)] = &[
    ("ibv_wc", "__bindgen_anon_1", "imm_data_invalidated_rkey_union"),
    (
        "ibv_send_wr",
        "__bindgen_anon_1",
        "imm_data_invalidated_rkey_union",
    ),
    ("ibv_send_wr", "__bindgen_anon_2", "bind_mw_tso_union"),
    (
        "ibv_send_wr",
        "__bindgen_anon_1.invalidate_rkey",
        "imm_data_invalidated_rkey_union.invalidated_rkey",
    ),
];

/// Aggregates whose fields it hides or replaces by zero-sized markers: size and alignment alone are compared.
const OPAQUE: &[&str] = &["ibv_ops_wr", "ib_uverbs_flow_action_esp_encap"];

/// Macros that it does not have.
const ABSENT: &[&str] = &[
    "IBV_ACCESS_OPTIONAL_FIRST",
    "IBV_DEVICE_RAW_SCATTER_FCS",
    "IBV_DEVICE_PCI_WRITE_END_PADDING",
];

fn main() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sys/src/verbs/bindings.rs");
    println!("cargo::rerun-if-changed={}", path.display());
    println!("cargo::rerun-if-changed=build.rs");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let bindings = Bindings::read(&text);
    let mut table = String::new();
    bindings
        .aggregates
        .iter()
        .for_each(|one| aggregate(one, &mut table));
    bindings.aliases.iter().for_each(|one| alias(one, &mut table));
    bindings
        .constants
        .iter()
        .for_each(|one| constant(one, &mut table));
    let text = format!("pub fn table() -> Vec<(&'static str, i128, i128)> {{\nvec![\n{table}]\n}}\n");
    let out = env::var("OUT_DIR").expect("cargo sets it");
    fs::write(Path::new(&out).join("table.rs"), text).expect("writable");
}

fn entry(table: &mut String, key: &str, ours: &str, theirs: &str) {
    writeln!(table, "(\"{key}\", {ours} as i128, {theirs} as i128),").expect("a string takes it");
}

fn aggregate(one: &Aggregate, table: &mut String) {
    if one.opaque {
        return; // Only pointers to it exist.
    }
    let name = &one.name;
    for (word, function) in [("size", "size_of"), ("alignment", "align_of")] {
        let of = |side: &str| format!("{function}::<{side}::{name}>()");
        entry(table, &format!("{word} of {name}"), &of("ours"), &of("theirs"));
    }
    if OPAQUE.contains(&&**name) {
        return;
    }
    for field in &one.fields {
        let theirs = renamed(name, &field.rust);
        let offset = |side: &str, field: &str| format!("offset_of!({side}::{name}, {field})");
        let place = |side: &str, field: &str| {
            format!("of_field(|it: *const {side}::{name}| unsafe {{ &raw const (*it).{field} }})")
        };
        let key = format!("{name}.{}", field.rust);
        entry(
            table,
            &format!("offset of {key}"),
            &offset("ours", &field.rust),
            &offset("theirs", &theirs),
        );
        for (word, part) in [("size", 0), ("alignment", 1)] {
            let of = |side: &str, field: &str| format!("{}.{part}", place(side, field));
            entry(
                table,
                &format!("{word} of {key}"),
                &of("ours", &field.rust),
                &of("theirs", &theirs),
            );
        }
    }
}

/// The path of a field in rdma-sys: the longest renamed beginning replaced.
fn renamed(name: &str, field: &str) -> String {
    RENAMED
        .iter()
        .filter(|(of, ours, _)| *of == name && (field == *ours || field.starts_with(&format!("{ours}."))))
        .max_by_key(|(_, ours, _)| ours.len())
        .map_or_else(
            || field.to_owned(),
            |(_, ours, theirs)| field.replacen(ours, theirs, 1),
        )
}

fn alias(one: &Alias, table: &mut String) {
    let name = &one.name;
    let theirs = match MODULES.contains(&&**name) {
        true => format!("theirs::{name}::Type"),
        false => format!("theirs::{name}"),
    };
    entry(
        table,
        &format!("size of {name}"),
        &format!("size_of::<ours::{name}>()"),
        &format!("size_of::<{theirs}>()"),
    );
}

fn constant(one: &Constant, table: &mut String) {
    let (name, of) = (&one.name, &one.of);
    if ABSENT.contains(&&**name) {
        return;
    }
    let theirs = if MODULES.contains(&&**of) || of == RUST_ENUM {
        format!("theirs::{of}::{name}")
    } else if WRAPPED.contains(&&**of) {
        format!("theirs::{of}::{name}.0")
    } else {
        format!("theirs::{name}")
    };
    entry(
        table,
        &format!("value of {name}"),
        &format!("ours::{name}"),
        &theirs,
    );
}
