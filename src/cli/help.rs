//! The long help of the program and its subcommands, printed by `--help` after the options.

use clap::builder::{
    Styles,
    styling::{AnsiColor, Effects},
};

pub(crate) const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().effects(Effects::BOLD))
    .usage(AnsiColor::Green.on_default().effects(Effects::BOLD))
    .literal(AnsiColor::Cyan.on_default().effects(Effects::BOLD))
    .placeholder(AnsiColor::Cyan.on_default());

pub(crate) const PROGRAM: &str = "\
Every setting is a flag and an environment variable. A secret can also be read from a file, named by the variable \
with the suffix _FILE. `testshop help SUBCOMMAND` describes a subcommand.

Exit status: 0 success; 1 failure; 2 invalid usage or settings (all errors are reported together).

Examples:
  export DATABASE_URL=postgres://shop@127.0.0.1/shop JWT_SECRET=$(openssl rand -hex 32)
  testshop migrate && testshop check
  testshop create-admin --username sam --email sam@example.com
  testshop serve";

pub(crate) const SERVE: &str = "\
The server prints its addresses to standard output and logs to standard error. It starts even if the database is \
unavailable: requests get 503 until the database can be reached, and the server reconnects.

Memory: MAX_CONNECTIONS and CACHE_BYTES are sized to the memory limit (MEMORY_LIMIT) unless they are set. The server \
refuses to start when all its limits together need more memory than that, and prints the sum.

Signals: SIGTERM and SIGINT stop the server. It continues to serve for SHUTDOWN_DELAY while /readyz reports that it \
is stopping, finishes requests in flight within DRAIN_TIMEOUT, and exits with status 0. A second signal ends it \
immediately.

Examples:
  testshop serve --migrate
  testshop serve --redis-url redis://127.0.0.1 --listen-addr 127.0.0.1:8080
  RUST_LOG=info,access=off testshop serve";

pub(crate) const MIGRATE: &str = "\
This command can be repeated, and run on several machines at the same time: one of them applies the migrations. The \
schema of a newer release is left as it is if it works with this program, and refused otherwise. With \
API_DATABASE_URL, it also creates the role of that URL, or updates its privileges and password. This role can read \
and write rows but cannot change the schema.

Examples:
  testshop migrate --database-url postgres://owner@127.0.0.1/shop
  API_DATABASE_URL=postgres://shop_api:secret@127.0.0.1/shop testshop migrate";

pub(crate) const CREATE_ADMIN: &str = "\
On a terminal, the command prompts for the password; otherwise the password is the first line of standard input or of \
--password-file.

Examples:
  testshop create-admin --username sam --email sam@example.com
  pass show shop/sam | testshop create-admin --username sam --email sam@example.com --if-missing";

pub(crate) const END_SESSIONS: &str = "\
Every access token and refresh token that was issued before is rejected on all instances, including tokens that a \
restored backup would revive. All users have to log in again; passwords stay. Run it after restoring a backup, after a \
failover that lost transactions, and after a breach. Servers may run meanwhile.

Example:
  testshop end-sessions --all";

pub(crate) const SEED: &str = "\
For 10,000 products or more, and if the database role owns the schema, the command checks references and builds \
indexes once, at the end; the catalogue is locked until then.

Examples:
  testshop seed --products 1000
  echo 'a long password' | testshop seed --products 100000 --users 10";

pub(crate) const EXPORT: &str = "\
The file shows one snapshot of the database, regardless of concurrent writes. No cell is a formula.

Examples:
  testshop export -o products.xlsx
  testshop export -o products.csv";

pub(crate) const IMPORT: &str = "\
The columns are those of the export, in any order: ID, Name, Description, Category, Price, Created at, Tags. A \
missing column leaves its values unchanged. Missing tags are created, and with --create-categories missing categories. \
The import is one transaction: an invalid row rejects the file unless --on-error=skip is given. Rows without changes \
are not written, so importing an unmodified export reports every row as unchanged. With --missing-id=create and \
--create-categories, an export fills an empty shop.

Examples:
  testshop import --dry-run products.xlsx
  testshop import --missing-id create --create-categories products.csv
  testshop import --on-error skip --json products.csv";

pub(crate) const CHECK: &str = "\
Checks the database, its schema and triggers, the replica, the shared cache, the directory for files and the memory, \
without changing anything.
Exit status: 0 all checks passed; 1 a check failed; 2 invalid settings.";

pub(crate) const COMPLETIONS: &str = "\
Examples:
  testshop completions bash > /etc/bash_completion.d/testshop
  testshop completions zsh > ~/.zfunc/_testshop
  testshop completions fish > ~/.config/fish/completions/testshop.fish";
