//! Who is where: the names of endpoints, resolved off the workers.

pub mod outliers;
pub mod redial;
pub mod resolve;
pub mod watch;
