//! The options of an import.

use crate::{
    error::{FieldErrors, Result},
    http::Request,
    products::list::params::{DUPLICATE_PARAM, parse_boolean, unknown_param_message},
};

const DRY_RUN: &str = "dry_run";
const ON_ERROR: &str = "on_error";
const UNKNOWN_COLUMNS: &str = "unknown_columns";
const CREATE_CATEGORIES: &str = "create_categories";
const MISSING_ID: &str = "missing_id";
const PARAMS: [&str; 5] = [DRY_RUN, ON_ERROR, UNKNOWN_COLUMNS, CREATE_CATEGORIES, MISSING_ID];

/// What to do with a file that has columns with other titles than the export.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum UnknownColumns {
    /// Reject the file.
    #[default]
    Refuse,
    /// Import the other columns.
    Ignore,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a parameter of its own")]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ImportOptions {
    /// Validate the file and report what it would change, without changing it.
    pub(crate) dry_run: bool,
    /// Import the valid rows and skip the others. Otherwise one invalid row rejects the whole file.
    pub(crate) skip_invalid: bool,
    pub(crate) unknown_columns: UnknownColumns,
    /// Create the categories that the accepted rows name and that do not exist.
    pub(crate) create_categories: bool,
    /// Create products with the ids of the file where no such product exists.
    pub(crate) create_missing_ids: bool,
}

impl ImportOptions {
    pub(crate) fn from_query(request: &Request) -> Result<Self> {
        let (mut options, mut errors) = (Self::default(), FieldErrors::default());
        let mut seen = Vec::new();
        for (name, value) in request.query() {
            let result =
                if seen.contains(&name) { Err(DUPLICATE_PARAM.to_owned()) } else { options.set(&name, &value) };
            if let Err(message) = result
                && !errors.has(&name)
            {
                errors.add(&name, message);
            }
            seen.push(name);
        }
        errors.into_result()?;
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match (name, value) {
            (DRY_RUN, _) => self.dry_run = parse_boolean(value)?,
            (ON_ERROR, "abort") => self.skip_invalid = false,
            (ON_ERROR, "skip") => self.skip_invalid = true,
            (UNKNOWN_COLUMNS, "refuse") => self.unknown_columns = UnknownColumns::Refuse,
            (UNKNOWN_COLUMNS, "ignore") => self.unknown_columns = UnknownColumns::Ignore,
            (CREATE_CATEGORIES, _) => self.create_categories = parse_boolean(value)?,
            (MISSING_ID, "error") => self.create_missing_ids = false,
            (MISSING_ID, "create") => self.create_missing_ids = true,
            (ON_ERROR | UNKNOWN_COLUMNS | MISSING_ID, _) => {
                return Err(format!("\"{value}\" is not a valid choice."));
            }
            _ => return Err(unknown_param_message(name, PARAMS.into_iter())),
        }
        Ok(())
    }
}
