//! Reads settings from their texts, each by its kind, and gathers all that is wrong with them.

use std::{fmt::Display, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use secrecy::{ExposeSecret, SecretString};

use crate::db::ConnInfo;

/// All that is wrong with the settings.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigErrors(pub(crate) Vec<String>);

/// Both, or all that is wrong with either.
pub(crate) fn both<A, B>(one: Result<A, ConfigErrors>, other: Result<B, ConfigErrors>) -> Result<(A, B), ConfigErrors> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (Err(ConfigErrors(mut faults)), Err(ConfigErrors(more))) => {
            faults.extend(more);
            Err(ConfigErrors(faults))
        }
        (Err(faults), _) | (_, Err(faults)) => Err(faults),
    }
}

/// Reads settings and gathers what is wrong with them.
#[derive(Default)]
pub(crate) struct Parser(Vec<String>);

impl Parser {
    pub(crate) fn fault(&mut self, name: &str, words: impl Display) {
        self.0.push(format!("{name} {words}"));
    }

    pub(crate) fn finish<T>(self, value: T) -> Result<T, ConfigErrors> {
        if self.0.is_empty() { Ok(value) } else { Err(ConfigErrors(self.0)) }
    }

    /// A secret, given as it is or in a file; empty counts as not given.
    pub(crate) fn secret(&mut self, name: &str, given: Option<&str>, file: Option<&PathBuf>) -> Option<SecretString> {
        let given = given.filter(|text| !text.is_empty());
        let file = file.filter(|path| !path.as_os_str().is_empty());
        match (given, file) {
            (Some(_), Some(_)) => {
                self.fault(name, format!("and {name}_FILE are both given"));
                None
            }
            (Some(text), None) => Some(text.to_owned().into()),
            (None, Some(path)) => match std::fs::read_to_string(path) {
                Ok(text) if text.trim().is_empty() => {
                    self.fault(&format!("{name}_FILE"), format!("{} is empty", path.display()));
                    None
                }
                Ok(text) => Some(text.trim().to_owned().into()),
                Err(error) => {
                    self.fault(&format!("{name}_FILE"), format!("{} cannot be read: {error}", path.display()));
                    None
                }
            },
            (None, None) => None,
        }
    }

    /// A database's address; one that is no address is a fault, and one that is not given leads nowhere.
    pub(crate) fn database(
        &mut self,
        name: &str,
        url: Option<&SecretString>,
        parse: fn(&str) -> Result<ConnInfo, String>,
    ) -> ConnInfo {
        let parsed = url.map(|url| parse(url.expose_secret()));
        if let Some(Err(fault)) = &parsed {
            self.fault(name, fault);
        }
        parsed.and_then(Result::ok).unwrap_or_else(ConnInfo::nowhere)
    }

    pub(crate) fn address(&mut self, name: &str, text: &str) -> SocketAddr {
        text.trim().parse().unwrap_or_else(|_| {
            self.fault(name, format!("is \"{text}\", which is not an address with a port, like 0.0.0.0:8000"));
            SocketAddr::from(([127, 0, 0, 1], 0))
        })
    }

    pub(crate) fn number<T: FromStr + PartialOrd + Display + Copy>(
        &mut self,
        name: &str,
        text: &str,
        min: T,
        max: T,
    ) -> T {
        match text.trim().parse() {
            Ok(number) if number >= min && number <= max => number,
            _ => {
                self.fault(name, format!("is \"{text}\", which is not a number from {min} to {max}"));
                min
            }
        }
    }

    /// A number of threads; 0 stands for one less than there are cores, at least one.
    pub(crate) fn threads(&mut self, name: &str, text: &str) -> usize {
        match self.number(name, text, 0, 1024) {
            0 => std::thread::available_parallelism().map_or(1, usize::from).saturating_sub(1).max(1),
            threads => threads,
        }
    }

    pub(crate) fn duration(&mut self, name: &str, text: &str) -> Duration {
        humantime::parse_duration(text.trim()).unwrap_or_else(|_| {
            self.fault(name, format!("is \"{text}\", which is not a time like 500ms, 30s, 1h or 14d"));
            Duration::ZERO
        })
    }

    /// The life of a token: whole seconds, at least one.
    pub(crate) fn life(&mut self, name: &str, text: &str) -> Duration {
        let life = self.duration(name, text);
        let longest = Duration::from_secs(10 * 365 * 24 * 3600);
        if life < Duration::from_secs(1) || life > longest {
            self.fault(name, format!("is \"{text}\", which is not from 1s to 10 years"));
        }
        life
    }

    pub(crate) fn word<T: Copy>(&mut self, name: &str, text: &str, words: &[(&str, T)]) -> T {
        let text = text.trim();
        if let Some((_, value)) = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)) {
            *value
        } else {
            let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.fault(name, format!("is \"{text}\", which is none of {}", all.join(", ")));
            words[0].1
        }
    }
}
