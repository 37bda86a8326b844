//! Settings of passwords, tokens and rate limits.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use secrecy::{ExposeSecret, SecretString};

use super::parser::{ConfigErrors, Parser};

const HEADING: &str = "Accounts";
const MIN_SECRET_BYTES: usize = 32;
/// A stolen token can be used unnoticed for this long.
const MAX_REFRESH_GRACE: Duration = Duration::from_secs(600);

/// The password settings of every subcommand that sets one.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PasswordArgs {
    /// PBKDF2 iterations for new passwords
    #[arg(long, env = "PBKDF2_ITERATIONS", default_value = "600000", help_heading = HEADING)]
    pbkdf2_iterations: String,
}

impl PasswordArgs {
    /// Returns the number of iterations for new passwords.
    pub(crate) fn iterations(&self) -> Result<NonZeroU32, ConfigErrors> {
        Parser::run(|parser| self.parse(parser))
    }

    fn parse(&self, parser: &mut Parser) -> NonZeroU32 {
        let iterations = parser.number("PBKDF2_ITERATIONS", &self.pbkdf2_iterations, 1, 10_000_000);
        NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN)
    }
}

#[derive(Debug, Clone, clap::Args)]
pub(super) struct AccountArgs {
    /// Signs access tokens; at least 32 bytes; several, separated by commas: the first signs, all verify [required]
    #[arg(long, env = "JWT_SECRET", hide_env_values = true, help_heading = HEADING)]
    jwt_secret: Option<String>,
    /// File that contains JWT_SECRET
    #[arg(long, env = "JWT_SECRET_FILE", help_heading = HEADING)]
    jwt_secret_file: Option<PathBuf>,
    /// Access token lifetime
    #[arg(long, env = "ACCESS_TOKEN_TTL", default_value = "1h", help_heading = HEADING)]
    access_token_ttl: String,
    /// Refresh token lifetime
    #[arg(long, env = "REFRESH_TOKEN_TTL", default_value = "14d", help_heading = HEADING)]
    refresh_token_ttl: String,
    /// Time for which a refresh token is accepted again after its first use; 0s: not at all
    #[arg(long, env = "REFRESH_GRACE", default_value = "10s", help_heading = HEADING)]
    refresh_grace: String,
    /// Absolute session lifetime, regardless of refreshes
    #[arg(long, env = "SESSION_TTL", default_value = "90d", help_heading = HEADING)]
    session_ttl: String,
    #[command(flatten)]
    passwords: PasswordArgs,
    /// Threads that hash passwords; 0: one less than the number of cores, at least one
    #[arg(long, env = "PBKDF2_THREADS", default_value = "0", help_heading = HEADING)]
    pbkdf2_threads: String,
    /// Rate limits of login, registration and password change; off only for load tests
    #[arg(long, env = "RATE_LIMIT", default_value = "on", help_heading = HEADING)]
    rate_limit: String,
}

#[derive(Debug, Clone)]
pub(crate) struct AccountSettings {
    /// The first signs, all verify.
    pub(crate) jwt_secrets: Vec<SecretString>,
    pub(crate) access_token_ttl: Duration,
    pub(crate) refresh_token_ttl: Duration,
    /// How long a refresh token is accepted after it has been replaced.
    pub(crate) refresh_grace: Duration,
    /// Absolute lifetime, regardless of refreshes.
    pub(crate) session_ttl: Duration,
    /// For new passwords.
    pub(crate) pbkdf2_iterations: NonZeroU32,
    pub(crate) pbkdf2_threads: usize,
    pub(crate) rate_limit: bool,
}

impl AccountArgs {
    pub(super) fn parse(&self, parser: &mut Parser) -> AccountSettings {
        AccountSettings {
            jwt_secrets: self.jwt_secrets(parser),
            access_token_ttl: parser.ttl("ACCESS_TOKEN_TTL", &self.access_token_ttl),
            refresh_token_ttl: parser.ttl("REFRESH_TOKEN_TTL", &self.refresh_token_ttl),
            refresh_grace: self.refresh_grace(parser),
            session_ttl: parser.ttl("SESSION_TTL", &self.session_ttl),
            pbkdf2_iterations: self.passwords.parse(parser),
            pbkdf2_threads: parser.threads("PBKDF2_THREADS", &self.pbkdf2_threads),
            rate_limit: parser.one_of("RATE_LIMIT", &self.rate_limit, &[("on", true), ("off", false)]),
        }
    }

    fn refresh_grace(&self, parser: &mut Parser) -> Duration {
        let (name, text) = ("REFRESH_GRACE", &self.refresh_grace);
        let grace = parser.duration(name, text);
        if grace > MAX_REFRESH_GRACE {
            parser.error(name, format!("is \"{text}\", which is longer than 10m"));
        }
        grace
    }

    fn jwt_secrets(&self, parser: &mut Parser) -> Vec<SecretString> {
        let name = "JWT_SECRET";
        let Some(text) = parser.secret(name, self.jwt_secret.as_deref(), self.jwt_secret_file.as_ref()) else {
            parser.error(name, format!("is required: at least {MIN_SECRET_BYTES} random bytes"));
            return Vec::new();
        };
        let secrets: Vec<SecretString> =
            text.expose_secret().split(',').map(|secret| secret.trim().to_owned().into()).collect();
        for (number, secret) in secrets.iter().enumerate() {
            let length = secret.expose_secret().len();
            if length < MIN_SECRET_BYTES {
                let which = if secrets.len() > 1 { format!("secret {} ", number + 1) } else { String::new() };
                parser.error(name, format!("{which}has {length} bytes, needs at least {MIN_SECRET_BYTES}"));
            }
        }
        secrets
    }
}
