//! What the operator asked for: the typed [model], and the reader that makes it from a file.
//!
//! A file is TOML. It is read in three steps, each of which goes on after a fault, so that all of
//! them are shown at once: the sections key by key (`draft`), what must fit together (`check`),
//! and the `report` that shows each fault in its place. Single values are the same in the file
//! and on the command line ([values], `choices`, [fields], [listen], [url], [pattern]).

mod check;
mod choices;
mod draft;
mod env;
pub mod fields;
mod grpc;
pub mod listen;
pub mod model;
pub mod pattern;
mod places;
mod report;
mod statuses;
mod syntax;
mod table;
pub mod url;
pub mod values;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use toml::de::DeTable;

pub use draft::MAX_WORKERS;
pub use env::Env;
pub use listen::{AdminAddress, DEFAULT_ADMIN, UNIX_CLIENT};
pub use model::*;
pub use places::Section;
pub use report::{ConfigError, Report};

use report::Diagnostic;
use table::Reader;

/// The largest file that is read, in bytes.
pub const MAX_FILE: usize = 1 << 20;

/// Reads the file at `path`, with this process's environment.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    Ok(load_with_doubts(path)?.0)
}

/// [`load`], and what is allowed in the file but probably not meant.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_with_doubts(path: &Path) -> Result<(Config, Report), ConfigError> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| {
            let title = format!("the file cannot be read: {error}");
            ConfigError::unreadable(
                &name,
                title,
                "name a file that is there: `tinylb run -c FILE`, `tinylb check FILE`",
            )
        })?;
    if bytes.len() > MAX_FILE {
        let title = format!("the file is larger than {} KiB", MAX_FILE >> 10);
        return Err(ConfigError::unreadable(&name, title, "is it the configuration?"));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let title = format!("the file is not UTF-8 from byte {}", error.utf8_error().valid_up_to());
        ConfigError::unreadable(&name, title, "save it as UTF-8")
    })?;
    let base = path.parent().unwrap_or(Path::new(""));
    read(&name, base, &text, &|variable| std::env::var(variable).ok())
}

/// Reads `text`, which messages call `name`, with the variables of `env`. Paths in it are relative to
/// the directory that `name` is in.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(name: &str, text: &str, env: Env<'_>) -> Result<Config, ConfigError> {
    Ok(parse_with_doubts(name, text, env)?.0)
}

/// [`parse`], and what is allowed in the text but probably not meant.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse_with_doubts(
    name: &str,
    text: &str,
    env: Env<'_>,
) -> Result<(Config, Report), ConfigError> {
    let base = Path::new(name).parent().unwrap_or(Path::new(""));
    read(name, base, text, env)
}

fn read(
    name: &str,
    base: &Path,
    text: &str,
    env: Env<'_>,
) -> Result<(Config, Report), ConfigError> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(ConfigError(Report::new(name, text, syntax::faults(text, &errors))));
    }
    let reader = Reader::new(text, base, env);
    let (config, places) = check::check(&reader, draft::read(&reader, &document));
    // Doubts about a file with faults may only follow from those.
    let (faults, doubts): (Vec<_>, Vec<_>) =
        reader.into_found().into_iter().partition(Diagnostic::is_error);
    match faults.is_empty() {
        true => Ok((config, Report::new(name, text, doubts).with_places(places))),
        false => Err(ConfigError(Report::new(name, text, faults))),
    }
}
