//! Types, fields and constants.

use std::collections::BTreeMap;

use quote::ToTokens;
use syn::{Fields, Item, Type};

/// Marks the types that bindgen invents for what has no name in C.
const NESTED: &str = "__bindgen_ty";
/// Marks the fields that bindgen invents for members without a name.
const ANONYMOUS: &str = "__bindgen_anon";

/// What C calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    Struct,
    Union,
}

/// A struct or union that has a name in C.
#[derive(Debug)]
pub struct Aggregate {
    pub name: String,
    pub flavour: Flavour,
    /// Every field, those of nested types without a name included, each by its path from here.
    pub fields: Vec<Field>,
    /// Its content is not known: only pointers to it exist.
    pub opaque: bool,
}

impl Aggregate {
    /// As C writes the type.
    pub fn in_c(&self) -> String {
        match self.flavour {
            Flavour::Struct => format!("struct {}", self.name),
            Flavour::Union => format!("union {}", self.name),
        }
    }
}

/// A field, as a path from the type that holds it.
#[derive(Clone, Debug)]
pub struct Field {
    /// As in the bindings: `__bindgen_anon_1.imm_data`.
    pub rust: String,
    /// As in C: `imm_data`. Empty for a member without a name, which has an offset only through its own fields.
    pub c: String,
}

/// A constant.
#[derive(Debug)]
pub struct Constant {
    pub name: String,
    /// The alias that is its type, such as `ibv_mtu`, or a number's type for a macro.
    pub of: String,
}

/// Another name for a number: an enumeration, or a typedef.
#[derive(Debug)]
pub struct Alias {
    pub name: String,
    /// Whether C knows it as `enum NAME`: constants are of this type.
    pub enumeration: bool,
}

/// All of the bindings.
#[derive(Debug)]
pub struct Bindings {
    pub aggregates: Vec<Aggregate>,
    pub constants: Vec<Constant>,
    pub aliases: Vec<Alias>,
}

/// A struct or union as written.
struct Written {
    flavour: Flavour,
    /// Names with the text of their types.
    fields: Vec<(String, String)>,
}

impl Bindings {
    /// Reads the text of `bindings.rs`.
    ///
    /// # Panics
    /// It is not Rust, or has an item of a kind that bindgen did not write when this was written.
    pub fn read(text: &str) -> Self {
        let (mut written, mut order) = (BTreeMap::new(), Vec::new());
        let (mut constants, mut aliases) = (Vec::new(), Vec::new());
        for item in syn::parse_file(text).expect("bindings.rs is Rust").items {
            match item {
                Item::Struct(item) => {
                    order.push(item.ident.to_string());
                    let fields = named(&item.fields);
                    let flavour = Flavour::Struct;
                    written.insert(item.ident.to_string(), Written { flavour, fields });
                }
                Item::Union(item) => {
                    order.push(item.ident.to_string());
                    let fields = named(&Fields::Named(item.fields));
                    let flavour = Flavour::Union;
                    written.insert(item.ident.to_string(), Written { flavour, fields });
                }
                // `const _` holds bindgen's own assertions.
                Item::Const(item) if item.ident == "_" => {}
                Item::Const(item) => constants.push(Constant {
                    name: item.ident.to_string(),
                    of: item.ty.to_token_stream().to_string(),
                }),
                Item::Type(item) if matches!(*item.ty, Type::Path(_)) => {
                    aliases.push(item.ident.to_string());
                }
                Item::Use(_) => {}
                other => panic!(
                    "bindings.rs has an item that is not understood: {}",
                    other.to_token_stream()
                ),
            }
        }
        let aggregates = order
            .iter()
            .filter(|name| !name.contains(NESTED))
            .map(|name| aggregate(name, &written))
            .collect();
        let aliases = aliases
            .into_iter()
            .map(|name| Alias {
                enumeration: constants.iter().any(|constant: &Constant| constant.of == name)
                    || name.starts_with("ib"),
                name,
            })
            .collect();
        Self {
            aggregates,
            constants,
            aliases,
        }
    }
}

fn named(fields: &Fields) -> Vec<(String, String)> {
    fields
        .iter()
        .map(|field| {
            let name = field
                .ident
                .as_ref()
                .expect("C has no fields without names")
                .to_string();
            (name, field.ty.to_token_stream().to_string())
        })
        .collect()
}

fn aggregate(name: &str, written: &BTreeMap<String, Written>) -> Aggregate {
    let this = &written[name];
    let opaque = matches!(&this.fields[..], [(name, _)] if name == "_unused" || name == "_address");
    let mut fields = Vec::new();
    if !opaque {
        collect(this, "", "", written, &mut fields);
    }
    Aggregate {
        name: name.to_owned(),
        flavour: this.flavour,
        fields,
        opaque,
    }
}

/// Adds the fields of `this`, whose paths begin with the prefixes, and those of the nameless types among them.
fn collect(
    this: &Written,
    rust_prefix: &str,
    c_prefix: &str,
    written: &BTreeMap<String, Written>,
    into: &mut Vec<Field>,
) {
    for (name, of) in &this.fields {
        let rust = format!("{rust_prefix}{name}");
        // bindgen appends an underscore to what is a keyword in Rust.
        let in_c = name.strip_suffix('_').unwrap_or(name);
        let c = match name.starts_with(ANONYMOUS) {
            true => String::new(),
            false => format!("{c_prefix}{in_c}"),
        };
        into.push(Field {
            rust: rust.clone(),
            c: c.clone(),
        });
        if let Some(nested) = written.get(of).filter(|_| of.contains(NESTED)) {
            let c_prefix = match c.is_empty() {
                true => c_prefix.to_owned(),
                false => format!("{c}."),
            };
            collect(nested, &format!("{rust}."), &c_prefix, written, into);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_nameless_types_have_paths() {
        let bindings = Bindings::read(
            "pub const TWO: kind = 2; pub type kind = c_uint;
             pub struct outer { pub type_: kind, pub __bindgen_anon_1: outer__bindgen_ty_1,
                                pub named: outer__bindgen_ty_2 }
             pub union outer__bindgen_ty_1 { pub a: u32, pub b: u8 }
             pub struct outer__bindgen_ty_2 { pub c: u8 }
             pub struct hidden { _unused: [u8; 0] }",
        );
        let paths: Vec<_> = bindings.aggregates[0]
            .fields
            .iter()
            .map(|field| (&*field.rust, &*field.c))
            .collect();
        assert_eq!(
            paths,
            [
                ("type_", "type"),
                ("__bindgen_anon_1", ""),
                ("__bindgen_anon_1.a", "a"),
                ("__bindgen_anon_1.b", "b"),
                ("named", "named"),
                ("named.c", "named.c"),
            ]
        );
        assert_eq!(bindings.aggregates.len(), 2);
        assert!(bindings.aggregates[1].opaque);
        assert!(bindings.aliases[0].enumeration);
    }
}
