//! The subcommands. Exit status: 0 success; 1 failure; 2 invalid usage or settings.

mod accounts;
mod catalogue;
mod help;
mod inspect;
mod output;
mod secrets;
mod self_signed;
mod serve;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

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
    config::{ConfigErrors, DatabaseArgs, LeaseArgs, PasswordArgs, ServeArgs, ServingRoleArgs},
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
        /// Migrate the schema first
        #[arg(long)]
        migrate: bool,
    },
    /// Migrate the schema, and create or update the serving role
    #[command(after_long_help = help::MIGRATE)]
    Migrate {
        #[command(flatten)]
        database: DatabaseArgs,
        #[command(flatten)]
        lease: LeaseArgs,
        #[command(flatten)]
        serving: ServingRoleArgs,
    },
    /// Create a staff account
    #[command(after_long_help = help::CREATE_ADMIN)]
    CreateAdmin {
        #[command(flatten)]
        database: DatabaseArgs,
        #[command(flatten)]
        passwords: PasswordArgs,
        /// Username: letters, digits and @.+-_
        #[arg(long)]
        username: String,
        /// Email address; no other account may have it
        #[arg(long)]
        email: String,
        #[command(flatten)]
        password: PasswordSource,
        /// Do nothing if an active staff account of this name exists
        #[arg(long)]
        if_missing: bool,
    },
    /// Change the password of an account, and revoke its tokens and sessions
    SetPassword {
        #[command(flatten)]
        database: DatabaseArgs,
        #[command(flatten)]
        passwords: PasswordArgs,
        /// Username
        username: String,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// Deactivate an account; its tokens are rejected from the next request on
    Deactivate {
        #[command(flatten)]
        database: DatabaseArgs,
        /// Username
        username: String,
    },
    /// End every session: all tokens issued so far are rejected from the next request on
    #[command(after_long_help = help::END_SESSIONS)]
    EndSessions {
        #[command(flatten)]
        database: DatabaseArgs,
        /// The sessions of all accounts
        #[arg(long, required = true)]
        all: bool,
    },
    /// Add demo products (the same each time), and demo accounts user1, user2, ... with one password
    #[command(after_long_help = help::SEED)]
    Seed {
        #[command(flatten)]
        database: DatabaseArgs,
        #[command(flatten)]
        passwords: PasswordArgs,
        #[command(flatten)]
        args: SeedArgs,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// Export the catalogue to a file: CSV if its name ends in .csv, XLSX otherwise
    #[command(after_long_help = help::EXPORT)]
    Export {
        #[command(flatten)]
        database: DatabaseArgs,
        /// The file, replaced when the export is complete; `-` for standard output (XLSX)
        #[arg(short, long)]
        output: PathBuf,
        /// Time limit
        #[arg(long, env = "EXPORT_TIMEOUT", default_value = "1h", value_parser = humantime::parse_duration)]
        timeout: Duration,
    },
    /// Import products from a file in the format of `export`: a row with an ID changes that product, others create
    /// products
    #[command(after_long_help = help::IMPORT)]
    Import {
        #[command(flatten)]
        database: DatabaseArgs,
        #[command(flatten)]
        args: ImportArgs,
    },
    /// Check the services and directories that the settings name
    #[command(after_long_help = help::CHECK)]
    Check {
        #[command(flatten)]
        settings: Box<ServeArgs>,
        /// Print the findings as JSON
        #[arg(long)]
        json: bool,
    },
    /// Probe the local server's /healthz (for containers)
    Healthcheck {
        /// Address for operators: clients cannot use up its connections
        #[arg(long, env = "ADMIN_ADDR", default_value = "127.0.0.1:9000")]
        admin_addr: SocketAddr,
        /// Address for clients, probed when the port of ADMIN_ADDR is 0
        #[arg(long, env = "LISTEN_ADDR", default_value = "0.0.0.0:8000")]
        listen_addr: SocketAddr,
    },
    /// Generate the missing secrets of docker-compose.yml, or rotate one
    Secrets {
        #[command(flatten)]
        args: SecretsArgs,
    },
    /// Print the route table
    Routes {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print openapi.json
    Openapi,
    /// Print a completion script for a shell
    #[command(after_long_help = help::COMPLETIONS)]
    Completions {
        /// Shell
        shell: Shell,
    },
}

/// Runs the subcommand that the command line names, and returns the exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match start(cli.command) {
        Ok(code) => code,
        Err(error) if error.is::<ConfigErrors>() => {
            eprintln!("testshop: invalid settings");
            error.to_string().lines().for_each(|error| eprintln!("  {error}"));
            ExitCode::from(2)
        }
        Err(error) => {
            let message = match error.downcast_ref::<crate::error::Error>() {
                Some(error) => error.cli_message(),
                None => format!("{error:#}"),
            };
            eprintln!("testshop: {message}");
            ExitCode::FAILURE
        }
    }
}

fn start(command: Command) -> anyhow::Result<ExitCode> {
    let threads = match &command {
        Command::Serve { settings, logging, .. } => serve::settings(settings, logging)?.0.http.worker_threads,
        _ => 1,
    };
    let runtime = match threads {
        // a single thread needs no work-stealing queue
        1 => tokio::runtime::Builder::new_current_thread().enable_all().build()?,
        _ => tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?,
    };
    let outcome = runtime.block_on(run(command));
    // does not wait for blocking tasks, such as a workbook whose client has disconnected
    runtime.shutdown_background();
    outcome
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve { settings, logging, migrate } => {
            let (config, logging) = serve::settings(&settings, &logging)?;
            serve::serve(config, logging, migrate.then(|| settings.database())).await?;
        }
        Command::Migrate { database, lease, serving } => serve::migrate(&database, &lease, &serving).await?,
        Command::CreateAdmin { database, passwords, username, email, password, if_missing } => {
            accounts::create_admin(&database, &passwords, (&username, &email), &password, if_missing).await?;
        }
        Command::SetPassword { database, passwords, username, password } => {
            accounts::set_password(&database, &passwords, &username, &password).await?;
        }
        Command::Deactivate { database, username } => accounts::deactivate(&database, &username).await?,
        Command::EndSessions { database, all: _ } => accounts::end_sessions(&database).await?,
        Command::Seed { database, passwords, args, password } => {
            catalogue::seed(&database, &passwords, &args, &password).await?;
        }
        Command::Export { database, output, timeout } => catalogue::export(&database, &output, timeout).await?,
        Command::Import { database, args } => return catalogue::import(&database, &args).await,
        Command::Check { settings, json } => return Ok(inspect::check(&settings.config()?, json).await?),
        Command::Healthcheck { admin_addr, listen_addr } => {
            let address = if admin_addr.port() == 0 { listen_addr } else { admin_addr };
            health::probe(address).with_context(|| format!("probing the server at {address}"))?;
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
