//! Parses settings from text, by type, and collects all errors.

use std::{fmt::Display, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use secrecy::{ExposeSecret, SecretString};

use crate::db::ConnInfo;

const MIN_TTL: Duration = Duration::from_secs(1);
const MAX_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// All errors in the settings, one per line.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigErrors(pub(crate) Vec<String>);

/// Returns both values, or the errors of both.
pub(crate) fn zip_errors<A, B>(
    first: Result<A, ConfigErrors>,
    second: Result<B, ConfigErrors>,
) -> Result<(A, B), ConfigErrors> {
    match (first, second) {
        (Ok(first), Ok(second)) => Ok((first, second)),
        (Err(ConfigErrors(mut errors)), Err(ConfigErrors(more))) => {
            errors.extend(more);
            Err(ConfigErrors(errors))
        }
        (Err(errors), _) | (_, Err(errors)) => Err(errors),
    }
}

/// Collects errors while settings are parsed. A setting with an error gets a placeholder as its value.
#[derive(Default)]
pub(super) struct Parser {
    errors: Vec<String>,
}

impl Parser {
    /// Returns the result of `parse`, or all errors that were added meanwhile.
    pub(super) fn run<T>(parse: impl FnOnce(&mut Self) -> T) -> Result<T, ConfigErrors> {
        let mut parser = Self::default();
        let value = parse(&mut parser);
        if parser.errors.is_empty() { Ok(value) } else { Err(ConfigErrors(parser.errors)) }
    }

    pub(super) fn error(&mut self, name: &str, message: impl Display) {
        self.errors.push(format!("{name} {message}"));
    }

    /// Returns a secret from its value or its file. An empty value or file name counts as not set.
    pub(super) fn secret(&mut self, name: &str, value: Option<&str>, file: Option<&PathBuf>) -> Option<SecretString> {
        let value = value.filter(|text| !text.is_empty());
        let file = file.filter(|path| !path.as_os_str().is_empty());
        match (value, file) {
            (Some(_), Some(_)) => {
                self.error(name, format!("and {name}_FILE are both set"));
                None
            }
            (Some(text), None) => Some(text.to_owned().into()),
            (None, Some(path)) => match std::fs::read_to_string(path) {
                Ok(text) if text.trim().is_empty() => {
                    self.error(&format!("{name}_FILE"), format!("{} is empty", path.display()));
                    None
                }
                Ok(text) => Some(text.trim().to_owned().into()),
                Err(error) => {
                    self.error(&format!("{name}_FILE"), format!("{} cannot be read: {error}", path.display()));
                    None
                }
            },
            (None, None) => None,
        }
    }

    /// Parses connection info. A missing URL gives the placeholder but no error.
    pub(super) fn conn_info(
        &mut self,
        name: &str,
        url: Option<&SecretString>,
        parse: fn(&str) -> Result<ConnInfo, String>,
    ) -> ConnInfo {
        let parsed = url.map(|url| parse(url.expose_secret()));
        if let Some(Err(error)) = &parsed {
            self.error(name, error);
        }
        parsed.and_then(Result::ok).unwrap_or_else(ConnInfo::unreachable)
    }

    pub(super) fn socket_addr(&mut self, name: &str, text: &str) -> SocketAddr {
        text.trim().parse().unwrap_or_else(|_| {
            self.error(name, format!("is \"{text}\", which is not an address with a port, like 0.0.0.0:8000"));
            SocketAddr::from(([127, 0, 0, 1], 0))
        })
    }

    pub(super) fn number<T: FromStr + PartialOrd + Display + Copy>(
        &mut self,
        name: &str,
        text: &str,
        min: T,
        max: T,
    ) -> T {
        match text.trim().parse() {
            Ok(number) if number >= min && number <= max => number,
            _ => {
                self.error(name, format!("is \"{text}\", which is not a number from {min} to {max}"));
                min
            }
        }
    }

    /// Parses a number; `auto` gives `None`.
    pub(super) fn number_or_auto<T: FromStr + PartialOrd + Display + Copy>(
        &mut self,
        name: &str,
        text: &str,
        min: T,
        max: T,
    ) -> Option<T> {
        let is_auto = text.trim().eq_ignore_ascii_case("auto");
        (!is_auto).then(|| self.number(name, text, min, max))
    }

    /// Parses a number of threads. 0 means one less than the number of cores, at least one.
    pub(super) fn threads(&mut self, name: &str, text: &str) -> usize {
        match self.number(name, text, 0, 1024) {
            0 => std::thread::available_parallelism().map_or(1, usize::from).saturating_sub(1).max(1),
            threads => threads,
        }
    }

    pub(super) fn duration(&mut self, name: &str, text: &str) -> Duration {
        humantime::parse_duration(text.trim()).unwrap_or_else(|_| {
            self.error(name, format!("is \"{text}\", which is not a duration like 500ms, 30s, 1h or 14d"));
            Duration::ZERO
        })
    }

    /// Parses a token or session lifetime.
    pub(super) fn ttl(&mut self, name: &str, text: &str) -> Duration {
        let ttl = self.duration(name, text);
        if ttl < MIN_TTL || ttl > MAX_TTL {
            self.error(name, format!("is \"{text}\", which is not between 1s and 10 years"));
        }
        ttl
    }

    pub(super) fn one_of<T: Copy>(&mut self, name: &str, text: &str, choices: &[(&str, T)]) -> T {
        let text = text.trim();
        if let Some((_, value)) = choices.iter().find(|(choice, _)| choice.eq_ignore_ascii_case(text)) {
            *value
        } else {
            let choices_text = choices.iter().map(|(choice, _)| *choice).collect::<Vec<_>>().join(", ");
            self.error(name, format!("is \"{text}\", which is none of {choices_text}"));
            choices[0].1
        }
    }
}
