//! The import over HTTP.

use std::sync::Arc;

use hyper::StatusCode;

use super::{options::ImportOptions, transaction::run};
use crate::{
    app::App,
    auth::Staff,
    error::{Error, Result},
    http::{Request, Response, response},
    products::files::format::FileFormat,
};

/// Makes of the catalogue what the body says.
pub(crate) async fn import(app: &App, request: Request, _: Staff) -> Result<Response> {
    let wish = ImportOptions::of(&request)?;
    let media_type = request.media_type();
    let format = FileFormat::of_media_type(&media_type).ok_or_else(|| request.unsupported_media_type())?;
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
    Ok(response::json(status, &report))
}
