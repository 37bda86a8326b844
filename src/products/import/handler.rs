//! `POST /api/products/import/`.

use std::{fs::File, sync::Arc};

use hyper::StatusCode;

use super::{
    content::Content,
    file_range::FileRange,
    form,
    options::ImportOptions,
    transaction::{Upload, run},
    upload_type::UploadType,
};
use crate::{
    app::App,
    auth::Staff,
    error::{Error, Result},
    http::{
        Request, Response,
        response::{self, IfMatch},
    },
};

pub(crate) async fn import(app: &App, request: Request, Staff(user): Staff) -> Result<Response> {
    let options = ImportOptions::from_query(&request)?;
    let upload_type = UploadType::from_request(&request)?;
    let if_match = IfMatch::from_request(&request);
    let permit = app.import_permits.try_acquire(app.client(&user, &request));
    let permit = Arc::new(permit.ok_or_else(|| Error::unavailable("too many concurrent imports"))?);
    let (dir, max_bytes, timeout) =
        (app.export_cache.dir(), app.config.files.import_bytes, app.config.files.export_timeout);
    let importing = async {
        let file = Arc::new(request.spool_to_file(dir, max_bytes).await?);
        let locating = tokio::task::spawn_blocking(move || locate(&file, &upload_type));
        let content = locating.await.map_err(Error::internal)??;
        let memory = Arc::clone(&app.import_pool);
        run(&app.database, &Upload { content, if_match, memory }, options, timeout, permit, |_| ()).await
    };
    let report = tokio::time::timeout(timeout, importing).await;
    let report = report.map_err(|_| Error::unavailable(format!("import not finished within {timeout:?}")))??;
    let status = if report.is_rejected(options) { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    Ok(response::json(status, &report))
}

/// Returns the table in a body that has been written to a file.
fn locate(file: &Arc<File>, upload_type: &UploadType) -> Result<Content> {
    let body = FileRange::whole(file).map_err(Error::unavailable)?;
    match upload_type {
        UploadType::File { charset } => Content::detect(body, *charset),
        UploadType::Form { boundary } => form::find_file(&body, boundary),
    }
}
