//! The `sapwood` command. Each sub-command is a module; this file only reads arguments and hands on exit codes.

fn main() {}
