//! What the operator asked for: the typed [model], and the reader that makes it from a file.

pub mod model;

pub use model::*;
