//! Which certificate for whom.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::Loaded;
use super::names::after_first_label;

/// Certificates for one name, at least one: nearly always one, and of several that have the name the
/// first with a kind of key that the client knows (RSA beside ECDSA).
pub(super) type Choice = Vec<Arc<Loaded>>;

/// The certificates of a listener, by the names in them.
#[derive(Debug)]
pub(super) struct Certificates {
    /// For names that none of them has, and where none is asked for.
    default: Arc<Choice>,
    exact: HashMap<Box<str>, Arc<Choice>>,
    /// By what follows the first label.
    wildcards: HashMap<Box<str>, Arc<Choice>>,
}

impl Certificates {
    /// Of `loaded`, whose first is the default; with it those for just the same names.
    pub(super) fn new(loaded: &[Arc<Loaded>]) -> Self {
        let first = loaded.first();
        let alike = loaded.iter().filter(|l| first.is_some_and(|first| first.names == l.names));
        let default = Arc::new(alike.cloned().collect());
        let exact = by_name(loaded, |loaded| &loaded.names.exact);
        let wildcards = by_name(loaded, |loaded| &loaded.names.wildcards);
        Self { default, exact, wildcards }
    }

    /// Those for `name`: exactly, else by a wildcard, else the default.
    pub(super) fn select(&self, name: Option<&str>) -> &Arc<Choice> {
        let Some(name) = name.map(lower_case) else { return &self.default };
        let name = name.strip_suffix('.').unwrap_or(&name);
        let wildcard = || after_first_label(name).and_then(|rest| self.wildcards.get(rest));
        self.exact.get(name).or_else(wildcard).unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let choice = self.select(client_hello.server_name());
        let known = client_hello.signature_schemes();
        let fits = |loaded: &&Arc<Loaded>| loaded.certified.key.choose_scheme(known).is_some();
        let chosen = choice.iter().find(fits).or_else(|| choice.first());
        chosen.map(|loaded| Arc::clone(&loaded.certified))
    }
}

/// `loaded` by each of its `names`.
fn by_name(
    loaded: &[Arc<Loaded>],
    names: fn(&Loaded) -> &[Box<str>],
) -> HashMap<Box<str>, Arc<Choice>> {
    let mut found: HashMap<Box<str>, Choice> = HashMap::new();
    for one in loaded {
        for name in names(one) {
            let choice = found.entry(name.clone()).or_default();
            // One with the same name twice.
            if !choice.last().is_some_and(|last| Arc::ptr_eq(last, one)) {
                choice.push(Arc::clone(one));
            }
        }
    }
    found.into_iter().map(|(name, choice)| (name, Arc::new(choice))).collect()
}

/// Most clients ask in lower case.
fn lower_case(name: &str) -> Cow<'_, str> {
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => Cow::Borrowed(name),
    }
}
