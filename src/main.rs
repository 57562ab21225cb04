//! The `tinylb` binary.
fn main() {}
