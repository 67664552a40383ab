//! Raw verbs bindings, loaded at run time by symbol version. No policy lives here: what a call means, when it is
//! made and who owns the memory behind it is decided in `sapwood::fabric`.
