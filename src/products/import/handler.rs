//! `POST /api/products/import/`.

use std::{fs::File, sync::Arc};

use hyper::{StatusCode, header};

use super::{
    options::ImportOptions,
    run::{Outcome, Upload, run},
};
use crate::{
    app::App,
    auth::Staff,
    digest::sha256_of_file,
    error::{Error, Result},
    http::{
        Request, Response,
        response::{self, IfMatch},
    },
    products::{
        files::format::FileFormat,
        idempotency::{self, Key},
    },
};

pub(crate) async fn import(app: &App, request: Request, Staff(user): Staff) -> Result<Response> {
    let options = ImportOptions::from_query(&request)?;
    let media_type = request.media_type();
    let format = FileFormat::from_media_type(&media_type).ok_or_else(|| request.unsupported_media_type())?;
    let if_match = IfMatch::from_request(&request);
    let key = idempotency::key_of(&request)?.map(|key| (key, describe(&request)));
    let permit = app.import_permits.try_acquire(app.client(&user, &request));
    let permit = Arc::new(permit.ok_or_else(|| Error::unavailable("too many concurrent imports"))?);
    let (dir, max_bytes, timeout) =
        (app.export_cache.dir(), app.config.files.import_bytes, app.config.files.export_timeout);
    let importing = async {
        let file = Arc::new(request.spool_to_file(dir, max_bytes).await?);
        let key = match key {
            Some((key, description)) => Some(hash(user.id, key, description, Arc::clone(&file)).await?),
            None => None,
        };
        let memory = Arc::clone(&app.import_pool);
        let upload = Upload { file, format, if_match, key, memory };
        run(&app.database, &upload, options, timeout, permit, |_| ()).await
    };
    let outcome = tokio::time::timeout(timeout, importing).await;
    match outcome.map_err(|_| Error::unavailable(format!("import not finished within {timeout:?}")))?? {
        Outcome::Imported(report) => {
            let status = if report.is_rejected(options) { StatusCode::BAD_REQUEST } else { StatusCode::OK };
            Ok(response::json(status, &report))
        }
        Outcome::Replayed(json) => {
            let mut response = response::json_bytes(StatusCode::OK, json.into_bytes());
            idempotency::mark_replayed(&mut response);
            Ok(response)
        }
    }
}

/// Returns what, besides the body, makes two requests the same: the parameters in any order, and the media type.
fn describe(request: &Request) -> String {
    let mut query: Vec<_> = request.query().collect();
    query.sort_unstable();
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    format!("import?{query}\n{}\n", request.header(&header::CONTENT_TYPE).unwrap_or_default())
}

/// Returns the key with the hash of the request.
async fn hash(user: i64, key: String, description: String, file: Arc<File>) -> Result<Key> {
    let hashing = tokio::task::spawn_blocking(move || sha256_of_file(description.as_bytes(), &file));
    let hash = hashing.await.map_err(Error::internal)?.map_err(Error::unavailable)?;
    Ok(Key::from_hash(user, key, hash))
}
