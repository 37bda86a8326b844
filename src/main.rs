//! The subcommands. Exit 0: done; 1: failed; 2: wrong usage or settings, all the faults at once.

use std::{
    io::{self, IsTerminal, Read, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use indicatif::{ProgressBar, ProgressStyle};
use testshop::{
    auth::Passwords,
    config::{Config, DatabaseArgs, Faults, PasswordArgs, ServeArgs},
    db::{Database, migrate},
    ops::{
        check, health,
        logs::{self, LogFormat},
    },
    products, routes,
    server::Server,
    users,
};
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The server of an online shop
#[derive(Parser)]
#[command(version, about, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve clients until SIGTERM or SIGINT
    Serve {
        #[command(flatten)]
        settings: Box<ServeArgs>,
        #[command(flatten)]
        logging: LogArgs,
        /// Bring the schema up to date first
        #[arg(long)]
        migrate: bool,
    },
    /// Bring the schema up to date
    Migrate {
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Make a staff account; its password comes from standard input, or is asked for
    CreateAdmin {
        #[command(flatten)]
        database: DatabaseArgs,
        #[command(flatten)]
        passwords: PasswordArgs,
        #[arg(long)]
        username: String,
        #[arg(long)]
        email: String,
    },
    /// Give an account another password, from standard input or asked for; its tokens and sessions end
    SetPassword {
        #[command(flatten)]
        database: DatabaseArgs,
        #[command(flatten)]
        passwords: PasswordArgs,
        username: String,
    },
    /// Refuse an account from its next request on
    Deactivate {
        #[command(flatten)]
        database: DatabaseArgs,
        username: String,
    },
    /// Add demo products (the same each time), and demo accounts user1, user2, ... with the password on standard input
    Seed {
        #[command(flatten)]
        database: DatabaseArgs,
        #[command(flatten)]
        passwords: PasswordArgs,
        #[arg(long)]
        products: u64,
        #[arg(long, default_value_t = 0)]
        users: u64,
        /// Add no products where there are some already
        #[arg(long)]
        if_empty: bool,
    },
    /// Write the whole catalogue to an XLSX file
    Export {
        #[command(flatten)]
        database: DatabaseArgs,
        /// The file; it is replaced only by a whole one
        #[arg(short, long)]
        output: PathBuf,
        /// The time it may take
        #[arg(long, env = "EXPORT_TIMEOUT", default_value = "1h", value_parser = humantime::parse_duration)]
        timeout: Duration,
    },
    /// Look whether everything that the settings name is there and fits
    Check {
        #[command(flatten)]
        settings: Box<ServeArgs>,
    },
    /// Ask the server on this machine whether it lives (for containers)
    Healthcheck {
        /// Where it listens
        #[arg(long, env = "LISTEN_ADDR", default_value = "0.0.0.0:8000")]
        listen_addr: std::net::SocketAddr,
    },
    /// Print the route table
    Routes,
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(clap::Args)]
struct LogArgs {
    /// How log lines look
    #[arg(long, env = "LOG_FORMAT", default_value = "auto")]
    log_format: LogFormat,
    /// What is logged: a level, or target=level pairs; access=off silences the line of each request
    #[arg(long = "log", env = "RUST_LOG", default_value = "info")]
    filter: String,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match start(cli.command) {
        Ok(code) => code,
        Err(error) if error.is::<Faults>() => {
            eprintln!("testshop: wrong settings");
            error.to_string().lines().for_each(|fault| eprintln!("  {fault}"));
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("testshop: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(command: Command) -> anyhow::Result<ExitCode> {
    let threads = match &command {
        Command::Serve { settings, .. } => settings.config()?.worker_threads,
        _ => 1,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    let done = runtime.block_on(run(command));
    // a workbook whose reader has left is not waited for
    runtime.shutdown_background();
    done
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve { settings, logging, migrate } => return serve(&settings, &logging, migrate).await,
        Command::Migrate { database } => migrate_schema(&database).await?,
        Command::CreateAdmin { database, passwords, username, email } => {
            let (database, iterations) = (open(&database)?, passwords.iterations()?);
            let account = (username.as_str(), email.as_str(), read_password()?);
            let id = users::admin::create(&database, iterations, account, true).await?;
            println!("{username} is staff, with the id {id}");
        }
        Command::SetPassword { database, passwords, username } => {
            let (database, iterations) = (open(&database)?, passwords.iterations()?);
            users::admin::set_password(&database, iterations, &username, read_password()?).await?;
            println!("{username} has another password; what was logged in is logged out");
        }
        Command::Deactivate { database, username } => {
            users::admin::deactivate(&open(&database)?, &username).await?;
            println!("{username} is refused from now on");
        }
        Command::Seed { database, passwords, products, users, if_empty } => {
            seed(&database, &passwords, products, users, if_empty).await?;
        }
        Command::Export { database, output, timeout } => export(&database, &output, timeout).await?,
        Command::Check { settings } => return check_all(&settings.config()?).await,
        Command::Healthcheck { listen_addr } => {
            health::probe(listen_addr).with_context(|| format!("the server at {listen_addr}"))?;
        }
        Command::Routes => print_routes()?,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "testshop", &mut io::stdout());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn open(database: &DatabaseArgs) -> anyhow::Result<Database> {
    Ok(Database::new(&database.settings()?)?)
}

async fn serve(settings: &ServeArgs, logging: &LogArgs, migrate: bool) -> anyhow::Result<ExitCode> {
    let config = settings.config()?;
    let access = logs::start(logging.log_format, &logging.filter).map_err(|fault| Faults(vec![fault]))?;
    if migrate {
        migrate_schema(settings.database()).await?;
    }
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let server = Server::start(config, access).await?;
    // whoever started it may have read enough already, and that is no reason to stop
    let _ = writeln!(io::stdout(), "listening on http://{}", server.address);
    let _ = writeln!(io::stdout(), "health and metrics on http://{}", server.admin_address);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // a second signal means it
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(1);
    });
    server.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// A database that is only just starting is waited for so long.
const DATABASE_PATIENCE: Duration = Duration::from_secs(30);

async fn migrate_schema(settings: &DatabaseArgs) -> anyhow::Result<()> {
    let database = open(settings)?;
    let patience = std::time::Instant::now() + DATABASE_PATIENCE;
    let mut pause = Duration::from_millis(100);
    let mut client = loop {
        match database.dedicated().await {
            Ok(client) => break client,
            Err(failure) if failure.is_away() && std::time::Instant::now() + pause < patience => {
                eprintln!("testshop: waiting for the database ({failure})");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(3));
            }
            Err(failure) => return Err(failure.into()),
        }
    };
    let applied = migrate::migrate(&mut client).await?;
    match applied.as_slice() {
        [] => println!("the schema is up to date"),
        names => println!("applied {}", names.join(", ")),
    }
    Ok(())
}

/// From standard input up to the end of its line, or asked for twice on a terminal.
fn read_password() -> anyhow::Result<String> {
    if io::stdin().is_terminal() {
        let password = rpassword::prompt_password("Password: ")?;
        anyhow::ensure!(password == rpassword::prompt_password("Once more: ")?, "the two are not the same");
        return Ok(password);
    }
    let mut password = String::new();
    io::stdin().take(64 * 1024).read_to_string(&mut password).context("the password on standard input")?;
    let end = password.find(['\r', '\n']).unwrap_or(password.len());
    password.truncate(end);
    anyhow::ensure!(!password.is_empty(), "standard input holds no password");
    Ok(password)
}

fn progress(length: u64, what: &'static str) -> ProgressBar {
    let style = "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}";
    let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style).with_message(what)
}

async fn seed(
    database: &DatabaseArgs,
    passwords: &PasswordArgs,
    products: u64,
    users: u64,
    if_empty: bool,
) -> anyhow::Result<()> {
    let iterations = passwords.iterations()?;
    let mut client = open(database)?.dedicated().await?;
    client.batch_execute("set statement_timeout = 0").await?;
    if users > 0 {
        let text = Passwords::start(1, iterations).hash(read_password()?.into()).await?;
        let made = products::seed::users(&client, users, &text).await?;
        println!("added {made} accounts");
    }
    if products == 0 || (if_empty && products::seed::any(&client).await?) {
        return Ok(());
    }
    let began = std::time::Instant::now();
    let bar = progress(products, "products");
    products::seed::products(&mut client, products, |done| bar.set_position(done)).await?;
    bar.finish_and_clear();
    println!("added {products} products in {:.1?}", began.elapsed());
    Ok(())
}

async fn export(database: &DatabaseArgs, output: &std::path::Path, timeout: Duration) -> anyhow::Result<()> {
    let database = open(database)?;
    let folder = match output.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    let count: i64 = database.dedicated().await?.query_one("select count(*) from products", &[]).await?.get(0);
    let bar = progress(count.unsigned_abs(), "products");
    let (_, file) =
        products::export::make(&database, folder.clone(), timeout, (), |done| bar.set_position(done)).await?;
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

async fn check_all(config: &Config) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for finding in check::check(config).await {
        let (mark, words) = match &finding.outcome {
            Ok(words) => ("ok  ", words),
            Err(words) => {
                code = ExitCode::FAILURE;
                ("FAIL", words)
            }
        };
        println!("{mark} {}: {words}", finding.subject);
    }
    Ok(code)
}

fn print_routes() -> io::Result<()> {
    let mut out = io::stdout().lock();
    for (method, path, access) in routes::summary() {
        match writeln!(out, "{:<7} {path:<24} {access}", method.as_str()) {
            // whoever reads has seen enough
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            outcome => outcome?,
        }
    }
    Ok(())
}
