//! `seed`, `export` and `import`.

use std::{
    fs::{self, File},
    io::{self, Seek, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use encoding_rs::Encoding;
use indicatif::{ProgressBar, ProgressStyle};

use super::{accounts::PasswordSource, output::print_line};
use crate::{
    auth::PasswordHasherPool,
    config::{DatabaseArgs, PasswordArgs, zip_errors},
    db::Database,
    error::Error,
    limits::ImportPool,
    products::{
        self,
        export::{Built, Layout, Output},
        fields::Fields,
        files::format::FileFormat,
        import::{self, Content, FileRange, ImportOptions, Report, UnknownColumns, Upload},
        list::list_request::ListRequest,
    },
};

/// Catches typing errors in the arguments of `seed`.
const MAX_SEED_ROWS: u64 = 100_000_000;

#[derive(Debug, clap::Args)]
pub(crate) struct SeedArgs {
    /// Number of products
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=MAX_SEED_ROWS))]
    products: u64,
    /// Number of accounts
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=MAX_SEED_ROWS))]
    users: u64,
    /// Add products only if there are none
    #[arg(long)]
    if_empty: bool,
}

/// Adds demo products and accounts.
pub(crate) async fn seed(
    database: &DatabaseArgs,
    passwords: &PasswordArgs,
    args: &SeedArgs,
    password: &PasswordSource,
) -> anyhow::Result<()> {
    let (database, iterations) = zip_errors(database.settings(), passwords.iterations())?;
    let mut client = Database::new(&database).dedicated().await?;
    client.batch_execute("set statement_timeout = 0").await?;
    if args.users > 0 {
        let hash = PasswordHasherPool::start(1, iterations).hash(password.read()?.into()).await?;
        let added = products::seed::users(&client, args.users, &hash).await?;
        print_line(format!("added {added} {}", if added == 1 { "account" } else { "accounts" }))?;
    }
    if args.products == 0 || (args.if_empty && products::seed::has_products(&client).await?) {
        return Ok(());
    }
    let started = Instant::now();
    let bar = progress_bar(args.products, "products");
    products::seed::products(&mut client, args.products, |done| bar.set_position(done)).await?;
    bar.finish_and_clear();
    print_line(format!("added {} products in {:.1?}", args.products, started.elapsed()))?;
    Ok(())
}

/// Writes the catalogue to a file, or to standard output if `output` is `-`.
pub(crate) async fn export(database: &DatabaseArgs, output: &Path, timeout: Duration) -> anyhow::Result<()> {
    let database = Database::new(&database.settings()?);
    // a symbolic link is followed, not replaced
    let target = fs::canonicalize(output).unwrap_or_else(|_| output.to_owned());
    // an existing target that is no regular file, such as a pipe, is written to and not replaced
    let is_stream = output == Path::new("-") || fs::metadata(&target).is_ok_and(|metadata| !metadata.is_file());
    let dir = match target.parent() {
        _ if is_stream => std::env::temp_dir(),
        Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
        _ => PathBuf::from("."),
    };
    let layout = Layout { format: FileFormat::from_path(output), has_bom: false, fields: Fields::ALL };
    let mut file = build_export(&database, Output { dir: dir.clone(), layout }, timeout).await?;
    if is_stream {
        let mut stream: Box<dyn Write> =
            if output == Path::new("-") { Box::new(io::stdout()) } else { Box::new(File::create(&target)?) };
        io::copy(&mut file, &mut stream)?;
        stream.flush()?;
        return Ok(());
    }
    let mut complete = tempfile::NamedTempFile::new_in(&dir)?;
    let bytes = io::copy(&mut file, &mut complete)?;
    complete.flush()?;
    complete.persist(&target)?;
    print_line(format!("wrote {} ({})", output.display(), indicatif::HumanBytes(bytes)))?;
    Ok(())
}

/// Builds an unnamed file with a progress bar, and returns it rewound.
async fn build_export(database: &Database, output: Output, timeout: Duration) -> anyhow::Result<File> {
    // the planner's row count is exact enough for the progress bar
    let estimate = "select greatest(reltuples, 0)::bigint from pg_class where oid = 'products'::regclass";
    let count: i64 = database.dedicated().await?.query_one(estimate, &[]).await?.get(0);
    let bar = progress_bar(count.unsigned_abs(), "products");
    let snapshot = ListRequest::default().open(database, timeout).await.map_err(Error::from)?;
    let built = products::export::build(snapshot, output, (), |done| bar.set_position(done)).await;
    let Built { mut file, .. } = built.map_err(Error::from)?;
    bar.finish_and_clear();
    file.rewind()?;
    Ok(file)
}

#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// The file, XLSX or CSV; its content decides
    file: PathBuf,
    /// The charset of a CSV file without a byte order mark (a WHATWG name, by default UTF-8)
    #[arg(long, value_parser = parse_charset)]
    charset: Option<&'static Encoding>,
    /// Report the changes without making them
    #[arg(long)]
    dry_run: bool,
    /// What to do with an invalid row: reject the file, or skip the row
    #[arg(long, value_enum, default_value_t = OnError::Abort)]
    on_error: OnError,
    /// What to do with a column whose title is not known: reject the file, or skip the column
    #[arg(long, value_enum, default_value_t)]
    unknown_columns: UnknownColumns,
    /// Create the categories that do not exist
    #[arg(long)]
    create_categories: bool,
    /// What to do with a row whose ID no product has: report an error, or create a product with this ID
    #[arg(long, value_enum, default_value_t = MissingId::Error)]
    missing_id: MissingId,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Time limit
    #[arg(long, env = "EXPORT_TIMEOUT", default_value = "1h", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum OnError {
    Abort,
    Skip,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum MissingId {
    Error,
    Create,
}

fn parse_charset(label: &str) -> Result<&'static Encoding, String> {
    import::charset_of_label(label).ok_or_else(|| "unknown charset".to_owned())
}

/// Imports products from a file, and prints the report. A rejected file is a failure.
pub(crate) async fn import(database: &DatabaseArgs, args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let file = Arc::new(File::open(&args.file).with_context(|| args.file.display().to_string())?);
    let options = ImportOptions {
        dry_run: args.dry_run,
        skip_invalid: args.on_error == OnError::Skip,
        unknown_columns: args.unknown_columns,
        create_categories: args.create_categories,
        create_missing_ids: args.missing_id == MissingId::Create,
    };
    let bar = progress_bar(1000, "read");
    bar.set_style(ProgressStyle::with_template("{msg} {wide_bar} {percent} %")?);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 1000")]
    let on_progress = |fraction: f64| bar.set_position((fraction * 1e3) as u64);
    let database = Database::new(&database.settings()?);
    let content = Content::detect(FileRange::whole(&file)?, args.charset)?;
    let upload = Upload { content, if_match: None, key: None, memory: ImportPool::new() };
    let import::Outcome::Imported(report) =
        import::run(&database, &upload, options, args.timeout, (), on_progress).await?
    else {
        unreachable!("an import without a key is not replayed");
    };
    bar.finish_and_clear();
    let is_rejected = report.is_rejected(options);
    if args.json {
        print_line(serde_json::to_string(&report)?)?;
    } else {
        let outcome = if is_rejected {
            "rejected"
        } else if args.dry_run {
            "dry run"
        } else {
            "done"
        };
        print_report(&report, outcome)?;
    }
    Ok(if is_rejected { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Prints the errors to standard error, and the counts to standard output.
fn print_report(report: &Report, outcome: &str) -> anyhow::Result<()> {
    for row in &report.errors {
        let sheet = row.sheet.as_ref().map_or_else(String::new, |sheet| format!("{sheet}, "));
        eprintln!("{sheet}row {}: {}", row.row, serde_json::to_string(&row.errors)?);
    }
    if report.errors_omitted > 0 {
        eprintln!("... and {} more invalid rows", report.errors_omitted);
    }
    let Report { created, updated, unchanged, skipped, categories_created, .. } = report;
    let categories = match categories_created {
        0 => String::new(),
        count => format!(", categories created: {count}"),
    };
    print_line(format!(
        "{outcome}: {created} created, {updated} updated, {unchanged} unchanged, {skipped} skipped{categories}"
    ))?;
    Ok(())
}

fn progress_bar(length: u64, message: &'static str) -> ProgressBar {
    let style = "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}";
    let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style).with_message(message)
}
