//! `secrets`: generates the random secrets of docker-compose.yml in one directory per reader.
//!
//! Each directory is a volume that one container mounts. The files in it are world-readable, since that container runs
//! as any user. A generated secret is stored in one file; all other files that contain it are rewritten on each run.
//! A self-signed certificate is generated as well; it is replaced before it expires.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::rand::{SecureRandom, SystemRandom};

use super::{output::print_line, self_signed};

#[derive(Debug, clap::Args)]
pub(crate) struct SecretsArgs {
    /// Directory that contains one directory per reader
    #[arg(long, default_value = "/secrets")]
    dir: PathBuf,
    /// Print this secret, for example demo/user_password, and generate none
    #[arg(long)]
    print: Option<PathBuf>,
    /// Replace this secret, for example api/database_password; then recreate the containers that read it
    #[arg(long)]
    rotate: Option<PathBuf>,
    /// Host names and IP addresses in the self-signed certificate, separated by commas
    #[arg(long, env = "TLS_NAMES", value_delimiter = ',', default_value = "localhost,127.0.0.1,::1")]
    tls_names: Vec<String>,
    /// Replace the secret that signs tokens without ending sessions, in three steps: add, promote, remove. Restart all
    /// servers after each step, and wait for SESSION_TTL before `remove`
    #[arg(long)]
    jwt: Option<JwtStep>,
    /// Host of PostgreSQL
    #[arg(long, default_value = "db")]
    database_host: String,
    /// Host of Redis
    #[arg(long, default_value = "cache")]
    redis_host: String,
}

/// A step of the rotation of `JWT_SECRET`.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum JwtStep {
    /// Add a new secret, which verifies but does not sign
    Add,
    /// Sign with the new secret; the old one still verifies
    Promote,
    /// Remove the old secret
    Remove,
}

/// The generated secrets; all other files are derived from them.
const GENERATED: [&str; 7] = [
    "db/superuser_password",
    "db/owner_password",
    "api/database_password",
    "api/redis_password",
    "api/jwt_secret",
    "demo/user_password",
    "demo/staff_password",
];

const PRIVATE_KEY: &str = "tls/privkey.pem";
/// The certificate and its names, one a line, which belong to the private key.
const CERTIFICATE: &str = "tls/fullchain.pem";
const CERTIFICATE_NAMES: &str = "tls/names";
/// Age at which the self-signed certificate is replaced.
const RENEWAL_AGE: Duration = Duration::from_hours((self_signed::VALIDITY_DAYS - 30).unsigned_abs() as u64 * 24);

/// Generates missing secrets and writes all files, or prints a secret.
pub(crate) fn secrets(args: &SecretsArgs) -> anyhow::Result<()> {
    if let Some(name) = &args.print {
        let path = args.dir.join(name);
        print_line(fs::read_to_string(&path).with_context(|| path.display().to_string())?.trim())?;
        return Ok(());
    }
    let dir = SecretsDir(&args.dir);
    let replaced = args.rotate.as_ref().map(|name| name.to_str().unwrap_or_default());
    match replaced {
        None | Some(PRIVATE_KEY) => {}
        Some(name) if GENERATED.contains(&name) => dir.write(name, &random()?)?,
        Some(_) => bail!("--rotate takes one of {PRIVATE_KEY}, {}", GENERATED.join(", ")),
    }
    for name in GENERATED {
        dir.read_or_generate(name)?;
    }
    if let Some(step) = args.jwt {
        dir.write("api/jwt_secret", &rotate_jwt_secret(&dir.read_or_generate("api/jwt_secret")?, step)?)?;
    }
    dir.write_derived(&args.database_host, &args.redis_host)?;
    let names = args.tls_names.join("\n");
    if replaced == Some(PRIVATE_KEY) || !dir.has_certificate(&names) {
        dir.write_certificate(&args.tls_names)?;
    }
    print_line(format!("secrets are in {}", args.dir.display()))?;
    Ok(())
}

/// Returns the value of `JWT_SECRET` after a step.
fn rotate_jwt_secret(current: &str, step: JwtStep) -> anyhow::Result<String> {
    Ok(match (step, current.split_once(',')) {
        (JwtStep::Add, None) => format!("{current},{}", random()?),
        (JwtStep::Promote, Some((first, second))) => format!("{second},{first}"),
        (JwtStep::Remove, Some((first, _))) => first.to_owned(),
        (JwtStep::Add, Some(_)) => bail!("there are two JWT secrets already: promote or remove one first"),
        (_, None) => bail!("there is only one JWT secret: add another one first"),
    })
}

struct SecretsDir<'a>(&'a Path);

impl SecretsDir<'_> {
    /// Writes the files that are derived from the generated secrets.
    fn write_derived(&self, database_host: &str, redis_host: &str) -> anyhow::Result<()> {
        let owner = self.read_or_generate("db/owner_password")?;
        let api = self.read_or_generate("api/database_password")?;
        let redis = self.read_or_generate("api/redis_password")?;
        let serving_url = format!("postgres://testshop_api:{api}@{database_host}:5432/testshop");
        self.write("owner/database_url", &format!("postgres://testshop:{owner}@{database_host}:5432/testshop"))?;
        self.write("owner/api_database_url", &serving_url)?;
        self.write("api/database_url", &serving_url)?;
        self.write("api/redis_url", &format!("redis://testshop:{redis}@{redis_host}:6379/0"))?;
        // `testshop` has access to its own keys; without a password, only PING is allowed, for the health check
        let rights = "~testshop:* &* +@all -@admin -@dangerous";
        self.write(
            "cache/users.acl",
            &format!("user default on nopass resetkeys -@all +ping\nuser testshop on >{redis} {rights}\n"),
        )?;
        // for deploy/pgbouncer
        let pooled_url = serving_url.replace(&format!("@{database_host}:5432"), "@pooler:6432");
        self.write("api/pooled_database_url", &pooled_url)?;
        self.write("pooler/userlist.txt", &format!("\"testshop_api\" \"{api}\"\n"))
    }

    /// Returns whether there is a self-signed certificate for these names that need not be renewed yet.
    fn has_certificate(&self, names: &str) -> bool {
        let age = fs::metadata(self.0.join(CERTIFICATE)).and_then(|file| file.modified()).map(|time| time.elapsed());
        let stored_names = fs::read_to_string(self.0.join(CERTIFICATE_NAMES));
        matches!(age, Ok(Ok(age)) if age < RENEWAL_AGE) && stored_names.is_ok_and(|stored| stored == names)
    }

    /// Generates a private key and a self-signed certificate.
    fn write_certificate(&self, names: &[String]) -> anyhow::Result<()> {
        let (certificate, key) = self_signed::generate(names).context("TLS_NAMES")?;
        self.write(PRIVATE_KEY, &key)?;
        self.write(CERTIFICATE, &certificate)?;
        self.write(CERTIFICATE_NAMES, &names.join("\n"))
    }

    /// Returns a secret; generates and stores it if its file is missing or empty.
    fn read_or_generate(&self, name: &str) -> anyhow::Result<String> {
        match fs::read_to_string(self.0.join(name)) {
            Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context(name.to_owned()),
            _ => {
                let text = random()?;
                self.write(name, &text)?;
                Ok(text)
            }
        }
    }

    /// Writes a file atomically.
    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.0.join(name);
        let dir = path.parent().context("a secret needs a directory")?;
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        let mut file = tempfile::NamedTempFile::new_in(dir).with_context(|| dir.display().to_string())?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o444))?;
        file.persist(&path).with_context(|| path.display().to_string())?;
        Ok(())
    }
}

/// Returns 256 random bits, encoded so that they need no quoting in a URL.
fn random() -> anyhow::Result<String> {
    let mut bytes = [0; 32];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| anyhow::anyhow!("no random bytes from the operating system"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
