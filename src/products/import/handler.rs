//! `POST /api/products/import/`.

use std::sync::Arc;

use hyper::StatusCode;

use super::{
    options::ImportOptions,
    transaction::{Upload, run},
};
use crate::{
    app::App,
    auth::Staff,
    error::{Error, Result},
    http::{
        Request, Response,
        response::{self, IfMatch},
    },
    products::files::format::FileFormat,
};

pub(crate) async fn import(app: &App, request: Request, Staff(user): Staff) -> Result<Response> {
    let options = ImportOptions::from_query(&request)?;
    let media_type = request.media_type();
    let format = FileFormat::from_media_type(&media_type).ok_or_else(|| request.unsupported_media_type())?;
    let if_match = IfMatch::from_request(&request);
    let permit = app.import_permits.try_acquire(app.client(&user, &request));
    let permit = Arc::new(permit.ok_or_else(|| Error::unavailable("too many concurrent imports"))?);
    let (dir, max_bytes, timeout) =
        (app.export_cache.dir(), app.config.files.import_bytes, app.config.files.export_timeout);
    let importing = async {
        let file = Arc::new(request.spool_to_file(dir, max_bytes).await?);
        let memory = Arc::clone(&app.import_pool);
        run(&app.database, &Upload { file, format, if_match, memory }, options, timeout, permit, |_| ()).await
    };
    let report = tokio::time::timeout(timeout, importing).await;
    let report = report.map_err(|_| Error::unavailable(format!("import not finished within {timeout:?}")))??;
    let status = if report.is_rejected(options) { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    Ok(response::json(status, &report))
}
