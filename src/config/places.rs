//! Where the files that a configuration names are named. What is in them is not the reader's business,
//! but whoever reads them can say in the configuration's report what is wrong.

use std::ops::Range;

/// A section of the configuration that has a `tls` table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// The listener of this index.
    Listener(usize),
    /// The upstream of this index.
    Upstream(usize),
}

/// The places in one section.
#[derive(Debug, Clone, Default)]
pub(super) struct TlsPlaces {
    /// The `tls` table, where there is one.
    pub(super) table: Option<Range<usize>>,
    values: Vec<(&'static str, usize, Range<usize>)>,
}

impl TlsPlaces {
    /// Notes where the value of `key` is, in the certificate of this number where there are several.
    pub(super) fn note(&mut self, key: &'static str, number: usize, place: Option<Range<usize>>) {
        self.values.extend(place.map(|place| (key, number, place)));
    }

    /// Where the value of `key` is that was noted first.
    pub(super) fn of(&self, key: &str) -> Option<Range<usize>> {
        self.values.iter().find(|(name, ..)| *name == key).map(|(_, _, place)| place.clone())
    }
}

/// The places in all sections, each with the place of the section itself.
#[derive(Debug, Clone, Default)]
pub(super) struct FilePlaces {
    pub(super) listeners: Vec<(TlsPlaces, Range<usize>)>,
    pub(super) upstreams: Vec<(TlsPlaces, Range<usize>)>,
}

impl FilePlaces {
    /// The place of a value; where it has none that of its table, or of its section.
    pub(super) fn find(&self, section: Section, key: &str, number: usize) -> Option<Range<usize>> {
        let (places, whole) = match section {
            Section::Listener(index) => self.listeners.get(index)?,
            Section::Upstream(index) => self.upstreams.get(index)?,
        };
        let exact = |(name, of, _): &&(&str, usize, _)| *name == key && *of == number;
        let exact = places.values.iter().find(exact).map(|(_, _, place)| place.clone());
        exact.or_else(|| places.table.clone()).or_else(|| Some(whole.clone()))
    }
}
