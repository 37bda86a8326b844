//! The subcommands. Exit 0: done; 1: failed; 2: wrong usage or settings, all the faults at once.

mod accounts;
mod catalogue;
mod help;
mod inspect;
mod output;
mod secrets;
mod serve;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use self::{
    accounts::PasswordSource,
    catalogue::{ImportArgs, SeedArgs},
    secrets::SecretsArgs,
    serve::LogArgs,
};
use crate::{
    config::{ConfigErrors, DatabaseArgs, PasswordArgs, ServeArgs, ServingRoleArgs},
    ops::health,
};

/// The server of an online shop
#[derive(Parser)]
#[command(version, about, max_term_width = 120, styles = help::STYLES, after_long_help = help::PROGRAM)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve clients until SIGTERM or SIGINT
    #[command(after_long_help = help::SERVE)]
    Serve {
        #[command(flatten)]
        settings: Box<ServeArgs>,
        #[command(flatten)]
        logging: LogArgs,
        /// Bring the schema up to date first
        #[arg(long)]
        migrate: bool,
    },
    /// Bring the schema up to date, and the role that serves
    #[command(after_long_help = help::MIGRATE)]
    Migrate {
        #[command(flatten)]
        database: DatabaseArgs,
        #[command(flatten)]
        serving: ServingRoleArgs,
    },
    /// Make a staff account
    #[command(after_long_help = help::CREATE_ADMIN)]
    CreateAdmin {
        #[command(flatten)]
        database: DatabaseArgs,
        #[command(flatten)]
        passwords: PasswordArgs,
        /// Letters, digits and @.+-_
        #[arg(long)]
        username: String,
        /// No account may have it yet
        #[arg(long)]
        email: String,
        #[command(flatten)]
        password: PasswordSource,
        /// Leave an account of this name as it is
        #[arg(long)]
        if_missing: bool,
    },
    /// Give an account another password; its tokens and sessions end
    SetPassword {
        #[command(flatten)]
        database: DatabaseArgs,
        #[command(flatten)]
        passwords: PasswordArgs,
        /// Whose
        username: String,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// Refuse an account from its next request on
    Deactivate {
        #[command(flatten)]
        database: DatabaseArgs,
        /// Whose
        username: String,
    },
    /// Add demo products (the same each time), and demo accounts user1, user2, ... with one password
    #[command(after_long_help = help::SEED)]
    Seed {
        #[command(flatten)]
        database: DatabaseArgs,
        #[command(flatten)]
        passwords: PasswordArgs,
        #[command(flatten)]
        amount: SeedArgs,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// Write the whole catalogue to a file: CSV if its name ends so, else XLSX
    #[command(after_long_help = help::EXPORT)]
    Export {
        #[command(flatten)]
        database: DatabaseArgs,
        /// The file, replaced only by a whole one; `-` for standard output (as XLSX)
        #[arg(short, long)]
        output: PathBuf,
        /// The time it may take
        #[arg(long, env = "EXPORT_TIMEOUT", default_value = "1h", value_parser = humantime::parse_duration)]
        timeout: Duration,
    },
    /// Bring products in from a file as `export` writes it: a row with an ID changes that product, one without is a new one
    #[command(after_long_help = help::IMPORT)]
    Import {
        #[command(flatten)]
        database: DatabaseArgs,
        #[command(flatten)]
        what: ImportArgs,
    },
    /// Look whether everything that the settings name is there and fits
    #[command(after_long_help = help::CHECK)]
    Check {
        #[command(flatten)]
        settings: Box<ServeArgs>,
        /// Print the findings as JSON
        #[arg(long)]
        json: bool,
    },
    /// Ask the server on this machine whether it lives (for containers)
    Healthcheck {
        /// Where it listens
        #[arg(long, env = "LISTEN_ADDR", default_value = "0.0.0.0:8000")]
        listen_addr: std::net::SocketAddr,
    },
    /// Make the random secrets that the containers of docker-compose.yml share, where they are missing
    Secrets {
        #[command(flatten)]
        args: SecretsArgs,
    },
    /// Print the route table
    Routes {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print openapi.json
    Openapi,
    /// Print completions for a shell
    #[command(after_long_help = help::COMPLETIONS)]
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Runs the subcommand that the command line names, and returns the exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match start(cli.command) {
        Ok(code) => code,
        Err(error) if error.is::<ConfigErrors>() => {
            eprintln!("testshop: wrong settings");
            error.to_string().lines().for_each(|fault| eprintln!("  {fault}"));
            ExitCode::from(2)
        }
        Err(error) => {
            let words = match error.downcast_ref::<crate::error::Error>() {
                Some(error) => error.told_here(),
                None => format!("{error:#}"),
            };
            eprintln!("testshop: {words}");
            ExitCode::FAILURE
        }
    }
}

fn start(command: Command) -> anyhow::Result<ExitCode> {
    let threads = match &command {
        Command::Serve { settings, logging, .. } => serve::settings(settings, logging)?.0.worker_threads,
        _ => 1,
    };
    let runtime = match threads {
        // alone, a thread needs no queue that others could take from
        1 => tokio::runtime::Builder::new_current_thread().enable_all().build()?,
        _ => tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?,
    };
    let done = runtime.block_on(run(command));
    // a workbook whose reader has left is not waited for
    runtime.shutdown_background();
    done
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve { settings, logging, migrate } => {
            let (config, logging) = serve::settings(&settings, &logging)?;
            serve::serve(config, logging, migrate.then(|| settings.database())).await?;
        }
        Command::Migrate { database, serving } => serve::migrate(&database, &serving).await?,
        Command::CreateAdmin { database, passwords, username, email, password, if_missing } => {
            accounts::create_admin(&database, &passwords, (&username, &email), &password, if_missing).await?;
        }
        Command::SetPassword { database, passwords, username, password } => {
            accounts::set_password(&database, &passwords, &username, &password).await?;
        }
        Command::Deactivate { database, username } => accounts::deactivate(&database, &username).await?,
        Command::Seed { database, passwords, amount, password } => {
            catalogue::seed(&database, &passwords, &amount, &password).await?;
        }
        Command::Export { database, output, timeout } => catalogue::export(&database, &output, timeout).await?,
        Command::Import { database, what } => return catalogue::import(&database, &what).await,
        Command::Check { settings, json } => return Ok(inspect::check(&settings.config()?, json).await?),
        Command::Healthcheck { listen_addr } => {
            health::probe(listen_addr).with_context(|| format!("the server at {listen_addr}"))?;
        }
        Command::Secrets { args } => secrets::secrets(&args)?,
        Command::Routes { json } => inspect::print_routes(json)?,
        Command::Openapi => inspect::print_openapi()?,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "testshop", &mut script);
            output::print(&String::from_utf8(script)?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
