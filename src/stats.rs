//! Counter cells.
