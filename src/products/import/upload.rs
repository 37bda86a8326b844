//! The import over HTTP.

use std::sync::Arc;

use hyper::StatusCode;

use super::{Wish, run};
use crate::{
    app::App,
    auth::Staff,
    error::{Error, FieldErrors, Result},
    http::{Reply, Request, reply},
    products::{
        format::Format,
        parameters::{ONCE, unknown},
    },
};

const DRY_RUN: &str = "dry_run";
const ON_ERROR: &str = "on_error";

/// Makes of the catalogue what the body says.
pub async fn import(app: &App, request: Request, _: Staff) -> Result<Reply> {
    let wish = Wish::of(&request)?;
    let media_type = request.media_type();
    let format = Format::of_media_type(&media_type).ok_or_else(|| request.unsupported_media_type())?;
    let permit = Arc::clone(&app.imports).try_acquire_owned();
    let permit = Arc::new(permit.map_err(|_| Error::unavailable("too many imports at a time"))?);
    let (folder, limit, timeout) = (app.files.folder(), app.config.import_bytes, app.config.export_timeout);
    let importing = async {
        let file = Arc::new(request.into_file(folder, limit).await?);
        run(&app.database, &file, format, wish, timeout, permit, |_| ()).await
    };
    let report = tokio::time::timeout(timeout, importing).await;
    let report = report.map_err(|_| Error::unavailable(format!("no import within {timeout:?}")))??;
    let status = if report.is_refused(wish) { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    Ok(reply::json(status, &report))
}

impl Wish {
    /// As the query says.
    fn of(request: &Request) -> Result<Self> {
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
