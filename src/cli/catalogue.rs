//! `seed`, `export` and `import`: the catalogue without HTTP.

use std::{
    fs::{self, File},
    io::{self, Seek, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    auth::PasswordHasherPool,
    config::{DatabaseArgs, PasswordArgs, both},
    db::Database,
    products::{
        self,
        export::Output,
        files::format::FileFormat,
        import::{self, ImportOptions, Report},
        list::snapshot::{ListRequest, Snapshot},
    },
};
use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};

use super::{accounts::PasswordSource, output::print_line};

fn progress(length: u64, what: &'static str) -> ProgressBar {
    let style = "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}";
    let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style).with_message(what)
}

/// More than that is a slip of the finger.
const MOST: u64 = 100_000_000;

/// How much `seed` adds.
#[derive(Debug, clap::Args)]
pub(crate) struct SeedArgs {
    /// How many products
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=MOST))]
    products: u64,
    /// How many accounts
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=MOST))]
    users: u64,
    /// Add no products where there are some already
    #[arg(long)]
    if_empty: bool,
}

/// Adds demo products and accounts.
pub(crate) async fn seed(
    database: &DatabaseArgs,
    passwords: &PasswordArgs,
    amount: &SeedArgs,
    password: &PasswordSource,
) -> anyhow::Result<()> {
    let (database, iterations) = both(database.settings(), passwords.iterations())?;
    let mut client = Database::new(&database).dedicated().await?;
    client.batch_execute("set statement_timeout = 0").await?;
    if amount.users > 0 {
        let text = PasswordHasherPool::start(1, iterations).hash(password.read()?.into()).await?;
        let made = products::seed::users(&client, amount.users, &text).await?;
        print_line(format!("added {made} accounts"))?;
    }
    if amount.products == 0 || (amount.if_empty && products::seed::any(&client).await?) {
        return Ok(());
    }
    let began = Instant::now();
    let bar = progress(amount.products, "products");
    products::seed::products(&mut client, amount.products, |done| bar.set_position(done)).await?;
    bar.finish_and_clear();
    print_line(format!("added {} products in {:.1?}", amount.products, began.elapsed()))?;
    Ok(())
}

/// Writes the whole catalogue to a file, or to standard output if that is called `-`.
pub(crate) async fn export(database: &DatabaseArgs, output: &Path, timeout: Duration) -> anyhow::Result<()> {
    let database = Database::new(&database.settings()?);
    // a link stays one
    let target = fs::canonicalize(output).unwrap_or_else(|_| output.to_owned());
    // what is there and is no file is written to, and not replaced
    let is_stream = output == Path::new("-") || fs::metadata(&target).is_ok_and(|there| !there.is_file());
    let folder = match target.parent() {
        _ if is_stream => std::env::temp_dir(),
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    // a figure for the bar: what the database last counted
    let estimate = "select greatest(reltuples, 0)::bigint from pg_class where oid = 'products'::regclass";
    let count: i64 = database.dedicated().await?.query_one(estimate, &[]).await?.get(0);
    let bar = progress(count.unsigned_abs(), "products");
    let snapshot =
        Snapshot::open(&database, &ListRequest::default(), timeout).await.map_err(crate::error::Error::from)?;
    let place = Output { folder: folder.clone(), format: FileFormat::of_file(output) };
    let made = products::export::build(snapshot, place, (), |done| bar.set_position(done)).await;
    let (_, mut file) = made.map_err(crate::error::Error::from)?;
    bar.finish_and_clear();
    file.rewind()?;
    if is_stream {
        let mut stream: Box<dyn Write> =
            if output == Path::new("-") { Box::new(io::stdout()) } else { Box::new(File::create(&target)?) };
        io::copy(&mut file, &mut stream)?;
        stream.flush()?;
        return Ok(());
    }
    let mut whole = tempfile::NamedTempFile::new_in(&folder)?;
    let bytes = io::copy(&mut file, &mut whole)?;
    whole.flush()?;
    whole.persist(&target)?;
    print_line(format!("wrote {} ({})", output.display(), indicatif::HumanBytes(bytes)))?;
    Ok(())
}

/// What `import` is to do with its file.
#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
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
pub(crate) async fn import(database: &DatabaseArgs, args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let file = Arc::new(File::open(&args.file).with_context(|| args.file.display().to_string())?);
    let wish = ImportOptions { dry_run: args.dry_run, skip_faulty: args.on_error == OnError::Skip };
    let bar = progress(1000, "read");
    bar.set_style(ProgressStyle::with_template("{msg} {wide_bar} {percent} %")?);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 1000")]
    let hear = |part: f64| bar.set_position((part * 1e3) as u64);
    let format = FileFormat::of_file(&args.file);
    let report =
        import::run(&Database::new(&database.settings()?), &file, format, wish, args.timeout, (), hear).await?;
    bar.finish_and_clear();
    let refused = report.is_refused(wish);
    if args.json {
        print_line(serde_json::to_string(&report)?)?;
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
        print_line(format!("{done}: {created} created, {updated} updated, {unchanged} unchanged, {skipped} skipped"))?;
    }
    Ok(if refused { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
