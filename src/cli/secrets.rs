//! `secrets`: random secrets for the containers of docker-compose.yml, drawn where they are missing, a folder a reader.
//!
//! Each folder is a volume that only its one container sees; the files in it may be read by whatever user that runs as.
//! What was drawn stands in one file; the others that it appears in are written anew each time.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::rand::{SecureRandom, SystemRandom};

/// Where they stand, and where the servers that they are for are.
#[derive(Debug, clap::Args)]
pub(crate) struct SecretsArgs {
    /// The folder of folders
    #[arg(long, default_value = "/secrets")]
    dir: PathBuf,
    /// Print this one, like demo/user_password, and make none
    #[arg(long)]
    print: Option<PathBuf>,
    /// Draw this one anew, like api/database_password; then recreate the containers that read it
    #[arg(long)]
    renew: Option<PathBuf>,
    /// Change the secret that signs tokens without logging anybody out, in three steps with a restart of all servers after
    /// each: announce a new one, turn to it, retire the old one (when the last session that began under it is over: `SESSION_TTL`)
    #[arg(long)]
    jwt: Option<JwtStep>,
    /// Host of PostgreSQL
    #[arg(long, default_value = "db")]
    database_host: String,
    /// Host of Redis
    #[arg(long, default_value = "cache")]
    redis_host: String,
}

/// A step on the way to another JWT secret.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum JwtStep {
    /// A new one verifies too.
    Announce,
    /// It signs; the old one verifies.
    Permit,
    /// It is alone.
    Retire,
}

/// What was drawn, each in a file of its own; all else is made of these.
const DRAWN: [&str; 6] = [
    "db/owner_password",
    "api/database_password",
    "api/redis_password",
    "api/jwt_secret",
    "demo/user_password",
    "demo/staff_password",
];

/// Makes what is missing, or prints one.
pub(crate) fn secrets(args: &SecretsArgs) -> anyhow::Result<()> {
    if let Some(name) = &args.print {
        let path = args.dir.join(name);
        super::output::print_line(fs::read_to_string(&path).with_context(|| path.display().to_string())?.trim())?;
        return Ok(());
    }
    let folder = Folder(&args.dir);
    if let Some(name) = &args.renew {
        let name = name.to_str().filter(|name| DRAWN.contains(name)).with_context(|| format!("one of {DRAWN:?}"))?;
        folder.write(name, &random()?)?;
    }
    let owner = folder.random("db/owner_password")?;
    let shop = folder.random("api/database_password")?;
    let redis = folder.random("api/redis_password")?;
    let signing = folder.random("api/jwt_secret")?;
    if let Some(step) = args.jwt {
        let (first, second) = signing.split_once(',').map_or((&*signing, None), |(first, rest)| (first, Some(rest)));
        let next = match (step, second) {
            (JwtStep::Announce, None) => format!("{first},{}", random()?),
            (JwtStep::Permit, Some(second)) => format!("{second},{first}"),
            (JwtStep::Retire, Some(_)) => first.to_owned(),
            (JwtStep::Announce, Some(_)) => anyhow::bail!("two secrets are in force: turn or retire first"),
            (_, None) => anyhow::bail!("one secret is in force: announce another one first"),
        };
        folder.write("api/jwt_secret", &next)?;
    }
    folder.random("demo/user_password")?;
    folder.random("demo/staff_password")?;

    let (database, cache) = (&args.database_host, &args.redis_host);
    let serving = format!("postgres://testshop_api:{shop}@{database}:5432/testshop");
    folder.write("owner/database_url", &format!("postgres://testshop:{owner}@{database}:5432/testshop"))?;
    folder.write("owner/api_database_url", &serving)?;
    folder.write("api/database_url", &serving)?;
    folder.write("api/redis_url", &format!("redis://testshop:{redis}@{cache}:6379/0"))?;
    // the shop may touch its own keys; whoever has no password may ask whether the server lives, and nothing else
    let may = "~testshop:* &* +@all -@admin -@dangerous";
    folder.write(
        "cache/users.acl",
        &format!("user default on nopass resetkeys -@all +ping\nuser testshop on >{redis} {may}\n"),
    )?;
    // for those who put PgBouncer between
    folder.write("api/pooled_database_url", &serving.replace(&format!("@{database}:5432"), "@pooler:6432"))?;
    folder.write("pooler/userlist.txt", &format!("\"testshop_api\" \"{shop}\"\n"))?;
    super::output::print_line(format!("secrets are in {}", args.dir.display()))?;
    Ok(())
}

struct Folder<'a>(&'a Path);

impl Folder<'_> {
    /// What stands in this file; if it is not there, something random, and from then on it is.
    fn random(&self, name: &str) -> anyhow::Result<String> {
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

    /// Whole or not at all.
    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.0.join(name);
        let folder = path.parent().context("a secret stands in a folder")?;
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let mut file = tempfile::NamedTempFile::new_in(folder).with_context(|| folder.display().to_string())?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o444))?;
        file.persist(&path).with_context(|| path.display().to_string())?;
        Ok(())
    }
}

/// 256 random bits, in letters that need no quoting in a URL.
fn random() -> anyhow::Result<String> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow::anyhow!("this machine gives no random bytes"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
