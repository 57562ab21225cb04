//! Who is where: the names of endpoints, resolved off the workers.

pub mod resolve;
