//! Walks a parsed TOML document with its places, and collects every fault on the way instead of
//! stopping at the first.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::env::{Env, expand};
use super::report::Diagnostic;
use super::values::{ValueError, list, nearest, parse_path, parse_timeout, quote};

/// What a file is read with, and what was found wrong so far.
pub(super) struct Reader<'a> {
    text: &'a str,
    /// What relative paths are relative to.
    base: &'a Path,
    env: Env<'a>,
    found: RefCell<Vec<Diagnostic>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str, base: &'a Path, env: Env<'a>) -> Self {
        Self { text, base, env, found: RefCell::default() }
    }

    /// Adds a fault or a doubt.
    pub(super) fn say(&self, diagnostic: Diagnostic) {
        self.found.borrow_mut().push(diagnostic);
    }

    /// Everything said.
    pub(super) fn into_found(self) -> Vec<Diagnostic> {
        self.found.into_inner()
    }
}

/// A table, of which each key is asked for once; what was never asked for is unknown.
pub(super) struct Table<'r> {
    reader: &'r Reader<'r>,
    /// As its header shows it, `[upstreams.api]`; `None` at the top of the file.
    name: Option<String>,
    span: Range<usize>,
    entries: &'r DeTable<'r>,
    known: Vec<&'static str>,
}

impl<'r> Table<'r> {
    /// The whole file.
    pub(super) fn root(reader: &'r Reader<'r>, document: &'r Spanned<DeTable<'r>>) -> Self {
        let entries = document.get_ref();
        Self { reader, name: None, span: document.span(), entries, known: Vec::new() }
    }

    /// Where it is: its header, or its braces.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The value of `key`, where there is one.
    pub(super) fn get(&mut self, key: &'static str) -> Option<Value<'r>> {
        self.known.push(key);
        let value = self.entries.get(key)?;
        Some(Value { reader: self.reader, name: key.to_owned(), value })
    }

    /// The value of `key`; its absence is a fault, with `example` as what to write.
    pub(super) fn require(&mut self, key: &'static str, example: &str) -> Option<Value<'r>> {
        let value = self.get(key);
        if value.is_none() {
            let place = self.name.as_deref().unwrap_or("the file");
            self.reader.say(
                Diagnostic::error(format!("{place} has no `{key}`"))
                    .at(self.span())
                    .help(format!("write `{key} = {example}`")),
            );
        }
        value
    }

    /// Where the value of `key` is, where there is one.
    pub(super) fn place(&self, key: &str) -> Option<Range<usize>> {
        self.entries.get(key).map(Spanned::span)
    }

    /// What `parse` makes of the string `key`, where there is one.
    pub(super) fn text<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, ValueError>,
    ) -> Option<T> {
        self.get(key)?.text(parse).map(Spanned::into_inner)
    }

    /// What the string `key` says, where there is one.
    pub(super) fn parsed<T: FromStr<Err = ValueError>>(&mut self, key: &'static str) -> Option<T> {
        self.text(key, str::parse)
    }

    /// The path `key`, where there is one; not relative to anything but this process any more.
    pub(super) fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        let base = self.reader.base;
        self.text(key, |text| Ok(base.join(parse_path(text)?)))
    }

    /// The boolean `key`, where there is one.
    pub(super) fn boolean(&mut self, key: &'static str) -> Option<bool> {
        self.get(key)?.boolean()
    }

    /// The whole number `key` within `range`, where there is one.
    pub(super) fn count<T>(&mut self, key: &'static str, range: RangeInclusive<T>) -> Option<T>
    where
        T: Copy + Into<i64> + TryFrom<i64>,
    {
        let range = (*range.start()).into()..=(*range.end()).into();
        self.get(key)?.integer(range).and_then(|number| number.try_into().ok())
    }

    /// The number `key` within `range`, where there is one.
    pub(super) fn number(&mut self, key: &'static str, range: RangeInclusive<f64>) -> Option<f64> {
        self.get(key)?.number(range)
    }

    /// The duration `key`, which is not zero, where there is one.
    pub(super) fn timeout(&mut self, key: &'static str) -> Option<Duration> {
        self.get(key)?.duration(parse_timeout)
    }

    /// The tables `[[key]]`; none where the key is missing.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<Table<'r>> {
        let name = format!("[[{key}]]");
        let items = self
            .get(key)
            .and_then(|v| v.items_or(&format!("write `{name}` above the keys of each")));
        items.into_iter().flatten().filter_map(|item| item.table(&name)).collect()
    }

    /// Whether `key` is missing or has nothing in it.
    pub(super) fn lacks(&self, key: &str) -> bool {
        match self.entries.get(key).map(Spanned::get_ref) {
            None => true,
            Some(DeValue::Array(items)) => items.is_empty(),
            Some(DeValue::Table(entries)) => entries.is_empty(),
            Some(_) => false,
        }
    }

    /// Every key and value in the order of the file, for tables whose keys are names.
    pub(super) fn entries(&self) -> Vec<(&'r Spanned<Cow<'r, str>>, Value<'r>)> {
        let value = |name: &str, value| Value { reader: self.reader, name: name.to_owned(), value };
        let mut entries: Vec<_> =
            self.entries.iter().map(|(key, of)| (key, value(key.get_ref(), of))).collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        entries
    }

    /// Says which keys nobody asked for.
    pub(super) fn finish(self) {
        for (key, _) in
            self.entries.iter().filter(|(key, _)| !self.known.contains(&key.as_ref().as_ref()))
        {
            let place = self.name.as_ref().map_or_else(String::new, |name| format!(" in {name}"));
            let help = match nearest(key.get_ref(), self.known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", list(&self.known)),
            };
            let title = format!("unknown key {}{place}", quote(key.get_ref()));
            self.reader.say(Diagnostic::error(title).at(key.span()).help(help));
        }
    }
}

/// A value and what it is called.
pub(super) struct Value<'r> {
    reader: &'r Reader<'r>,
    name: String,
    value: &'r Spanned<DeValue<'r>>,
}

impl<'r> Value<'r> {
    pub(super) fn span(&self) -> Range<usize> {
        self.value.span()
    }

    pub(super) fn is_table(&self) -> bool {
        self.value.get_ref().is_table()
    }

    pub(super) fn is_integer(&self) -> bool {
        self.value.get_ref().is_integer()
    }

    /// Whether it turns something off.
    pub(super) fn is_false(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::Boolean(false))
    }

    /// Whether it turns something on.
    pub(super) fn is_true(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::Boolean(true))
    }

    /// What `parse` makes of a string, once variables are put in.
    pub(super) fn text<T>(
        &self,
        parse: impl FnOnce(&str) -> Result<T, ValueError>,
    ) -> Option<Spanned<T>> {
        let DeValue::String(text) = self.value.get_ref() else {
            return self.mismatch("a string", "write it in double quotes");
        };
        let text = self.expanded(text)?;
        match parse(&text) {
            Ok(value) => Some(Spanned::new(self.span(), value)),
            Err(error) => self.refuse(error.wrong(), error.help()),
        }
    }

    /// What `parse` makes of a duration. A bare number is a fault of its own, because it could
    /// mean seconds as well as milliseconds.
    pub(super) fn duration<T>(
        &self,
        parse: impl FnOnce(&str) -> Result<T, ValueError>,
    ) -> Option<T> {
        let number = match self.value.get_ref() {
            DeValue::Integer(number) => number.as_str(),
            DeValue::Float(number) => number.as_str(),
            _ => return self.text(parse).map(Spanned::into_inner),
        };
        let title = format!("{} takes a duration with its unit, not a number", quote(&self.name));
        self.refuse(title, format!("write `\"{number}s\"` or `\"{number}ms\"`"))
    }

    /// A whole number within `range`.
    pub(super) fn integer(&self, range: RangeInclusive<i64>) -> Option<i64> {
        let help = format!("write a number from {} to {}", range.start(), range.end());
        let DeValue::Integer(number) = self.value.get_ref() else {
            return self.mismatch("a whole number", &help);
        };
        match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) if range.contains(&number) => Some(number),
            _ => self.refuse(format!("{} cannot be {number}", quote(&self.name)), help),
        }
    }

    /// A number within `range`, whole or not.
    pub(super) fn number(&self, range: RangeInclusive<f64>) -> Option<f64> {
        let help = format!("write a number from {} to {}", range.start(), range.end());
        let (shown, number) = match self.value.get_ref() {
            DeValue::Float(number) => (number.to_string(), number.as_str().parse().ok()),
            DeValue::Integer(number) => {
                let whole = i64::from_str_radix(number.as_str(), number.radix()).ok();
                // What is lost beyond 2^53 is far outside of every range.
                (number.to_string(), whole.map(|whole| whole as f64))
            }
            _ => return self.mismatch("a number", &help),
        };
        match number {
            Some(number) if range.contains(&number) => Some(number),
            _ => self.refuse(format!("{} cannot be {shown}", quote(&self.name)), help),
        }
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        match self.value.get_ref() {
            DeValue::Boolean(value) => Some(*value),
            _ => self.mismatch("true or false", "write `true` or `false`, without quotes"),
        }
    }

    /// The values of an array. `example` is one that could be written.
    pub(super) fn items(&self, example: &str) -> Option<Vec<Self>> {
        self.items_or(&format!("write `{} = [{example}]`", self.name))
    }

    fn items_or(&self, help: &str) -> Option<Vec<Self>> {
        let DeValue::Array(items) = self.value.get_ref() else {
            return self.mismatch("a list", help);
        };
        let item = |value| Self { reader: self.reader, name: self.name.clone(), value };
        Some(items.iter().map(item).collect())
    }

    /// The table, to be called `name`, as its header shows it.
    pub(super) fn table(&self, name: impl Into<String>) -> Option<Table<'r>> {
        let name = name.into();
        let help = format!("write {} above its keys", quote(&name));
        self.table_or(name, "a table", &help)
    }

    /// The table that belongs to a key. `expected` says what the key takes, `example` what could
    /// be written.
    pub(super) fn inner(&self, expected: &str, example: &str) -> Option<Table<'r>> {
        let help = format!("write `{} = {example}`", self.name);
        self.table_or(format!("`{}`", self.name), expected, &help)
    }

    /// The table, to be called `name`. `expected` says what is taken, `help` what to write.
    pub(super) fn table_or(&self, name: String, expected: &str, help: &str) -> Option<Table<'r>> {
        let (reader, span, known) = (self.reader, self.span(), Vec::new());
        match self.value.get_ref() {
            DeValue::Table(entries) => {
                Some(Table { reader, name: Some(name), span, entries, known })
            }
            _ => self.mismatch(expected, help),
        }
    }

    fn expanded(&self, text: &'r str) -> Option<Cow<'r, str>> {
        let error = match expand(text, self.reader.env) {
            Ok(text) => return Some(text),
            Err(error) => error,
        };
        // Escapes make a string's value differ from its source, so the reference is looked up.
        let span = self.span();
        let written = self.reader.text.get(span.clone()).unwrap_or_default();
        let span = match written.find(&error.reference) {
            Some(at) => span.start + at..span.start + at + error.reference.len(),
            None => span,
        };
        self.reader.say(Diagnostic::error(error.wrong).at(span).help(error.help));
        None
    }

    /// Says that the value is of another type than `expected`.
    pub(super) fn mismatch<T>(&self, expected: &str, help: &str) -> Option<T> {
        let found = match self.value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) | DeValue::Float(_) => "a number",
            DeValue::Boolean(true) => "`true`",
            DeValue::Boolean(false) => "`false`",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.refuse(format!("{} takes {expected}, not {found}", quote(&self.name)), help)
    }

    /// Says that the value cannot be.
    pub(super) fn refuse<T>(&self, title: impl Into<String>, help: impl Into<String>) -> Option<T> {
        self.reader.say(Diagnostic::error(title).at(self.span()).help(help));
        None
    }
}
