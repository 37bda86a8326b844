//! `POST /api/products/import/`.

use std::{fs::File, io, iter, sync::Arc};

use encoding_rs::Encoding;
use hyper::StatusCode;

use super::{
    content::Content,
    file_range::FileRange,
    form,
    options::ImportOptions,
    run::{Outcome, run},
    upload::Upload,
    upload_type::UploadType,
};
use crate::{
    app::App,
    auth::Staff,
    digest::sha256_of_blocks,
    error::{Error, Result},
    http::{
        Request, Response,
        response::{self, IfMatch},
    },
    products::idempotency::{self, Key},
};

pub(crate) async fn import(app: &App, request: Request, Staff(user): Staff) -> Result<Response> {
    let options = ImportOptions::from_query(&request)?;
    let upload_type = UploadType::from_request(&request)?;
    let if_match = IfMatch::from_request(&request);
    let key = idempotency::key_of(&request)?.map(|key| (key, describe(&request)));
    let permit = app.import_permits.try_acquire(app.client(&user, &request));
    let permit = Arc::new(permit.ok_or_else(|| Error::unavailable("too many concurrent imports"))?);
    let (dir, max_bytes, timeout) =
        (app.export_cache.dir(), app.config.files.import_bytes, app.config.files.export_timeout);
    let importing = async {
        let file = Arc::new(request.spool_to_file(dir, max_bytes).await?);
        let locating = tokio::task::spawn_blocking(move || locate(&file, &upload_type));
        let content = locating.await.map_err(Error::internal)??;
        let key = match key {
            Some((key, query)) => Some(hash(user.id, key, query, content.clone()).await?),
            None => None,
        };
        let memory = Arc::clone(&app.import_pool);
        let upload = Upload { content, if_match, key, memory };
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

/// Returns the parameters of the request, in any order, as a text.
fn describe(request: &Request) -> String {
    let mut query: Vec<_> = request.query().collect();
    query.sort_unstable();
    form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish()
}

/// Returns the key with the hash of the parameters, the charset and the file. What else a form contains, such as the
/// boundary that each request chooses, does not count.
async fn hash(user: i64, key: String, query: String, content: Content) -> Result<Key> {
    let charset = content.charset.map_or("", Encoding::name);
    let description = format!("import?{query}\n{charset}\n").into_bytes();
    let hashing = tokio::task::spawn_blocking(move || {
        let blocks = content.range.blocks(0, 0).map(|block| Ok(block?.1));
        sha256_of_blocks(iter::once(Ok(description)).chain(blocks))
    });
    let hash = hashing.await.map_err(Error::internal)?.map_err(|error: io::Error| Error::unavailable(error))?;
    Ok(Key::from_hash(user, key, hash))
}

/// Returns the table in a body that has been written to a file.
fn locate(file: &Arc<File>, upload_type: &UploadType) -> Result<Content> {
    let body = FileRange::whole(file).map_err(Error::unavailable)?;
    match upload_type {
        UploadType::File { charset } => Content::detect(body, *charset),
        UploadType::Form { boundary } => form::find_file(&body, boundary),
    }
}
