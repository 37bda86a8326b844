//! `seed`, `export` and `import`: the catalogue without HTTP.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use testshop::{
    auth::Passwords,
    config::{DatabaseArgs, PasswordArgs},
    products::{
        self,
        export::Place,
        format::Format,
        import::{self, Report, Wish},
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
    let place = Place { folder: folder.clone(), format: Format::of_file(output) };
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

/// What `import` is to do with its file.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// The file: CSV if its name ends so, else XLSX
    file: PathBuf,
    /// Tell what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// What a faulty row means: refuse all, or skip it
    #[arg(long, value_enum, default_value_t = OnError::Abort)]
    on_error: OnError,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
    /// The time it may take
    #[arg(long, env = "EXPORT_TIMEOUT", default_value = "1h", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// What a faulty row means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum OnError {
    Abort,
    Skip,
}

/// Makes of the catalogue what a file says.
pub async fn import(database: &DatabaseArgs, args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let file = Arc::new(File::open(&args.file).with_context(|| args.file.display().to_string())?);
    let wish = Wish { dry_run: args.dry_run, skip_faulty: args.on_error == OnError::Skip };
    let bar = progress(1000, "read");
    bar.set_style(ProgressStyle::with_template("{msg} {wide_bar} {percent} %")?);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 1000")]
    let hear = |part: f64| bar.set_position((part * 1e3) as u64);
    let format = Format::of_file(&args.file);
    let report = import::run(&super::open(database)?, &file, format, wish, args.timeout, (), hear).await;
    let report = report.map_err(|error| match error {
        testshop::error::Error::Malformed(words) => anyhow::anyhow!(words),
        other => other.into(),
    })?;
    bar.finish_and_clear();
    let refused = report.has_errors() && !wish.skip_faulty;
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &report)?;
        writeln!(out)?;
    } else {
        for fault in &report.errors {
            let sheet = fault.sheet.as_ref().map_or_else(String::new, |sheet| format!("{sheet}, "));
            eprintln!("{sheet}row {}: {}", fault.row, serde_json::to_string(&fault.errors)?);
        }
        if report.errors_omitted > 0 {
            eprintln!("... and {} more faulty rows", report.errors_omitted);
        }
        let Report { created, updated, unchanged, skipped, .. } = report;
        let done = if refused {
            "refused"
        } else if args.dry_run {
            "would be"
        } else {
            "done"
        };
        writeln!(out, "{done}: {created} created, {updated} updated, {unchanged} unchanged, {skipped} skipped")?;
    }
    Ok(if refused { ExitCode::FAILURE } else { ExitCode::SUCCESS })
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
