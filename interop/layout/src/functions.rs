//! The functions that the loader looks up, out of its `functions!` table.

use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Attribute, Ident, Item, LitCStr, ReturnType, Token, Type, braced, parenthesized};

/// A function of the library.
#[derive(Debug)]
pub struct Function {
    /// `ibv_open_device`.
    pub symbol: String,
    /// `IBVERBS_1.1`.
    pub version: String,
    /// As C writes them.
    pub arguments: Vec<String>,
    /// As C writes it.
    pub result: String,
}

/// The table of the loader.
#[derive(Debug)]
pub struct Functions(pub Vec<Function>);

impl Functions {
    /// Reads the text of `loader.rs`.
    ///
    /// # Panics
    /// It is not Rust, has no table, or uses a type that is not understood.
    pub fn read(text: &str) -> Self {
        syn::parse_file(text)
            .expect("loader.rs is Rust")
            .items
            .into_iter()
            .find_map(|item| match item {
                Item::Macro(item) if item.mac.path.is_ident("functions") => Some(item.mac),
                _ => None,
            })
            .expect("loader.rs has a table of functions")
            .parse_body()
            .expect("the table of functions is as it was")
    }
}

impl Parse for Functions {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut functions = Vec::new();
        while !input.is_empty() {
            input.parse::<Ident>()?; // required, optional
            let content;
            braced!(content in input);
            while !content.is_empty() {
                functions.push(content.parse()?);
            }
        }
        Ok(Self(functions))
    }
}

impl Parse for Function {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        input.call(Attribute::parse_outer)?;
        input.parse::<Ident>()?;
        input.parse::<Token![=]>()?;
        let symbol: LitCStr = input.parse()?;
        input.parse::<Token![@]>()?;
        let version: LitCStr = input.parse()?;
        let content;
        parenthesized!(content in input);
        let arguments = Punctuated::<Argument, Token![,]>::parse_terminated(&content)?;
        let result = match input.parse()? {
            ReturnType::Default => "void".to_owned(),
            ReturnType::Type(_, of) => in_c(&of)?,
        };
        input.parse::<Token![;]>()?;
        let text = |literal: LitCStr| literal.value().into_string().expect("names are ASCII");
        Ok(Self {
            symbol: text(symbol),
            version: text(version),
            arguments: arguments.into_iter().map(|argument| argument.0).collect(),
            result,
        })
    }
}

struct Argument(String);

impl Parse for Argument {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        input.parse::<Ident>()?;
        input.parse::<Token![:]>()?;
        in_c(&input.parse()?).map(Self)
    }
}

/// A type as C writes it.
fn in_c(of: &Type) -> syn::Result<String> {
    let unknown = || syn::Error::new_spanned(of, "a type that has no translation to C here");
    match of {
        Type::Ptr(pointer) => {
            let constant = if pointer.const_token.is_some() {
                "const "
            } else {
                ""
            };
            Ok(format!("{constant}{}*", in_c(&pointer.elem)?))
        }
        Type::Path(path) => {
            let name = path.path.get_ident().ok_or_else(unknown)?.to_string();
            Ok(match &*name {
                "c_int" => "int ".to_owned(),
                "c_uint" => "unsigned int ".to_owned(),
                "c_char" => "char ".to_owned(),
                "c_void" => "void ".to_owned(),
                "u8" => "uint8_t ".to_owned(),
                "u16" => "uint16_t ".to_owned(),
                "u32" => "uint32_t ".to_owned(),
                "u64" => "uint64_t ".to_owned(),
                "usize" => "size_t ".to_owned(),
                "__be64" => "__be64 ".to_owned(),
                "ibv_gid" => "union ibv_gid ".to_owned(),
                "ibv_wc_status" | "ibv_event_type" | "ibv_port_state" | "ibv_fork_status" => {
                    format!("enum {name} ")
                }
                _ => format!("struct {name} "),
            })
        }
        _ => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_with_its_types_in_c() {
        let functions = Functions::read(
            r#"functions! {
                required { /// Documented
                    open = c"ibv_open" @ c"IBVERBS_1.1" (name: *const c_char, size: usize) -> *mut ibv_context; }
                optional { free = c"ibv_free" @ c"IBVERBS_1.8" (list: *mut *mut ibv_device); }
            }"#,
        );
        let [open, free] = &functions.0[..] else {
            panic!("{functions:?}")
        };
        assert_eq!((&*open.symbol, &*open.version), ("ibv_open", "IBVERBS_1.1"));
        assert_eq!(open.arguments, ["const char *", "size_t "]);
        assert_eq!(open.result, "struct ibv_context *");
        assert_eq!(
            (&free.arguments[..], &*free.result),
            (&["struct ibv_device **".to_owned()][..], "void")
        );
    }
}
