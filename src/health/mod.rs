//! Who is where and who is well, found out off the workers: names [resolve]d, endpoints [check]ed
//! ([active]ly, again and again), those that could not be reached [redial]led, [outliers] ejected,
//! and the [pace] of all measured. [watch] does what is to be done from time to time.

pub mod active;
pub mod check;
pub mod checked;
pub mod outliers;
pub mod pace;
pub mod redial;
pub mod resolve;
mod streak;
pub mod watch;
