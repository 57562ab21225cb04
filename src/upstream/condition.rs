//! What the standing of an endpoint is, in the words of metrics, of the admin address and of the log.

/// What the standing of an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Requests go there.
    Up,
    /// It has not been checked yet.
    Unknown,
    /// Its checks fail, or it has no address.
    Down,
    /// It cannot be connected to.
    Unreachable,
    /// It failed in traffic, and is left alone for a while.
    Ejected,
    /// One request finds out whether it is well again.
    Probation,
    /// Nothing new goes there.
    Draining,
    /// It is being eased in.
    Warming,
}

impl Condition {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Up,
        Self::Unknown,
        Self::Down,
        Self::Unreachable,
        Self::Ejected,
        Self::Probation,
        Self::Draining,
        Self::Warming,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Unknown => "unknown",
            Self::Down => "down",
            Self::Unreachable => "unreachable",
            Self::Ejected => "ejected",
            Self::Probation => "probation",
            Self::Draining => "draining",
            Self::Warming => "warming",
        }
    }
}
