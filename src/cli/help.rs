//! What `--help` says after the flags: more than a line about a subcommand, and how it is used. Colours are for terminals.

use clap::builder::{
    Styles,
    styling::{AnsiColor, Effects},
};

/// Titles stand out, and what is typed as it is.
pub(crate) const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().effects(Effects::BOLD))
    .usage(AnsiColor::Green.on_default().effects(Effects::BOLD))
    .literal(AnsiColor::Cyan.on_default().effects(Effects::BOLD))
    .placeholder(AnsiColor::Cyan.on_default());

/// Of the program.
pub(crate) const PROGRAM: &str = "\
Every setting is a flag and an environment variable; what is secret may also stand in a file, named by the variable with \
_FILE after it. `testshop help SUBCOMMAND` tells more about each.

Exit status: 0 done; 1 failed; 2 wrong usage or settings, all the faults at once.

Examples:
  export DATABASE_URL=postgres://shop@127.0.0.1/shop JWT_SECRET=$(openssl rand -hex 32)
  testshop migrate && testshop check
  testshop create-admin --username sam --email sam@example.com
  testshop serve";

/// Of `serve`.
pub(crate) const SERVE: &str = "\
It prints where it listens, logs to standard error, and needs the database for nothing but answers: requests that find it \
away are told so, and it is found again by itself.

Signals: SIGTERM and SIGINT stop it: it serves on, unready, for SHUTDOWN_DELAY, then ends what runs within DRAIN_TIMEOUT, \
and exits with 0. A second one ends it at once.

Examples:
  testshop serve --migrate
  testshop serve --redis-url redis://127.0.0.1 --listen-addr 127.0.0.1:8080
  RUST_LOG=info,access=off testshop serve";

/// Of `migrate`.
pub(crate) const MIGRATE: &str = "\
It may run as often as one likes, and on several machines at a time: one does the work. With API_DATABASE_URL it also makes \
the role that stands there, which can read and write rows and change no schema, or sets its rights and its password anew.

Examples:
  testshop migrate --database-url postgres://owner@127.0.0.1/shop
  API_DATABASE_URL=postgres://shop_api:secret@127.0.0.1/shop testshop migrate";

/// Of `create-admin`.
pub(crate) const CREATE_ADMIN: &str = "\
The password is asked for on a terminal; otherwise it is the first line of standard input or of --password-file.

Examples:
  testshop create-admin --username sam --email sam@example.com
  pass show shop/sam | testshop create-admin --username sam --email sam@example.com --if-missing";

/// Of `seed`.
pub(crate) const SEED: &str = "\
From 10,000 products on, and for the owner of the schema, references are checked and indexes are built once at the end; the \
catalogue is locked until then.

Examples:
  testshop seed --products 1000
  echo 'a long password' | testshop seed --products 100000 --users 10";

/// Of `export`.
pub(crate) const EXPORT: &str = "\
One snapshot of the database, whatever is written meanwhile. No cell is ever a formula.

Examples:
  testshop export -o products.xlsx
  testshop export -o products.csv";

/// Of `import`.
pub(crate) const IMPORT: &str = "\
The columns are those of the export: ID, Name, Description, Category, Price, Created at, Tags, in any order. A column that is \
not there stays as it is. A category must exist, tags are made when they are missing. All of it is one transaction: a \
faulty row refuses all, unless it is skipped. What is as the file says already is not written: the whole export comes back \
as unchanged.

Examples:
  testshop import --dry-run products.xlsx
  testshop import --on-error skip --json products.csv";

/// Of `check`.
pub(crate) const CHECK: &str = "\
It looks at the database, its schema and triggers, the replica, the shared cache and the folder for files, and changes nothing.
Exit status: 0 all is well; 1 something is not; 2 wrong settings.";

/// Of `completions`.
pub(crate) const COMPLETIONS: &str = "\
Examples:
  testshop completions bash > /etc/bash_completion.d/testshop
  testshop completions zsh > ~/.zfunc/_testshop
  testshop completions fish > ~/.config/fish/completions/testshop.fish";
