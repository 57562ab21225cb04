//! What is wrong with a configuration, shown where it stands in the file.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::places::{FilePlaces, Section};
use super::values::ValueError;

/// Diagnostics shown at once. More help nobody, since most come from the first ones.
const MAX_SHOWN: usize = 20;

/// How bad a diagnostic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Severity {
    Error,
    Warning,
}

/// One fault, or one doubt.
#[derive(Debug, Clone)]
pub(super) struct Diagnostic {
    severity: Severity,
    title: String,
    /// Bytes of the file; the whole file where `None`.
    span: Option<Range<usize>>,
    label: Option<String>,
    /// Another place that the title speaks of.
    other: Option<(Range<usize>, String)>,
    help: Option<String>,
}

impl Diagnostic {
    pub(super) fn error(title: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            title: title.into(),
            span: None,
            label: None,
            other: None,
            help: None,
        }
    }

    pub(super) fn warning(title: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(title) }
    }

    /// Where it is.
    pub(super) fn at(mut self, span: Range<usize>) -> Self {
        self.span = Some(span);
        self
    }

    /// What the carets say.
    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Another place to look at, and why.
    pub(super) fn see(mut self, span: Range<usize>, why: impl Into<String>) -> Self {
        self.other = Some((span, why.into()));
        self
    }

    /// What to write instead.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(super) fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// Diagnostics of one file, in the order of the file.
#[derive(Debug, Clone)]
pub struct Report {
    name: String,
    text: String,
    diagnostics: Vec<Diagnostic>,
    /// Where things are that may turn out to be wrong.
    places: FilePlaces,
}

impl Report {
    /// `name` is what the file is called in messages, `text` what it holds.
    pub(super) fn new(name: &str, text: &str, mut diagnostics: Vec<Diagnostic>) -> Self {
        sort(&mut diagnostics);
        let places = FilePlaces::default();
        Self { name: name.to_owned(), text: text.to_owned(), diagnostics, places }
    }

    /// The same, with what is needed to [add](Self::add_fault) to it.
    pub(super) fn with_places(self, places: FilePlaces) -> Self {
        Self { places, ..self }
    }

    /// Adds what has turned out to be wrong with a file that `key` names in the `tls` table of
    /// `section`, in the certificate of this number where there are several. `help` says what to write
    /// or do instead.
    pub fn add_fault(&mut self, section: Section, key: &str, number: usize, fault: ValueError) {
        self.add(Diagnostic::error(fault.wrong()).help(fault.help()), section, key, number);
    }

    /// The same for what may be meant and is doubtful.
    pub fn add_doubt(&mut self, section: Section, key: &str, number: usize, doubt: ValueError) {
        self.add(Diagnostic::warning(doubt.wrong()).help(doubt.help()), section, key, number);
    }

    fn add(&mut self, diagnostic: Diagnostic, section: Section, key: &str, number: usize) {
        let place = self.places.find(section, key, number);
        self.diagnostics.push(match place {
            Some(place) => diagnostic.at(place),
            None => diagnostic,
        });
        sort(&mut self.diagnostics);
    }

    /// Whether there is more in it than doubts.
    pub fn has_faults(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    /// The text to show, coloured for a terminal or plain; ends in a newline.
    pub fn render(&self, coloured: bool) -> String {
        let renderer = if coloured { Renderer::styled() } else { Renderer::plain() };
        let mut shown = String::new();
        for diagnostic in self.diagnostics.iter().take(MAX_SHOWN) {
            shown.push_str(&self.render_one(diagnostic, &renderer));
            shown.push_str("\n\n");
        }
        shown.push_str(&self.summary());
        shown.push('\n');
        shown
    }

    fn render_one(&self, diagnostic: &Diagnostic, renderer: &Renderer) -> String {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let group = Group::with_title(level.primary_title(&diagnostic.title));
        let mut group = match &diagnostic.span {
            None => group.element(Origin::path(&self.name)),
            Some(span) => {
                let place = AnnotationKind::Primary.span(self.within_a_line(span));
                let mut snippet = Snippet::source(&self.text)
                    .path(&self.name)
                    .annotation(place.label(diagnostic.label.as_deref()));
                if let Some((span, why)) = &diagnostic.other {
                    let place = AnnotationKind::Context.span(self.within_a_line(span));
                    snippet = snippet.annotation(place.label(why));
                }
                group.element(snippet)
            }
        };
        if let Some(help) = &diagnostic.help {
            group = group.element(Level::HELP.message(help));
        }
        renderer.render(&[group])
    }

    /// The part of `span` on its first line, on borders of characters, as rendering needs it.
    fn within_a_line(&self, span: &Range<usize>) -> Range<usize> {
        let start = self.text.floor_char_boundary(span.start);
        let end = self.text.ceil_char_boundary(span.end).max(start);
        match self.text[start..end].find(['\r', '\n']) {
            Some(length) => start..start + length,
            None => start..end,
        }
    }

    /// `FILE: 2 errors, 1 warning`.
    fn summary(&self) -> String {
        let errors = self.diagnostics.iter().filter(|d| d.is_error()).count();
        let warnings = self.diagnostics.len() - errors;
        let count = |number: usize, what: &str| match number {
            0 => None,
            1 => Some(format!("1 {what}")),
            _ => Some(format!("{number} {what}s")),
        };
        let counts: Vec<_> =
            [count(errors, "error"), count(warnings, "warning")].into_iter().flatten().collect();
        let more = match self.diagnostics.len() {
            all if all > MAX_SHOWN => format!(", the first {MAX_SHOWN} shown"),
            _ => String::new(),
        };
        format!("{}: {}{more}", self.name, counts.join(", "))
    }
}

/// What has no place of its own speaks of the file as a whole and comes last.
fn sort(diagnostics: &mut [Diagnostic]) {
    diagnostics.sort_by_key(|d| d.span.as_ref().map_or(usize::MAX, |span| span.start));
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(false).trim_end())
    }
}

/// Why there is no configuration: every fault that was found, each with its place in the file and
/// what to write instead.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub(super) Report);

impl ConfigError {
    /// The faults, to be rendered.
    pub fn report(&self) -> &Report {
        &self.0
    }

    /// The file as a whole cannot be read.
    pub(super) fn unreadable(name: &str, title: impl Into<String>, help: &str) -> Self {
        Self(Report::new(name, "", vec![Diagnostic::error(title).help(help)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_fault_is_shown_where_it_stands() {
        let text = "a = 1\nbb = 2\n";
        let fault = Diagnostic::error("unknown key").at(6..8).label("here").help("write `b`");
        let report = Report::new("x.toml", text, vec![fault.see(0..1, "the other")]);
        assert_eq!(
            report.to_string(),
            "\
error: unknown key
 --> x.toml:2:1
  |
1 | a = 1
  | - the other
2 | bb = 2
  | ^^ here
  |
  = help: write `b`

x.toml: 1 error"
        );
    }

    #[test]
    fn floods_are_cut_short() {
        let faults = vec![Diagnostic::error("wrong"); MAX_SHOWN + 1];
        let report = Report::new("x.toml", "", faults).to_string();
        assert!(report.ends_with("x.toml: 21 errors, the first 20 shown"), "{report}");
        assert_eq!(report.matches("error: wrong").count(), MAX_SHOWN);
    }

    proptest! {
        #[test]
        fn any_span_of_any_text_renders(
            text in "[ab\\t\\r\\näß\u{200b}\u{202e}\u{7}漢]{0,20}",
            start in 0..40usize,
            length in 0..40usize,
            other in 0..40usize,
        ) {
            let fault = Diagnostic::error("x").at(start..start + length).see(other..start, "y");
            for coloured in [false, true] {
                let _ = Report::new("f", &text, vec![fault.clone()]).render(coloured);
            }
        }
    }
}
