//! The options of an import.

use crate::{
    error::{FieldErrors, Result},
    http::Request,
    products::list::params::{ONCE, unknown},
};

const DRY_RUN: &str = "dry_run";
const ON_ERROR: &str = "on_error";

/// What is to be done with a file.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ImportOptions {
    /// Tell what would be done, and do nothing.
    pub(crate) dry_run: bool,
    /// Take the rows that are in order, whatever is wrong with others. Without it one faulty row refuses all.
    pub(crate) skip_faulty: bool,
}

impl ImportOptions {
    /// As the query says.
    pub(crate) fn of(request: &Request) -> Result<Self> {
        let (mut wish, mut errors) = (Self::default(), FieldErrors::default());
        let mut given = Vec::new();
        for (name, value) in request.query() {
            let choice = match (&*name, &*value) {
                (DRY_RUN, "true" | "True" | "1" | "false" | "False" | "0") => {
                    wish.dry_run = ["true", "True", "1"].contains(&&*value);
                    Ok(())
                }
                (DRY_RUN, _) => Err("Must be a valid boolean.".to_owned()),
                (ON_ERROR, "abort" | "skip") => {
                    wish.skip_faulty = value == "skip";
                    Ok(())
                }
                (ON_ERROR, _) => Err(format!("\"{value}\" is not a valid choice.")),
                _ => Err(unknown(&name, [DRY_RUN, ON_ERROR].into_iter())),
            };
            let choice = if given.contains(&name) { Err(ONCE.to_owned()) } else { choice };
            if let Err(words) = choice
                && !errors.has(&name)
            {
                errors.add(&name, words);
            }
            given.push(name);
        }
        errors.into_result()?;
        Ok(wish)
    }
}
