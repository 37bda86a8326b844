//! `seed` and `export`: the catalogue without HTTP.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use testshop::{
    auth::Passwords,
    config::{DatabaseArgs, PasswordArgs},
    products::{
        self,
        export::{Format, Place},
        snapshot::{Snapshot, Wanted},
    },
};

use super::accounts::PasswordSource;

fn progress(length: u64, what: &'static str) -> ProgressBar {
    let style = "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}";
    let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style).with_message(what)
}

/// How much `seed` adds.
#[derive(Debug, clap::Args)]
pub struct SeedArgs {
    /// How many products
    #[arg(long)]
    products: u64,
    /// How many accounts
    #[arg(long, default_value_t = 0)]
    users: u64,
    /// Add no products where there are some already
    #[arg(long)]
    if_empty: bool,
}

/// Adds demo products and accounts.
pub async fn seed(
    database: &DatabaseArgs,
    passwords: &PasswordArgs,
    amount: &SeedArgs,
    password: &PasswordSource,
) -> anyhow::Result<()> {
    let iterations = passwords.iterations()?;
    let mut client = super::open(database)?.dedicated().await?;
    client.batch_execute("set statement_timeout = 0").await?;
    if amount.users > 0 {
        let text = Passwords::start(1, iterations).hash(password.read()?.into()).await?;
        let made = products::seed::users(&client, amount.users, &text).await?;
        println!("added {made} accounts");
    }
    if amount.products == 0 || (amount.if_empty && products::seed::any(&client).await?) {
        return Ok(());
    }
    let began = Instant::now();
    let bar = progress(amount.products, "products");
    products::seed::products(&mut client, amount.products, |done| bar.set_position(done)).await?;
    bar.finish_and_clear();
    println!("added {} products in {:.1?}", amount.products, began.elapsed());
    Ok(())
}

/// Writes the whole catalogue to a file.
pub async fn export(database: &DatabaseArgs, output: &Path, timeout: Duration) -> anyhow::Result<()> {
    let database = super::open(database)?;
    let folder = match output.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    let count: i64 = database.dedicated().await?.query_one("select count(*) from products", &[]).await?.get(0);
    let bar = progress(count.unsigned_abs(), "products");
    let snapshot =
        Snapshot::open(&database, &Wanted::default(), timeout).await.map_err(testshop::error::Error::from)?;
    let is_csv = output.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
    let format = if is_csv { Format::Csv } else { Format::Xlsx };
    let place = Place { folder: folder.clone(), format };
    let made = products::export::make(snapshot, place, (), |done| bar.set_position(done)).await;
    let (_, file) = made.map_err(testshop::error::Error::from)?;
    let mut whole = tempfile::NamedTempFile::new_in(&folder)?;
    io::copy(&mut io::BufReader::new(RewoundFile(file, 0)), &mut whole)?;
    whole.flush()?;
    whole.persist(output)?;
    bar.finish_and_clear();
    println!("wrote {count} products to {}", output.display());
    Ok(())
}

/// Reads a file from its beginning, wherever it was left.
struct RewoundFile(std::fs::File, u64);

impl Read for RewoundFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = std::os::unix::fs::FileExt::read_at(&self.0, buffer, self.1)?;
        self.1 += read as u64;
        Ok(read)
    }
}
