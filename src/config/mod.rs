//! What the operator asked for: the typed [model], and the reader that makes it from a file.

pub mod listen;
pub mod model;
pub mod pattern;
pub mod url;
pub mod values;

pub use listen::{AdminAddress, DEFAULT_ADMIN};
pub use model::*;
