//! Writes the same table twice: as Rust over the bindings' own types, and as a C program over the header's.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use layout::{Aggregate, Alias, Bindings, Constant, Function, Functions};

fn main() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sys/src/verbs");
    let read = |name: &str| {
        let path = sources.join(name);
        println!("cargo::rerun-if-changed={}", path.display());
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    println!("cargo::rerun-if-changed=build.rs");
    let (bindings, functions) = (
        Bindings::read(&read("bindings.rs")),
        Functions::read(&read("loader.rs")),
    );
    let mut table = Table::default();
    bindings.aggregates.iter().for_each(|one| table.aggregate(one));
    bindings.aliases.iter().for_each(|one| table.alias(one));
    bindings.constants.iter().for_each(|one| table.constant(one));
    functions.0.iter().for_each(|one| table.function(one));
    let out = env::var("OUT_DIR").expect("cargo sets it");
    let rust = format!(
        "pub fn ours() -> Vec<(&'static str, i128)> {{\nvec![\n{}]\n}}\n",
        table.rust
    );
    fs::write(Path::new(&out).join("ours.rs"), rust).expect("writable");
    fs::write(Path::new(&out).join("theirs.c"), table.finish_c()).expect("writable");
}

/// The two halves: lines of a Rust `vec!`, and of C's `main`.
#[derive(Default)]
struct Table {
    rust: String,
    c: String,
}

impl Table {
    fn entry(&mut self, key: &str, rust: &str, c: &str) {
        writeln!(self.rust, "(\"{key}\", {rust} as i128),").expect("a string takes it");
        writeln!(self.c, "    say(\"{key}\", (long long)({c}));").expect("a string takes it");
    }

    fn aggregate(&mut self, one: &Aggregate) {
        if one.opaque {
            return; // Only pointers to it exist.
        }
        let (rust, c) = (&one.name, one.in_c());
        self.entry(
            &format!("size of {c}"),
            &format!("size_of::<{rust}>()"),
            &format!("sizeof({c})"),
        );
        self.entry(
            &format!("alignment of {c}"),
            &format!("align_of::<{rust}>()"),
            &format!("_Alignof({c})"),
        );
        for field in one.fields.iter().filter(|field| !field.c.is_empty()) {
            let member = format!("(({c} *)0)->{}", field.c);
            let place = format!(
                "of_field(|it: *const {rust}| unsafe {{ &raw const (*it).{} }})",
                field.rust
            );
            let name = format!("{c}.{}", field.c);
            self.entry(
                &format!("offset of {name}"),
                &format!("offset_of!({rust}, {})", field.rust),
                &format!("offsetof({c}, {})", field.c),
            );
            self.entry(
                &format!("size of {name}"),
                &format!("{place}.0"),
                &format!("sizeof({member})"),
            );
            self.entry(
                &format!("alignment of {name}"),
                &format!("{place}.1"),
                &format!("_Alignof(__typeof__({member}))"),
            );
        }
    }

    fn alias(&mut self, one: &Alias) {
        let c = match one.enumeration {
            true => format!("enum {}", one.name),
            false => one.name.clone(),
        };
        self.entry(
            &format!("size of {c}"),
            &format!("size_of::<{}>()", one.name),
            &format!("sizeof({c})"),
        );
        self.entry(
            &format!("sign of {c}"),
            &format!("({}::MIN != 0)", one.name),
            &format!("(({c})-1) < 0"),
        );
    }

    fn constant(&mut self, one: &Constant) {
        let name = &one.name;
        self.entry(&format!("value of {name}"), name, name);
    }

    /// A prototype that differs does not compile: that the C program exists is the comparison. The key counts it.
    fn function(&mut self, one: &Function) {
        let key = format!("prototype of {}", one.symbol);
        let arguments = match one.arguments.is_empty() {
            true => "void".to_owned(),
            false => one.arguments.join(", "),
        };
        let compatible = format!(
            "__builtin_types_compatible_p(__typeof__(&{}), {}(*)({arguments}))",
            one.symbol, one.result
        );
        self.entry(&key, "1", &compatible);
    }

    fn finish_c(&self) -> String {
        format!(
            "/* Written by header-check's build script. Prints what the system's header says. */\n\
             #include <stddef.h>\n#include <stdint.h>\n#include <stdio.h>\n\
             #include <infiniband/verbs.h>\n\
             /* The header hides these functions behind macros of the same name. */\n\
             #undef ibv_reg_mr\n#undef ibv_query_port\n#undef ibv_reg_mr_iova2\n\n\
             static void say(const char *what, long long value) {{ printf(\"%s = %lld\\n\", what, value); }}\n\n\
             int main(void) {{\n{}    return 0;\n}}\n",
            self.c
        )
    }
}
